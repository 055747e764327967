"""A spline made honest: re-slicing the result with the scanner's own thick slices gives the measurement back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.operators.slice_sampler import SliceSampler

INPUT = "slices"

_SPLINE_SHARE, _DESCENT_SHARE = 0.2, 0.6  # of the time
_BRIGHT = 0.999  # quantile of the images that stands for their brightest value
_SAMPLES = 1_000_000  # pixels that are enough to tell it


class ConsistentSplineConfig(Config):
    """Settings of `consistent_spline`."""

    order: Annotated[Literal[0, 1, 3], Field(description="of the spline: 0 nearest slice, 1 linear, 3 cubic")] = 3
    eps: Annotated[
        float,
        Field(
            gt=0,
            le=10,
            description="how far the slices may be missed: noise over missing detail, in variance; 1e-3 without noise",
        ),
    ] = 0.01
    edge: Annotated[
        float, Field(gt=0, le=1, description="differences between neighbours that count as an edge, as a share of the range")
    ] = 0.02
    edge_steps: Annotated[
        int, Field(ge=0, le=1000, description="steps towards few and sharp edges; 0 leaves the corrected spline, with its rings")
    ] = 12
    tolerance: Annotated[
        float, Field(gt=0, lt=1, description="relative error at which the iteration stops, where one is needed")
    ] = 1e-2
    iterations: Annotated[int, Field(gt=0, description="at most so many steps, where the solution is not direct")] = 30


def consistent_spline(A: SliceSampler, y: Tensor, config: ConsistentSplineConfig, tick: Tick) -> Tensor:
    """Draw a B-spline and, of the volumes that give back the thick slices, go to one near it with few, sharp edges.

    The correction x + C A* (A C A* + eps)^-1 (y - A x) is the most probable one if C is the covariance of what a spline
    misses, an exponential of half a slice thickness along the normal (Tarantola 2005, ch. 3). Alone it rings where
    tissue changes faster than slices follow each other; steps down a total variation take the rings away, and what
    they disturb is corrected after each. No voxel becomes darker than the darkest measured pixel, up to the last correction.

    Parameters
    ----------
    A : SliceSampler
    y : (n, rows, columns) Tensor
        The images; pixels that were not measured may hold anything.
    config : ConsistentSplineConfig
    tick : Tick

    Returns
    -------
    (slices, rows, columns) Tensor, float32
    """
    from medrecon.methods._consistency import ConsistentSet
    from medrecon.methods._edges import EdgeDescent
    from medrecon.methods._spline import spline_through_slices

    y = y.float()
    x = spline_through_slices(A, y, config.order, lambda share: tick(_SPLINE_SHARE * share))
    tick(_SPLINE_SHARE)
    consistent = ConsistentSet(A, y, config.eps, config.tolerance, config.iterations)
    low, high = _range_of(A, y)
    steps = config.edge_steps if high > low else 0
    descent = EdgeDescent(A.grid.spacing_mm, config.edge * (high - low), floor=low)
    for done in range(steps):
        consistent.step_towards(x)
        x = descent.step(x)
        tick(_SPLINE_SHARE + _DESCENT_SHARE * (done + 1) / steps)
    del descent  # and with it the volume before
    rest = 1 - _SPLINE_SHARE - _DESCENT_SHARE
    consistent.approach(x, lambda share: tick(1 - rest * (1 - share)))
    tick(1.0)
    return x


def _range_of(A: SliceSampler, y: Tensor) -> tuple[float, float]:
    """Return the darkest measured value, and the brightest one but for a few outliers."""
    import numpy as np

    values = y.cpu().numpy()[A.seen] if A.measured is not None else y.cpu().numpy().reshape(-1)
    if values.size == 0:
        return 0.0, 0.0
    some = values[:: max(1, values.size // _SAMPLES)]
    return float(values.min()), float(np.quantile(some, _BRIGHT))
