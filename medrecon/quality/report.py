"""Writes the report: one page that opens offline and tells a clinician how far to trust a volume.

The page carries its pictures and its style within itself, loads nothing and runs no script. It holds numbers, findings
and pictures; no text of a header ever enters it. What it says is what ``run.json`` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from medrecon.core.findings import Finding, Verdict
from medrecon.core.projections import ProjectionScan
from medrecon.core.volume import Volume
from medrecon.quality import pictures, report_projections, report_slices, shading
from medrecon.quality.report_parts import BAR_MM, TILE_PX, UNITS, Shown, capital, number, shape_words, spacing_words, words

__all__ = ["number", "render"]

if TYPE_CHECKING:
    from medrecon.result import Result

_DRAWN_SURFACES, _SURFACE_PX = 2, 360

#: Not seen, in part, measured: colours that also differ for the colour-blind and in print.
COVERAGE_COLOURS = ((96, 104, 122), (236, 158, 48), (38, 140, 170))


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
    if isinstance(result.scan, ProjectionScan):
        own = report_projections.content(result, result.scan)
        return environment.get_template("projections.html.j2").render(_content(result, own, report_projections.COVERAGE_NAMES))
    own = report_slices.content(result, result.scan)
    return environment.get_template("slices.html.j2").render(_content(result, own, report_slices.COVERAGE_NAMES))


def _content(result: Result, own: dict[str, Any], coverage_names: Sequence[str]) -> dict[str, Any]:
    """Return everything that the template shows, as plain values: what all results have, and what is the kind's own."""
    volume, window, data = result.volume, pictures.window_for(result.scan, result.volume), result.as_json()
    unit = UNITS[volume.quantity]
    return own | {
        "label": data["label"],
        "verdict": str(result.verdict),
        "summary": _summary(result.verdict, result.all_findings),
        "findings": [_finding(finding, result.scan.allowed) for finding in result.all_findings],
        "window": f"{number(float(window.low))} to {number(float(window.high))} {unit}",
        "bar_mm": BAR_MM,
        "volume_facts": _volume_facts(volume),
        "coverage": _coverage(result, window, coverage_names),
        "surfaces": [_surface(surface, k) for k, surface in enumerate(result.surfaces)],
        "metrics": _metrics(result.metrics),
        "provenance": data["provenance"],
        "started": str(data["provenance"]["started_utc"])[:16].replace("T", " ") + " UTC",
        "config_yaml": yaml.safe_dump(data["provenance"]["config"], sort_keys=False, allow_unicode=True),
        "stages": _stages(data["provenance"]["seconds"]),
        "quality_numbers": result.quality,
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
        "numbers": [(words(key), number(value, 4)) for key, value in finding.numbers.items()],
        "is_allowed": bool(finding.allow) and finding.allow in tuple(allowed),
    }


def _coverage(result: Result, window: pictures.Window, names: Sequence[str]) -> dict[str, Any]:
    """Return pictures of what was measured, inferred and never seen, and the share of each."""
    volume, quality = result.volume, result.quality
    scale = pictures.scale_for(volume.grid, TILE_PX)
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
        for name, share, colour in zip(names, shares, COVERAGE_COLOURS, strict=True)
    ]
    return {"tiles": tiles, "parts": parts[::-1]}


def _surface(surface: Any, k: int) -> dict[str, Any]:  # noqa: ANN401
    """Pictures and measures of one surface."""
    drawn = shading.draw(surface, size_px=_SURFACE_PX) if k < _DRAWN_SURFACES and len(surface.triangles) else []
    return {
        "name": surface.name,
        "tiles": [Shown(pictures.data_uri(pictures.png(t.image)), t, f"surface {surface.name}, {t.label} view") for t in drawn],
        "measures": [(capital(words(key)), number(value, 4)) for key, value in surface.measures.items()],
    }


def _volume_facts(volume: Volume) -> list[tuple[str, str]]:
    """Say what came out, as name and value."""
    size = (n * s for n, s in zip(volume.grid.shape, volume.spacing_mm, strict=True))
    directions = volume.grid.directions
    axes = ", ".join(f"{pictures.letter(-direction)}→{pictures.letter(direction)}" for direction in directions.T)
    oblique = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0).min(), 0, 1))))
    return [
        ("Voxels", shape_words(volume)),
        ("Voxel size", spacing_words(volume)),
        ("Extent", " × ".join(number(float(v)) for v in size) + " mm"),
        ("Axes", axes + (f", {number(oblique, 2)}° oblique" if oblique >= 0.05 else "")),
        ("Values", f"{number(float(volume.voxels.min()))} to {number(float(volume.voxels.max()))} {UNITS[volume.quantity]}"),
    ]


def _metrics(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Comparison with a known truth, as name and value."""
    names = {
        "psnr_db": "PSNR of this volume, dB",
        "cubic_psnr_db": "PSNR of cubic interpolation, dB",
        "fdk_psnr_db": "PSNR of filtered back projection, dB",
        "ssim": "SSIM of this volume",
        "cubic_ssim": "SSIM of cubic interpolation",
        "fdk_ssim": "SSIM of filtered back projection",
        "range": "Range that the PSNR refers to",
    }
    ordered = [*(key for key in names if key in metrics), *(key for key in metrics if key not in names)]
    return [(names.get(key, words(key)), number(float(metrics[key]), 4)) for key in ordered]


def _stages(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(seconds.values()) or 1.0
    return [{"name": name, "seconds": value, "percent": 100 * value / total} for name, value in seconds.items()]
