"""The part of a report that shows projections: how they were taken, what was measured, and how well they come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medrecon.core.field_of_view import geometry_summary
from medrecon.core.projections import ProjectionScan
from medrecon.core.views import ViewGeometry
from medrecon.core.volume import Volume
from medrecon.quality import pictures
from medrecon.quality.assess_projections import ProjectionQuality
from medrecon.quality.geometry_picture import geometry_picture
from medrecon.quality.pictures import Sides, Tile, Window
from medrecon.quality.report_parts import (
    HERO_PX,
    PER_PLANE,
    TILE_PX,
    UNITS,
    Shown,
    grey,
    last_figure,
    nice,
    number,
    shape_words,
    spacing_words,
)

if TYPE_CHECKING:
    from medrecon.result import Result

TEMPLATE = "projections.html.j2"
COVERAGE_NAMES = ("outside the field of view", "inferred in part", "measured")
_WIDE_PX = (1000, 260)  # of the sinogram
_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'  # of a file; within a page an address that looks as if it were loaded
_FEWEST_ROWS = 8  # of a detector whose views are pictures
_BEAMS = {"cone": "Cone beam", "fan": "Fan beam", "helical": "Helical scan", "parallel": "Parallel beam"}


@dataclass(frozen=True, slots=True)
class Planes:
    """Pictures of one plane of the volume."""

    plane: str
    tiles: tuple[Shown, ...]


def content(result: Result, scan: ProjectionScan) -> dict[str, Any]:
    """Return what the template of projections shows."""
    volume, geometry = result.volume, geometry_summary(scan.views)
    window, dark = pictures.window_for(scan, volume), _window(scan.pixels)
    chosen = _spread(len(scan.views)) if scan.views.detector.shape[0] >= _FEWEST_ROWS else []
    words, left = _hero_view(scan, dark)
    return {
        "heading": _heading(geometry, volume),
        "tiles": _key_figures(result, geometry),
        "hero": (left, _middle(volume, "coronal" if chosen else "axial", window)),
        "hero_words": words,
        "geometry_svg": geometry_picture(scan.views, volume.grid).replace(_NAMESPACE, "", 1),
        "integrals": f"from {number(float(scan.pixels.min()))} to {number(float(scan.pixels.max()))}",
        "views": [_view(scan.views, k, scan.pixels[k], dark, TILE_PX) for k in chosen],
        "sinogram": _sinogram(scan.pixels, dark),
        "rows": [_planes(volume, plane, window) for plane in pictures.PLANES if _is_picture(volume, plane)],
        "scan_facts": _scan_facts(scan, geometry),
        "residual": _residual(result, scan.views),
        "methods_text": _methods_text(result, scan, geometry),
    }


def _heading(geometry: dict[str, Any], volume: Volume) -> str:
    rows, columns = geometry["detector"]
    scan = f"{_BEAMS[geometry['beam']]} · {geometry['views']} views of {rows} × {columns} pixels"
    return f"{scan} → {shape_words(volume)} voxels of {spacing_words(volume)}"


def _key_figures(result: Result, geometry: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Choose the few numbers that stand at the top: value, name, explanation."""
    quality = result.quality
    return [
        (str(geometry["views"]), "views", f"over {number(geometry['arc_deg'])}°"),
        (f"{number(100 * float(quality.residual), 2)} %", "residual", f"{number(float(quality.residual_rms))} root mean square"),
        (f"{number(100 * float(quality.measured_share))} %", "measured", "of all voxels seen from half a turn"),
        last_figure(result.metrics, result.provenance, "fdk", "filtered back projection"),
    ]


def _hero_view(scan: ProjectionScan, window: Window) -> tuple[str, Shown]:
    """Show the view that looks from the front or from behind as nearly as any; the sinogram where views are lines."""
    if scan.views.detector.shape[0] < _FEWEST_ROWS:
        return "As measured: sinogram", _sinogram(scan.pixels, window, (HERO_PX, HERO_PX))
    k = int(np.argmax(np.abs(scan.views.normals[:, 1])))
    return f"As measured: view {k + 1} of {len(scan.views)}", _view(scan.views, k, scan.pixels[k], window, HERO_PX)


