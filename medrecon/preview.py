"""One plane of a reconstruction in a moment: what the panel shows while settings are being chosen.

Only a slab around the plane is reconstructed, from the parts of the images near it, and thick enough that its middle is
what the whole run will give there. Nothing is saved, and a preview is never a result.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon import device as devices
from medrecon import methods
from medrecon.config import ReconstructionConfig
from medrecon.core.errors import UsageError
from medrecon.core.grid import Grid
from medrecon.core.output_grid import plan_grid
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.settings import Config
from medrecon.core.volume import OUTSIDE_VALUE, Volume

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.operators.slice_sampler import SliceSampler

View = Literal["axial", "coronal", "sagittal"]

#: The LPS axis that a view looks along.
_NORMAL: dict[View, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_SLICES_AROUND = 4.0  # on both sides of the plane: its neighbours' neighbours no longer change it
_FEWER_SLICES_AROUND = 2.0  # in a slab that would else be too large
_PIXELS_AROUND = 2.0  # where every pixel is one voxel along the axis of the view
_PIXELS_AROUND_BETWEEN = 14.0  # where pixels lie between voxels: undoing the interpolation couples them over many
_ON_VOXEL = 0.01  # voxels by which a pixel may miss one and still be it
_MOST_VOXELS = 3_000_000  # in a slab; a second or two on one core
_PIXEL_STEPS = {"separable": 60_000_000, "general": 1_000_000}  # of an iteration, by the path of the slice model; about a second
_STEPS = ("iterations", "edge_steps", "steps")  # settings of methods that say how often something is repeated
_BORDER = 2  # pixels kept beyond the slab, for interpolation at its rim


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """One plane, as it was measured and as it would be reconstructed.

    Parameters
    ----------
    plane : Volume
        One voxel thick along the axis of the view, on the grid of the whole result.
    measured : Volume, optional
        The nearest measured slice in every voxel of the same plane; None of projections, which stand in no plane.
    grid : Grid
        Of the whole result.
    device : Device
    seconds : float
        How long it took.
    voxels : int
        Size of the slab that was reconstructed, for an estimate of the whole.
    coarser : int
        How many voxels of the result are one here, along rows and columns of the plane: 1 unless the plane is very large.
    draft : bool
        Whether an iteration was cut short, or another method stands in for a slow one: the run will be sharper than this.
    """

    plane: Volume
    measured: Volume | None
    grid: Grid
    device: devices.Device
    seconds: float
    voxels: int
    coarser: int = 1
    draft: bool = False


def preview(scan: SliceScan | Volume, config: ReconstructionConfig, view: View, point_lps_mm: ArrayLike) -> Preview:
    """Reconstruct the plane of a view that goes through a point.

    Parameters
    ----------
    view : {"axial", "coronal", "sagittal"}
        Of a result whose axes are oblique, the axis nearest to that of the view is taken.
    point_lps_mm : (x, y, z)
        Outside the result the nearest plane is taken.

    Raises
    ------
    UsageError
        ``ARG-INPUT`` where the scan or the method is not one of slices.
    GeometryError
        Whatever planning the grid refuses.
    """
    import torch

    from medrecon.operators.slice_sampler import SliceSampler

    started = time.perf_counter()
    config, replaced = _shown(config)
    method, where = _method_of_slices(config), devices.choose(config.device)
    slices = _as_slices(scan)
    grid = plan_grid(slices.poses, config.grid.spacing_mm, config.grid.axes, config.grid.region_lps_mm)
    slab = _slab(slices.poses, grid, view, point_lps_mm)
    near = _near(slices, slab.grid)
    A, at_plane = (SliceSampler(near.poses, part, near.measured, near.stack) for part in (slab.grid, slab.plane))
    wanted = method.settings.model_validate(dict(config.settings))
    settings, ticks = _affordable(wanted, A), _Ticks()
    y = torch.tensor(near.pixels, device=where.name)
    with devices.seeded(config.seed), torch.no_grad():
        x = methods.Reconstructed.of(method.run(A, y, settings, ticks)).x[slab.index]
        blocks = _nearest_slice(at_plane, y)
    seen = _seen(at_plane)
    plane, measured = (_plane(values, seen, slab, slices) for values in (x, blocks))
    voxels = int(np.prod(slab.grid.shape))
    draft = replaced or (settings != wanted and ticks.count >= sum(_steps(settings).values()))
    return Preview(plane, measured, grid, where, time.perf_counter() - started, voxels, slab.coarser, draft)


def axis_of(grid: Grid, view: View) -> int:
    """Return the index axis that runs most along the view's normal, each view having an axis of its own."""
    alignment = np.abs(grid.directions)
    fits = {axes: sum(alignment[lps, axis] for lps, axis in enumerate(axes)) for axes in itertools.permutations(range(3))}
    return max(fits, key=lambda axes: fits[axes])[_NORMAL[view]]


