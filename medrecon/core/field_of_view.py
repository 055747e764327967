"""What a geometry of views can see: its field of view, and the grid that fits it."""

from __future__ import annotations

import numpy as np

from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Float64, Grid
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


def recommended_grid(views: ViewGeometry, spacing_mm: float | None = None) -> Grid:
    """Return an isotropic grid along the patient's axes that holds the field of view.

    Parameters
    ----------
    views : ViewGeometry
    spacing_mm : float, optional
        `recommended_spacing_mm` where not given.
    """
    spacing = recommended_spacing_mm(views) if spacing_mm is None else float(spacing_mm)
    across = max(1, round(2 * field_of_view_radius_mm(views) / spacing))
    low, high = _seen_along_axis_mm(views)
    along = max(1, round((high - low) / spacing))
    centre = np.array([views.isocentre[0], views.isocentre[1], (low + high) / 2])
    origin = centre - (np.array([across, across, along]) - 1) / 2 * spacing
    return Grid.from_parts((along, across, across), (spacing, spacing, spacing), origin)


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


def _seen_along_axis_mm(views: ViewGeometry) -> tuple[float, float]:
    """Lowest and highest z, at the isocentre's depth, of the detector's lower and upper edge."""
    half = views.detector.size_mm[0] / 2
    edges = np.stack([views.centres_lps_mm - half * views.v, views.centres_lps_mm + half * views.v])
    z: Float64 = edges[:, :, 2]
    if views.sources_lps_mm is not None:
        z = views.sources_lps_mm[:, 2] + (z - views.sources_lps_mm[:, 2]) / views.magnification
    return float(z.min()), float(z.max())
