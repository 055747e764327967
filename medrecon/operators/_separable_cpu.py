"""Interpolation in the plane of slices on the CPU: compiled loops over the few taps, slices side by side in threads.

A tap touches one row or one voxel, where a dense matrix multiplies hundreds of zeros. Each slice has its own image and its
own plane, and sums in a fixed order, so that any number of threads gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators._general_cpu import compiled, in_threads

if TYPE_CHECKING:
    from medrecon.operators._separable import Part, Taps

Array = NDArray[Any]


def gather(parts: Sequence[Part], planes: Tensor, y: Tensor) -> None:
    """Interpolate planes to the images of `y`, which is written to."""
    voxels, images = planes.detach().contiguous().numpy(), y.detach().numpy()

    def work(first: int, last: int) -> None:
        for rows, columns, place, k in parts[first:last]:
            _gather(voxels[place], images[k], *_taps(rows, images), *_taps(columns, images))

    in_threads(work, len(parts))


def scatter(parts: Sequence[Part], y: Tensor, planes: Tensor) -> None:
    """Apply the transpose of `gather`; the planes are overwritten."""
    voxels, images = planes.detach().numpy(), y.detach().contiguous().numpy()

    def work(first: int, last: int) -> None:
        for rows, columns, place, k in parts[first:last]:
            _scatter(voxels[place], images[k], *_taps(rows, images), *_taps(columns, images))

    in_threads(work, len(parts))


def _taps(taps: Taps, like: Array) -> tuple[Array, Array]:
    return taps.index, taps.weight.astype(like.dtype)


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