def _view(views: ViewGeometry, k: int, values: NDArray[np.float32], window: Window, longest_px: int) -> Shown:
    """Show one view, head up, its columns growing to the right."""
    tile = _view_tile(views, k, window.grey(values), longest_px)
    return grey(tile, f"view {k + 1} of the projections")


def _view_tile(views: ViewGeometry, k: int, image: NDArray[np.uint8], longest_px: int, colours: Any = None) -> Tile:  # noqa: ANN401
    (rows, columns), (row_mm, column_mm) = views.detector.shape, views.detector.pitch_mm
    mm_per_pixel = max(rows * row_mm, columns * column_mm) / longest_px
    size = max(1, round(columns * column_mm / mm_per_pixel)), max(1, round(rows * row_mm / mm_per_pixel))
    upright = views.v[k, 2] >= 0
    shown = Image.fromarray(np.ascontiguousarray(image[:: -1 if upright else 1])).resize(size, Image.Resampling.BICUBIC)
    u, up = views.u[k], views.v[k] * (1 if upright else -1)
    sides = Sides(*(pictures.letter(direction) for direction in (-u, u, up, -up)))
    pixels = np.asarray(shown) if colours is None else colours[np.asarray(shown)]
    at_isocentre = mm_per_pixel / float(np.median(views.magnification))
    return Tile(pixels, sides, f"{round(float(np.degrees(views.angles_rad[k]))) % 360}°", at_isocentre)


