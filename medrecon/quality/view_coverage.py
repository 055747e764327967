"""Which voxels a scan has seen from all sides, which from some, and which lie outside its field of view.

A point is known where rays through it come from half a turn: then every edge there was looked along. For each voxel the
directions of the rays through it, modulo half a turn, are collected over the views that see it; a view counts for the
arc up to half way to its neighbours, so that few views around a full turn are sparse, but from all sides.

- 2, measured: from half a turn.
- 1, inferred in part: from less, but at least three quarters of what the best-seen voxel has.
- 0, outside the field of view: from less than that.

Computed on a coarse lattice with up to 90 of the views, of a helix with up to 45 a turn, and interpolated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medrecon.core.grid import Float64, Grid
from medrecon.core.projections import covered_arc_rad
from medrecon.core.views import ViewGeometry
from medrecon.quality.coverage import INTERPOLATED, MEASURED, UNSEEN

if TYPE_CHECKING:
    from medrecon.operators.xray_transform import XRayTransform

_MOST_NODES, _MOST_VIEWS = 25, 90
_MOST_VIEWS_A_TURN = 45  # of a helix, where a point is seen for about a turn only
_BINS = 180  # of one degree, over half a turn
_WHOLE = 0.985  # of half a turn, to be whole but for rounding
_FIELD_OF_VIEW = 0.75  # of what the best-seen voxel has
_WIDEST_GAP_RAD = np.radians(30.0)  # a wider gap between views is a gap, and not sampling

Mask = NDArray[np.bool_]


def view_coverage(A: XRayTransform) -> NDArray[np.uint8]:
    """Return the coverage map of the volume that A acts on: 2 measured, 1 inferred in part, 0 outside the field of view."""
    axes = [_nodes(size) for size in A.grid.shape]
    share = seen_share(A.views, _points(A.grid, axes), None if A.measured is None else A.measured.cpu().numpy())
    levels = _WHOLE, _FIELD_OF_VIEW * float(share.max())
    return _classified(share.reshape([len(a) for a in axes]).astype(np.float32), axes, A.grid.shape, levels)


def seen_share(views: ViewGeometry, points_lps_mm: Float64, measured: Mask | None = None) -> Float64:
    """Return the share of half a turn from which points (n, 3) were seen, (n,), 0 to 1."""
    chosen, step_rad = _chosen(views)
    some, axis = views.take(chosen), views.axis
    hit = np.zeros((len(points_lps_mm), _BINS), dtype=np.bool_)
    for k, view in enumerate(chosen):
        seen, angle = _seen_in(some.take([k]), points_lps_mm, axis, None if measured is None else measured[view])
        hit[np.flatnonzero(seen), (angle[seen] * _BINS / np.pi).astype(int) % _BINS] = True
    half = int(np.ceil(step_rad / 2 * _BINS / np.pi))
    spread = np.zeros_like(hit)
    for shift in range(-half, half + 1):
        spread |= np.roll(hit, shift, axis=1)
    share: Float64 = spread.mean(axis=1)
    return share


def _seen_in(view: ViewGeometry, points: Float64, axis: Float64, measured: Mask | None) -> tuple[Mask, Float64]:
    """Whether one view sees points, and the angle of the rays through them about the axis, modulo half a turn."""
    rows, columns = view.detector.shape
    column, row, depth = (values[0] for values in view.project(points))
    with np.errstate(invalid="ignore"):
        seen: Mask = (np.abs(column - (columns - 1) / 2) <= columns / 2) & (np.abs(row - (rows - 1) / 2) <= rows / 2)
    if not view.is_parallel:
        seen &= (depth > 0) & (depth <= view.source_detector_mm[0])
    if measured is not None:
        at = (np.rint(np.nan_to_num(v)).astype(int).clip(0, n - 1) for v, n in ((row, rows), (column, columns)))
        seen &= measured[tuple(at)]
    rays = np.broadcast_to(view.towards_detector, points.shape) if view.is_parallel else points - np.asarray(view.sources_lps_mm)
    across, along = _frame(axis)
    return seen, np.mod(np.arctan2(rays @ across, rays @ along), np.pi)


def _chosen(views: ViewGeometry) -> tuple[NDArray[np.int64], float]:
    """Choose evenly spread views, and return the angle from one of those that see a point to the next."""
    climb = _climb(views)
    if climb is None:
        chosen = np.unique(np.linspace(0, len(views) - 1, min(len(views), _MOST_VIEWS)).round().astype(int))
        return chosen, _step_rad(views.take(chosen))
    order, angles = climb
    most = round(_MOST_VIEWS_A_TURN * max(1.0, float(np.ptp(angles)) / (2 * np.pi)))
    steps = np.unique(np.linspace(0, len(order) - 1, min(len(order), most)).round().astype(int))
    return order[steps], float(np.quantile(np.abs(np.diff(angles[steps])), 0.9))


def _climb(views: ViewGeometry) -> tuple[NDArray[np.int64], Float64] | None:
    """Order the views of a helix by height, with their angles unwound; None where a point may be seen from first to last."""
    if views.sources_lps_mm is None or len(views) < 3:
        return None
    height = np.asarray(views.sources_lps_mm) @ views.axis
    seen_mm = views.detector.shape[0] * views.detector.pitch_mm[0] / float(np.median(views.magnification))
    if np.ptp(height) <= seen_mm:
        return None
    order = np.argsort(height, kind="stable")
    return order, np.unwrap(_angles(views.take(order)))


def _angles(views: ViewGeometry) -> Float64:
    """Angle of each source about the axis."""
    to_source = -views.towards_detector
    across, along = _frame(views.axis)
    angles: Float64 = np.arctan2(to_source @ across, to_source @ along)
    return angles


def _frame(axis: Float64) -> tuple[Float64, Float64]:
    """Two unit vectors perpendicular to the axis and to each other."""
    least = np.eye(3)[int(np.argmin(np.abs(axis)))]
    across = np.cross(axis, least)
    across /= np.linalg.norm(across)
    return across, np.cross(axis, across)


def _step_rad(views: ViewGeometry) -> float:
    """Usual angle between neighbouring views."""
    angles = np.sort(np.mod(_angles(views), 2 * np.pi))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    distinct = gaps[(gaps > 1e-6) & (gaps <= _WIDEST_GAP_RAD)]
    return float(np.quantile(distinct, 0.9)) if len(distinct) else covered_arc_rad(views) / len(views)


def _nodes(size: int) -> Float64:
    """Return the indices of the lattice along one axis, the first and the last voxel among them."""
    return np.linspace(0, size - 1, min(size, _MOST_NODES))


def _points(grid: Grid, axes: list[Float64]) -> Float64:
    return grid.to_lps(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3))


def _classified(
    share: NDArray[np.float32], axes: list[Float64], shape: tuple[int, int, int], levels: tuple[float, float]
) -> NDArray[np.uint8]:
    """Interpolate the shares to all voxels, slice by slice, and turn them into classes."""
    whole, field = levels
    level = np.empty(shape, dtype=np.uint8)
    for k in range(shape[0]):
        place = float(np.interp(k, axes[0], np.arange(len(axes[0]))))
        below, part = int(place), place - int(place)
        coarse = (1 - part) * share[below] + part * share[min(below + 1, len(share) - 1)]
        fine = torch.nn.functional.interpolate(
            torch.from_numpy(np.ascontiguousarray(coarse, dtype=np.float32))[None, None],
            shape[1:],
            mode="bilinear",
            align_corners=True,
        )[0, 0].numpy()
        level[k] = np.where(fine >= whole, MEASURED, np.where(fine >= field, INTERPOLATED, UNSEEN))
    return level
