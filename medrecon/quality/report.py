"""Writes the report: one page that opens offline and tells a clinician how far to trust a volume.

The page carries its pictures and its style within itself, loads nothing and runs no script. It holds numbers, findings
and pictures; no text of a header ever enters it. What it says is what ``run.json`` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from medrecon.core.findings import Finding, Verdict
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.volume import Quantity, Volume
from medrecon.quality import pictures, shading
from medrecon.quality.pictures import Tile

if TYPE_CHECKING:
    from medrecon.result import Result

_TILE_PX, _HERO_PX, _SLICE_PX, _SURFACE_PX = 360, 620, 240, 360
_PER_PLANE, _RESIDUAL_SLICES, _DRAWN_SURFACES = 4, 6, 2
_BAR_MM = 50
_LEAST_RESIDUAL_SHARE = 0.002  # of the window: what is smaller stays dark, for no eye sees it in the picture either

#: Not seen, interpolated, measured: colours that also differ for the colour-blind and in print.
COVERAGE_COLOURS = ((96, 104, 122), (236, 158, 48), (38, 140, 170))
COVERAGE_NAMES = ("not seen", "interpolated", "measured")
_UNITS = {Quantity.HOUNSFIELD: "HU", Quantity.ATTENUATION_PER_MM: "per mm", Quantity.ARBITRARY: "grey levels"}
_UNIT_WORDS = {
    "mm": "mm",
    "mm2": "mm²",
    "cm2": "cm²",
    "mm3": "mm³",
    "ml": "mL",
    "deg": "°",
    "percent": "%",
    "hu": "HU",
    "s": "s",
    "db": "dB",
}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as the page holds it.

    Parameters
    ----------
    uri : str
        The picture itself, as a data URI.
    tile : Tile
    alt : str
        What it shows, for those who cannot see it.
    """

    uri: str
    tile: Tile
    alt: str

    @property
    def bar_percent(self) -> float:
        """Width of the scale bar, in percent of the picture's width."""
        return 100 * _BAR_MM / (self.tile.width_px * self.tile.mm_per_pixel)


@dataclass(frozen=True, slots=True)
class Row:
    """One plane of the volume: its pictures as measured and as reconstructed, in the same order."""

    plane: str
    before: tuple[Shown, ...]
    after: tuple[Shown, ...]


def render(result: Result) -> str:
    """Return the report of a result as one HTML page.

    Parameters
    ----------
    result : Result

    Returns
    -------
    str
        Self-contained HTML, below 5 MB.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medrecon.quality"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    return environment.get_template("report.html.j2").render(_content(result))


def number(value: object, digits: int = 3) -> str:
    """Write a number for people: some significant digits, thin spaces between thousands, a true minus sign."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return ", ".join(_short(item) for item in value) if isinstance(value, list | tuple) else str(value)
    if not math.isfinite(value):
        return "not a number"
    if value == 0:
        return "0"
    if isinstance(value, int) or abs(value) >= 10**digits:
        text = f"{round(value):,}".replace(",", "\u202f")
    elif abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    else:
        text = f"{float(f'{value:.{digits}g}'):.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "\u2212")


def _short(value: object) -> str:
    """Write one number of a list: two decimals say where something is and how long."""
    return number(round(value, 2), 9) if isinstance(value, float) else number(value)


