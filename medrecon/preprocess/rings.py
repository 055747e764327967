"""Rings: columns of the detector that answer differently draw stripes along the views; sorting tells them from the object.

Sorted by value, a column of a sinogram changes little from one column to the next, but for its own error; a median
across columns takes that away, and the order is put back. Vo, Atwood and Drakopoulos 2018, Opt. Express 26, 28396,
algorithm 3, and 5 in outline. Dead pixels are not measured at all: see `medrecon.preprocess.bad_pixels`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError

RingMethod = Literal["sorting", "large"]
_FEWEST_VIEWS = 8
_MOST = 0.8  # of the columns, whose deviation is that of noise and of the object's edges
_LEFT_OUT = 0.1  # of the values at either end of the order, when columns are judged


def remove_rings(
    line_integrals: ArrayLike, method: RingMethod = "sorting", size: int = 21, threshold: float = 3.0
) -> NDArray[np.float32]:
    """Take stripes out of every sinogram.

    Parameters
    ----------
    line_integrals : (views, rows, columns)
        Finite values. Stripes are what stays while the views turn.
    method : str
        ``sorting`` for stripes much narrower than `size`, ``large`` for those about half as wide: only columns found to be
        off are changed, and all others keep their values.
    size : int
        Columns over which the median is taken; detail of the object that is narrower and does not move suffers.
    threshold : float
        How many times further off than most columns a stripe is at least, for ``large``.

    Returns
    -------
    (views, rows, columns) float32
    """
    stack = np.asarray(line_integrals, dtype=np.float32)
    if stack.ndim != 3 or len(stack) < _FEWEST_VIEWS:
        raise UsageError("CFG-VALUE", f"rings show in at least {_FEWEST_VIEWS} views, not in {len(stack)}.")
    if method not in get_args(RingMethod) or not 1 < size <= stack.shape[2] or not threshold > 1:
        raise UsageError("CFG-VALUE", f"there is no ring method {method[:20]!r} over {size} of {stack.shape[2]} columns.")
    smooth = _smooth_sorted(stack, size)
    if method == "large":
        offset = np.sort(stack, axis=0)[_inner(len(stack))] - np.sort(smooth, axis=0)[_inner(len(stack))]
        smooth = np.where(_stands_out(offset.mean(axis=0), threshold), smooth, stack)
    return smooth


def _smooth_sorted(stack: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Replace every value by the median of those of the same rank in the columns beside it."""
    from scipy.ndimage import median_filter

    result = np.empty_like(stack)
    for row in range(stack.shape[1]):
        order = np.argsort(stack[:, row], axis=0, kind="stable")
        ranked = np.take_along_axis(stack[:, row], order, axis=0)
        sinogram = np.empty_like(ranked)
        np.put_along_axis(sinogram, order, median_filter(ranked, size=(1, size), mode="reflect"), axis=0)
        result[:, row] = sinogram
    return result


def _inner(views: int) -> slice:
    """Leave out the smallest and the greatest values, which belong to single features of the object."""
    left_out = int(_LEFT_OUT * views)
    return slice(left_out, views - left_out)


def _stands_out(offset: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Find columns (rows, columns) that are further off than `threshold` times most others, and those beside them."""
    from scipy.ndimage import binary_dilation

    away = np.abs(offset - np.median(offset, axis=1, keepdims=True))
    usual = np.quantile(away, _MOST, axis=1, keepdims=True)
    off = away > np.maximum(threshold * usual, 1e-3 * away.max(axis=1, keepdims=True))
    return np.asarray(binary_dilation(off, structure=[[1, 1, 1]]))
