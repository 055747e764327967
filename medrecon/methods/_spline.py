"""The spline through the slices, on any grid: what `interpolate` returns and `consistent_spline` starts from.

Along the normal it is exact on uneven positions. Beyond the first and last slice, and beyond the edge pixels, the
nearest value is held. Pixels that were not measured are replaced by the nearest measured one of their slice before,
so that no ring starts at the border of the padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Float64, Grid
from medrecon.core.output_grid import plan_grid
from medrecon.core.progress import Tick
from medrecon.operators._separable import add_along_depth, from_left, from_right
from medrecon.operators.slice_sampler import SliceSampler

Order = Literal[0, 1, 3]

_SAME_PLACE = 1e-3  # voxels below which two slices count as one, and are averaged
_LEAST_STACK_WEIGHT = 1e-6  # of the largest: where no stack looked, all count alike
_MARGIN = 8  # voxels around the helper grid, over which the ringing of its border dies down
_PLANES_AT_ONCE = 16


def spline_through_slices(A: SliceSampler, y: Tensor, order: Order, tick: Tick) -> Tensor:
    """Return the spline on the grid of A; several stacks are splined alone and blended by how much each one weighs."""
    stacks = [np.flatnonzero(A.stack == label) for label in np.unique(A.stack)]
    if len(stacks) == 1:
        return _one_stack(A, y, order)
    total, weights = y.new_zeros(A.domain), y.new_zeros(A.domain)
    for done, members in enumerate(stacks, start=1):
        part = A.take(members)
        weight = part.weights_per_voxel().to(y.device)
        weight = weight / weight.max().clamp_min(1e-30) + _LEAST_STACK_WEIGHT
        total += weight * _one_stack(part, y[torch.from_numpy(members).to(y.device)], order)
        weights += weight
        tick(done / len(stacks))
    return total / weights


def cardinal_spline(positions: Float64, order: Order, straight_on: bool = False) -> Callable[[Float64], Float64]:
    """Return a function of target positions that gives the matrix (targets, positions) of the interpolating spline.

    Order 0 takes the nearest sample, 1 interpolates linearly, 3 is the natural cubic spline. Samples at one position are
    averaged, fewer samples than the order needs lower it. Beyond the outermost samples their value is held, or with
    `straight_on` the spline goes on as a straight line.
    """
    from scipy.interpolate import make_interp_spline

    places, samples = _distinct(positions)
    degree = min(order, len(places) - 1)
    if degree < 1:
        return lambda targets: samples[np.abs(targets[:, None] - places).argmin(axis=1)]
    spline = make_interp_spline(places, samples, k=degree, bc_type="natural" if degree == 3 else None)
    slope = spline.derivative()

    def matrix(targets: Float64) -> Float64:
        held = np.clip(targets, places[0], places[-1])
        beyond = (targets - held)[:, None] * slope(held) if straight_on else 0.0
        return np.asarray(spline(held) + beyond)

    return matrix


def _one_stack(A: SliceSampler, y: Tensor, order: Order) -> Tensor:
    """Spline images of one stack; images that are not parallel have no neighbours and are averaged instead."""
    if not A.poses.are_parallel:
        return _weighted_mean(A, y)
    used, filled = _fill_padding(y, A.measured)
    if len(used) == 0:
        return y.new_zeros(A.domain)
    part = SliceSampler(A.poses.take(used), A.grid)
    return _on_parallel_grid(part, filled, order) if part.path == "separable" else _on_oblique_grid(part, filled, order)


def _weighted_mean(A: SliceSampler, y: Tensor) -> Tensor:
    """Average, in every voxel, the pixels that saw it; the darkest measured value where none did."""
    weights = A.weights_per_voxel().to(y.device)
    seen = y[torch.from_numpy(A.seen).to(y.device)]
    dark = seen.min() if len(seen) else y.new_zeros(())
    return torch.where(weights > 0, A.adjoint(y) / weights.clamp_min(1e-30), dark)


def _fill_padding(y: Tensor, measured: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64], Tensor]:
    """Return the slices with any measurement, and their images with the nearest measured value where there is none."""
    from scipy.ndimage import distance_transform_edt

    if measured is None or measured.all():
        return np.arange(len(y)), y
    used = np.flatnonzero(measured.any(axis=(1, 2)))
    filled = y.cpu().numpy()[used]  # a copy
    for image, mask in zip(filled, measured[used], strict=True):
        if not mask.all():
            nearest = distance_transform_edt(~mask, return_distances=False, return_indices=True)
            image[:] = image[tuple(nearest)]
    return used, torch.from_numpy(filled).to(y.device)


def _on_parallel_grid(A: SliceSampler, y: Tensor, order: Order, straight_on: bool = False) -> Tensor:
    """Spline along each axis in turn, where slices are parallel to two axes of the grid.

    With `straight_on` there is no kink at the rim, which a second spline would ring from; the rims of a tilted
    series are held nevertheless, because they lie far apart.
    """
    if A.factors is None:
        raise ValueError("the grid is oblique to the slices")
    geometry, group = A.geometry, A.factors.groups[0]
    depth_axis, row_axis, column_axis = group.axes
    on = straight_on and len(group.runs) == 1
    rows, columns = (cardinal_spline(np.arange(n, dtype=np.float64), order, on) for n in geometry.image_shape)
    planes = y.new_empty((len(y), A.domain[row_axis], A.domain[column_axis]))
    for run in group.runs:
        k = int(run.slices[0])
        down = _in_pixels(A.domain[row_axis], geometry.start[k, row_axis], geometry.down[k, row_axis])
        across = _in_pixels(A.domain[column_axis], geometry.start[k, column_axis], geometry.across[k, column_axis])
        left, right = (_factor(_averaged(spline, *to), y) for spline, to in ((rows, down), (columns, across)))
        for k in run.slices.tolist():  # a product over all images at once would copy them
            planes[k] = from_right(right, from_left(left, y[k]))
    positions = geometry.start[:, depth_axis]
    step = float(np.median(np.diff(np.unique(positions)))) if len(positions) > 1 else 1.0
    targets = np.arange(A.domain[depth_axis], dtype=np.float64)
    matrix = _averaged(cardinal_spline(positions, order, straight_on), targets, width=1.0, sample_step=step)
    x = y.new_zeros(A.domain)
    add_along_depth(x, group.axes, matrix, planes)
    return x


def _on_oblique_grid(A: SliceSampler, y: Tensor, order: Order) -> Tensor:
    """Spline onto a helper grid along the slices, as fine as the wanted one across them, and turn that."""
    from scipy.ndimage import map_coordinates, spline_filter

    along = SliceSampler(A.poses, _helper_grid(A), path="separable")
    volume = _on_parallel_grid(along, y, order, straight_on=True).cpu().numpy()
    if order == 3:
        volume = spline_filter(volume, order=3, output=np.float32, mode="mirror")
    low, high = _held_box(along)
    turn = np.linalg.inv(along.grid.to_lps_mm) @ A.grid.to_lps_mm
    x = np.empty(A.domain, dtype=np.float32)
    for first in range(0, len(x), _PLANES_AT_ONCE):
        part = x[first : first + _PLANES_AT_ONCE]
        index = np.indices(part.shape, dtype=np.float64).reshape(3, -1)
        index[0] += first
        places = np.clip(turn[:3, :3] @ index + turn[:3, 3:], low[:, None], high[:, None])
        map_coordinates(volume, places, part.reshape(-1), order=order, mode="nearest", prefilter=False)
    return torch.from_numpy(x).to(y)


def _held_box(A: SliceSampler) -> tuple[Float64, Float64]:
    """Return lowest and highest place on the helper grid that is not beyond the outermost slices and pixel centres."""
    index = A.grid.to_index(A.poses.corners_lps_mm()).reshape(-1, 3)
    return index.min(axis=0), index.max(axis=0)


def _helper_grid(A: SliceSampler) -> Grid:
    """Plan a grid along the first image: the wanted spacing across the slices, the coarser of pixel and voxel in them."""
    finest = min(A.grid.spacing_mm)
    row_mm, column_mm = (max(float(v), finest) for v in A.poses.pixel_spacing_mm[0])
    grid = plan_grid(A.poses, (finest, row_mm, column_mm))
    slices, rows, columns = (n + 2 * _MARGIN for n in grid.shape)
    return grid.crop((-_MARGIN, -_MARGIN, -_MARGIN), (slices, rows, columns))


def _in_pixels(count: int, start: float, step: float) -> tuple[Float64, float, float]:
    """Places of voxels along one axis in pixels, the width of a voxel in pixels, and the pixel step."""
    places: Float64 = (np.arange(count, dtype=np.float64) - start) / step
    return places, 1 / abs(step), 1.0


def _averaged(spline: Callable[[Float64], Float64], targets: Float64, width: float, sample_step: float) -> Float64:
    """Average the spline over the width of a voxel where voxels are coarser than the samples: no aliasing."""
    count = max(1, int(np.ceil(width / sample_step - 1e-3)))
    shifts = ((np.arange(count) + 0.5) / count - 0.5) * width
    matrix: Float64 = np.mean([spline(targets + shift) for shift in shifts], axis=0)
    return matrix


def _factor(matrix: Float64, like: Tensor) -> Tensor | None:
    """Return the matrix on the device of the images, None where it would change nothing."""
    if matrix.shape[0] == matrix.shape[1] and np.abs(matrix - np.eye(len(matrix))).max() < 1e-6:
        return None
    return torch.from_numpy(matrix).to(like)


def _distinct(positions: Float64) -> tuple[Float64, Float64]:
    """Rising positions without repeats, and the matrix that averages samples of one position, (places, samples)."""
    order = np.argsort(positions, kind="stable")
    rising = positions[order]
    which = np.concatenate([[0], np.cumsum(np.diff(rising) > _SAME_PLACE)])
    average = np.zeros((which[-1] + 1, len(positions)))
    average[which, order] = 1
    average /= average.sum(axis=1, keepdims=True)
    return average @ positions, average