def _content(result: Result) -> dict[str, Any]:
    """Everything that the template shows, as plain values."""
    scan, volume, quality = result.scan, result.volume, result.quality
    unit, window = _UNITS[scan.quantity], pictures.window_of(scan)
    data = result.as_json()
    return {
        "label": data["label"],
        "verdict": str(result.verdict),
        "summary": _summary(result.verdict, result.all_findings),
        "findings": [_finding(finding, scan.allowed) for finding in result.all_findings],
        "heading": _heading(scan, volume),
        "tiles": _key_figures(result, unit),
        "hero": _hero(scan, volume, window),
        "rows": [_row(scan, volume, plane, window) for plane in pictures.PLANES],
        "window": f"{number(float(window.low))} to {number(float(window.high))} {unit}",
        "bar_mm": _BAR_MM,
        "scan_facts": _scan_facts(scan, unit),
        "volume_facts": _volume_facts(volume),
        "residual": _residual(result, window, unit),
        "coverage": _coverage(result, window),
        "surfaces": [_surface(surface, k) for k, surface in enumerate(result.surfaces)],
        "metrics": _metrics(result.metrics),
        "methods_text": _methods_text(result, unit),
        "provenance": data["provenance"],
        "started": str(data["provenance"]["started_utc"])[:16].replace("T", " ") + " UTC",
        "config_yaml": yaml.safe_dump(data["provenance"]["config"], sort_keys=False, allow_unicode=True),
        "stages": _stages(data["provenance"]["seconds"]),
        "quality_numbers": quality,
        "unit": unit,
    }


def _summary(verdict: Verdict, findings: Sequence[Finding]) -> str:
    if verdict is Verdict.OK:
        return "Nothing was found that speaks against using this volume." if findings else "Nothing unusual was found."
    count = sum(finding.verdict is not Verdict.OK for finding in findings)
    things = "one finding" if count == 1 else f"{count} findings"
    if verdict is Verdict.WARN:
        return f"The volume can be used with care: {things} below."
    return f"The volume must not be relied on: {things} below."


def _finding(finding: Finding, allowed: Iterable[str]) -> dict[str, Any]:
    """One finding with its numbers in words."""
    return finding.as_json() | {
        "word": "note" if finding.verdict is Verdict.OK else str(finding.verdict),
        "numbers": [(_words(key), number(value, 4)) for key, value in finding.numbers.items()],
        "is_allowed": bool(finding.allow) and finding.allow in tuple(allowed),
    }


def _words(key: str) -> str:
    """Turn ``largest_step_mm`` into ``largest step, mm``."""
    stem, _, last = key.rpartition("_")
    words = f"{stem.replace('_', ' ')}, {_UNIT_WORDS[last]}" if stem and last in _UNIT_WORDS else key.replace("_", " ")
    return words.replace(" lps", " LPS")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _heading(scan: SliceScan, volume: Volume) -> str:
    rows, columns = scan.poses.image_shape
    modality = scan.source.modality or "Images"
    return f"{modality} · {len(scan.poses)} slices of {rows} × {columns} pixels → {_shape(volume)} voxels of {_spacing(volume)}"


def _shape(volume: Volume) -> str:
    return " × ".join(str(n) for n in volume.grid.shape)


def _spacing(volume: Volume) -> str:
    spacing = volume.spacing_mm
    if max(spacing) - min(spacing) < 1e-3 * max(spacing):
        return f"{number(spacing[0])} mm"
    return " × ".join(number(s) for s in spacing) + " mm"


def _key_figures(result: Result, unit: str) -> list[tuple[str, str, str]]:
    """Choose the few numbers that stand at the top: value, name, explanation."""
    quality, thickness = result.quality, float(np.median(result.scan.poses.thickness_mm))
    figures = [
        (f"{number(thickness)} → {number(max(result.volume.spacing_mm))} mm", "slice thickness → voxel", "through the slices"),
        (
            f"{number(100 * float(quality.residual), 2)} %",
            "residual",
            f"{number(float(quality.residual_rms))} {unit} root mean square",
        ),
        (f"{number(100 * float(quality.measured_share))} %", "measured", "of all voxels lie within a slice"),
    ]
    psnr, cubic = result.metrics.get("psnr_db"), result.metrics.get("cubic_psnr_db")
    if psnr is not None:
        gain = f"{number(psnr - cubic, 2)} dB above cubic interpolation" if cubic is not None else "against the known truth"
        figures.append((f"{psnr:.2f} dB", "PSNR", gain))
    else:
        figures.append(
            (f"{number(sum(result.provenance.seconds.values()))} s", "computing time", result.provenance.device.partition(" ")[0])
        )
    return figures


