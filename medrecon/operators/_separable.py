"""The slice model where every slice lies parallel to two axes of the grid: three small factors per slice.

A slice is then w (x) R (x) C: weights over the planes, interpolation along rows, interpolation along columns. Slices
may be shifted against each other in their plane, as in a tilted series on an orthogonal grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators._slice_geometry import SLACK, SliceGeometry, depth_weights

_PLANES_AT_ONCE = 32
_STRAIGHT = 5e-3  # voxels by which a slice may leave its plane over its whole extent and still count as parallel


@dataclass(frozen=True, eq=False)
class Taps:
    """Interpolation along one axis: each output is a weighted sum of a few inputs.

    Parameters
    ----------
    index : (outputs, taps) int64
    weight : (outputs, taps) float64
        Each row adds up to 1, or to 0 where nothing is seen.
    seen : (outputs,) float64
        The share of the output's positions that lie inside the grid.
    size : int
        Number of inputs.
    """

    index: NDArray[np.int64]
    weight: Float64
    seen: Float64
    size: int

    @property
    def is_identity(self) -> bool:
        """Whether the outputs are the inputs."""
        same = len(self.index) == self.size and self.index.shape[1] == 1 and (self.index[:, 0] == np.arange(self.size)).all()
        return bool(same and (self.weight == 1).all())

    def factor(self, like: Tensor) -> Tensor | None:
        """Return the matrix, None where it would change nothing."""
        return None if self.is_identity else self.matrix(like)

    def matrix(self, like: Tensor) -> Tensor:
        """Return the matrix (outputs, inputs); it is made when needed, because a tilted series has one per slice.

        On a GPU a dense product is faster than gathering a few taps, and much faster than scattering them.
        """
        dense = like.new_zeros((len(self.index), self.size))
        index, weight = torch.from_numpy(self.index).to(like.device), torch.from_numpy(self.weight).to(like)
        return dense.scatter_add_(1, index, weight)


#: How rows and columns are interpolated, the place of the plane, the number of the image.
Part: TypeAlias = tuple[Taps, Taps, int, int]


@dataclass(frozen=True, eq=False)
class _Run:
    """Slices that are interpolated in their plane in one go, because they lie straight behind each other."""

    slices: NDArray[np.int64]
    rows: Taps
    columns: Taps


@dataclass(frozen=True, eq=False)
class SliceGroup:
    """Slices that lie along the same three grid axes.

    Parameters
    ----------
    axes : (depth, rows, columns)
        The grid axes along which they lie.
    slices : (g,)
        Which slices they are.
    depth : (g, planes) float64
        Weights over the planes, unit sums.
    depth_seen : (g,)
        The share of each profile that lies inside the grid.
    runs : tuple
        How they are interpolated in their plane.
    """

    axes: tuple[int, int, int]
    slices: NDArray[np.int64]
    depth: Float64
    depth_seen: Float64
    runs: tuple[_Run, ...]

    @property
    def pixels_are_voxels(self) -> bool:
        """Whether nothing is interpolated in the plane."""
        return len(self.runs) == 1 and self.runs[0].rows.is_identity and self.runs[0].columns.is_identity

    def gather(self, planes: Tensor, y: Tensor) -> None:
        """Interpolate one plane per slice (g, grid rows, grid columns) to the pixels of `y`, which is written to."""
        _gather(self._parts, planes, y)

    def scatter(self, y: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Apply the transpose of `gather`: from the images `y` to one plane per slice of a grid of this shape."""
        planes = y.new_empty((len(self.slices), shape[self.axes[1]], shape[self.axes[2]]))
        _scatter(self._parts, y, planes)
        return planes

    def images_of(self, places: range, planes: Tensor) -> Tensor:
        """Return the images of a few slices of the group, (len(places), rows, columns), from the planes of all or of these."""
        rows, columns, _, _ = self._parts[0]
        images = planes.new_empty((len(places), len(rows.index), len(columns.index)))
        parts = self._some(places)
        if len(planes) < len(self.slices):
            parts = [(*part[:2], number, number) for number, part in enumerate(parts)]
        _gather(parts, planes, images)
        return images

    def spread(self, places: range, images: Tensor, planes: Tensor) -> None:
        """Apply the transpose of `images_of`: overwrite the planes of these slices."""
        _scatter(self._some(places), images, planes)

    def _some(self, places: range) -> list[Part]:
        """Return the parts of a few slices, their images numbered anew."""
        return [(*self._parts[place][:3], number) for number, place in enumerate(places)]

    @cached_property
    def _parts(self) -> list[Part]:
        """How rows and columns are interpolated, place in the group and number of the image, in the order of the places."""
        parts = [
            (run.rows, run.columns, place, k)
            for run in self.runs
            for place, k in zip(np.searchsorted(self.slices, run.slices).tolist(), run.slices.tolist(), strict=True)
        ]
        return sorted(parts, key=lambda part: part[2])


