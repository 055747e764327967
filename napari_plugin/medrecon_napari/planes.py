"""How measured slices are stacked for the screen: every slice intact and at its place, as well as a raster allows.

napari draws even, perpendicular rasters. Slices that stand evenly along their normal are one. Tilted, shifted or
uneven ones are put into a finer or larger raster: whole slices, moved by whole pixels and repeated in depth, never
interpolated. How far a pixel then stands from its true place is measured and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import medrecon as mr
from medrecon.core.volume import OUTSIDE_VALUE

Float64 = NDArray[np.float64]

_EVEN_MM = 0.01  # a slice so close to an even raster counts as standing on it
_MOST_PLANES_PER_SLICE = 16
_MOST_VOXELS = 2**26  # 256 MB: what a raster for the screen may take


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Slices stacked for the screen.

    Parameters
    ----------
    volume : Volume
        With ``seen`` False where no slice was.
    slice_of_plane : (planes,) int
        Which slice (from 0) each plane shows, -1 where none.
    error_mm : float
        Largest distance of a shown pixel from its true place.
    notes : tuple of str
        What the screen cannot show as it is.
    """

    volume: mr.Volume
    slice_of_plane: NDArray[np.int64]
    error_mm: float = 0.0
    notes: tuple[str, ...] = ()


def stack(scan: mr.SliceScan) -> Stack:
    """Stack parallel slices of one orientation; they may be tilted, shifted, uneven and in any order."""
    order = np.argsort(scan.poses.depths_mm, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        scan = scan.take(order)  # a copy of everything
    offsets = _offsets(scan.poses)
    steps = np.diff(offsets[:, 0])
    step = float(np.median(steps)) if len(steps) else float(scan.poses.thickness_mm[0])
    ideal = np.arange(len(offsets)) * step
    if max(np.abs(offsets[:, 0] - ideal).max(), np.abs(offsets[:, 1:]).max()) <= _EVEN_MM:
        grid = _grid(scan.poses, step, (len(offsets), *scan.poses.image_shape))
        return Stack(mr.Volume(scan.pixels, grid, scan.quantity, scan.measured, scan.source), order.astype(np.int64))
    return _on_raster(scan, offsets, step, order)


def _offsets(poses: mr.SlicePoses) -> Float64:
    """Depth, way along the rows' and way along the columns' growing index of every slice against the first, (n, 3) mm."""
    axes = poses.to_lps_mm[0, :3, :3] / np.linalg.norm(poses.to_lps_mm[0, :3, :3], axis=0)
    offsets: Float64 = (poses.to_lps_mm[:, :3, 3] - poses.to_lps_mm[0, :3, 3]) @ axes
    return offsets


def _grid(poses: mr.SlicePoses, step_mm: float, shape: tuple[int, int, int], start: Sequence[float] = (0, 0, 0)) -> mr.Grid:
    """Return the grid of planes `step_mm` apart whose index `start` is pixel (0, 0) of the first slice."""
    affine = poses.to_lps_mm[0].copy()
    affine[:3, 0] *= step_mm
    affine[:3, 3] -= affine[:3, :3] @ np.asarray(start, dtype=np.float64)
    return mr.Grid(shape, affine)


def _on_raster(scan: mr.SliceScan, offsets: Float64, step: float, order: NDArray[np.int64]) -> Stack:
    """Put whole slices at the nearest pixel and the nearest planes of a raster that holds them all."""
    spacing = scan.poses.pixel_spacing_mm[0]
    shift = np.rint(offsets[:, 1:] / spacing).astype(np.int64)
    low = shift.min(axis=0)
    rows, columns = (int(n) for n in np.asarray(scan.poses.image_shape) + shift.max(axis=0) - low)
    fine = _plane_step(offsets[:, 0], step, rows * columns)
    shown = _slice_of_plane(scan.poses, offsets[:, 0], step, fine)
    grid = _grid(scan.poses, fine, (len(shown), rows, columns), (0, -low[0], -low[1]))
    voxels = np.full(grid.shape, OUTSIDE_VALUE[scan.quantity], dtype=np.float32)
    seen = np.zeros(grid.shape, dtype=np.bool_)
    for plane, number in enumerate(shown):
        if number < 0:
            continue
        (row, column), (height, width) = shift[number] - low, scan.poses.image_shape
        box = np.s_[plane, row : row + height, column : column + width]
        voxels[box] = scan.pixels[number]
        seen[box] = True if scan.measured is None else scan.measured[number]
    error = _error_mm(offsets, shift * spacing, fine)
    volume = mr.Volume(voxels, grid, scan.quantity, seen, scan.source)
    originals = np.where(shown >= 0, order[np.maximum(shown, 0)], -1)
    notes = (_in_words(offsets, step, fine, error), *_hidden(shown, len(scan.poses)))
    return Stack(volume, originals, error, notes)


def _plane_step(depths: Float64, step: float, pixels_per_plane: int) -> float:
    """Choose the coarsest step that puts every slice on a plane (to a tenth of the usual step), as far as memory allows."""
    errors = {}
    for parts in range(1, _MOST_PLANES_PER_SLICE + 1):
        fine = step / parts
        if parts > 1 and (np.ptp(depths) / fine + 1) * pixels_per_plane > _MOST_VOXELS:
            break
        errors[parts] = float(np.abs(depths / fine - np.rint(depths / fine)).max() * fine)
        if errors[parts] <= max(_EVEN_MM, step / 20):
            return fine
    return step / min(errors, key=errors.__getitem__)


def _slice_of_plane(poses: mr.SlicePoses, depths: Float64, step: float, fine: float) -> NDArray[np.int64]:
    """Return for every plane the nearest slice, -1 where none is as near as half a slice or half the usual step."""
    own = np.rint(depths / fine).astype(np.int64)
    planes = np.arange(own.max() + 1) * fine
    right = np.clip(np.searchsorted(depths, planes), 0, len(depths) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(planes - depths[left]) <= np.abs(planes - depths[right]), left, right)
    reach = np.maximum(poses.thickness_mm[nearest], step) / 2 + _EVEN_MM
    chosen: NDArray[np.int64] = np.where(np.abs(planes - depths[nearest]) <= reach, nearest, -1)
    chosen[own] = np.arange(len(depths))
    return chosen


def _error_mm(offsets: Float64, moved_mm: Float64, fine: float) -> float:
    depth = np.abs(offsets[:, 0] - np.rint(offsets[:, 0] / fine) * fine)
    across = np.linalg.norm(offsets[:, 1:] - moved_mm, axis=1)
    return float(np.hypot(depth, across).max())


def _hidden(shown: NDArray[np.int64], slices: int) -> tuple[str, ...]:
    """Say how many slices found no plane because others stand too near."""
    missing = slices - len(np.unique(shown[shown >= 0]))
    return (f"{missing} of {slices} slices lie so near to others that no plane was left for them",) if missing else ()


def _in_words(offsets: Float64, step: float, fine: float, error: float) -> str:
    steps = np.diff(offsets[:, 0])
    drift = float(np.linalg.norm(offsets[-1, 1:] - offsets[0, 1:]))
    facts = []
    if np.ptp(steps) > 2 * _EVEN_MM:
        facts.append(f"slices stand {steps.min():.2f} to {steps.max():.2f} mm apart")
    if drift > _EVEN_MM:
        facts.append(f"they drift {drift:.1f} mm sideways, as with a tilted gantry")
    planes = f", each repeated on planes {fine:.2f} mm apart" if fine < step else ""
    return (
        f"{' and '.join(facts) or 'slices are shifted'}; whole slices are shown{planes}, at most {error:.2f} mm from their place"
    )
