"""Slices that stand anywhere, on the CPU: compiled loops, side by side in threads.

Places and weights are computed in float64 whatever the voxels are. Each call works on its own images, or on its own
planes of the volume, and adds in a fixed order, so that any number of threads gives the same bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators._slice_geometry import SLACK, SliceGeometry

Array = NDArray[Any]
Shape = tuple[int, int, int]
F = TypeVar("F", bound=Callable[..., Any])

_TABLE_STEPS = 4000


def forward(geometry: SliceGeometry, x: Tensor) -> Tensor:
    """Sample the slices, without scaling up what is cut off."""
    y = torch.empty((len(geometry), *geometry.image_shape), dtype=x.dtype)
    voxels, images, table = x.contiguous().numpy(), y.numpy(), _table(geometry)

    def work(first: int, last: int) -> None:
        for k in range(first, last):
            _gather(voxels.transpose(_turned(geometry, k)), images[k], *_rays(geometry, k), table)

    in_threads(work, len(geometry))
    return y


def adjoint(geometry: SliceGeometry, y: Tensor) -> Tensor:
    """Apply the transpose of `forward`."""
    x = torch.zeros(geometry.grid_shape, dtype=y.dtype)
    voxels, images, table = x.numpy(), y.contiguous().numpy(), _table(geometry)

    def work(first: int, last: int, members: NDArray[np.int64]) -> None:
        for k in members:
            _scatter(voxels.transpose(_turned(geometry, k)), images[k], *_rays(geometry, k), table, first, last)

    for axis in np.unique(geometry.axis):
        in_threads(partial(work, members=np.flatnonzero(geometry.axis == axis)), geometry.grid_shape[axis])
    return x


def seen(geometry: SliceGeometry) -> Float64:
    """Share of every pixel's weight that lies inside the grid, (n, rows, columns)."""
    share, table = np.empty((len(geometry), *geometry.image_shape)), _table(geometry)

    def work(first: int, last: int) -> None:
        for k in range(first, last):
            order = _turned(geometry, k)
            sizes = geometry.grid_shape[order[0]], geometry.grid_shape[order[1]], geometry.grid_shape[order[2]]
            _share(sizes, share[k], *_rays(geometry, k), table)

    in_threads(work, len(geometry))
    return share


def _turned(geometry: SliceGeometry, k: int) -> tuple[int, int, int]:
    """Axes of the grid with the one that the rays of slice `k` cross in front."""
    axis = int(geometry.axis[k])
    first, second = (a for a in range(3) if a != axis)
    return axis, first, second


def _rays(geometry: SliceGeometry, k: int) -> tuple[Float64, tuple[int, int], float, float]:
    """Start, row step, column step and slope of the rays of slice `k` per plane, (4, 3); positions; reach; table step."""
    order = list(_turned(geometry, k))
    along = geometry.along[k, order]
    rays = np.stack([geometry.start[k, order], geometry.down[k, order], geometry.across[k, order], along / along[0]])
    per_plane = _TABLE_STEPS / (2 * geometry.profile.reach * along[0] * geometry.thickness_mm[k])
    return rays, geometry.positions_per_pixel(k), float(geometry.reach_planes[k]), float(per_plane)


def _table(geometry: SliceGeometry) -> Float64:
    """Tabulate the profile's integral at evenly spaced depths, as `SliceProfile.cumulative` interpolates it."""
    reach = geometry.profile.reach
    return geometry.profile.cumulative(np.linspace(-reach, reach, _TABLE_STEPS + 1))


def in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Run `work` on consecutive parts of ``range(count)`` in as many threads as torch uses."""
    bounds = np.linspace(0, count, min(torch.get_num_threads(), count) + 1).round().astype(int).tolist()
    with ThreadPoolExecutor(len(bounds) - 1) as pool:
        for done in [pool.submit(work, *pair) for pair in itertools.pairwise(bounds)]:
            done.result()


def compiled(function: F) -> F:
    """Compile without the interpreter's lock, and keep the machine code on disk where the system has a place for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        dispatcher: F = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable place for the cache
        dispatcher = numba.njit(**options)(function)
    return dispatcher


@compiled
def _cumulative(table: Float64, place: float) -> float:
    """Return the profile's integral up to a place on the table, in steps from its middle."""
    place = min(max(place + _TABLE_STEPS / 2, 0.0), float(_TABLE_STEPS))
    low = min(int(place), _TABLE_STEPS - 1)
    return table[low] + (place - low) * (table[low + 1] - table[low])  # type: ignore[no-any-return]


