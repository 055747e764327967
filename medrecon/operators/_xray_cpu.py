"""The X-ray transform on the CPU: lays the data out for the compiled loops and spreads them over threads.

The loops want the height innermost, in the volume as in the projections; the data are rearranged once on the way in
and once on the way out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators import _xray_cpu_kernels as kernels
from medrecon.operators._xray_rays import Rays, vertical_axis
from medrecon.operators._xray_upright import Upright

_Array = NDArray[np.float32]

_BLOCK_BYTES, _FEWEST_VIEWS = 8 * 2**20, 16
_FEW_ROWS = 8  # of the detector, up to which following each ray is faster: ten times for a single row
_PARTS_PER_THREAD, _SMALLEST_PART = 4, 8  # so that a thread that other work slows down does not hold up the rest


def forward(rays: Rays, x: Tensor) -> Tensor:
    """Integrate (batch, slices, rows, columns) to (batch, views, rows, columns)."""
    axis = _axis_of_lines(rays)
    y = torch.empty(len(x), len(rays), *rays.detector_shape)
    for volume, projections in zip(x.float(), y, strict=True):
        if axis is None:
            _project_general(rays, volume, projections)
        else:
            _project_vertical(rays, axis, volume, projections)
    return y


def adjoint(rays: Rays, y: Tensor) -> Tensor:
    """Spread (batch, views, rows, columns) to (batch, slices, rows, columns)."""
    axis = _axis_of_lines(rays)
    x = torch.empty(len(y), *rays.grid_shape)
    for volume, projections in zip(x, y.float(), strict=True):
        volume.copy_(_spread_general(rays, projections) if axis is None else _spread_vertical(rays, axis, projections))
    return x


def _axis_of_lines(rays: Rays) -> int | None:
    """Return the axis along which whole lines are worked on; None where rays are followed one by one."""
    return None if rays.detector_shape[0] <= _FEW_ROWS else vertical_axis(rays)


def in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Run `work` on consecutive parts of ``range(count)`` in as many threads as torch uses, each taking the next part."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        return work(0, count)
    parts = max(threads, min(_PARTS_PER_THREAD * threads, count // _SMALLEST_PART))
    bounds = np.linspace(0, count, parts + 1).round().astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *pair) for pair in itertools.pairwise(bounds)]:
            done.result()
    return None


def padded_columns(projections: Tensor, beside: int = 0) -> _Array:
    """Copy (views, rows, columns) to (views, columns, rows) with zeros around, and readable floats behind the last.

    Parameters
    ----------
    projections : (views, rows, columns)
    beside : int
        Columns of zeros on either side.
    """
    views, rows, columns = projections.shape
    shape = (views, columns + 2 * beside, kernels.PAD_BEFORE + rows + kernels.PAD_AFTER)
    flat = torch.zeros(math.prod(shape) + kernels.TABLE_MARGIN)
    padded = flat[: math.prod(shape)].view(shape)
    padded[:, beside : beside + columns, kernels.PAD_BEFORE : kernels.PAD_BEFORE + rows] = projections.transpose(1, 2)
    return padded.numpy()


def view_blocks(views: int, pixels: int) -> Iterator[slice]:
    """Ranges of views whose rearranged copy is small beside the data, and wide enough for all threads."""
    size = max(_FEWEST_VIEWS, _BLOCK_BYTES // (4 * pixels))
    return (slice(first, min(first + size, views)) for first in range(0, views, size))


def _project_vertical(rays: Rays, axis: int, volume: Tensor, projections: Tensor) -> None:
    """Fill the projections (views, rows, columns), a block of views at a time."""
    upright = Upright.of(rays, axis)
    arranged, (rows, columns) = upright.arrange(volume).numpy(), rays.detector_shape
    for block in view_blocks(len(rays), rows * columns):
        out = np.zeros((block.stop - block.start, columns, rows), np.float32)
        part = upright.part(block)

        def work(first: int, last: int, part: Upright = part, out: _Array = out) -> None:
            mine, values = part.part(slice(first, last)), out[first:last]
            for across, chosen in _both_ways(mine.across):
                kernels.project_columns(arranged, values, across, chosen, mine.pixels, mine.steps, mine.row_step, rays.parallel)
            kernels.scale_by_length(values, mine.steps, mine.row_step, mine.to_mm, mine.across, rays.parallel)

        in_threads(work, len(out))
        projections[block] = torch.from_numpy(out).transpose(1, 2)


def _spread_vertical(rays: Rays, axis: int, projections: Tensor) -> Tensor:
    """Return the volume, gathered from a block of views at a time."""
    upright, pixels = Upright.of(rays, axis), math.prod(rays.detector_shape)
    volume = np.zeros(upright.sizes(rays.grid_shape), np.float32)
    for block in view_blocks(len(rays), pixels):
        part, padded = upright.part(block), padded_columns(projections[block])
        values = padded[..., kernels.PAD_BEFORE : -kernels.PAD_AFTER]

        def scale(first: int, last: int, part: Upright = part, values: _Array = values) -> None:
            mine = part.part(slice(first, last))
            kernels.scale_by_length(values[first:last], mine.steps, mine.row_step, mine.to_mm, mine.across, rays.parallel)

        in_threads(scale, len(values))
        for across, chosen in _both_ways(part.across):
            fixed = (across, chosen, part.pixels, part.steps, part.row_step, rays.parallel)
            in_threads(partial(kernels.spread_columns, volume, padded, *fixed), volume.shape[1 if across else 0])
    return upright.restore(torch.from_numpy(volume))


def _project_general(rays: Rays, volume: Tensor, projections: Tensor) -> None:
    """Fill the projections (views, rows, columns), ray by ray."""
    padded = torch.nn.functional.pad(volume, (1, 1, 1, 1, 1, 1)).numpy()
    strides, sizes = _strides(padded), np.array(rays.grid_shape)
    out = projections.numpy()

    def work(first: int, last: int) -> None:
        part = slice(first, last)
        geometry = (rays.columns[part], rays.row_step[part], rays.origins[part], rays.to_mm, rays.parallel)
        kernels.project_rays(padded.reshape(-1), strides, sizes, out[part], *geometry)

    in_threads(work, len(rays))


def _spread_general(rays: Rays, projections: Tensor) -> Tensor:
    """Return the volume, plane by plane."""
    padded = np.zeros([n + 2 for n in rays.grid_shape], np.float32)
    strides, sizes = _strides(padded), np.array(rays.grid_shape)
    lengths = np.empty(projections.shape, np.float32)
    for main in range(3):
        if not kernels.lengths_along(lengths, main, rays.columns, rays.row_step, rays.origins, rays.to_mm, rays.parallel):
            continue
        values = lengths * projections.numpy()

        def work(start: int, stop: int, main: int = main, values: _Array = values) -> None:
            geometry = (rays.columns, rays.row_step, rays.origins, rays.parallel)
            kernels.spread_rays(padded.reshape(-1), strides, sizes, values, main, *geometry, start, stop)

        in_threads(work, rays.grid_shape[main])
    return torch.from_numpy(padded)[1:-1, 1:-1, 1:-1]


def _strides(array: _Array) -> NDArray[np.int64]:
    """Return strides in elements."""
    return np.array(array.strides) // array.itemsize


def _both_ways(across: NDArray[np.bool_]) -> Sequence[tuple[bool, NDArray[np.bool_]]]:
    """Return the two directions of planes, each with the columns that cross them, where there are any."""
    return [(way, chosen) for way, chosen in ((False, ~across), (True, across)) if chosen.any()]
