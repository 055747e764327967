"""The X-ray transform in plain torch: the truth that the fast back ends are checked against.

It runs on any device and in float64, is differentiable also with respect to the geometry, and is slow: it walks plane
by plane with explicit indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.operators._xray_rays import AXIS_PREFERENCE, Rays

_SAMPLES_AT_ONCE = 1 << 22  # rays in flight, to bound the memory of the temporaries


@dataclass(frozen=True)
class RayTensors:
    """The arrays of `Rays` as tensors; any of them may require a gradient.

    Parameters
    ----------
    columns : (n, columns, 3)
    row_step, origins : (n, 3)
    parallel : bool
    to_mm : (3, 3)
    grid_shape : (slices, rows, columns)
    detector_shape : (rows, columns)
    """

    columns: Tensor
    row_step: Tensor
    origins: Tensor
    parallel: bool
    to_mm: Tensor
    grid_shape: tuple[int, int, int]
    detector_shape: tuple[int, int]

    @classmethod
    def of(cls, rays: Rays, device: torch.device) -> RayTensors:
        """Copy the arrays to a device, in float64 where it has that."""
        dtype = torch.float32 if device.type == "mps" else torch.float64

        def tensor(array: object) -> Tensor:
            return torch.tensor(array, dtype=torch.float64).to(device=device, dtype=dtype)

        return cls(
            tensor(rays.columns),
            tensor(rays.row_step),
            tensor(rays.origins),
            rays.parallel,
            tensor(rays.to_mm),
            rays.grid_shape,
            rays.detector_shape,
        )

    def pixels(self, views: slice) -> Tensor:
        """Pixel centres of some views, (views, rows, columns, 3)."""
        rows = torch.arange(self.detector_shape[0], device=self.columns.device, dtype=self.columns.dtype)
        return self.columns[views, None] + rows[:, None, None] * self.row_step[views, None, None]


def forward(rays: RayTensors, x: Tensor) -> Tensor:
    """Integrate volumes (batch, slices, rows, columns) along all rays: (batch, views, rows, columns)."""
    parts = []
    for views in _blocks(rays):
        pixels = rays.pixels(views)
        p, e = pixels.reshape(-1, 3), _towards_source(rays, views, pixels).reshape(-1, 3)
        y = x.new_zeros((len(x), len(p)))
        for axis, chosen in _by_main_axis(e):
            y = y.index_add(1, chosen, _sum_over_planes(rays, axis, p[chosen], e[chosen], x))
        parts.append(y.reshape(len(x), *pixels.shape[:3]))
    return torch.cat(parts, dim=1)


def adjoint(rays: RayTensors, y: Tensor) -> Tensor:
    """Spread projections (batch, views, rows, columns) back along their rays: (batch, slices, rows, columns)."""
    x = y.new_zeros((len(y), *rays.grid_shape))
    for views in _blocks(rays):
        pixels = rays.pixels(views)
        p, e = pixels.reshape(-1, 3), _towards_source(rays, views, pixels).reshape(-1, 3)
        values = y[:, views].reshape(len(y), -1)
        for axis, chosen in _by_main_axis(e):
            _spread_over_planes(rays, axis, p[chosen], e[chosen], values[:, chosen], x)
    return x


def _sum_over_planes(rays: RayTensors, axis: int, p: Tensor, e: Tensor, x: Tensor) -> Tensor:
    """Sum of the interpolated planes along one axis, times the length between planes, (batch, rays)."""
    planes = x.movedim(1 + axis, 1)
    total = x.new_zeros((len(x), len(p)))
    for k in range(planes.shape[1]):
        flat = planes[:, k].flatten(1)
        for index, weight in _taps(rays, axis, k, p, e):
            total = total + flat[:, index] * weight.to(x.dtype)
    return total * _length_mm(rays, axis, e).to(x.dtype)


def _spread_over_planes(rays: RayTensors, axis: int, p: Tensor, e: Tensor, values: Tensor, x: Tensor) -> None:
    """Add to `x` what each ray's value gives to the voxels around its crossings; the transpose of `_sum_over_planes`."""
    planes = x.movedim(1 + axis, 1)
    values = values * _length_mm(rays, axis, e).to(x.dtype)
    for k in range(planes.shape[1]):
        plane = x.new_zeros(planes[:, k].flatten(1).shape)
        for index, weight in _taps(rays, axis, k, p, e):
            plane.index_add_(1, index, values * weight.to(x.dtype))
        planes[:, k] += plane.reshape(planes[:, k].shape)


def _taps(rays: RayTensors, axis: int, k: int, p: Tensor, e: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat index in plane `k` and weight of the four voxels around each ray's crossing; weight 0 outside."""
    others = [a for a in range(3) if a != axis]
    t = (k - p[:, axis]) / e[:, axis]
    crossing = [p[:, a] + t * e[:, a] for a in others]
    counted = torch.ones_like(t, dtype=torch.bool) if rays.parallel else (t > 0) & (t < 1)
    sizes = [rays.grid_shape[a] for a in others]
    low = [c.detach().floor() for c in crossing]
    for di in (0, 1):
        for dj in (0, 1):
            i, j = low[0] + di, low[1] + dj
            weight = (1 - (crossing[0] - i).abs()) * (1 - (crossing[1] - j).abs())
            inside = counted & (i >= 0) & (i < sizes[0]) & (j >= 0) & (j < sizes[1])
            index = torch.where(inside, i * sizes[1] + j, 0).long()
            yield index, torch.where(inside, weight, 0)


def _length_mm(rays: RayTensors, axis: int, e: Tensor) -> Tensor:
    """Length of each ray between two neighbouring planes."""
    length: Tensor = torch.linalg.vector_norm(e @ rays.to_mm.T, dim=1) / e[:, axis].abs()
    return length


def _by_main_axis(e: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Which rays move fastest along which axis."""
    lead = (e.detach().abs() * torch.tensor(AXIS_PREFERENCE, device=e.device, dtype=e.dtype)).argmax(dim=1)
    for axis in range(3):
        chosen = (lead == axis).nonzero()[:, 0]
        if len(chosen):
            yield axis, chosen


def _towards_source(rays: RayTensors, views: slice, pixels: Tensor) -> Tensor:
    origins = rays.origins[views, None, None]
    return origins.expand(pixels.shape) if rays.parallel else origins - pixels


def _blocks(rays: RayTensors) -> Iterator[slice]:
    """Ranges of views that keep the temporaries small."""
    rows, columns = rays.detector_shape
    size = max(1, _SAMPLES_AT_ONCE // (rows * columns))
    for first in range(0, len(rays.origins), size):
        yield slice(first, min(first + size, len(rays.origins)))
