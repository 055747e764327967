"""Interpolation in the plane of slices on the CPU: compiled loops over the few taps, slices side by side in threads.

A tap touches one row or one voxel, where a dense matrix multiplies hundreds of zeros. Each slice has its own image and its
own plane, and sums in a fixed order, so that any number of threads gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators._general_cpu import compiled, in_threads

if TYPE_CHECKING:
    from medrecon.operators._separable import Taps

Array = NDArray[Any]


def gather(rows: Taps, columns: Taps, pairs: list[tuple[int, int]], planes: Tensor, y: Tensor) -> None:
    """Interpolate planes to images: `pairs` says which plane makes which image of `y`."""
    voxels, images = planes.detach().contiguous().numpy(), y.detach().numpy()
    row_taps, column_taps = ((taps.index, taps.weight.astype(images.dtype)) for taps in (rows, columns))

    def work(first: int, last: int) -> None:
        for place, k in pairs[first:last]:
            _gather(voxels[place], images[k], *row_taps, *column_taps)

    in_threads(work, len(pairs))


def scatter(rows: Taps, columns: Taps, pairs: list[tuple[int, int]], y: Tensor, planes: Tensor) -> None:
    """Apply the transpose of `gather`; the planes of `pairs` are overwritten."""
    voxels, images = planes.detach().numpy(), y.detach().contiguous().numpy()
    row_taps, column_taps = ((taps.index, taps.weight.astype(images.dtype)) for taps in (rows, columns))

    def work(first: int, last: int) -> None:
        for place, k in pairs[first:last]:
            _scatter(voxels[place], images[k], *row_taps, *column_taps)

    in_threads(work, len(pairs))


@compiled
def _gather(plane: Array, image: Array, row: Array, row_weight: Array, column: Array, column_weight: Array) -> None:
    mixed = np.empty(plane.shape[1], plane.dtype)
    for r in range(image.shape[0]):
        mixed[:] = 0
        for tap in range(row.shape[1]):
            weight, source = row_weight[r, tap], plane[row[r, tap]]
            for c in range(len(mixed)):
                mixed[c] += weight * source[c]
        for c in range(image.shape[1]):
            total = column_weight[c, 0] * mixed[column[c, 0]]
            for tap in range(1, column.shape[1]):
                total += column_weight[c, tap] * mixed[column[c, tap]]
            image[r, c] = total


@compiled
def _scatter(plane: Array, image: Array, row: Array, row_weight: Array, column: Array, column_weight: Array) -> None:
    plane[:] = 0
    mixed = np.empty(plane.shape[1], plane.dtype)
    for r in range(image.shape[0]):
        mixed[:] = 0
        for c in range(image.shape[1]):
            for tap in range(column.shape[1]):
                mixed[column[c, tap]] += column_weight[c, tap] * image[r, c]
        for tap in range(row.shape[1]):
            weight, target = row_weight[r, tap], plane[row[r, tap]]
            for c in range(len(mixed)):
                target[c] += weight * mixed[c]
