"""Beam hardening: a polynomial that turns measured line integrals of water into those of a single energy.

Herman, Phys. Med. Biol. 24 (1979) 81. Right for water and what resembles it; bone needs more than one variable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import InputError, UsageError


@dataclass(frozen=True, slots=True)
class WaterPolynomial:
    """``sum(coefficient * p**k)`` for k = 1, 2, ...: no constant, so that air stays air.

    Parameters
    ----------
    coefficients : tuple of float
        The first one belongs to the first power.
    """

    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.coefficients or not np.isfinite(self.coefficients).all():
            raise UsageError("CFG-VALUE", "a polynomial against beam hardening needs finite coefficients.")

    def __call__(self, line_integrals: ArrayLike) -> NDArray[np.float32]:
        """Return corrected line integrals, by Horner's rule."""
        p = np.asarray(line_integrals, dtype=np.float32)
        result = np.zeros_like(p)
        for coefficient in reversed(self.coefficients):
            result = (result + np.float32(coefficient)) * p
        return result


def fit_water(thickness_mm: ArrayLike, measured: ArrayLike, water_per_mm: float, degree: int = 3) -> WaterPolynomial:
    """Fit the polynomial to what known thicknesses of water gave.

    Parameters
    ----------
    thickness_mm, measured : (n,)
        Thickness of water and its measured line integral.
    water_per_mm : float
        Attenuation of water at the energy to which everything is brought.
    degree : int

    Raises
    ------
    InputError
        ``PRJ-SHAPE`` for fewer pairs than the degree, ``PRJ-VALUE`` where the result would not rise over the measured range.
    """
    depth, p = (np.asarray(values, dtype=np.float64).ravel() for values in (thickness_mm, measured))
    if depth.shape != p.shape or len(p) < degree or degree < 1:
        raise InputError("PRJ-SHAPE", f"{len(depth)} thicknesses and {len(p)} values do not fit a polynomial of degree {degree}.")
    powers = p[:, None] ** np.arange(1, degree + 1)
    coefficients = np.linalg.lstsq(powers, water_per_mm * depth, rcond=None)[0]
    grid = np.linspace(0, p.max(), 256)[:, None]
    slope = (grid ** np.arange(degree) * np.arange(1, degree + 1)) @ coefficients
    if not np.isfinite(slope).all() or slope.min() <= 0:
        raise InputError("PRJ-VALUE", f"the polynomial of degree {degree} does not rise everywhere.", "Lower the degree.")
    return WaterPolynomial(tuple(float(one) for one in coefficients))
