"""ASD-POCS: the volume of least total variation that agrees with the projections up to their noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.methods._iterations import Preview, Subset
    from medrecon.methods._tv_prox import TotalVariation
    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"

_CORNER = 1e-3  # of the mean value, below which differences are rounded off


class PocsConfig(Config):
    """Settings of `pocs`."""

    iterations: Annotated[int, Field(ge=1, le=10_000, description="passes over all views, at most")] = 40
    subsets: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="groups of views after each of which the volume is corrected; one per view is the original"
    )
    relaxation: Annotated[float, Field(gt=0, lt=2, description="share of each correction that is made")] = 1.0
    decay: Annotated[float, Field(gt=0, le=1, description="factor on the relaxation after each iteration")] = 0.97
    descents: Annotated[int, Field(ge=1, le=1000, description="steps down the total variation in each iteration")] = 20
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.002, description="length of such a step at first, as a share of what the projections changed"
    )
    most: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="steps shrink when together they change the volume by more than this share of that"
    )
    shrink: Annotated[float, Field(gt=0, le=1, description="factor by which they shrink")] = 0.95
    nonnegative: bool = Field(default=True, description="no attenuation below 0")
    start: Literal["zero", "fdk"] = Field("fdk", description="what to begin with")
    stop: Literal["noise"] | Annotated[float, Field(gt=0)] | None = Field(
        "noise", description="noise that the residual may keep: as estimated, or this standard deviation; null: none"
    )


def pocs(A: XRayTransform, y: Tensor, config: PocsConfig, tick: Tick, preview: Preview | None = None) -> Tensor:
    """Correct along the rays, then step down the total variation, in turn. Sidky and Pan 2008, Phys. Med. Biol. 53, 4777.

    The steps shrink while they undo what the projections ask for and the residual is above the noise. An iteration
    applies A and A* once; before the first, A once more.

    Parameters
    ----------
    A : XRayTransform
    y : (views, rows, columns) Tensor
        Line integrals.
    config : PocsConfig
    tick : Tick
        Called after every subset.
    preview : callable, optional
        Is shown the volume after every iteration.

    Returns
    -------
    (slices, rows, columns) Tensor, float32
    """
    from medrecon.methods._iterations import allowed_residual, data_of, part_of, start_from, subsets_of
    from medrecon.methods._tv_prox import TotalVariation

    y = data_of(A, y)
    x = start_from(A, y, config.start, config.nonnegative)
    subsets, allowed = subsets_of(A, y, config.subsets), allowed_residual(A, y, config.stop)
    variation = TotalVariation(A.grid.spacing_mm, config.nonnegative)
    relaxation, step = config.relaxation, 0.0
    for turn in range(config.iterations):
        part = part_of(tick, turn / config.iterations, (turn + 1) / config.iterations)
        corrected, residual = _pass_over(subsets, x, relaxation, config.nonnegative, part)
        moved = float((corrected - x).norm())
        step = step or config.share * moved
        x = _descend(variation, corrected, step, config.descents)
        if float((x - corrected).norm()) > config.most * moved and residual > allowed:
            step *= config.shrink
        relaxation *= config.decay
        if preview is not None:
            preview(_allowed(x, config))
    tick(1.0)
    return _allowed(x, config)


def _allowed(x: Tensor, config: PocsConfig) -> Tensor:
    """Return the volume without what the last steps took below 0."""
    return x.clamp(min=0) if config.nonnegative else x


def _pass_over(subsets: list[Subset], x: Tensor, relaxation: float, nonnegative: bool, tick: Tick) -> tuple[Tensor, float]:
    """Correct the volume by every subset; return it and the norm of what the projections missed on the way."""
    square = 0.0
    for number, subset in enumerate(subsets):
        missed = subset.missed(x)
        square += float(missed.double().square().sum())
        x = x + relaxation * subset.correction(missed)
        if nonnegative:
            x.clamp_(min=0)
        tick((number + 1) / len(subsets))
    return x, square**0.5


def _descend(variation: TotalVariation, x: Tensor, step: float, times: int) -> Tensor:
    """Take steps of one length down the gradient of the total variation."""
    corner = _CORNER * max(float(x.abs().mean()), 1e-12)
    for _ in range(times):
        slope = variation.gradient(x, corner)
        x = x - step / max(float(slope.norm()), 1e-30) * slope
    return x