def part_of(grid: Grid, axis: int, first: int, end: int) -> Grid:
    """Return the voxels from `first` to before `end` along an axis of the grid."""
    start, shape = [0, 0, 0], list(grid.shape)
    start[axis], shape[axis] = first, end - first
    return grid.crop((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))


@dataclass(frozen=True, slots=True, eq=False)
class _Slab:
    """A part of the result's grid, the plane wanted of it as an index, and that plane's own grid."""

    grid: Grid
    index: tuple[slice, slice, slice]
    plane: Grid
    coarser: int


def _method_of_slices(config: ReconstructionConfig) -> methods.Method:
    method = methods.get(config.method)
    if method.input != "slices":
        raise UsageError("ARG-INPUT", f"the method {method.name} takes {method.input}, the preview is made from slices")
    return method


def _shown(config: ReconstructionConfig) -> tuple[ReconstructionConfig, bool]:
    """Return the configuration that is previewed, and whether another method stands in for one that takes too long."""
    instead = methods.get(config.method).preview
    return (config, False) if instead is None else (config.model_copy(update={"method": instead, "settings": {}}), True)


def _as_slices(scan: SliceScan | Volume) -> SliceScan:
    if isinstance(scan, SliceScan):
        return scan
    if isinstance(scan, Volume):
        return SliceScan.from_volume(scan, axis=int(np.argmax(scan.spacing_mm)))
    raise UsageError("ARG-INPUT", "there is a preview for slices only, and this scan is made of projections")


@dataclass(slots=True)
class _Ticks:
    """Counts how often a method told its progress: an iteration does so at every step."""

    count: int = 0

    def __call__(self, _: float) -> None:
        self.count += 1


