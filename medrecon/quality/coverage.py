"""Which voxels were measured, which lie between measurements, and which the scan never saw.

- 2, measured: the voxel's centre lies no further than half a slice thickness (full width at half maximum) from the
  plane of some image, along its normal, and its foot on that plane lies in a measured pixel. A slice thinner than a
  voxel counts as one voxel thick.
- 1, interpolated: not so, but the centre lies between the outer faces of a stack of parallel images, and its foot on
  the next image before or behind lies in a measured pixel: gaps between slices, and missing slices.
- 0, not seen: everything else. Images that are not parallel have no between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrecon.core.grid import Float64, Grid
from medrecon.core.scans import SlicePoses
from medrecon.operators.slice_sampler import SliceSampler

MEASURED, INTERPOLATED, UNSEEN = 2, 1, 0

_SLACK = 1e-4  # of a voxel: rounding only
_FLAT = 1e-6  # of a voxel or pixel: below this a coordinate does not depend on an index

Mask = NDArray[np.bool_]


def coverage(A: SliceSampler) -> NDArray[np.uint8]:
    """Return the coverage map of the volume that A acts on: 2 measured, 1 interpolated, 0 not seen."""
    level = np.zeros(A.grid.shape, dtype=np.uint8)
    for label in np.unique(A.stack):
        members = np.flatnonzero(A.stack == label)
        parallel = A.poses.take(members).are_parallel
        for images in [members] if parallel else members[:, None]:
            measured = None if A.measured is None else A.measured[images]
            _mark(level, _Stack.of(A.poses.take(images), A.grid, measured))
    return level


@dataclass(frozen=True, eq=False)
class _Stack:
    """Parallel images in order along their normal, and where voxels lie in them.

    Parameters
    ----------
    linear : (3, 3)
        Depth in mm, pixel row and pixel column per step along each grid axis; the same for all images.
    offset : (n, 3)
        Depth in mm, pixel row and pixel column of voxel (0, 0, 0) seen from each image.
    half_mm : (n,)
        How far from its plane an image measures.
    image_shape : (rows, columns)
    measured : (n, rows, columns) bool, optional
    """

    linear: Float64
    offset: Float64
    half_mm: Float64
    image_shape: tuple[int, int]
    measured: Mask | None

    @classmethod
    def of(cls, poses: SlicePoses, grid: Grid, measured: Mask | None) -> _Stack:
        to_image = np.linalg.inv(poses.to_lps_mm) @ grid.to_lps_mm
        order = np.argsort(-to_image[:, 0, 3], kind="stable")  # the further along the normal an image, the less deep voxel 0
        linear = to_image[0, :3, :3]
        voxel_mm = float(np.abs(linear[0]).max())
        half = np.maximum(poses.thickness_mm[order], voxel_mm) / 2 + _SLACK * voxel_mm
        ordered = None if measured is None else measured[order]
        return cls(linear, to_image[order, :3, 3], half, poses.image_shape, ordered)

    @property
    def axes(self) -> tuple[int, int, int]:
        """The grid axis along which depth grows fastest, and the other two."""
        across = int(np.argmax(np.abs(self.linear[0])))
        first, second = (axis for axis in range(3) if axis != across)
        return across, first, second

    def image_coordinate(self, which: int, plane: int, shape: tuple[int, ...]) -> Float64:
        """Depth (0), row (1) or column (2) over one plane of the grid, without the offset of an image; broadcastable."""
        across, *others = self.axes
        total = np.full((1, 1), self.linear[which, across] * plane)
        for axis, sides in zip(others, ((-1, 1), (1, -1)), strict=True):
            step, size = self.linear[which, axis], shape[axis]
            if abs(step) * size > _FLAT:
                total = total + step * np.arange(size).reshape(sides)
        return total


def _mark(level: NDArray[np.uint8], stack: _Stack) -> None:
    """Raise the level of voxels that one stack covers, plane by plane."""
    for number, plane in enumerate(np.moveaxis(level, stack.axes[0], 0)):
        depth, row, column = (stack.image_coordinate(which, number, level.shape) for which in range(3))
        for k, near, between in _layers(stack, depth):
            marked = np.where(near, np.uint8(MEASURED), np.where(between, np.uint8(INTERPOLATED), np.uint8(UNSEEN)))
            foot = _hits_measured_pixel(stack, k, row + stack.offset[k, 1], column + stack.offset[k, 2])
            np.maximum(plane, marked * foot, out=plane)


def _layers(stack: _Stack, depth: Float64) -> Iterator[tuple[int, Mask, Mask]]:
    """Yield the images around a plane of the grid: where each one measures, and where it is the next before or behind."""
    position, half = -stack.offset[:, 0], stack.half_mm
    low, high = float(depth.min()), float(depth.max())
    inside = (depth >= (position - half).min()) & (depth <= (position + half).max())
    lower = np.concatenate([[-np.inf], position[:-1]])
    upper = np.concatenate([position[1:], [np.inf]])
    matters = ((position - half <= high) & (position + half >= low)) | ((lower <= high) & (upper >= low))
    for k in np.flatnonzero(matters):
        near = np.abs(depth - position[k]) <= half[k]
        yield int(k), near, inside & (depth >= lower[k]) & (depth <= upper[k])


def _hits_measured_pixel(stack: _Stack, k: int, row: Float64, column: Float64) -> Mask:
    """Whether points of image `k` lie inside it, in a measured pixel."""
    rows, columns = stack.image_shape
    inside: Mask = (row >= -0.5 - _SLACK) & (row <= rows - 0.5 + _SLACK)
    inside = inside & (column >= -0.5 - _SLACK) & (column <= columns - 0.5 + _SLACK)
    if stack.measured is None:
        return inside
    nearest = (np.clip(np.rint(place), 0, size - 1).astype(np.intp) for place, size in ((row, rows), (column, columns)))
    hit: Mask = inside & stack.measured[k][tuple(nearest)]
    return hit