def _hero(scan: SliceScan, volume: Volume, window: pictures.Window) -> tuple[Shown, Shown]:
    """Show the middle of the plane that cuts across the slices, as measured and as reconstructed."""
    directions, normal = volume.grid.directions, scan.poses.normals[0]
    views = [pictures.view_of(directions, plane) for plane in ("sagittal", "coronal", "axial")]
    view = next(v for v in views if abs(directions[:, v.axes[0]] @ normal) < 0.7)
    index = pictures.positions(volume, view, window, 1)[0]
    scale = pictures.scale_for(volume.grid, _HERO_PX)
    before = pictures.measured(scan, volume.grid, view, index, window, scale)
    after = pictures.reconstructed(volume, view, index, window, scale)
    return _grey(before, f"{view.plane} plane as measured"), _grey(after, f"{view.plane} plane as reconstructed")


def _row(scan: SliceScan, volume: Volume, plane: pictures.Plane, window: pictures.Window) -> Row:
    view = pictures.view_of(volume.grid.directions, plane)
    scale = pictures.scale_for(volume.grid, _TILE_PX)
    chosen = [pictures.within_a_slice(scan, volume.grid, view, k) for k in pictures.positions(volume, view, window, _PER_PLANE)]
    before = [pictures.measured(scan, volume.grid, view, k, window, scale) for k in chosen]
    after = [pictures.reconstructed(volume, view, k, window, scale) for k in chosen]
    return Row(
        plane,
        tuple(_grey(tile, f"{plane} plane as measured") for tile in before),
        tuple(_grey(tile, f"{plane} plane as reconstructed") for tile in after),
    )


def _grey(tile: Tile, what: str) -> Shown:
    return Shown(pictures.data_uri(pictures.jpeg(tile.image)), tile, f"{what}, {tile.label}")


