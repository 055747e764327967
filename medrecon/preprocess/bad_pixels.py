"""Bad pixels: those that never change, jump, or answer quite unlike their neighbours; found, and filled for filters."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError

_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation of a normal distribution


def find_bad_pixels(projections: ArrayLike, threshold: float = 8.0) -> NDArray[np.bool_]:
    """Find detector pixels whose mean over the views, or whose spread, is far from that of their neighbours.

    A pixel is bad where it differs from those beside it as well as from those above and below it, so that the edges of
    the object do not count. Whole dead rows or columns differ in one direction only: they must be known beforehand.

    Parameters
    ----------
    projections : (views, rows, columns)
    threshold : float
        In standard deviations of the noise, how far a bad pixel is from the median of five along either direction.

    Returns
    -------
    (rows, columns) bool
        True where a pixel is bad.
    """
    if not threshold > 0:
        raise UsageError("CFG-VALUE", f"a threshold of {threshold} is not positive.")
    stack = np.asarray(projections, dtype=np.float32)
    bad: NDArray[np.bool_] = np.logical_not(np.isfinite(stack).all(axis=0))
    clean = np.nan_to_num(stack, posinf=0.0, neginf=0.0)
    for image in (clean.mean(axis=0, dtype=np.float64), clean.std(axis=0, dtype=np.float64)):
        away = _away(image)
        bad |= away > threshold * max(_noise(image), 1e-3 * float(image.std()), 1e-6 * float(np.abs(image).max()))
    return bad


def fill_bad_pixels(projections: ArrayLike, bad: ArrayLike) -> NDArray[np.float32]:
    """Replace bad pixels by a mean of the good ones about them, so that a filter along the row meets no step.

    Parameters
    ----------
    projections : (views, rows, columns)
    bad : (rows, columns) or (views, rows, columns) bool

    Returns
    -------
    (views, rows, columns) float32
        What is filled is still not measured: keep `bad` in the scan's mask for methods that take one.
    """
    from scipy.ndimage import distance_transform_edt, uniform_filter

    result = np.array(projections, dtype=np.float32)
    mask = np.broadcast_to(np.asarray(bad, dtype=np.bool_), result.shape)
    for image, wrong in zip(result, mask, strict=True):
        if not wrong.any() or wrong.all():
            continue
        good = np.where(wrong, 0, np.nan_to_num(image))
        share = uniform_filter((~wrong).astype(np.float64), size=3, mode="nearest")
        mean = uniform_filter(good.astype(np.float64), size=3, mode="nearest") / np.maximum(share, 1e-12)
        nearest = distance_transform_edt(wrong, return_distances=False, return_indices=True)
        image[wrong] = np.where(share > 1e-6, mean, good[tuple(nearest)])[wrong]
    return result


def _away(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each pixel is from the median along its row or along its column, whichever is nearer."""
    from scipy.ndimage import median_filter

    sizes = [(1, 5), (5, 1)] if image.shape[0] > 2 else [(1, 5)]
    found: NDArray[np.float64] = np.min(
        [np.abs(image - median_filter(image, size=size, mode="mirror")) for size in sizes], axis=0
    )
    return found


def _noise(image: NDArray[np.float64]) -> float:
    """Return the standard deviation of what is left of an image after second differences along its axes."""
    rough = image
    for axis in (0, 1):
        if image.shape[axis] > 2:
            rough = np.diff(rough, n=2, axis=axis) / 6**0.5
    return _TO_SIGMA * float(np.median(np.abs(rough)))