@compiled
def _point(rays: Float64, positions: tuple[int, int], row: int, column: int, sub: int) -> tuple[float, float, float]:
    """Where a sub-position of a pixel lies, in voxels, crossed axis first."""
    r = row + (sub // positions[1] + 0.5) / positions[0] - 0.5
    c = column + (sub % positions[1] + 0.5) / positions[1] - 0.5
    return (
        rays[0, 0] + r * rays[1, 0] + c * rays[2, 0],
        rays[0, 1] + r * rays[1, 1] + c * rays[2, 1],
        rays[0, 2] + r * rays[1, 2] + c * rays[2, 2],
    )


@compiled
def _inside(place: float, size: int) -> bool:
    return -0.5 - SLACK <= place <= size - 0.5 + SLACK


@compiled
def _cell(place: float, size: int) -> tuple[int, int, float]:
    """Return the two voxels around a place, held within the outermost ones, and the share of the second."""
    held = min(max(place, 0.0), size - 1.0)
    low = min(int(held), max(size - 2, 0))
    return low, min(low + 1, size - 1), held - low


@compiled
def _gather(
    voxels: Array, image: Array, rays: Float64, positions: tuple[int, int], reach: float, per_plane: float, table: Float64
) -> None:
    """Sample one slice."""
    planes, rows, columns = voxels.shape
    count = positions[0] * positions[1]
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            total = 0.0
            for sub in range(count):
                depth, a, b = _point(rays, positions, row, column, sub)
                first, last = max(math.ceil(depth - reach), 0), min(math.floor(depth + reach), planes - 1)
                face = _cumulative(table, (first - 0.5 - depth) * per_plane)
                for plane in range(first, last + 1):
                    behind = _cumulative(table, (plane + 0.5 - depth) * per_plane)
                    weight, face = abs(behind - face), behind
                    p, q = a + (plane - depth) * rays[3, 1], b + (plane - depth) * rays[3, 2]
                    if _inside(p, rows) and _inside(q, columns):
                        p0, p1, s = _cell(p, rows)
                        q0, q1, t = _cell(q, columns)
                        near = (1 - t) * voxels[plane, p0, q0] + t * voxels[plane, p0, q1]
                        far = (1 - t) * voxels[plane, p1, q0] + t * voxels[plane, p1, q1]
                        total += weight * ((1 - s) * near + s * far)
            image[row, column] = total / count


@compiled
def _scatter(
    voxels: Array,
    image: Array,
    rays: Float64,
    positions: tuple[int, int],
    reach: float,
    per_plane: float,
    table: Float64,
    low: int,
    high: int,
) -> None:
    """Add the transpose of `_gather` to the planes low <= plane < high."""
    rows, columns = voxels.shape[1:]
    count = positions[0] * positions[1]
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            value = image[row, column] / count
            for sub in range(count):
                depth, a, b = _point(rays, positions, row, column, sub)
                first, last = max(math.ceil(depth - reach), low), min(math.floor(depth + reach), high - 1)
                face = _cumulative(table, (first - 0.5 - depth) * per_plane)
                for plane in range(first, last + 1):
                    behind = _cumulative(table, (plane + 0.5 - depth) * per_plane)
                    weight, face = abs(behind - face), behind
                    p, q = a + (plane - depth) * rays[3, 1], b + (plane - depth) * rays[3, 2]
                    if _inside(p, rows) and _inside(q, columns):
                        p0, p1, s = _cell(p, rows)
                        q0, q1, t = _cell(q, columns)
                        near, far = weight * value * (1 - s), weight * value * s
                        voxels[plane, p0, q0] += near * (1 - t)
                        voxels[plane, p0, q1] += near * t
                        voxels[plane, p1, q0] += far * (1 - t)
                        voxels[plane, p1, q1] += far * t


@compiled
def _share(
    sizes: Shape,
    image: Float64,
    rays: Float64,
    positions: tuple[int, int],
    reach: float,
    per_plane: float,
    table: Float64,
) -> None:
    """Add up the weights of one slice that lie inside the grid."""
    planes, rows, columns = sizes
    count = positions[0] * positions[1]
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            total = 0.0
            for sub in range(count):
                depth, a, b = _point(rays, positions, row, column, sub)
                first, last = max(math.ceil(depth - reach), 0), min(math.floor(depth + reach), planes - 1)
                face = _cumulative(table, (first - 0.5 - depth) * per_plane)
                for plane in range(first, last + 1):
                    behind = _cumulative(table, (plane + 0.5 - depth) * per_plane)
                    weight, face = abs(behind - face), behind
                    if _inside(a + (plane - depth) * rays[3, 1], rows) and _inside(b + (plane - depth) * rays[3, 2], columns):
                        total += weight
            image[row, column] = total / count