def _residual(result: Result, window: pictures.Window, unit: str) -> dict[str, Any]:
    """Pictures of what the measured slices and the re-sliced volume differ by, and their common scale."""
    values, poses = np.nan_to_num(np.asarray(result.quality.residual_map, dtype=np.float32)), result.scan.poses
    limit = _nice(max(float(np.percentile(np.abs(values), 99.8)), _LEAST_RESIDUAL_SHARE * (window.high - window.low)))
    count = min(_RESIDUAL_SLICES, len(poses))
    chosen = np.unique(
        np.linspace(0, len(poses) - 1, count + 2).round().astype(int)[1:-1] if len(poses) > count else np.arange(count)
    )
    rows, columns = (n * s for n, s in zip(poses.image_shape, poses.pixel_spacing_mm[0], strict=True))
    scale, colours = max(rows, columns) / _SLICE_PX, pictures.diverging()
    tiles = [pictures.of_slice(values[k], poses, int(k), scale, colours, limit) for k in chosen]
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours[:: len(colours) // 8])
    return {
        "tiles": [Shown(pictures.data_uri(pictures.jpeg(t.image)), t, f"residual of {t.label}") for t in tiles],
        "limit": f"{number(limit)} {unit}",
        "gradient": f"linear-gradient(to right, {stops})",
    }


def _nice(value: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def _coverage(result: Result, window: pictures.Window) -> dict[str, Any]:
    """Pictures of what was measured, interpolated and never seen, and the share of each."""
    volume, quality = result.volume, result.quality
    scale = pictures.scale_for(volume.grid, _TILE_PX)
    tiles = []
    for plane in pictures.PLANES:
        view = pictures.view_of(volume.grid.directions, plane)
        index = pictures.positions(volume, view, window, 1)[0]
        behind = pictures.reconstructed(volume, view, index, window, scale)
        tile = pictures.coloured(quality.coverage, COVERAGE_COLOURS, volume.grid, view, index, behind)
        tiles.append(Shown(pictures.data_uri(pictures.jpeg(tile.image)), tile, f"coverage of the {plane} plane, {tile.label}"))
    shares = (quality.unseen_share, quality.interpolated_share, quality.measured_share)
    parts = [
        {"name": name, "percent": 100 * float(share), "colour": "rgb({} {} {})".format(*colour)}
        for name, share, colour in zip(COVERAGE_NAMES, shares, COVERAGE_COLOURS, strict=True)
    ]
    return {"tiles": tiles, "parts": parts[::-1]}


def _surface(surface: Any, k: int) -> dict[str, Any]:  # noqa: ANN401
    """Pictures and measures of one surface."""
    drawn = shading.draw(surface, size_px=_SURFACE_PX) if k < _DRAWN_SURFACES and len(surface.triangles) else []
    return {
        "name": surface.name,
        "tiles": [Shown(pictures.data_uri(pictures.png(t.image)), t, f"surface {surface.name}, {t.label} view") for t in drawn],
        "measures": [(_capital(_words(key)), number(value, 4)) for key, value in surface.measures.items()],
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
        ("Slice thickness", f"{_range(poses.thickness_mm)} mm"),
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
        ("Spacing", f"{_range(steps)} mm along the normal"),
        (word, f"{_range(np.abs(gaps))} mm" if abs(gap) >= 0.01 else "none"),
        ("Gantry tilt", f"{number(tilt)}°" if tilt >= 0.05 else "none"),
    ]


def _range(values: Any) -> str:  # noqa: ANN401
    """One number where all agree to a hundredth, else the smallest and the largest."""
    low, high = float(np.min(values)), float(np.max(values))
    return number(float(np.median(values))) if high - low < 0.01 else f"{number(low)} to {number(high)}"


def _volume_facts(volume: Volume) -> list[tuple[str, str]]:
    """Say what came out, as name and value."""
    size = (n * s for n, s in zip(volume.grid.shape, volume.spacing_mm, strict=True))
    directions = volume.grid.directions
    axes = ", ".join(f"{pictures.letter(-direction)}→{pictures.letter(direction)}" for direction in directions.T)
    oblique = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0).min(), 0, 1))))
    return [
        ("Voxels", _shape(volume)),
        ("Voxel size", _spacing(volume)),
        ("Extent", " × ".join(number(float(v)) for v in size) + " mm"),
        ("Axes", axes + (f", {number(oblique, 2)}° oblique" if oblique >= 0.05 else "")),
        ("Values", f"{number(float(volume.voxels.min()))} to {number(float(volume.voxels.max()))} {_UNITS[volume.quantity]}"),
    ]


def _metrics(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Comparison with a known truth, as name and value."""
    names = {
        "psnr_db": "PSNR of this volume, dB",
        "cubic_psnr_db": "PSNR of cubic interpolation, dB",
        "ssim": "SSIM of this volume",
        "cubic_ssim": "SSIM of cubic interpolation",
        "range": "Range that the PSNR refers to",
    }
    ordered = [*(key for key in names if key in metrics), *(key for key in metrics if key not in names)]
    return [(names.get(key, _words(key)), number(float(metrics[key]), 4)) for key in ordered]


def _stages(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(seconds.values()) or 1.0
    return [{"name": name, "seconds": value, "percent": 100 * value / total} for name, value in seconds.items()]


def _methods_text(result: Result, unit: str) -> list[str]:
    """Paragraphs to copy into a methods section."""
    scan, quality, provenance, poses = result.scan, result.quality, result.provenance, result.scan.poses
    version = provenance.versions.get("medrecon", "")
    what = (
        f"{len(poses)} slices ({_range(poses.thickness_mm)} mm thick) were reconstructed to a volume of {_shape(result.volume)} "
        f"voxels of {_spacing(result.volume)} with medrecon {version}, method {provenance.method}: {provenance.citation}"
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
