"""Simultaneous iterative reconstruction, with ordered subsets and momentum; one view per subset is SART."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.methods._iterations import Preview
    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"


class SirtConfig(Config):
    """Settings of `sirt`."""

    iterations: Annotated[int, Field(ge=1, le=10_000, description="passes over all views, at most")] = 10
    subsets: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="groups of views after each of which the volume is corrected: 1 is SIRT, one per view SART"
    )
    relaxation: Annotated[float, Field(gt=0, lt=2, description="share of each correction that is made")] = 1.0
    decay: Annotated[float, Field(gt=0, le=1, description="factor on the relaxation after each iteration")] = 0.97
    momentum: bool = Field(default=True, description="carry corrections on from one iteration to the next (Nesterov)")
    nonnegative: bool = Field(default=True, description="no attenuation below 0")
    start: Literal["zero", "fdk"] = Field("zero", description="what to begin with")
    stop: Literal["noise"] | Annotated[float, Field(gt=0)] | None = Field(
        "noise", description="end where the residual is noise: as estimated, or of this standard deviation; null: never"
    )


def sirt(A: XRayTransform, y: Tensor, config: SirtConfig, tick: Tick, preview: Preview | None = None) -> Tensor:
    """Correct the volume along the rays, again and again. Gilbert 1972, J. Theor. Biol. 36, 105; Andersen and Kak 1984 (SART).

    x <- x + relaxation C A* R (y - A x), R and C one over the row and column sums of A. Momentum as in Kim, Ramani and
    Fessler 2015, IEEE Trans. Med. Imaging 34, 167. An iteration applies A and A* once; before the first, A once more.

    Parameters
    ----------
    A : XRayTransform
    y : (views, rows, columns) Tensor
        Line integrals.
    config : SirtConfig
    tick : Tick
        Called after every subset.
    preview : callable, optional
        Is shown the volume after every iteration.

    Returns
    -------
    (slices, rows, columns) Tensor, float32
    """
    from medrecon.methods._iterations import allowed_residual, data_of, start_from, subsets_of

    y = data_of(A, y)
    x = start_from(A, y, config.start, config.nonnegative)
    subsets, enough = subsets_of(A, y, config.subsets), allowed_residual(A, y, config.stop)
    ahead, t, relaxation = x, 1.0, config.relaxation
    for turn in range(config.iterations):
        square = 0.0
        for number, subset in enumerate(subsets):
            missed = subset.missed(ahead)
            square += float(missed.double().square().sum())
            following = ahead + relaxation * subset.correction(missed)
            if config.nonnegative:
                following.clamp_(min=0)
            later = (1 + (1 + 4 * t**2) ** 0.5) / 2 if config.momentum else 1.0
            ahead = following + (t - 1) / later * (following - x) if config.momentum else following
            x, t = following, later
            tick((turn + (number + 1) / len(subsets)) / config.iterations)
        if preview is not None:
            preview(x)
        if square**0.5 <= enough:
            break
        relaxation *= config.decay
    tick(1.0)
    return x