def _affordable(settings: Config, A: SliceSampler) -> Config:
    """Allow what goes step by step only as many steps as take about a second."""
    most = max(1, _PIXEL_STEPS[A.path] // math.prod(A.range))
    return settings.model_copy(update={name: most for name, steps in _steps(settings).items() if steps > most})


def _steps(settings: Config) -> dict[str, int]:
    return {name: int(getattr(settings, name)) for name in _STEPS if hasattr(settings, name)}


def _slab(poses: SlicePoses, grid: Grid, view: View, point_lps_mm: ArrayLike) -> _Slab:
    """Cut the plane of the view, and as much around it as has a say in it, out of the result's grid."""
    axis = axis_of(grid, view)
    at = int(np.clip(np.round(grid.to_index(point_lps_mm)[axis]), 0, grid.shape[axis] - 1))
    slab = _cut(poses, grid, axis, at, _SLICES_AROUND)
    if math.prod(slab.grid.shape) <= _MOST_VOXELS:
        return slab
    slab = _cut(poses, grid, axis, at, _FEWER_SLICES_AROUND)
    coarser = math.ceil(math.sqrt(math.prod(slab.grid.shape) / _MOST_VOXELS))
    return _Slab(_coarser(slab.grid, axis, coarser), slab.index, _coarser(slab.plane, axis, coarser), coarser)


def _cut(poses: SlicePoses, grid: Grid, axis: int, at: int, slices_around: float) -> _Slab:
    around = math.ceil(_reach_mm(poses, grid, axis, slices_around) / grid.spacing_mm[axis])
    first, end = max(at - around, 0), min(at + around + 1, grid.shape[axis])
    index = [slice(None)] * 3
    index[axis] = slice(at - first, at - first + 1)
    return _Slab(part_of(grid, axis, first, end), (index[0], index[1], index[2]), part_of(grid, axis, at, at + 1), 1)


def _coarser(grid: Grid, axis: int, times: int) -> Grid:
    """Join voxels of the plane across `axis`; the grid ends where it ended, or less than one joined voxel before."""
    factors = np.array([1 if k == axis else times for k in range(3)])
    slices, rows, columns = (max(n // int(f), 1) for n, f in zip(grid.shape, factors, strict=True))
    affine = grid.to_lps_mm.copy()
    affine[:3, :3] *= factors
    affine[:3, 3] = grid.to_lps((factors - 1) / 2)
    return Grid((slices, rows, columns), affine)


def _reach_mm(poses: SlicePoses, grid: Grid, axis: int, slices_around: float) -> float:
    """How far along an axis of the grid measurements still have a say: a few slices along their normal, pixels across."""
    slices = slices_around * max(_usual_step_mm(poses), float(poses.thickness_mm.max()))
    pixels = (_PIXELS_AROUND if _pixels_are_voxels(poses, grid, axis) else _PIXELS_AROUND_BETWEEN) * poses.pixel_spacing_mm[0]
    axes = poses.to_lps_mm[0, :3, :3] / np.linalg.norm(poses.to_lps_mm[0, :3, :3], axis=0)
    return float(np.abs(grid.directions[:, axis] @ axes) @ np.array([slices, *pixels]))


def _pixels_are_voxels(poses: SlicePoses, grid: Grid, axis: int) -> bool:
    """Whether along this axis pixels follow each other from voxel to voxel, so that nothing is interpolated."""
    places = (np.linalg.inv(grid.to_lps_mm) @ poses.to_lps_mm)[:, axis, 1:]  # steps per row and column, place of the first pixel
    return bool(np.abs(places - np.round(places)).max() < _ON_VOXEL)


def _usual_step_mm(poses: SlicePoses) -> float:
    steps = np.diff(np.sort(poses.depths_mm))
    return float(np.median(steps)) if len(steps) else 0.0


def _near(scan: SliceScan, grid: Grid) -> SliceScan:
    """Keep the images that reach into the grid, and of these the pixels that do; all images where none does."""
    to_image = np.linalg.inv(scan.poses.to_lps_mm)
    corners = np.concatenate([grid.corners_lps_mm(), np.ones((8, 1))], axis=1)
    places = np.einsum("nij,kj->nki", to_image, corners)[..., :3]  # depth in mm, row, column of the grid's corners
    low, high = places.min(axis=1), places.max(axis=1)
    reach = np.maximum(scan.poses.thickness_mm * scan.poses.profile.reach, _usual_step_mm(scan.poses))
    near = np.flatnonzero((low[:, 0] <= reach) & (high[:, 0] >= -reach))
    kept = near if len(near) > 1 else np.arange(len(scan.poses))
    first = np.floor(low[kept, 1:].min(axis=0)).astype(int) - _BORDER
    end = np.ceil(high[kept, 1:].max(axis=0)).astype(int) + _BORDER + 1
    return _window(scan.take(kept), np.maximum(first, 0), np.minimum(end, scan.poses.image_shape))


def _window(scan: SliceScan, first: NDArray[np.int64], end: NDArray[np.int64]) -> SliceScan:
    """Keep a window of pixels of every image; everything where the window is empty."""
    if (end - first < 1).any():
        return scan
    rows, columns = (slice(int(a), int(b)) for a, b in zip(first, end, strict=True))
    poses = scan.poses.to_lps_mm.copy()
    poses[:, :3, 3] += poses[:, :3, 1:3] @ first
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    return replace(
        scan,
        pixels=scan.pixels[:, rows, columns],
        poses=SlicePoses(poses, shape, scan.poses.thickness_mm, scan.poses.profile),
        measured=None if scan.measured is None else scan.measured[:, rows, columns],
    )


def _nearest_slice(A: SliceSampler, y: Tensor) -> Tensor:
    """Fill every voxel with the nearest measured slice: what thick slices look like from the side."""
    from medrecon.methods.interpolate import InterpolateConfig, interpolate

    return interpolate(A, y, InterpolateConfig(order=0), lambda _: None)


def _seen(A: SliceSampler) -> NDArray[np.bool_]:
    from medrecon.quality.coverage import UNSEEN, coverage

    seen: NDArray[np.bool_] = coverage(A) != UNSEEN
    return seen


def _plane(values: Tensor, seen: NDArray[np.bool_], slab: _Slab, scan: SliceScan) -> Volume:
    """Return the plane as a volume; what was never seen holds the quantity's outside value, as in a result."""
    voxels = np.where(seen, values.cpu().numpy(), np.float32(OUTSIDE_VALUE[scan.quantity]))
    return Volume(voxels, slab.plane, scan.quantity, None if seen.all() else seen, scan.source)
