"""What a geometry of views can see: its field of view, and the grid that fits it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from medrecon.core.errors import UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Float64, Grid
from medrecon.core.output_grid import Region, within_region
from medrecon.core.projections import covered_arc_rad
from medrecon.core.views import ViewGeometry


def recommended_spacing_mm(views: ViewGeometry) -> float:
    """Pixel pitch as it appears at the isocentre: the voxel size that the detector can resolve."""
    return float(min(views.detector.pitch_mm) / np.median(views.magnification))


def field_of_view_radius_mm(views: ViewGeometry) -> float:
    """Distance from the isocentre to the outermost ray of the median view, on the side that reaches further.

    With a displaced detector this is what a full turn sees, and more than any single view sees.
    """
    edges = views.column_points_lps_mm(np.array([-0.5, views.detector.shape[1] - 0.5]))
    start = edges if views.sources_lps_mm is None else views.sources_lps_mm[:, None]
    along = edges - start if views.ray_directions is None else views.ray_directions[:, None]
    across = np.cross(along, views.v[:, None])
    across = across / np.linalg.norm(across, axis=-1, keepdims=True)
    distance = np.abs(((views.isocentre - start) * across).sum(axis=-1))
    return float(np.median(distance.max(axis=1)))


def recommended_grid(
    views: ViewGeometry, spacing_mm: float | tuple[float, float, float] | None = None, region_lps_mm: Region | None = None
) -> Grid:
    """Return a grid along the patient's axes that holds the field of view.

    Parameters
    ----------
    views : ViewGeometry
    spacing_mm : float or (slice, row, column), optional
        `recommended_spacing_mm` where not given.
    region_lps_mm : ((x, y, z), (x, y, z)), optional
        Two opposite corners; the grid keeps the voxels whose centres lie in this box.

    Raises
    ------
    UsageError
        ``GRID-SPACING`` for a spacing that is not positive and finite.
    GeometryError
        ``GRID-REGION`` for a region outside the field of view.
    """
    spacing = _spacing(views, spacing_mm)
    across, (low, high) = 2 * field_of_view_radius_mm(views), _seen_along_axis_mm(views)
    slices, rows, columns = (max(1, round(float(size))) for size in np.array([high - low, across, across]) / spacing)
    centre = np.array([views.isocentre[0], views.isocentre[1], (low + high) / 2])
    origin = centre - (np.array([columns, rows, slices]) - 1) / 2 * spacing[::-1]
    grid = Grid.from_parts((slices, rows, columns), spacing, origin)
    return grid if region_lps_mm is None else within_region(grid, _sorted(region_lps_mm))


def estimated_memory_bytes(voxels: int, measured_values: int) -> int:
    """Return the memory that a reconstruction takes: scan, result, one working copy of each and the quality maps."""
    return 4 * (4 * voxels + 3 * measured_values)


def geometry_summary(views: ViewGeometry) -> dict[str, Any]:
    """Return what a person wants to know of a geometry, as plain data: the same in ``inspect --json`` and ``run.json``."""
    grid, diverging = recommended_grid(views), not views.is_parallel
    low, high = _seen_along_axis_mm(views)
    sid, sdd, magnification = (
        float(np.median(one)) for one in (views.source_isocentre_mm, views.source_detector_mm, views.magnification)
    )
    beam = beam_of(views)
    return {
        "beam": beam,
        "views": len(views),
        "arc_deg": round(float(np.degrees(_turned_rad(views) if beam == "helical" else covered_arc_rad(views))), 3),
        "source_isocentre_mm": sid if diverging else None,
        "source_detector_mm": sdd if diverging else None,
        "magnification": magnification,
        "detector": list(views.detector.shape),
        "pixel_mm": list(views.detector.pitch_mm),
        "curve_radius_mm": views.detector.curve_radius_mm,
        "offset_mm": [float(v) for v in np.median(views.piercing_mm, axis=0)],
        "isocentre_lps_mm": [float(v) for v in views.isocentre],
        "field_of_view_mm": {"radius": field_of_view_radius_mm(views), "low_z": low, "high_z": high},
        "recommended_spacing_mm": recommended_spacing_mm(views),
        "recommended_shape": list(grid.shape),
        "memory_bytes": estimated_memory_bytes(prod(grid.shape), prod(views.shape)),
    }


def beam_of(views: ViewGeometry) -> str:
    """Name the kind of beam: parallel, fan, cone or helical."""
    if views.is_parallel:
        return "parallel"
    along = np.asarray(views.sources_lps_mm) @ views.axis
    row_mm = views.detector.pitch_mm[0] / float(np.median(views.magnification))
    if len(views) > 2 and np.ptp(along) > max(row_mm, 1e-3) * 2:
        return "helical"
    return "fan" if views.detector.shape[0] == 1 else "cone"


def judge_field_of_view(views: ViewGeometry, grid: Grid) -> tuple[Finding, ...]:
    """Find out whether the views see the grid: refused where none of it is seen, a warning where views are missing.

    Corners, edges' middles, faces' middles and the centre of the grid stand for the whole of it.
    """
    steps = [np.array([0, (n - 1) / 2, n - 1]) for n in grid.shape]
    points = grid.to_lps(np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3))
    column, row, depth = views.project(points)
    rows, columns = views.detector.shape
    seen = (np.abs(column - (columns - 1) / 2) <= columns / 2) & (np.abs(row - (rows - 1) / 2) <= rows / 2)
    if not views.is_parallel:
        seen &= depth > 0
    share = float(seen.mean())
    numbers = {"seen_share": share}
    if share == 0:
        fact = "none of the grid's corners, middles and centre is seen by any view"
        hint = "Are grid and scanner in the same frame, and both in millimetres?"
        return (Finding("PRJ-FOV", Verdict.REFUSED, fact, numbers, hint=hint),)
    if not seen[:, len(points) // 2].any():
        fact = "the centre of the grid is seen by no view"
        return (Finding("PRJ-FOV", Verdict.WARN, fact, numbers),)
    return ()


def _turned_rad(views: ViewGeometry) -> float:
    """How far a helix turns, over all its turns, the last step included."""
    return float(np.ptp(np.unwrap(views.angles_rad))) * len(views) / max(len(views) - 1, 1)


def _seen_along_axis_mm(views: ViewGeometry) -> tuple[float, float]:
    """Lowest and highest z, at the isocentre's depth, of the detector's lower and upper edge."""
    half = views.detector.size_mm[0] / 2
    edges = np.stack([views.centres_lps_mm - half * views.v, views.centres_lps_mm + half * views.v])
    z: Float64 = edges[:, :, 2]
    if views.sources_lps_mm is not None:
        z = views.sources_lps_mm[:, 2] + (z - views.sources_lps_mm[:, 2]) / views.magnification
    return float(z.min()), float(z.max())


def _spacing(views: ViewGeometry, wanted: float | tuple[float, float, float] | None) -> Float64:
    """Spacing (slice, row, column), checked."""
    given = np.asarray(recommended_spacing_mm(views) if wanted is None else wanted, dtype=np.float64)
    if given.shape not in ((), (3,)) or not (np.isfinite(given).all() and given.min() > 0):
        raise UsageError("GRID-SPACING", f"the voxel spacing must be one or three positive numbers, not {wanted}")
    return np.broadcast_to(given, 3).astype(np.float64)


def _sorted(region: Region) -> Region:
    """Two opposite corners as the lowest and the highest one."""
    low, high = np.sort(np.asarray(region, dtype=np.float64), axis=0).tolist()
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
