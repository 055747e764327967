"""Tables for people on stdout; the same facts as plain data for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medrecon.console.progress import write_json
from medrecon.core.errors import MedreconError
from medrecon.core.field_of_view import geometry_summary
from medrecon.core.findings import Finding, Verdict
from medrecon.core.provenance import RESEARCH_LABEL
from medrecon.core.reading import Listing, SeriesInfo
from medrecon.core.scans import SliceScan

if TYPE_CHECKING:
    from medrecon.batch.plan import Plan
    from medrecon.batch.run import Summary
    from medrecon.core.mesh import Surface
    from medrecon.result import Result

_FILE_WIDTH = 200
_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.REFUSED: "red"}


def listing_as_json(listing: Listing) -> dict[str, object]:
    """Return a listing as plain data: the stable form of ``medrecon inspect --json``."""
    skipped = [{"file": s.number, "what": s.what, "code": s.code} for s in listing.skipped]
    return {"series": [series.as_json() for series in listing], "skipped": skipped}


def show_listing(listing: Listing, number: int, total: int) -> None:
    """Show the series of one path, then what was noticed about each."""
    title = None if total == 1 else f"path {number} of {total}"
    table = Table(
        "series",
        "modality",
        "slices, views",
        "matrix",
        "spacing mm",
        "thickness mm",
        "parts",
        "verdict",
        title=title,
        title_justify="left",
    )
    for series in listing:
        table.add_row(*_series_row(series))
    console = _console()
    console.print(table if listing else "No series was found.")
    projections = [series for series in listing if series.views is not None]
    if projections:
        console.print(_geometries(projections))
    for series in listing:
        _show_findings(console, series.findings, series.id)
    if listing.skipped:
        kinds = Counter(skipped.what for skipped in listing.skipped)
        counted = ", ".join(f"{count} {what}" for what, count in sorted(kinds.items()))
        console.print(f"Skipped {len(listing.skipped)} file(s): {escape(counted)}.")


def show_result(result: Result, written: Mapping[str, Path]) -> None:
    """Show what came out of a run and where it is."""
    console, quality = _console(), result.quality
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("verdict", _verdict(result.verdict))
    table.add_row(
        "volume", f"{_times(result.volume.grid.shape)} voxels of {_mm(result.volume.spacing_mm)} mm, {result.volume.quantity}"
    )
    table.add_row("method", f"{result.provenance.method} on {result.provenance.device}")
    of_slices = isinstance(result.scan, SliceScan)
    what, inferred = ("slices", "between slices") if of_slices else ("projections", "seen from less than half a turn")
    table.add_row("residual", f"{quality.residual:.2e} of the measured {what} ({quality.residual_rms:.3g} rms)")
    between = f"{quality.interpolated_share:.1%} {inferred}, {quality.unseen_share:.1%} not seen"
    table.add_row("coverage", f"{quality.measured_share:.1%} measured, {between}")
    for surface in result.surfaces:
        table.add_row("surface", _surface_words(surface))
    for name, words in _truth_words(result.metrics):
        table.add_row(name, words)
    table.add_row("time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.provenance.seconds.items()))
    for kind, path in written.items():
        table.add_row(kind, escape(str(path)))
    console.print(table)
    _show_findings(console, result.all_findings, "")
    console.print(RESEARCH_LABEL, style="dim")


def show_surface(surface: Surface, out: Path) -> None:
    """Show the measures of a surface and where it is."""
    _console().print(f"{_surface_words(surface)}\n{escape(str(out))}\n[dim]{RESEARCH_LABEL}[/dim]")


def show_methods(as_json: bool) -> None:
    """List the methods with their settings and defaults."""
    from medrecon import methods

    known, broken = methods.survey()
    if as_json:
        data = [
            {"name": m.name, "input": m.input, "summary": m.summary, "settings": m.settings.model_json_schema()} for m in known
        ]
        return write_json(data + [_unavailable(name, error) for name, error in broken.items()])
    table = Table("method", "input", "what it does", "settings")
    for method in known:
        settings = "\n".join(
            f"{name} = {field.get_default(call_default_factory=True)}" for name, field in method.settings.model_fields.items()
        )
        table.add_row(method.name, method.input, method.summary, escape(settings))
    for name, error in broken.items():
        table.add_row(name, "", f"[red]unavailable[/red] {escape(str(error))}", "")
    _console().print(table)
    return None


def show_presets(as_json: bool) -> None:
    """List the presets with the configuration that each stands for."""
    from medrecon import methods
    from medrecon.config import load_presets

    known, broken = load_presets()
    if as_json:
        inputs = {name: {"input": methods.get(config.method).input} for name, config in known.items()}
        told = {name: inputs[name] | config.model_dump(mode="json") for name, config in known.items()}
        return write_json(told | {name: _unavailable(name, error) for name, error in broken.items()})
    table = Table("preset", "input", "method", "settings")
    for name, config in known.items():
        settings = "\n".join(f"{key} = {value}" for key, value in config.settings.items())
        table.add_row(name, methods.get(config.method).input, config.method, escape(settings))
    for name, error in broken.items():
        table.add_row(name, "", "[red]unavailable[/red]", escape(str(error)))
    _console().print(table)
    return None


def show_plan(plan: Plan, as_json: bool) -> None:
    """Show what a batch would do, study by study."""
    if as_json:
        return write_json(plan.as_json())
    table = Table("series", "modality", "slices", "verdict", "will be")
    for study in plan.studies:
        table.add_row(
            study.series.id, study.series.modality, str(study.series.shape[0]), _verdict(study.series.verdict), study.action
        )
    console = _console()
    console.print(table)
    run, done, refused = (plan.count(action) for action in ("run", "done", "refused"))
    console.print(f"{len(plan.studies)} series: {run} to run, {done} finished already, {refused} refused.")
    return None


def show_summary(summary: Summary, as_json: bool) -> None:
    """Show how a batch went, study by study."""
    if as_json:
        return write_json(summary.as_json())
    table = Table("series", "state", "seconds", "verdict", "code", "what happened")
    for row in summary.rows:
        table.add_row(row.series_id, row.state, f"{row.seconds:.1f}", row.verdict, row.code, escape(row.fact))
    console = _console()
    console.print(table)
    console.print(f"{summary.finished} finished, {summary.skipped} finished before, {summary.failed} failed or refused.")
    return None


def _unavailable(name: str, error: MedreconError) -> dict[str, object]:
    return {"name": name, "unavailable": {"code": error.code, "fact": error.fact, "hint": error.hint}}


def _series_row(series: SeriesInfo) -> tuple[str, ...]:
    slices, rows, columns = series.shape
    of_slices = series.kind != "projections"  # projections have neither a spacing across nor a thickness
    thickness = ("unknown" if of_slices else "") if series.thickness_mm is None else _to(series.thickness_mm)
    steps = ("uneven" if v is None else f"{v:.4g}" for v in (series.spacing_mm if of_slices else series.spacing_mm[1:]))
    spacing = " x ".join(steps)
    return (
        series.id,
        series.modality or series.kind,
        str(slices),
        f"{rows} x {columns}",
        spacing,
        thickness,
        ", ".join(series.parts),
        _verdict(series.verdict),
    )


def _geometries(projections: list[SeriesInfo]) -> Table:
    """Show how projections were taken, and the volume that they can give."""
    table = Table("series", "beam", "views", "source to axis, detector mm", "field of view mm", "voxel mm", "volume", "memory")
    for series in projections:
        if series.views is None:
            continue
        about = geometry_summary(series.views)
        field, sid, sdd = about["field_of_view_mm"], about["source_isocentre_mm"], about["source_detector_mm"]
        table.add_row(
            series.id,
            about["beam"],
            f"{about['views']} over {about['arc_deg']:.4g} degrees",
            "" if sid is None else f"{sid:.4g}, {sdd:.4g}",
            f"{2 * field['radius']:.4g} across, {field['high_z'] - field['low_z']:.4g} long",
            f"{about['recommended_spacing_mm']:.3g}",
            _times(tuple(about["recommended_shape"])),
            f"{about['memory_bytes'] / 2**20:.0f} MiB",
        )
    return table


def _show_findings(console: Console, findings: tuple[Finding, ...], whose: str) -> None:
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        about = f"{whose} " if whose else ""
        console.print(f"[{colour}]{finding.code}[/{colour}] {about}{escape(finding.fact)}", soft_wrap=True)
        if finding.verdict is Verdict.REFUSED and finding.allow:
            console.print(f"    to use it as it is: --allow {finding.allow}", soft_wrap=True)


def _truth_words(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    if "psnr_db" not in metrics:
        return []
    words = f"{metrics['psnr_db']:.2f} dB PSNR, SSIM {metrics['ssim']:.3f} against the truth"
    rows = [("quality", words)]
    for plain in ("cubic", "fdk"):
        if f"{plain}_psnr_db" in metrics:
            psnr, ssim = metrics[f"{plain}_psnr_db"], metrics[f"{plain}_ssim"]
            gain = metrics["psnr_db"] - psnr
            rows.append((plain, f"{psnr:.2f} dB PSNR, SSIM {ssim:.3f}: this result is {gain:+.2f} dB"))
    return rows


def _surface_words(surface: Surface) -> str:
    measures: Mapping[str, Any] = surface.measures
    closed = "watertight" if measures.get("watertight") else "not watertight"
    return (
        f"{surface.name}: {measures.get('volume_ml', 0):.1f} mL, {measures.get('area_mm2', 0) / 100:.0f} cm2, "
        f"{measures.get('triangle_count', 0):,} triangles, {closed}"
    )


def _verdict(verdict: Verdict) -> str:
    return f"[{_COLOURS[verdict]}]{verdict}[/{_COLOURS[verdict]}]"


def _to(values: tuple[float, ...]) -> str:
    return " to ".join(f"{v:g}" for v in dict.fromkeys(values))


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{v:.4g}" for v in spacing)


def _console() -> Console:
    """Tables go to stdout; where that is no terminal, lines may be as long as they need to be."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_FILE_WIDTH)
