"""The slice profile: how a thick slice weighs what lies before and behind its plane.

Depth is measured in slice thicknesses, ``u = depth / thickness``. The bell was fitted on a CT scanned thick and thin;
it lies between a triangle and a Gaussian and reaches well past half a thickness, so neighbours overlap.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError

ProfileKind = Literal["gaussian", "bell", "triangle", "box", "slab", "measured"]

#: Depth in thicknesses, relative weight: the fitted CT profile, full width at half maximum 0.96.
_BELL = ((0.0, 1.0), (0.2, 0.85), (0.4, 0.64), (0.6, 0.32), (0.8, 0.11), (1.0, 0.0))
_GAUSSIAN_REACH = 1.5  # a Gaussian of FWHM 1 has 0.04 % of its area beyond
_SLAB_EDGE = 0.1  # standard deviation of the slab's edges, in thicknesses
_SAMPLES = 4001


@dataclass(frozen=True, slots=True)
class SliceProfile:
    """Shape of the slice profile, in units of the slice thickness.

    Parameters
    ----------
    kind : str
        ``gaussian`` (FWHM = thickness; the default for MR), ``bell`` (fitted on CT), ``triangle`` (base twice the
        thickness), ``box``, ``slab`` (a box with soft edges), or ``measured``.
    table : tuple of (depth, weight)
        For ``measured`` only: depths in thicknesses, rising; weights relative, not negative.
    """

    kind: ProfileKind = "gaussian"
    table: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "measured") != bool(self.table):
            raise UsageError("PROFILE-TABLE", "a table of depths and weights belongs to the profile 'measured', and only to it")
        if self.table:
            depths, weights = np.asarray(self.table, dtype=np.float64).T
            if len(depths) < 3 or not (np.diff(depths) > 0).all() or weights.min() < 0 or weights.max() <= 0:
                raise UsageError(
                    "PROFILE-TABLE",
                    f"{len(depths)} pairs given",
                    "Give at least three pairs, depths rising, weights not negative.",
                )

    @property
    def reach(self) -> float:
        """Largest depth, in thicknesses, at which the profile is not zero."""
        return float(_curve(self)[0][-1])

    @property
    def variance(self) -> float:
        """Variance of depth under the profile, in squared thicknesses (a box: 1/12)."""
        depths, _, integral = _curve(self)
        shares = np.diff(integral)
        middles = (depths[1:] + depths[:-1]) / 2
        mean = float(shares @ middles)
        return float(shares @ (middles - mean) ** 2)

    def weight(self, u: ArrayLike) -> NDArray[np.float64]:
        """Weight density at depth `u` (in thicknesses); its integral over `u` is 1."""
        depths, weights, _ = _curve(self)
        return np.interp(np.asarray(u, dtype=np.float64), depths, weights, left=0.0, right=0.0)

    def cumulative(self, u: ArrayLike) -> NDArray[np.float64]:
        """Integral of the weight from far before up to depth `u`; rises from 0 to 1."""
        depths, _, integral = _curve(self)
        return np.interp(np.asarray(u, dtype=np.float64), depths, integral, left=0.0, right=1.0)


@functools.lru_cache(maxsize=32)
def _curve(profile: SliceProfile) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Depths, density and cumulative integral of a profile on a fine table."""
    from scipy.integrate import cumulative_trapezoid

    reach = {"gaussian": _GAUSSIAN_REACH, "bell": 1.0, "triangle": 1.0, "box": 0.5, "slab": 0.5 + 4 * _SLAB_EDGE}.get(
        profile.kind
    )
    if reach is None:
        reach = max(abs(depth) for depth, _ in profile.table)
    depths = np.linspace(-reach, reach, _SAMPLES)
    weights = _shape(profile, depths)
    integral = cumulative_trapezoid(weights, depths, initial=0.0)
    return depths, weights / integral[-1], integral / integral[-1]


def _shape(profile: SliceProfile, depths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative weight at the given depths, not normalised."""
    from scipy.interpolate import PchipInterpolator
    from scipy.special import ndtr

    distance = np.abs(depths)
    match profile.kind:
        case "gaussian":
            return np.asarray(np.exp(-4 * math.log(2) * distance**2))
        case "bell":
            return np.asarray(PchipInterpolator(*np.asarray(_BELL).T)(distance))
        case "triangle":
            return np.asarray(np.maximum(1 - distance, 0))
        case "box":
            return np.ones_like(distance)
        case "slab":
            return np.asarray(ndtr((0.5 - distance) / _SLAB_EDGE) - ndtr((-0.5 - distance) / _SLAB_EDGE))
        case "measured":
            known, weights = np.asarray(profile.table, dtype=np.float64).T
            return np.asarray(np.interp(depths, known, weights, left=0.0, right=0.0))
