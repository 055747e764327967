"""Flat and dark field: from counts to the transmission along each ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Transmitted:
    """What came through, relative to the open beam.

    Parameters
    ----------
    pixels : (views, rows, columns) float32
        1 for air; never negative; 0 where `valid` is False.
    valid : (rows, columns) bool
        False where the open beam is not brighter than the dark image: a dead pixel.
    """

    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_]


def flat_field(counts: ArrayLike, open_beam: ArrayLike, dark: ArrayLike = 0.0) -> Transmitted:
    """Divide by the open beam, ``(I - D) / (F - D)``.

    Parameters
    ----------
    counts : (views, rows, columns)
    open_beam, dark : (rows, columns), (images, rows, columns), or a number
        Several images are averaged.

    Raises
    ------
    InputError
        ``PRJ-SHAPE`` where sizes differ, ``PRJ-FLAT`` where no pixel of the open beam is brighter than the dark image.
    """
    stack = np.asarray(counts)
    flat, dark_mean = (_mean_image(image, stack.shape[1:]) for image in (open_beam, dark))
    span = flat - dark_mean
    valid = np.isfinite(span) & (span > 0)
    if not valid.any():
        raise InputError(
            "PRJ-FLAT",
            f"no pixel of the open beam is brighter than the dark image (brightest difference {_brightest(span):.4g}).",
            "Was the flat field taken with the beam on? Give another one.",
        )
    gain = np.where(valid, 1.0 / np.where(valid, span, 1.0), 0.0).astype(np.float32)
    pixels = np.subtract(stack, np.nan_to_num(dark_mean), dtype=np.float32)
    pixels *= gain
    return Transmitted(np.maximum(pixels, 0, out=pixels), valid)


def _mean_image(image: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.asarray(image, dtype=np.float32)
    mean = array.mean(axis=0, dtype=np.float64) if array.ndim == 3 and len(array) else array
    if mean.shape not in ((), shape):
        sizes = " x ".join(map(str, array.shape)), " x ".join(map(str, shape))
        raise InputError("PRJ-SHAPE", f"a flat or dark field has {sizes[0]} pixels, the detector {sizes[1]}.")
    return np.asarray(np.broadcast_to(mean, shape), dtype=np.float32)


def _brightest(span: NDArray[np.float32]) -> float:
    return float(np.nan_to_num(span, nan=-np.inf).max()) if span.size else 0.0