@dataclass(frozen=True, eq=False)
class SeparableSlices:
    """Slices parallel to the axes of the grid; rows have unit sum."""

    geometry: SliceGeometry
    groups: tuple[SliceGroup, ...]

    @classmethod
    def build(cls, geometry: SliceGeometry) -> SeparableSlices | None:
        """Return the factors, or None where some slice is not parallel to two axes of the grid."""
        axes = [_axes_of(geometry, k) for k in range(len(geometry))]
        known = [found for found in axes if found is not None]
        if len(known) < len(axes):
            return None
        members = {a: np.array([k for k, of in enumerate(known) if of == a]) for a in sorted(set(known))}
        return cls(geometry, tuple(_group(geometry, a, slices) for a, slices in members.items()))

    def forward(self, x: Tensor) -> Tensor:
        """Sample the slices."""
        y = x.new_empty((len(self.geometry), *self.geometry.image_shape))
        for group in self.groups:
            turned = x.permute(group.axes)
            planes = (_on(group.depth, x) @ turned.reshape(turned.shape[0], -1)).reshape(-1, *turned.shape[1:])
            if group.pixels_are_voxels and len(group.slices) == len(y):
                return planes
            group.gather(planes, y)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the transpose of `forward`."""
        x = y.new_zeros(self.geometry.grid_shape)
        for group in self.groups:
            add_along_depth(x, group.axes, group.depth.T, group.scatter(y, self.geometry.grid_shape))
        return x

    def sees(self, least: float) -> NDArray[np.bool_]:
        """Return the pixels of which at least this share of the weight lies inside the grid, (n, rows, columns)."""
        enough = np.empty((len(self.geometry), *self.geometry.image_shape), dtype=np.bool_)
        for group in self.groups:
            for run in group.runs:
                share = run.rows.seen[:, None] * run.columns.seen
                for k, depth in zip(run.slices, group.depth_seen[np.searchsorted(group.slices, run.slices)], strict=True):
                    np.greater_equal(depth * share, least, out=enough[k])
        return enough


def add_along_depth(x: Tensor, axes: tuple[int, int, int], matrix: Float64, planes: Tensor) -> None:
    """Add ``matrix @ planes`` to a volume whose depth, row and column axes are `axes`; a few planes at a time."""
    turned, factor = x.permute(axes), _on(np.ascontiguousarray(matrix), x)
    if turned.is_contiguous():
        turned.view(len(turned), -1).addmm_(factor, planes.flatten(1))
        return
    for first in range(0, len(factor), _PLANES_AT_ONCE):
        part = factor[first : first + _PLANES_AT_ONCE] @ planes.flatten(1)
        turned[first : first + _PLANES_AT_ONCE] += part.reshape(-1, *planes.shape[1:])


def _gather(parts: Sequence[Part], planes: Tensor, images: Tensor) -> None:
    """Interpolate planes to images, one by one so that no copy of all is made."""
    if _is_compiled(images):
        from medrecon.operators import _separable_cpu

        _separable_cpu.gather(parts, planes, images)
        return
    for (rows, columns), same in groupby(parts, key=lambda part: part[:2]):
        down, across = rows.factor(planes), columns.factor(planes)
        for _, _, place, k in same:
            images[k] = from_right(across, from_left(down, planes[place]))


def _scatter(parts: Sequence[Part], images: Tensor, planes: Tensor) -> None:
    """Apply the transpose of `_gather`; the planes are overwritten."""
    if _is_compiled(images):
        from medrecon.operators import _separable_cpu

        _separable_cpu.scatter(parts, images, planes)
        return
    for (rows, columns), same in groupby(parts, key=lambda part: part[:2]):
        down, across = (None if one is None else one.T for one in (rows.factor(images), columns.factor(images)))
        for _, _, place, k in same:
            planes[place] = from_left(down, from_right(across, images[k]))


def from_left(matrix: Tensor | None, image: Tensor) -> Tensor:
    """Return ``matrix @ image``; the image itself where there is no matrix."""
    return image if matrix is None else matrix @ image


def from_right(matrix: Tensor | None, image: Tensor) -> Tensor:
    """Return ``image @ matrix.T``; the image itself where there is no matrix."""
    return image if matrix is None else image @ matrix.T


def _axes_of(geometry: SliceGeometry, k: int) -> tuple[int, int, int] | None:
    """Grid axes (depth, rows, columns) of slice `k`, or None where it is oblique to them."""
    rows, columns = geometry.image_shape
    reach_mm = geometry.profile.reach * geometry.thickness_mm[k]
    found = []
    for step, extent in ((geometry.along[k], reach_mm), (geometry.down[k], rows), (geometry.across[k], columns)):
        axis = int(np.argmax(np.abs(step)))
        if np.abs(np.delete(step, axis)).max() * extent > _STRAIGHT:
            return None
        found.append(axis)
    return None if len(set(found)) < 3 else (found[0], found[1], found[2])


def _group(geometry: SliceGeometry, axes: tuple[int, int, int], slices: NDArray[np.int64]) -> SliceGroup:
    depth = np.stack([depth_weights(geometry, int(k)) for k in slices])
    seen = depth.sum(axis=1)
    depth = depth / np.where(seen > 0, seen, 1)[:, None]
    return SliceGroup(axes, slices, depth, seen, tuple(_runs(geometry, axes, slices)))


def _runs(geometry: SliceGeometry, axes: tuple[int, int, int], slices: NDArray[np.int64]) -> Iterator[_Run]:
    """Gather slices of equal in-plane place; a tilted series has one run per slice, any other a single one."""
    _, row_axis, column_axis = axes
    place = np.stack(
        [
            geometry.start[slices, row_axis],
            geometry.start[slices, column_axis],
            geometry.down[slices, row_axis],
            geometry.across[slices, column_axis],
        ],
        axis=1,
    )
    kinds, which = np.unique(np.round(place, 9), axis=0, return_inverse=True)
    for kind in range(len(kinds)):
        members = slices[which.reshape(-1) == kind]
        k = int(members[0])
        positions = geometry.positions_per_pixel(k)
        rows = _taps(geometry, k, geometry.down, row_axis, 0, positions[0])
        columns = _taps(geometry, k, geometry.across, column_axis, 1, positions[1])
        yield _Run(members, rows, columns)


def _taps(geometry: SliceGeometry, k: int, step: Float64, axis: int, side: int, positions: int) -> Taps:
    """Linear interpolation of pixels along one axis, averaged over sub-positions; held within the outermost voxels."""
    count, size = geometry.image_shape[side], geometry.grid_shape[axis]
    sub = (np.arange(positions) + 0.5) / positions - 0.5
    point = geometry.start[k, axis] + (np.arange(count)[:, None] + sub) * step[k, axis]
    inside = ((point >= -0.5 - SLACK) & (point <= size - 0.5 + SLACK)).astype(np.float64)
    held = np.clip(point, 0, size - 1)
    low = np.clip(np.floor(held).astype(np.int64), 0, max(size - 2, 0))
    share = held - low
    index = np.concatenate([low, np.minimum(low + 1, size - 1)], axis=1)
    weight = np.concatenate([(1 - share) * inside, share * inside], axis=1)
    seen = inside.mean(axis=1)
    weight = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    return _snapped(index, weight, seen, size)


def _snapped(index: NDArray[np.int64], weight: Float64, seen: Float64, size: int) -> Taps:
    """Drop the second tap where all pixels coincide with voxels (to 1e-9)."""
    strongest = np.argmax(weight, axis=1)[:, None]
    top = np.take_along_axis(weight, strongest, axis=1)
    if index.shape[1] == 2 and (np.abs(top - 1) < 1e-9).all():
        return Taps(np.take_along_axis(index, strongest, axis=1), np.ones_like(top), seen, size)
    return Taps(index, weight, seen, size)


def _is_compiled(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)


def _on(matrix: Float64, like: Tensor) -> Tensor:
    return torch.from_numpy(matrix).to(like)
