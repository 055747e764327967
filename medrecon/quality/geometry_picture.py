"""A picture of source, detector and volume, to be looked at before a reconstruction.

Two drawings side by side, in SVG: seen from the feet (patient's right on the left side, front at the top), and seen
from the patient's left (front on the left side, head at the top).
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np

from medrecon.core.field_of_view import field_of_view_radius_mm
from medrecon.core.grid import Float64, Grid
from medrecon.core.projections import covered_arc_rad
from medrecon.core.views import ViewGeometry

_SIDE, _MARGIN = 360, 46
#: Which LPS axes point right and up on paper, and with which sign.
_DRAWINGS = {
    "seen from the feet": ((0, 1.0), (1, -1.0), ("right", "left", "front", "back")),
    "seen from the left": ((1, 1.0), (2, 1.0), ("front", "back", "head", "feet")),
}
_DETECTORS_DRAWN, _VIEWS_FITTED, _STEPS = 12, 90, 25
_ORANGE, _BLUE, _RED = "#d9850f", "#2f7fb5", "#d1433a"
#: Of the page that the picture stands in, where there is one.
_INK, _SOFT = "var(--ink, #1c1d21)", "var(--soft, #6a6d76)"


def geometry_picture(views: ViewGeometry, grid: Grid | None = None, patient_position: str = "HFS (assumed)") -> str:
    """Draw the scan.

    Parameters
    ----------
    views : ViewGeometry
    grid : Grid, optional
        The volume to be reconstructed.
    patient_position : str
        How the patient is taken to lie, such as ``HFS``; written into the picture.

    Returns
    -------
    str
        An SVG document of 720 x 430 pixels without any text from a file.
    """
    width, height = 2 * _SIDE, _SIDE + 70
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    look = 'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="Geometry of the scan"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {look}>',
        f'<rect width="{width}" height="{height}" style="fill: var(--paper, #ffffff)"/>',
    ]
    for k, (title, (right, up, names)) in enumerate(_DRAWINGS.items()):
        parts += _drawing(_Paper(views, grid, right, up, k * _SIDE), title, names)
    lines = enumerate(_words(views, patient_position))
    parts += [f'<text x="12" y="{_SIDE + 24 + 17 * k}" style="fill: {_SOFT}">{line}</text>' for k, line in lines]
    return "\n".join([*parts, "</svg>"])


class _Paper:
    """One drawing: what is drawn, and where points of the patient fall on the paper."""

    def __init__(
        self, views: ViewGeometry, grid: Grid | None, right: tuple[int, float], up: tuple[int, float], left_px: int
    ) -> None:
        self.views, self.grid, self.left_px, self._axes = views, grid, left_px, (right, up)
        some = np.unique(np.linspace(0, len(views) - 1, min(len(views), _VIEWS_FITTED)).astype(int))
        seen = [*self.detectors(some), self.sources()] + ([] if grid is None else [grid.corners_lps_mm()])
        flat = self._flat(np.concatenate(seen))
        low, high = flat.min(axis=0), flat.max(axis=0)
        self._centre, self._scale = (low + high) / 2, (_SIDE - 2 * _MARGIN) / max(float((high - low).max()), 1e-6)

    def at(self, points_lps_mm: Float64) -> str:
        """Points (n, 3) as the coordinates of a polyline."""
        x, y = ((self._flat(points_lps_mm) - self._centre) * self._scale).T
        return " ".join(f"{self.left_px + _SIDE / 2 + a:.1f},{_SIDE / 2 - b:.1f}" for a, b in zip(x, y, strict=True))

    def sources(self) -> Float64:
        """Where the X-rays come from; for a parallel beam, as far in front of the axis as the detector is wide."""
        if self.views.sources_lps_mm is not None:
            return self.views.sources_lps_mm
        return self.views.isocentre - self.views.detector.size_mm[1] * np.asarray(self.views.ray_directions)

    def detectors(self, which: np.ndarray) -> Iterator[Float64]:
        """Outline of the detector in some views, each (n, 3); the first point and the middle one are the ends of a row."""
        rows, columns = self.views.detector.shape
        along = np.linspace(-0.5, columns - 0.5, _STEPS if self.views.is_curved else 2)
        row = np.concatenate([np.full(len(along), -0.5), np.full(len(along), rows - 0.5), [-0.5]])
        column = np.concatenate([along, along[::-1], [-0.5]])
        return (self.views.pixel_lps_mm(int(view), row, column) for view in which)

    def _flat(self, points: Float64) -> Float64:
        flat: Float64 = np.stack([sign * points[:, axis] for axis, sign in self._axes], axis=1)
        return flat


def _drawing(paper: _Paper, title: str, names: tuple[str, str, str, str]) -> Iterator[str]:
    """Yield the elements of one drawing: volume, detectors, path of the source, first view, names of the sides."""
    views, sources = paper.views, paper.sources()
    if paper.grid is not None:
        for loop in _box(paper.grid):
            yield f'<polyline points="{paper.at(loop)}" fill="{_BLUE}" fill-opacity="0.08" stroke="{_BLUE}" stroke-width="1.2"/>'
    yield f'<polyline points="{paper.at(_field_of_view(views))}" fill="none" stroke="{_BLUE}" stroke-dasharray="4 3"/>'
    some = np.unique(np.linspace(0, len(views) - 1, min(len(views), _DETECTORS_DRAWN)).astype(int))
    for outline in paper.detectors(some):
        yield f'<polyline points="{paper.at(outline)}" fill="none" stroke="#9aa0aa" stroke-opacity="0.55" stroke-width="0.8"/>'
    yield f'<polyline points="{paper.at(sources)}" fill="none" stroke="{_ORANGE}" stroke-opacity="0.7" stroke-dasharray="2 3"/>'
    first = next(paper.detectors(np.array([0])))
    half = (len(first) - 1) // 2
    for a, b in ((0, half - 1), (half, len(first) - 2), (0, len(first) - 2), (half - 1, half)):
        beam = paper.at(np.stack([sources[0], first[a], first[b]]))
        yield f'<polygon points="{beam}" fill="{_ORANGE}" fill-opacity="0.07" stroke="{_ORANGE}" stroke-width="0.7"/>'
    yield f'<polyline points="{paper.at(first)}" fill="#7b818c" fill-opacity="0.35" stroke="#5d636e" stroke-width="2"/>'
    yield from _arrow(paper.at(sources[: max(2, len(sources) // 9)]))
    for point, colour, name in ((sources[0], _ORANGE, "first source"), (views.isocentre, _RED, "isocentre")):
        x, y = paper.at(point[None]).split(",")
        yield f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{name}</title></circle>'
    middle = paper.left_px + _SIDE / 2
    yield f'<text x="{middle}" y="{_SIDE - 2}" text-anchor="middle" style="fill: {_SOFT}">{title}</text>'
    places = (
        (8 - _SIDE / 2, _SIDE / 2, "start"),
        (_SIDE / 2 - 8, _SIDE / 2, "end"),
        (0, 14, "middle"),
        (0, _SIDE - 18, "middle"),
    )
    for (x_px, y_px, anchor), name in zip(places, names, strict=True):
        yield f'<text x="{middle + x_px}" y="{y_px}" text-anchor="{anchor}" style="fill: {_INK}" font-weight="600">{name}</text>'


def _field_of_view(views: ViewGeometry) -> Float64:
    """Circle about the axis that every turn sees, (n, 3)."""
    least = np.eye(3)[int(np.argmin(np.abs(views.axis)))]
    across = np.cross(views.axis, least)
    across /= np.linalg.norm(across)
    angle = np.linspace(0, 2 * np.pi, 2 * _STEPS)[:, None]
    circle = np.cos(angle) * across + np.sin(angle) * np.cross(views.axis, across)
    return np.asarray(views.isocentre + field_of_view_radius_mm(views) * circle)


def _arrow(points: str) -> Iterator[str]:
    """Draw the way that the source takes first, with a head at its end."""
    yield f'<polyline points="{points}" fill="none" stroke="{_ORANGE}" stroke-width="2"/>'
    (ax, ay), (bx, by) = (tuple(map(float, p.split(","))) for p in points.split()[-2:])
    length = float(np.hypot(bx - ax, by - ay))
    if length < 1e-3:
        return
    x, y = (bx - ax) / length, (by - ay) / length
    tips = [(bx + 7 * x, by + 7 * y), (bx - 4 * y, by + 4 * x), (bx + 4 * y, by - 4 * x)]
    yield f'<polygon points="{" ".join(f"{p:.1f},{q:.1f}" for p, q in tips)}" fill="{_ORANGE}"/>'


def _box(grid: Grid) -> Iterator[Float64]:
    """Yield the six faces of a grid as closed loops, at the outer edges of its voxels."""
    low, high = np.full(3, -0.5), np.asarray(grid.shape) - 0.5
    for axis in range(3):
        a, b = (k for k in range(3) if k != axis)
        for end in (low, high):
            loop = np.tile(end, (5, 1))
            loop[:, a], loop[:, b] = (low[a], high[a], high[a], low[a], low[a]), (low[b], low[b], high[b], high[b], low[b])
            yield grid.to_lps(loop)


def _words(views: ViewGeometry, patient_position: str) -> Iterator[str]:
    """Yield what the drawing cannot say, in three lines."""
    beam, shape = "parallel" if views.is_parallel else "diverging", "curved" if views.is_curved else "flat"
    (rows, columns), (row_mm, column_mm) = views.detector.shape, views.detector.pitch_mm
    panel = f"{shape} detector of {rows} x {columns} pixels of {row_mm:.4g} x {column_mm:.4g} mm"
    yield f"{len(views)} views over {np.degrees(covered_arc_rad(views)):.1f} degrees, {beam} beam, {panel}"
    radius, lies = f"{field_of_view_radius_mm(views):.1f} mm", f"patient position {escape(patient_position)}"
    sid, sdd = (np.median(distances) for distances in (views.source_isocentre_mm, views.source_detector_mm))
    distances = "" if views.is_parallel else f"source to axis {sid:.1f} mm, to detector {sdd:.1f} mm; "
    yield f"{distances}field of view radius {radius}; {lies}"
    yield "Orange: the source's path, its start, the first view. Blue: volume, field of view. Red: isocentre."
