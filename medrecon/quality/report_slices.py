"""The part of a report that shows slices: as measured and as reconstructed, side by side at the same places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.volume import Volume
from medrecon.quality import pictures
from medrecon.quality.report_parts import (
    HERO_PX,
    PER_PLANE,
    SLICE_PX,
    TILE_PX,
    UNITS,
    Shown,
    grey,
    last_figure,
    nice,
    number,
    range_words,
    shape_words,
    spacing_words,
)

if TYPE_CHECKING:
    from medrecon.result import Result

TEMPLATE = "slices.html.j2"
COVERAGE_NAMES = ("not seen", "interpolated", "measured")
_RESIDUAL_SLICES = 6
_LEAST_RESIDUAL_SHARE = 0.002  # of the window: what is smaller stays dark, for no eye sees it in the picture either


@dataclass(frozen=True, slots=True)
class Row:
    """One plane of the volume: its pictures as measured and as reconstructed, in the same order."""

    plane: str
    before: tuple[Shown, ...]
    after: tuple[Shown, ...]


def content(result: Result, scan: SliceScan) -> dict[str, Any]:
    """Return what the template of slices shows."""
    volume, unit, window = result.volume, UNITS[scan.quantity], pictures.window_of(scan)
    return {
        "heading": _heading(scan, volume),
        "tiles": _key_figures(result, scan, unit),
        "hero": _hero(scan, volume, window),
        "rows": [_row(scan, volume, plane, window) for plane in pictures.PLANES],
        "scan_facts": _scan_facts(scan, unit),
        "residual": _residual(result, scan, window, unit),
        "methods_text": _methods_text(result, scan, unit),
    }


def _heading(scan: SliceScan, volume: Volume) -> str:
    rows, columns = scan.poses.image_shape
    modality = scan.source.modality or "Images"
    slices = f"{modality} · {len(scan.poses)} slices of {rows} × {columns} pixels"
    return f"{slices} → {shape_words(volume)} voxels of {spacing_words(volume)}"


def _key_figures(result: Result, scan: SliceScan, unit: str) -> list[tuple[str, str, str]]:
    """Choose the few numbers that stand at the top: value, name, explanation."""
    quality, thickness = result.quality, float(np.median(scan.poses.thickness_mm))
    figures = [
        (f"{number(thickness)} → {number(max(result.volume.spacing_mm))} mm", "slice thickness → voxel", "through the slices"),
        (
            f"{number(100 * float(quality.residual), 2)} %",
            "residual",
            f"{number(float(quality.residual_rms))} {unit} root mean square",
        ),
        (f"{number(100 * float(quality.measured_share))} %", "measured", "of all voxels lie within a slice"),
    ]
    return [*figures, last_figure(result.metrics, result.provenance, "cubic", "cubic interpolation")]


def _hero(scan: SliceScan, volume: Volume, window: pictures.Window) -> tuple[Shown, Shown]:
    """Show the middle of the plane that cuts across the slices, as measured and as reconstructed."""
    directions, normal = volume.grid.directions, scan.poses.normals[0]
    views = [pictures.view_of(directions, plane) for plane in ("sagittal", "coronal", "axial")]
    view = next(v for v in views if abs(directions[:, v.axes[0]] @ normal) < 0.7)
    index = pictures.positions(volume, view, window, 1)[0]
    scale = pictures.scale_for(volume.grid, HERO_PX)
    before = pictures.measured(scan, volume.grid, view, index, window, scale)
    after = pictures.reconstructed(volume, view, index, window, scale)
    return grey(before, f"{view.plane} plane as measured"), grey(after, f"{view.plane} plane as reconstructed")


def _row(scan: SliceScan, volume: Volume, plane: pictures.Plane, window: pictures.Window) -> Row:
    view = pictures.view_of(volume.grid.directions, plane)
    scale = pictures.scale_for(volume.grid, TILE_PX)
    chosen = [pictures.within_a_slice(scan, volume.grid, view, k) for k in pictures.positions(volume, view, window, PER_PLANE)]
    before = [pictures.measured(scan, volume.grid, view, k, window, scale) for k in chosen]
    after = [pictures.reconstructed(volume, view, k, window, scale) for k in chosen]
    return Row(
        plane,
        tuple(grey(tile, f"{plane} plane as measured") for tile in before),
        tuple(grey(tile, f"{plane} plane as reconstructed") for tile in after),
    )


def _residual(result: Result, scan: SliceScan, window: pictures.Window, unit: str) -> dict[str, Any]:
    """Pictures of what the measured slices and the re-sliced volume differ by, and their common scale."""
    values, poses = np.nan_to_num(np.asarray(result.quality.residual_map, dtype=np.float32)), scan.poses
    limit = nice(max(float(np.percentile(np.abs(values), 99.8)), _LEAST_RESIDUAL_SHARE * (window.high - window.low)))
    count = min(_RESIDUAL_SLICES, len(poses))
    chosen = np.unique(
        np.linspace(0, len(poses) - 1, count + 2).round().astype(int)[1:-1] if len(poses) > count else np.arange(count)
    )
    rows, columns = (n * s for n, s in zip(poses.image_shape, poses.pixel_spacing_mm[0], strict=True))
    scale, colours = max(rows, columns) / SLICE_PX, pictures.diverging()
    tiles = [pictures.of_slice(values[k], poses, int(k), scale, colours, limit) for k in chosen]
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours[:: len(colours) // 8])
    return {
        "tiles": [Shown(pictures.data_uri(pictures.jpeg(t.image)), t, f"residual of {t.label}") for t in tiles],
        "limit": f"{number(limit)} {unit}",
        "gradient": f"linear-gradient(to right, {stops})",
    }


def _scan_facts(scan: SliceScan, unit: str) -> list[tuple[str, str]]:
    """Say what came in, as name and value."""
    poses = scan.poses
    row_mm, column_mm = (number(float(v)) for v in poses.pixel_spacing_mm[0])
    facts = [
        ("Modality", scan.source.modality or "not known"),
        ("Slices", f"{len(poses)}" + (f" in {len(scan.stacks())} stacks" if len(scan.stacks()) > 1 else "")),
        ("Matrix", f"{poses.image_shape[0]} × {poses.image_shape[1]} pixels"),
        ("Pixel", f"{row_mm} × {column_mm} mm"),
        ("Slice thickness", f"{range_words(poses.thickness_mm)} mm"),
        *_steps(scan.stacks()[0].poses),
        ("Slice profile", poses.profile.kind),
        ("Values", f"{number(float(scan.pixels.min()))} to {number(float(scan.pixels.max()))} {unit}"),
    ]
    if scan.measured is not None:
        facts.append(("Padding", f"{number(100 * float(1 - scan.measured.mean()))} % of the pixels are not measurements"))
    return facts


def _steps(poses: SlicePoses) -> list[tuple[str, str]]:
    """Spacing, gap and tilt of one stack."""
    if len(poses) < 2 or not poses.are_parallel:
        return [("Spacing", "every slice has its own pose")]
    steps = np.abs(np.diff(poses.depths_mm))
    gaps = steps - (poses.thickness_mm[1:] + poses.thickness_mm[:-1]) / 2
    gap = float(np.median(gaps))
    word = "Overlap" if gap < -0.01 else "Gap"
    along = np.diff(poses.to_lps_mm[:, :3, 3], axis=0)
    lengths = np.maximum(np.linalg.norm(along, axis=1), 1e-9)
    tilt = float(np.degrees(np.arccos(np.clip(np.median(steps / lengths), 0, 1))))
    return [
        ("Spacing", f"{range_words(steps)} mm along the normal"),
        (word, f"{range_words(np.abs(gaps))} mm" if abs(gap) >= 0.01 else "none"),
        ("Gantry tilt", f"{number(tilt)}°" if tilt >= 0.05 else "none"),
    ]


def _methods_text(result: Result, scan: SliceScan, unit: str) -> list[str]:
    """Paragraphs to copy into a methods section."""
    quality, provenance, poses = result.quality, result.provenance, scan.poses
    version = provenance.versions.get("medrecon", "")
    what = (
        f"{len(poses)} slices ({range_words(poses.thickness_mm)} mm thick) were reconstructed to a volume of "
        f"{shape_words(result.volume)} voxels of {spacing_words(result.volume)} with medrecon {version}, method "
        f"{provenance.method}: {provenance.citation}"
    )
    model = (
        f"Each slice was modelled at its own pose as a weighted mean of the volume over a {poses.profile.kind} slice profile "
        "whose full width at half maximum is the slice thickness. Slicing the volume again with this model returns the measured "
        f"slices within {number(float(quality.residual_rms))} {unit} root mean square "
        f"({number(100 * float(quality.residual), 2)} % of their norm)."
    )
    seen = (
        f"Of all voxels, {number(100 * float(quality.measured_share))} % were measured, "
        f"{number(100 * float(quality.interpolated_share))} % interpolated and "
        f"{number(100 * float(quality.unseen_share))} % not seen."
    )
    return [what, model, seen + (f" The scan was accepted under: {', '.join(scan.allowed)}." if scan.allowed else "")]
