"""Noise as a detector makes it: Poisson photons and Gaussian electronics, for simulated scans."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError
from medrecon.preprocess.logarithm import attenuation

_MOST_PHOTONS = 1e12


def noisy_counts(line_integrals: ArrayLike, photons: float, electronic: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Return what a counting detector reads behind the object.

    Parameters
    ----------
    line_integrals : (views, rows, columns)
    photons : float
        Photons per pixel in air.
    electronic : float
        Standard deviation of the electronics, in photons; makes values that may be negative.
    seed : int
        The same seed gives the same noise.
    """
    if not (0 < photons <= _MOST_PHOTONS and 0 <= electronic < np.inf):
        raise UsageError(
            "ARG-SCANNER", f"no scanner has {photons:g} photons per pixel and an electronic noise of {electronic:g}."
        )
    rng = np.random.default_rng(seed)
    expected = photons * np.exp(-np.asarray(line_integrals, dtype=np.float64))
    counts = np.asarray(rng.poisson(expected), dtype=np.float32)
    if electronic:
        counts = counts + np.float32(electronic) * rng.standard_normal(counts.shape, dtype=np.float32)
    return counts


def add_noise(line_integrals: ArrayLike, photons: float, electronic: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Return noisy line integrals; fewer than half a photon counts as half a photon."""
    counts = noisy_counts(line_integrals, photons, electronic, seed)
    return attenuation(counts / photons, floor=min(0.5 / photons, 0.5))[0]
