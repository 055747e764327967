"""How close a volume is to a known truth; range and mask are the caller's, because without them no number means anything."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError


def psnr(x: ArrayLike, truth: ArrayLike, data_range: float, mask: NDArray[np.bool_] | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite where both are equal.

    Parameters
    ----------
    x, truth : arrays of one shape
    data_range : float
        What counts as the peak, in the arrays' unit; state it with the number.
    mask : bool array, optional
        Where to look; everywhere without it.

    Raises
    ------
    UsageError
        ``MET-INPUT`` for arrays or masks of different shape, an empty mask, or a range that is not positive.
    """
    a, b, where = _checked(x, truth, data_range, mask)
    mean_square = float(np.mean((a[where] - b[where]) ** 2))
    return math.inf if mean_square == 0 else 10 * math.log10(data_range**2 / mean_square)


def ssim(x: ArrayLike, truth: ArrayLike, data_range: float, mask: NDArray[np.bool_] | None = None) -> float:
    """Return the mean structural similarity in windows of 7 voxels a side, as scikit-image computes it, over a mask.

    Raises
    ------
    UsageError
        ``MET-INPUT`` as for `psnr`, or where a side is shorter than 7.
    """
    from skimage.metrics import structural_similarity

    a, b, where = _checked(x, truth, data_range, mask)
    if min(a.shape) < 7:
        raise UsageError("MET-INPUT", f"SSIM needs at least 7 voxels along each axis, not {list(a.shape)}")
    _, similarity = structural_similarity(a, b, win_size=7, data_range=data_range, full=True)
    return float(similarity[where].mean())


def _checked(
    x: ArrayLike, truth: ArrayLike, data_range: float, mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    where = np.ones(a.shape, dtype=np.bool_) if mask is None else np.asarray(mask, dtype=np.bool_)
    if a.shape != b.shape or where.shape != a.shape:
        raise UsageError("MET-INPUT", f"shapes differ: {list(a.shape)}, truth {list(b.shape)}, mask {list(where.shape)}")
    if not (data_range > 0 and math.isfinite(data_range)) or not where.any():
        raise UsageError("MET-INPUT", f"the range is {data_range}, the mask holds {np.count_nonzero(where)} voxels")
    return a, b, where
