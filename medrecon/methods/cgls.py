"""Conjugate gradients on the least-squares problem: the fewest applications of A for a given residual."""

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

_ROUNDING = 1e-6  # of the first slope: what is left below is rounding, and directions made of it grow without bound


class CglsConfig(Config):
    """Settings of `cgls`."""

    iterations: Annotated[int, Field(ge=1, le=10_000, description="at most; fewer smooth more")] = 15
    damping: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="weight of ||x||^2 beside ||A x - y||^2, as a share of what an average voxel has in A"
    )
    start: Literal["zero", "fdk"] = Field("zero", description="what to begin with")
    stop: Literal["noise"] | Annotated[float, Field(gt=0)] | None = Field(
        "noise", description="end where the residual is noise: as estimated, or of this standard deviation; null: never"
    )


def cgls(A: XRayTransform, y: Tensor, config: CglsConfig, tick: Tick, preview: Preview | None = None) -> Tensor:
    """Minimise ||A x - y||^2 by conjugate gradients. Hestenes and Stiefel 1952, J. Res. Natl. Bur. Stand. 49, 409.

    Stopping early is the regularisation; with noise, many iterations bring it into the volume. An iteration applies A
    and A* once; before the first, A* once more, and A once more when it starts from FDK or is damped.

    Parameters
    ----------
    A : XRayTransform
    y : (views, rows, columns) Tensor
        Line integrals.
    config : CglsConfig
    tick : Tick
        Called after every iteration.
    preview : callable, optional
        Is shown the volume after every iteration.

    Returns
    -------
    (slices, rows, columns) Tensor, float32
    """
    from medrecon.methods._iterations import allowed_residual, column_rms, data_of, start_from

    y = data_of(A, y)
    enough = allowed_residual(A, y, config.stop)
    x = start_from(A, y, config.start, nonnegative=False)
    weight = config.damping * column_rms(A, y.device) ** 2 if config.damping else 0.0
    missed = y if config.start == "zero" else y - A.forward(x)
    slope = A.adjoint(missed) - weight * x
    direction, steepness = slope, _square(slope)
    least = _ROUNDING**2 * steepness
    for turn in range(config.iterations):
        if steepness <= least or _square(missed) ** 0.5 <= enough:
            break
        seen = A.forward(direction)
        step = steepness / (_square(seen) + weight * _square(direction))
        x = x + step * direction
        missed = missed - step * seen
        slope = A.adjoint(missed) - weight * x
        before, steepness = steepness, _square(slope)
        direction = slope + (steepness / before) * direction
        tick((turn + 1) / config.iterations)
        if preview is not None:
            preview(x)
    tick(1.0)
    return x


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
