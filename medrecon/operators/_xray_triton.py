"""The X-ray transform on a GPU, in Triton: every ray and every voxel gathers what it needs, nothing is scattered.

So no two threads write to one place, and a run repeats to the bit. Lanes lie along the detector's rows, or along the
volume's height, whose neighbours read neighbouring values. Positions are set up in float64 once per ray and followed in
float32. The kernels also run in Triton's interpreter, on a machine without a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import triton
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators import _xray_reference as reference
from medrecon.operators import _xray_triton_kernels as kernels
from medrecon.operators._xray_rays import Rays, vertical_axis
from medrecon.operators._xray_upright import Upright

_BLOCK = 128
_MOST_CANDIDATES = 64  # of one voxel on one view; beyond that the source is in the volume, or nearly


def forward(rays: Rays, x: Tensor) -> Tensor:
    """Integrate (batch, slices, rows, columns) to (batch, views, rows, columns)."""
    axis = vertical_axis(rays)
    order = (0, 1, 2) if axis is None else (*(a for a in range(3) if a != axis), axis)
    n, (rows, columns) = len(rays), rays.detector_shape
    tables = [_to(x.device, array[..., order], torch.float64) for array in (rays.columns, rays.row_step, rays.origins)]
    to_mm = _to(x.device, rays.to_mm[:, order], torch.float64)
    out = torch.empty(len(x), n, columns, rows, device=x.device)
    for volume, projections in zip(x, out, strict=True):
        arranged = volume.permute(order).contiguous().float()
        large = arranged.numel() >= 2**31
        block = min(_BLOCK, triton.next_power_of_2(rows))
        kernels.project[(n * columns, triton.cdiv(rows, block))](
            arranged, projections, *tables, to_mm, *arranged.shape, columns, rows, rays.parallel, large, block
        )
    return out.transpose(2, 3).contiguous()


def adjoint(rays: Rays, y: Tensor) -> Tensor:
    """Spread (batch, views, rows, columns) to (batch, slices, rows, columns)."""
    axis = vertical_axis(rays)
    spread = _SpreadRays.of(rays, y.device) if axis is None else _SpreadColumns.of(rays, axis, y.device)
    if spread is None:
        return reference.adjoint(reference.RayTensors.of(rays, y.device), y)
    return torch.stack([spread(projections.float()) for projections in y])


class _SpreadColumns:
    """The adjoint where detector columns stand upright: tables of every column, looked up by a voxel."""

    def __init__(self, upright: Upright, parallel: bool, finder: ColumnFinder, rows: int, device: torch.device) -> None:
        crossings = _crossings(upright, parallel)
        self._upright, self._finder, self._device = upright, finder, device
        self._tables = _to(device, crossings, torch.float32)
        self._find = [_to(device, array, torch.float32) for array in (finder.maps, finder.columns)]
        self._lengths = _to(device, _length_polynomials(upright, parallel), torch.float32)
        self.taps = _most_taps(crossings, finder.sizes, rows)

    @classmethod
    def of(cls, rays: Rays, axis: int, device: torch.device) -> _SpreadColumns | None:
        """Set the tables up; None where a voxel may be seen by too many pixels."""
        upright = Upright.of(rays, axis)
        finder = ColumnFinder.of(upright, rays)
        if finder is None or finder.candidates > _MOST_CANDIDATES:
            return None
        made = cls(upright, rays.parallel, finder, rays.detector_shape[0], device)
        return made if made.taps <= _MOST_CANDIDATES else None

    def __call__(self, projections: Tensor) -> Tensor:
        views, rows, columns = projections.shape
        row = torch.arange(rows, device=self._device)
        constant, linear, square = self._lengths[..., None].unbind(2)
        values = (projections.transpose(1, 2) * (constant + row * (linear + row * square)).sqrt()).contiguous()
        shape = self._finder.sizes
        volume = torch.empty(shape, device=self._device)
        block = min(_BLOCK, triton.next_power_of_2(shape[2]))
        kernels.spread_columns[(shape[0] * shape[1], triton.cdiv(shape[2], block))](
            volume,
            values,
            self._tables,
            *self._find,
            *shape[1:],
            views,
            columns,
            rows,
            self._finder.columns.shape[1],
            self._finder.half_width,
            self._finder.candidates,
            self.taps,
            block,
        )
        return self._upright.restore(volume)


@dataclass(frozen=True, eq=False)
class ColumnFinder:
    """In which column a voxel appears, to within a known number of columns.

    Parameters
    ----------
    maps : (views, 8)
        ``x = a i + b j + c`` and ``depth = d i + e j + f``; the slope x / depth less the seventh number, times the
        eighth, is a place in `columns`.
    columns : (views, samples)
        Column at equally spaced slopes.
    half_width : float
        By how many columns the images of neighbouring voxels differ at most.
    sizes : (first, second, height)
    """

    maps: Float64
    columns: Float64
    half_width: float
    sizes: tuple[int, int, int]

    @property
    def candidates(self) -> int:
        """How many columns may see one voxel."""
        return math.floor(2 * self.half_width) + 2

    @classmethod
    def of(cls, upright: Upright, rays: Rays) -> ColumnFinder | None:
        """Work the maps out; None where a voxel lies beside or behind a source."""
        sizes = upright.sizes(rays.grid_shape)
        count = upright.pixels.shape[1]
        middle, pixels = (count - 1) // 2, upright.pixels[..., :2]
        along = pixels[:, -1] - pixels[:, 0] if count > 1 else upright.steps[:, 0, 1::-1] * [1.0, -1.0]
        source = pixels[:, middle] + upright.steps[:, middle, :2]
        origin = pixels[:, middle] if rays.parallel else source
        inverse = np.linalg.inv(np.stack([along, -upright.steps[:, middle, :2]], axis=2))
        x, depth = inverse[:, 0], np.zeros_like(inverse[:, 1]) if rays.parallel else inverse[:, 1]
        level = np.ones(len(x)) if rays.parallel else -(depth * origin).sum(axis=1)
        affine = np.column_stack([x, -(x * origin).sum(axis=1), depth, level])
        slopes = _ratio(affine, pixels[..., 0], pixels[..., 1])
        samples = 2 if np.ptp(np.diff(slopes, axis=1)) < 1e-9 else 4 * count
        ends = slopes[:, [0, -1]] if count > 1 else slopes[:, [0, 0]] + [0.0, 1.0]
        at = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * np.linspace(0, 1, samples)
        columns = np.stack([np.interp(a, s, np.arange(count)) for a, s in zip(at, slopes, strict=True)])
        if count == 1:
            columns = np.tile([0.0, 1.0], (len(at), 1))
        maps = np.column_stack([affine, ends[:, 0], (samples - 1) / (ends[:, 1] - ends[:, 0])])
        half_width = _half_width(maps, columns, sizes)
        return None if half_width is None else cls(maps, columns, half_width, sizes)


def _ratio(affine: Float64, i: Float64, j: Float64) -> Float64:
    """Slope x / depth of points (views, n)."""
    a, b, c, d, e, f = affine[:, :6, None].transpose(1, 0, 2)
    slope: Float64 = (a * i + b * j + c) / (d * i + e * j + f)
    return slope


def _half_width(maps: Float64, columns: Float64, sizes: tuple[int, int, int]) -> float | None:
    """Greatest distance in columns between the images of neighbouring voxels, found at sample points, with a margin."""
    i, j = (grid.ravel() for grid in np.meshgrid(*(np.linspace(-1, n, 9) for n in sizes[:2]), indexing="ij"))
    depth = maps[:, 3:4] * i + maps[:, 4:5] * j + maps[:, 5:6]
    if depth.min() <= 2 * np.abs(maps[:, 3:5]).sum(axis=1).max():
        return None

    def column(i: Float64, j: Float64) -> Float64:
        place = (_ratio(maps, i, j) - maps[:, 6:7]) * maps[:, 7:8]
        low = np.clip(np.floor(place), 0, columns.shape[1] - 2).astype(int)
        left, right = (np.take_along_axis(columns, low + d, axis=1) for d in (0, 1))
        found: Float64 = left + (place - low) * (right - left)
        return found

    here = column(i, j)
    steps = [np.abs(column(i + di, j + dj) - here).max() for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    return float(1.05 * max(steps) + 0.05)


def _crossings(upright: Upright, parallel: bool) -> Float64:
    """Return what a plane needs to know of every column, (views, columns, 9).

    Lateral index at plane 0 and its change per plane, height of row 0 likewise, height per row likewise, first and last
    plane between pixel and source, and whether the planes are those of the second axis.
    """
    main = np.where(upright.across, 1, 0)[..., None]
    (pixel, step), (pixel_side, step_side) = (
        [np.take_along_axis(array, which, axis=2)[..., 0] for array in (upright.pixels, upright.steps)]
        for which in (main, 1 - main)
    )
    side, rise = step_side / step, upright.steps[..., 2] / step
    row_step = np.broadcast_to(upright.row_step[:, None], pixel.shape)
    narrowing = np.zeros_like(step) if parallel else -row_step / step
    ends = (np.full_like(step, -1e9), np.full_like(step, 1e9)) if parallel else np.sort(np.stack([pixel, pixel + step]), axis=0)
    return np.stack(
        [
            pixel_side - pixel * side,
            side,
            upright.pixels[..., 2] - pixel * rise,
            rise,
            row_step - pixel * narrowing,
            narrowing,
            *ends,
            upright.across.astype(np.float64),
        ],
        axis=-1,
    )


def _length_polynomials(upright: Upright, parallel: bool) -> Float64:
    """Squared length of a ray between planes as a polynomial in its row, (views, columns, 3)."""
    step, drop = upright.steps @ upright.to_mm.T, -upright.row_step[:, None, None] * upright.to_mm[:, 2] * (not parallel)
    main = np.take_along_axis(upright.steps, np.where(upright.across, 1, 0)[..., None], axis=2)
    parts = [(step**2).sum(axis=2), 2 * (step * drop).sum(axis=2), np.broadcast_to((drop**2).sum(axis=2), step.shape[:2])]
    return np.stack(parts, axis=-1) / main**2


def _most_taps(crossings: Float64, sizes: tuple[int, int, int], rows: int) -> int:
    """How many rows of one column may lie within a voxel of one height."""
    planes = np.where(crossings[..., 8] > 0.5, sizes[1] - 1, sizes[0] - 1)
    slopes = [crossings[..., 4] + plane * crossings[..., 5] for plane in (0, planes)]
    smallest = min(float(slope.min()) for slope in slopes)
    return min(rows, math.ceil(2 / smallest) + 1) if smallest > 0 else _MOST_CANDIDATES + 1


class _SpreadRays:
    """The adjoint of any geometry: every voxel tries the pixels around its image."""

    def __init__(self, rays: Rays, half_widths: tuple[float, float], matrices: Float64, device: torch.device) -> None:
        self._rays, self._half, self._device = rays, half_widths, device
        self._tables = [_to(device, array, torch.float32) for array in (rays.columns, rays.row_step, rays.origins)]
        self._matrices, self._to_mm = _to(device, matrices, torch.float32), _to(device, rays.to_mm, torch.float32)

    @classmethod
    def of(cls, rays: Rays, device: torch.device) -> _SpreadRays | None:
        """Set the search up; None for a curved detector, or where a voxel may be seen by too many pixels."""
        matrices = _index_matrices(rays)
        if matrices is None:
            return None
        half_widths = _half_widths(matrices, rays.grid_shape)
        most = math.prod(2 * half + 2 for half in half_widths)
        return cls(rays, half_widths, matrices, device) if most <= 4 * _MOST_CANDIDATES else None

    def __call__(self, projections: Tensor) -> Tensor:
        shape, (views, rows, columns) = self._rays.grid_shape, projections.shape
        volume = torch.empty(shape, device=self._device)
        block = min(_BLOCK, triton.next_power_of_2(shape[2]))
        taps = [math.floor(2 * half) + 2 for half in self._half]
        kernels.spread_rays[(shape[0] * shape[1], triton.cdiv(shape[2], block))](
            volume,
            projections.contiguous(),
            *self._tables,
            self._matrices,
            self._to_mm,
            *shape[1:],
            views,
            columns,
            rows,
            *self._half,
            *taps,
            self._rays.parallel,
            block,
        )
        return volume


def _index_matrices(rays: Rays) -> Float64 | None:
    """Projection matrices (views, 3, 4) from voxel to pixel indices: (column w, row w, w); None for a curved detector."""
    first = rays.columns[:, 0]
    count = rays.columns.shape[1]
    across = (rays.columns[:, -1] - first) / max(count - 1, 1) if count > 1 else np.cross(rays.row_step, first - rays.origins)
    straight = first[:, None] + np.arange(count)[:, None] * across[:, None]
    if np.abs(straight - rays.columns).max() > 1e-6 * np.abs(rays.columns).max():
        return None
    start = rays.origins if rays.parallel else first - rays.origins
    inverse = np.linalg.inv(np.stack([across, rays.row_step, start], axis=2))
    shift = -np.einsum("kij,kj->ki", inverse, first if rays.parallel else rays.origins)
    if rays.parallel:
        inverse[:, 2], shift[:, 2] = 0.0, 1.0
    return np.concatenate([inverse, shift[:, :, None]], axis=2)


def _half_widths(matrices: Float64, shape: tuple[int, int, int]) -> tuple[float, float]:
    """How far apart, in columns and in rows, the images of voxels are that differ by one along two axes; with a margin."""
    points = np.stack(np.meshgrid(*(np.linspace(-1, n, 5) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)

    def image(points: Float64) -> Float64:
        homogeneous = points @ matrices[:, :, :3].transpose(0, 2, 1) + matrices[:, None, :, 3]
        pixels: Float64 = np.where(homogeneous[..., 2:] > 1e-6, homogeneous[..., :2] / homogeneous[..., 2:], np.inf)
        return pixels

    with np.errstate(invalid="ignore", divide="ignore"):
        here = image(points)
        steps = np.array([np.abs(image(points + step) - here).max(axis=(0, 1)) for step in np.eye(3)])
    columns, rows = np.nan_to_num(np.sort(steps, axis=0)[1:].sum(axis=0), nan=np.inf)
    return float(1.05 * columns + 0.05), float(1.05 * rows + 0.05)


def _to(device: torch.device, array: Float64, dtype: torch.dtype) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=dtype, device=device)
