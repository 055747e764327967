"""Slices that stand anywhere, in plain torch: the truth for the compiled loops, and what other devices than the CPU use.

All rays of a piece are followed together, in bounded memory. The forward map gathers, the adjoint scatters through the
same indices and weights, so they are exact transposes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.core.profile import SliceProfile
from medrecon.operators._slice_geometry import SLACK, SliceGeometry

_RAYS_AT_ONCE = 1 << 18
_TABLE_STEPS = 4000


def forward(geometry: SliceGeometry, x: Tensor) -> Tensor:
    """Sample the slices, without scaling up what is cut off."""
    voxels = x.reshape(-1)
    y = x.new_zeros((len(geometry), *geometry.image_shape))
    for piece in _pieces(geometry, x):
        total = piece.of(y)
        for weight, corners in piece.crossings():
            for index, share in corners:
                total += weight * share * voxels[index]
    return y


def adjoint(geometry: SliceGeometry, y: Tensor) -> Tensor:
    """Apply the transpose of `forward`."""
    x = y.new_zeros(geometry.grid_shape)
    voxels = x.view(-1)
    images = y.contiguous()
    for piece in _pieces(geometry, images):
        values = piece.of(images)
        for weight, corners in piece.crossings():
            for index, share in corners:
                voxels.index_add_(0, index, weight * share * values)
    return x


def seen(geometry: SliceGeometry) -> Float64:
    """Share of every pixel's weight that lies inside the grid, (n, rows, columns)."""
    share = torch.zeros((len(geometry), *geometry.image_shape), dtype=torch.float64)
    for piece in _pieces(geometry, share):
        total = piece.of(share)
        for weight, _ in piece.crossings():
            total += weight
    return share.numpy()


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some consecutive pixels of one slice: points (positions, 3, pixels) in index space, and how their rays run."""

    slice: int
    begin: int
    points: Tensor
    along: tuple[float, float, float]
    axis: int
    thickness_mm: float
    reach_planes: float
    profile: SliceProfile
    shape: tuple[int, int, int]

    @property
    def pixels(self) -> int:
        return int(self.points.shape[-1])

    def of(self, images: Tensor) -> Tensor:
        """Return the piece's pixels in contiguous images (n, rows, columns), as a view."""
        return images[self.slice].view(-1)[self.begin : self.begin + self.pixels]

    def crossings(self) -> Iterator[tuple[Tensor, Iterator[tuple[Tensor, Tensor]]]]:
        """Yield, for every plane that the rays cross, its weights and the four voxels around the crossing points."""
        for point in self.points:
            depth = point[self.axis]
            first = torch.ceil(depth - self.reach_planes)
            face = self._cumulative(first - 0.5 - depth)
            for step in range(int(2 * self.reach_planes) + 1):
                plane = first + step
                next_face = self._cumulative(plane + 0.5 - depth)
                weight = (next_face - face).abs() / len(self.points)
                face = next_face
                yield self._crossing(point, plane, weight)

    def _crossing(self, point: Tensor, plane: Tensor, weight: Tensor) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor]]]:
        """Keep the weight inside the grid only, and find the voxels around the crossing points."""
        depth_mm = (plane - point[self.axis]) / self.along[self.axis]
        size = self.shape[self.axis]
        inside = (plane >= 0) & (plane <= size - 1)
        base = plane.clamp(0, size - 1).long() * self._stride(self.axis)
        sides = []
        for axis in (a for a in range(3) if a != self.axis):
            place = point[axis] + depth_mm * self.along[axis]
            inside &= (place >= -0.5 - SLACK) & (place <= self.shape[axis] - 0.5 + SLACK)
            held = place.clamp(0, self.shape[axis] - 1)
            low = held.floor().clamp(0, max(self.shape[axis] - 2, 0))
            base = base + low.long() * self._stride(axis)
            sides.append((held - low, self._stride(axis) if self.shape[axis] > 1 else 0))
        return weight * inside, _corners(base, sides)

    def _stride(self, axis: int) -> int:
        return int(np.prod(self.shape[axis + 1 :], dtype=np.int64))

    def _cumulative(self, planes: Tensor) -> Tensor:
        """Integral of the profile up to a depth given in plane distances from the pixel."""
        reach, table = self.profile.reach, _cumulative_table(self.profile, planes.dtype, planes.device)
        place = (planes / (self.along[self.axis] * self.thickness_mm) + reach) * (_TABLE_STEPS / (2 * reach))
        place = place.clamp(0, _TABLE_STEPS)
        low = place.floor().clamp(max=_TABLE_STEPS - 1)
        index = low.long()
        return torch.lerp(table[index], table[index + 1], place - low)


def _corners(base: Tensor, sides: list[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield index and share of the four voxels around points of one plane."""
    (a, step_a), (b, step_b) = sides
    yield base, (1 - a) * (1 - b)
    yield base + step_b, (1 - a) * b
    yield base + step_a, a * (1 - b)
    yield base + (step_a + step_b), a * b


def _pieces(geometry: SliceGeometry, like: Tensor) -> Iterator[_Piece]:
    """Cut all slices into pieces; coordinates are computed in the dtype and on the device of `like`."""
    rows, columns = geometry.image_shape
    for k in range(len(geometry)):
        offsets = _sub_positions(geometry.positions_per_pixel(k))
        start = geometry.start[k] + offsets @ np.stack([geometry.down[k], geometry.across[k]])
        for begin in range(0, rows * columns, _RAYS_AT_ONCE):
            number = torch.arange(begin, min(begin + _RAYS_AT_ONCE, rows * columns), device=like.device)
            row, column = (number // columns).to(like), (number % columns).to(like)
            yield _Piece(
                k,
                begin,
                _column(start, like)
                + _column(geometry.down[k][None], like) * row
                + _column(geometry.across[k][None], like) * column,
                (float(geometry.along[k, 0]), float(geometry.along[k, 1]), float(geometry.along[k, 2])),
                int(geometry.axis[k]),
                float(geometry.thickness_mm[k]),
                float(geometry.reach_planes[k]),
                geometry.profile,
                geometry.grid_shape,
            )


def _sub_positions(counts: tuple[int, int]) -> Float64:
    """Offsets (row, column) of the sub-positions inside a pixel, (positions, 2)."""
    down, across = ((np.arange(count) + 0.5) / count - 0.5 for count in counts)
    return np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2)


def _column(vectors: Float64, like: Tensor) -> Tensor:
    return torch.from_numpy(vectors).to(like)[..., None]


@lru_cache(maxsize=16)
def _cumulative_table(profile: SliceProfile, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Tabulate the profile's integral at evenly spaced depths, as `SliceProfile.cumulative` interpolates it."""
    depths = np.linspace(-profile.reach, profile.reach, _TABLE_STEPS + 1)
    return torch.from_numpy(profile.cumulative(depths)).to(dtype=dtype, device=device)