def _sinogram(pixels: NDArray[np.float32], window: Window, size_px: tuple[int, int] = _WIDE_PX) -> Shown:
    image = window.grey(pixels[:, pixels.shape[1] // 2])
    shown = np.asarray(Image.fromarray(image).resize(size_px, Image.Resampling.BILINEAR))
    tile = Tile(shown, Sides("", "", "first view", "last view"), "", 1.0)
    return grey(tile, "sinogram of the middle row")


def _window(pixels: NDArray[np.float32]) -> Window:
    """Map the line integrals from air to all but the densest to black and white."""
    values = pixels[:: max(1, len(pixels) // 40), :: max(1, pixels.shape[1] // 128), :: max(1, pixels.shape[2] // 128)]
    high = float(np.percentile(values, 99.8))
    low = min(0.0, float(np.percentile(values, 1.0)))
    return Window(low, high if high > low else low + 1.0)


def _planes(volume: Volume, plane: pictures.Plane, window: Window) -> Planes:
    view = pictures.view_of(volume.grid.directions, plane)
    scale = pictures.scale_for(volume.grid, TILE_PX)
    count = min(PER_PLANE, volume.grid.shape[view.axes[0]])
    chosen = pictures.positions(volume, view, window, count)
    tiles = (pictures.reconstructed(volume, view, k, window, scale) for k in chosen)
    return Planes(plane, tuple(grey(tile, f"{plane} plane as reconstructed") for tile in tiles))


def _middle(volume: Volume, plane: pictures.Plane, window: Window) -> Shown:
    view = pictures.view_of(volume.grid.directions, plane)
    index = pictures.positions(volume, view, window, 1)[0]
    scale = pictures.scale_for(volume.grid, HERO_PX)
    return grey(pictures.reconstructed(volume, view, index, window, scale), f"{plane} plane as reconstructed")


def _is_picture(volume: Volume, plane: pictures.Plane) -> bool:
    """Whether a plane is more than a line: the volume of a fan beam is one slice thick."""
    axes = pictures.view_of(volume.grid.directions, plane).axes[1:]
    return all(volume.grid.shape[axis] >= _FEWEST_ROWS for axis in axes)


def _residual(result: Result, views: ViewGeometry) -> dict[str, Any]:
    """Return pictures of what the projections and the projected volume differ by, and their common scale."""
    values = np.nan_to_num(np.asarray(result.quality.residual_map, dtype=np.float32))
    limit = nice(float(np.percentile(np.abs(values[:: max(1, len(values) // 12)]), 99.8)))
    colours, quality = pictures.diverging(), result.quality
    which = quality.residual_views if isinstance(quality, ProjectionQuality) else tuple(range(len(views)))
    level = Window(-limit, limit)
    if views.detector.shape[0] >= _FEWEST_ROWS:
        tiles = [_view_tile(views, which[n], level.grey(values[n]), TILE_PX, colours) for n in _spread(len(values))]
    else:
        lines = Image.fromarray(level.grey(values[:, 0])).resize(_WIDE_PX, Image.Resampling.BILINEAR)
        tiles = [Tile(colours[np.asarray(lines)], Sides("", "", "first view", "last view"), "", 1.0)]
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours[:: len(colours) // 8])
    every = "every view" if len(which) == len(views) else f"{len(which)} of {len(views)} views"
    return {
        "tiles": [Shown(pictures.data_uri(pictures.jpeg(t.image)), t, f"residual of the view at {t.label}") for t in tiles],
        "limit": number(limit),
        "gradient": f"linear-gradient(to right, {stops})",
        "views": every,
    }


def _spread(count: int) -> list[int]:
    """Return four evenly spread numbers below `count`, the first view among them."""
    return [int(k) for k in np.unique(np.linspace(0, count, PER_PLANE, endpoint=False))]


def _scan_facts(scan: ProjectionScan, geometry: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what came in, as name and value."""
    rows, columns = geometry["detector"]
    row_mm, column_mm = geometry["pixel_mm"]
    field = geometry["field_of_view_mm"]
    distances = []
    if geometry["source_isocentre_mm"] is not None:
        distances = [
            ("Source to axis", f"{number(geometry['source_isocentre_mm'], 5)} mm"),
            ("Source to detector", f"{number(geometry['source_detector_mm'], 5)} mm"),
            ("Magnification", number(geometry["magnification"], 4)),
        ]
    facts = [
        ("Beam", _BEAMS[geometry["beam"]]),
        ("Views", f"{geometry['views']} over {number(geometry['arc_deg'], 4)}°"),
        ("Detector", f"{rows} × {columns} pixels, {'curved' if scan.views.is_curved else 'flat'}"),
        ("Pixel", f"{number(row_mm)} × {number(column_mm)} mm"),
        *distances,
        ("Field of view", f"{number(2 * field['radius'])} mm across, {number(field['high_z'] - field['low_z'])} mm long"),
        ("Line integrals", f"{number(float(scan.pixels.min()))} to {number(float(scan.pixels.max()))}"),
    ]
    if scan.measured is not None:
        facts.append(("Left out", f"{number(100 * float(1 - scan.measured.mean()))} % of the pixels are not measurements"))
    return facts


def _methods_text(result: Result, scan: ProjectionScan, geometry: dict[str, Any]) -> list[str]:
    """Paragraphs to copy into a methods section."""
    quality, provenance = result.quality, result.provenance
    rows, columns = geometry["detector"]
    version = provenance.versions.get("medrecon", "")
    what = (
        f"{geometry['views']} projections of {rows} × {columns} pixels over {number(geometry['arc_deg'])}° were reconstructed "
        f"to a volume of {shape_words(result.volume)} voxels of {spacing_words(result.volume)} with medrecon {version}, method "
        f"{provenance.method}: {provenance.citation}"
    )
    model = (
        "Line integrals through the volume, taken again along every ray, return the measured ones within "
        f"{number(float(quality.residual_rms))} root mean square ({number(100 * float(quality.residual), 2)} % of their norm). "
        f"Of all voxels, {number(100 * float(quality.measured_share))} % were seen from half a turn, "
        f"{number(100 * float(quality.interpolated_share))} % from less, {number(100 * float(quality.unseen_share))} % lie "
        "outside the field of view."
    )
    water = provenance.calibration.get("water_per_mm")
    unit = (
        f"Values are Hounsfield units with water at {number(float(water), 4)} per mm ({provenance.calibration['origin']})."
        if water is not None
        else f"Values are attenuation, {UNITS[result.volume.quantity]}, not Hounsfield units."
    )
    allowed = f" The scan was accepted under: {', '.join(scan.allowed)}." if scan.allowed else ""
    return [what, model, unit + allowed]
