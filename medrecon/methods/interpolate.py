"""The plain baseline: a B-spline through the slices. It says nothing about how thick they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.operators.slice_sampler import SliceSampler

INPUT = "slices"


class InterpolateConfig(Config):
    """Settings of `interpolate`."""

    order: Annotated[Literal[0, 1, 3], Field(description="0 nearest slice, 1 linear, 3 cubic B-spline")] = 3


def interpolate(A: SliceSampler, y: Tensor, config: InterpolateConfig, tick: Tick) -> Tensor:
    """Draw a B-spline through the slices, exact on uneven positions. Unser 1999, IEEE Signal Process. Mag. 16(6), 22.

    Parameters
    ----------
    A : SliceSampler
    y : (n, rows, columns) Tensor
        The images; pixels that were not measured may hold anything.
    config : InterpolateConfig
    tick : Tick

    Returns
    -------
    (slices, rows, columns) Tensor, float32
        Beyond the outermost slices and pixels the nearest value is held. Which voxels were never seen is told by
        `medrecon.quality.coverage`, not by their value.
    """
    from medrecon.methods._spline import spline_through_slices

    x = spline_through_slices(A, y.float(), config.order, tick)
    tick(1.0)
    return x
