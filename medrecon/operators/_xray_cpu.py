"""The X-ray transform on the CPU: lays the data out for the compiled loops and spreads them over threads.

The loops want the height innermost, in the volume as in the projections; the data are rearranged once on the way in
and once on the way out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators import _xray_cpu_kernels as kernels
from medrecon.operators._xray_rays import Rays, vertical_axis
from medrecon.operators._xray_upright import Upright

_Array = NDArray[np.float32]


def forward(rays: Rays, x: Tensor) -> Tensor:
    """Integrate (batch, slices, rows, columns) to (batch, views, rows, columns)."""
    axis = vertical_axis(rays)
    project = _project_general if axis is None else _project_vertical(rays, axis)
    return torch.stack([project(rays, volume) for volume in x.float()])


def adjoint(rays: Rays, y: Tensor) -> Tensor:
    """Spread (batch, views, rows, columns) to (batch, slices, rows, columns)."""
    axis = vertical_axis(rays)
    spread = _spread_general if axis is None else _spread_vertical(rays, axis)
    return torch.stack([spread(rays, projections) for projections in y.float()])


def in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Run `work` on consecutive parts of ``range(count)`` in as many threads as torch uses."""
    threads = min(torch.get_num_threads(), count)
    bounds = np.linspace(0, count, threads + 1).round().astype(int).tolist()
    if threads <= 1:
        return work(0, count)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *pair) for pair in itertools.pairwise(bounds)]:
            done.result()
    return None


def _project_vertical(rays: Rays, axis: int) -> Callable[[Rays, Tensor], Tensor]:
    upright = Upright.of(rays, axis)

    def project(rays: Rays, volume: Tensor) -> Tensor:
        arranged = upright.arrange(volume).numpy()
        out = np.zeros((len(rays), rays.detector_shape[1], rays.detector_shape[0]), np.float32)

        def work(first: int, last: int) -> None:
            part = slice(first, last)
            for across, chosen in _both_ways(upright.across[part]):
                kernels.project_columns(
                    arranged,
                    out[part],
                    across,
                    chosen,
                    upright.pixels[part],
                    upright.steps[part],
                    upright.row_step[part],
                    rays.parallel,
                )
            _scale(upright, out, part, rays.parallel)

        in_threads(work, len(rays))
        return torch.from_numpy(out).transpose(1, 2).contiguous()

    return project


def _spread_vertical(rays: Rays, axis: int) -> Callable[[Rays, Tensor], Tensor]:
    upright = Upright.of(rays, axis)

    def spread(rays: Rays, projections: Tensor) -> Tensor:
        padded = _padded(projections)
        in_threads(lambda first, last: _scale(upright, padded[..., _ROWS], slice(first, last), rays.parallel), len(rays))
        volume = np.zeros(upright.sizes(rays.grid_shape), np.float32)
        for across, chosen in _both_ways(upright.across):

            def work(start: int, stop: int, across: bool = across, chosen: NDArray[np.bool_] = chosen) -> None:
                kernels.spread_columns(
                    volume, padded, across, chosen, upright.pixels, upright.steps, upright.row_step, rays.parallel, start, stop
                )

            in_threads(work, volume.shape[1 if across else 0])
        return upright.restore(torch.from_numpy(volume))

    return spread


def _project_general(rays: Rays, volume: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(volume, (1, 1, 1, 1, 1, 1)).numpy()
    strides, sizes = _strides(padded), np.array(rays.grid_shape)
    out = np.empty((len(rays), *rays.detector_shape), np.float32)

    def work(first: int, last: int) -> None:
        part = slice(first, last)
        geometry = (rays.columns[part], rays.row_step[part], rays.origins[part], rays.to_mm, rays.parallel)
        kernels.project_rays(padded.reshape(-1), strides, sizes, out[part], *geometry)

    in_threads(work, len(rays))
    return torch.from_numpy(out)


def _spread_general(rays: Rays, projections: Tensor) -> Tensor:
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
    return torch.from_numpy(padded[1:-1, 1:-1, 1:-1].copy())


def _strides(array: _Array) -> NDArray[np.int64]:
    """Return strides in elements."""
    return np.array(array.strides) // array.itemsize


_ROWS = slice(kernels.PAD_BEFORE, -kernels.PAD_AFTER)


def _padded(projections: Tensor) -> _Array:
    """Copy (views, rows, columns) to (views, columns, rows) with zeros before and behind the rows."""
    views, rows, columns = projections.shape
    padded = torch.zeros(views, columns, kernels.PAD_BEFORE + rows + kernels.PAD_AFTER)
    padded[:, :, kernels.PAD_BEFORE : kernels.PAD_BEFORE + rows] = projections.transpose(1, 2)
    return padded.numpy()


def _scale(upright: Upright, values: _Array, part: slice, parallel: bool) -> None:
    kernels.scale_by_length(
        values[part], upright.steps[part], upright.row_step[part], upright.to_mm, upright.across[part], parallel
    )


def _both_ways(across: NDArray[np.bool_]) -> Sequence[tuple[bool, NDArray[np.bool_]]]:
    """Return the two directions of planes, each with the columns that cross them, where there are any."""
    return [(way, chosen) for way, chosen in ((False, ~across), (True, across)) if chosen.any()]
