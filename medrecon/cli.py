"""The command line: thin. It turns flags into the same models and calls as the Python API, and shows what came out.

Results go to stdout, messages to stderr. Nothing heavy is imported before a command needs it, so that help is quick.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrecon.console import leash, threads
from medrecon.console import progress as console_progress
from medrecon.console.progress import Style
from medrecon.core.errors import CancelledError, ExitCode, MedreconError, UsageError
from medrecon.core.provenance import RESEARCH_LABEL

if TYPE_CHECKING:
    from medrecon.core.reading import ReadOptions

app = typer.Typer(
    name="medrecon",
    help=f"Turn 2D medical series into trustworthy 3D volumes and surfaces.\n\n{RESEARCH_LABEL}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: Commands of the published interface that later issues of the roadmap in README bring.
_ROADMAP = {
    "listen": "F (hospital)",
    "send": "F (hospital)",
}

AllowOption = Annotated[
    list[str] | None, typer.Option("--allow", help="Accept a named laxness, recorded in the result. Repeatable.")
]
InputSpacing = Annotated[str | None, typer.Option(help="Spacing of the input where files carry none: slice,row,column in mm.")]
Thickness = Annotated[float | None, typer.Option(help="Slice thickness in mm, overriding the headers; recorded.")]
Profile = Annotated[str | None, typer.Option(help="Slice profile: gaussian, bell, triangle, box or slab.")]
QuantityOption = Annotated[
    str | None, typer.Option("--quantity", help="Of a volume file that does not say: hounsfield or arbitrary.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Formats = Annotated[
    str, typer.Option(help="Comma-separated: nifti, nrrd, mha, dicom, stl, ply, obj, glb, 3mf, vtp, dicom_stl, maps, report.")
]
Preset = Annotated[str | None, typer.Option(help="A named configuration, see `medrecon presets`.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file, laid over the preset.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as grid.spacing_mm=1.0. Repeatable.")]


@app.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(help="Folders, files or ZIPs.")],
    as_json: JsonFlag = False,
    input_spacing: InputSpacing = None,
) -> None:
    """Show every series in PATHS: its geometry, its verdict and why."""
    from medrecon.console import tables
    from medrecon.readers import find

    listings = [find(path, _read_options(input_spacing=input_spacing)) for path in paths]
    if as_json:
        console_progress.write_json([tables.listing_as_json(listing) for listing in listings])
    else:
        for number, listing in enumerate(listings, start=1):
            tables.show_listing(listing, number, len(listings))
    if not any(listings):
        raise typer.Exit(ExitCode.NO_USABLE_INPUT)


@app.command()
def run(
    path: Annotated[Path, typer.Argument(help="Folder, file or ZIP with one study.")],
    out: Annotated[Path, typer.Option(help="Results go to OUT/<series>/.")],
    series: Annotated[str | None, typer.Option(help="Id of the series, as `medrecon inspect` shows it.")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    assign: Assignments = None,
    spacing: Annotated[float | None, typer.Option(help="Output voxel size in mm, the same in all directions.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda:N.")] = None,
    formats: Formats = "nifti,dicom,stl,report",
    allow: AllowOption = None,
    input_spacing: InputSpacing = None,
    thickness: Thickness = None,
    profile: Profile = None,
    quantity: QuantityOption = None,
    truth: Annotated[
        Path | None, typer.Option(help="A volume known to be right: print how close the result and cubic come.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished result.")] = False,
    progress: Annotated[Style | None, typer.Option(help="How to show progress; rich on a terminal, plain elsewhere.")] = None,
) -> None:
    """Reconstruct one study: volume, surfaces, report."""
    from medrecon.config import Choice
    from medrecon.console import tables
    from medrecon.run import Request
    from medrecon.run import run as run_study

    assignments = (*(assign or ()), *_given("grid.spacing_mm", spacing), *_given("device", device))
    options = _read_options(allow, input_spacing, thickness, profile, quantity)
    settings = Choice(preset, config, assignments)
    request = Request(path, out, settings, series, options, _split(formats), truth, overwrite)
    style = progress or console_progress.default_style()
    with console_progress.shown(style) as report:
        result, written = run_study(request, report)
    if style is Style.JSON:
        console_progress.emit("done", {"verdict": str(result.verdict), "outputs": {k: str(p) for k, p in written.items()}})
    else:
        tables.show_result(result, written)


@app.command()
def batch(
    root: Annotated[Path, typer.Argument(help="Tree of DICOM folders; every series in it is a study of its own.")],
    out: Annotated[Path, typer.Option(help="Results go to OUT/<series>/, the ledger beside them.")],
    scheduler: Annotated[str, typer.Option(help="local, or tcp://host:port of a running Dask scheduler.")] = "local",
    workers: Annotated[int, typer.Option(help="Studies at a time on the local cluster.", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    preset: Preset = None,
    config: ConfigFile = None,
    assign: Assignments = None,
    formats: Formats = "nifti,dicom,stl,report",
    allow: AllowOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Reconstruct many studies; finished ones are not repeated, one bad study never stops the others."""
    from medrecon.batch.plan import make_plan
    from medrecon.batch.run import run_batch
    from medrecon.config import Choice
    from medrecon.console import tables

    plan = make_plan(root, out, Choice(preset, config, tuple(assign or ())), _read_options(allow), _split(formats))
    if dry_run:
        tables.show_plan(plan, as_json)
        return
    summary = run_batch(plan, scheduler=scheduler, workers=workers)
    tables.show_summary(summary, as_json)
    raise typer.Exit(ExitCode.SOME_FAILED if summary.failed else ExitCode.OK)


@app.command()
def surface(
    volume: Annotated[Path, typer.Argument(help="NIfTI, NRRD or MetaImage volume, or a series.")],
    out: Annotated[Path, typer.Option(help="Mesh file; the ending chooses the format: .stl .ply .obj .glb .3mf .vtp")],
    tissue: Annotated[str | None, typer.Option(help="bone, skin, lung, soft-tissue or auto.")] = None,
    level: Annotated[float | None, typer.Option(help="Iso level in the volume's unit, instead of a tissue.")] = None,
    triangles: Annotated[int | None, typer.Option(help="Decimate to about this many triangles.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as smoothing_iterations=40.")] = None,
    quantity: QuantityOption = None,
    progress: Annotated[Style | None, typer.Option(help="How to show progress; rich on a terminal, plain elsewhere.")] = None,
) -> None:
    """Extract a surface from a volume."""
    from medrecon.config import load_surface_config
    from medrecon.console import tables
    from medrecon.run import surface_file

    given = (*_given("tissue", tissue), *_given("level", level), *_given("target_triangles", triangles))
    settings = load_surface_config((*(assign or ()), *given))
    style = progress or console_progress.default_style()
    with console_progress.shown(style) as report:
        made = surface_file(volume, out, settings, _read_options(quantity=quantity), report)
    if style is Style.JSON:
        console_progress.emit("done", {"surface": {"name": made.name, **made.measures}, "outputs": {"surface": str(out)}})
    else:
        tables.show_surface(made, out)


@app.command()
def export(
    result: Annotated[Path, typer.Argument(help="Folder of a finished result, the one with run.json.")],
    out: Annotated[Path, typer.Option(help="Files go to OUT/<name of the result folder>/.")],
    formats: Formats = "nifti,dicom,stl,report",
    source: Annotated[Path | None, typer.Option(help="What the result was made from; DICOM takes the patient from it.")] = None,
    deidentify: Annotated[bool, typer.Option("--deidentify", help="Leave the patient out of what is written.")] = False,
    allow: AllowOption = None,
    input_spacing: InputSpacing = None,
    thickness: Thickness = None,
    profile: Profile = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an exported result.")] = False,
    progress: Annotated[Style | None, typer.Option(help="How to show progress; rich on a terminal, plain elsewhere.")] = None,
) -> None:
    """Write a finished result in other formats; nothing is reconstructed again."""
    from medrecon.core.progress import Stages
    from medrecon.export import ExportRequest
    from medrecon.export import export as export_result

    options = _read_options(allow, input_spacing, thickness, profile)
    request = ExportRequest(result, out, _split(formats), source, options, deidentify, overwrite)
    style = progress or console_progress.default_style()
    with console_progress.shown(style) as report:
        written = export_result(request, Stages({"write": 1.0}, report).tick("write"))
    if style is Style.JSON:
        console_progress.emit("done", {"outputs": {kind: str(path) for kind, path in written.items()}})
    else:
        for kind, path in written.items():
            typer.echo(f"{kind}: {path}")


@app.command(hidden=True)
def preview(
    path: Annotated[Path, typer.Argument(help="Folder, file or ZIP with one study.")],
    scratch: Annotated[Path, typer.Option(help="Existing folder for the pictures.")],
    series: Annotated[str | None, typer.Option(help="Id of the series.")] = None,
    allow: AllowOption = None,
    input_spacing: InputSpacing = None,
) -> None:
    """Answer the panel's requests for single planes, line by line, until stdin closes."""
    from medrecon.console import preview_service

    preview_service.serve(path, series, _read_options(allow, input_spacing), scratch, sys.stdin)


@app.command()
def simulate(
    volume: Annotated[Path, typer.Argument(help="Volume to measure.")],
    out: Annotated[Path, typer.Option(help="Folder for the DICOM series or the projections.")],
    kind: Annotated[str, typer.Option("--as", help="slices or projections; stacks and frames come later.")] = "slices",
    thickness: Annotated[float, typer.Option(help="Slice thickness in mm.", min=0.1)] = 5.0,
    gap: Annotated[float, typer.Option(help="Gap between slices in mm.", min=0.0)] = 0.0,
    profile: Profile = None,
    noise: Annotated[float, typer.Option(help="Of slices: standard deviation of noise, in the volume's unit.", min=0.0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    geometry: Annotated[str | None, typer.Option(help="Of projections: cone, fan, parallel or helical.")] = None,
    views: Annotated[int | None, typer.Option(help="Of projections: how many; for a helix, in each turn.")] = None,
    arc: Annotated[float | None, typer.Option(help="Of projections: the arc that they span, degrees.")] = None,
    photons: Annotated[float | None, typer.Option(help="Of projections: photons a pixel in air; without, no noise.")] = None,
    form: Annotated[str, typer.Option("--format", help="Of projections: stack (YAML and NPY) or rtk (XML and MHA).")] = "stack",
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Of projections: another setting, such as sid_mm=600 or columns=512.")
    ] = None,
    quantity: QuantityOption = None,
) -> None:
    """Measure a volume as a scanner would, for tests and training."""
    later = {"stacks": "D (motion)", "frames": "D (motion)"}
    if kind in later:
        raise _later(f"simulate --as {kind}", later[kind])
    if kind == "projections":
        from medrecon.simulate_projections import load_scanner, simulate_projection_file

        given = (*_given("geometry", geometry), *_given("views", views), *_given("arc_deg", arc), *_given("photons", photons))
        scanner = load_scanner((*(assign or ()), *given, f"seed={seed}"))
        simulate_projection_file(volume, out, scanner, form, _read_options(quantity=quantity))
        return
    if kind != "slices":
        raise UsageError("ARG-NAME", f"cannot simulate {kind[:40]!r}", f"Known: slices, projections, {', '.join(later)}.")
    from medrecon.simulate import simulate_file

    shape = _read_options(profile=profile).profile
    simulate_file(volume, out, thickness_mm=thickness, gap_mm=gap, profile=shape, noise=noise, seed=seed)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped recipe such as train-flow.")],
    out: Annotated[Path | None, typer.Option(help="Folder for weights, checkpoint and log; trained/<name> without it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in OUT, where there is one.")] = False,
    assign: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as steps=2000. Repeatable.")] = None,
    progress: Annotated[Style | None, typer.Option(help="How to show progress; rich on a terminal, plain elsewhere.")] = None,
) -> None:
    """Train a network as a recipe says."""
    from medrecon.console import learning

    learning.train(recipe, out, resume, tuple(assign or ()), progress or console_progress.default_style())


@app.command()
def evaluate(
    recipe: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped recipe such as train-flow.")],
    weights: Annotated[str | None, typer.Option(help="Safetensors file or shipped name; trained/<name> without it.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as device=cpu. Repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure weights on the validation of a recipe."""
    from medrecon.console import learning

    learning.evaluate(recipe, weights, tuple(assign or ()), as_json)


@app.command()
def compress(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped one such as compress-recurrent.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the variants and the table; compressed/<weights> without it.")
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as weights=my.safetensors. Repeatable.")
    ] = None,
    as_json: JsonFlag = False,
    progress: Annotated[Style | None, typer.Option(help="How to show progress; rich on a terminal, plain elsewhere.")] = None,
) -> None:
    """Make trained weights smaller and faster in several ways, and print what each costs."""
    from medrecon.console import compression

    compression.compress(config, out, tuple(assign or ()), as_json, progress or console_progress.default_style())


@app.command()
def bundle(
    weights: Annotated[str, typer.Argument(help="Shipped name, or a safetensors file with its manifest.")],
    out: Annotated[Path, typer.Option(help="The bundle goes to OUT/<name>/.")],
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle.")] = False,
) -> None:
    """Write weights as a MONAI bundle."""
    from medrecon.bundle import write_bundle

    typer.echo(f"bundle: {write_bundle(weights, out, overwrite)}")


@app.command()
def methods(as_json: JsonFlag = False) -> None:
    """List the reconstruction methods with their settings."""
    from medrecon.console import tables

    tables.show_methods(as_json)


@app.command()
def presets(as_json: JsonFlag = False) -> None:
    """List the presets: named configurations."""
    from medrecon.console import tables

    tables.show_presets(as_json)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Tell what this machine has: versions, decoders, memory, GPU, display."""
    from medrecon.console import doctor as examination

    examination.show(as_json)


@app.command()
def explain(code: Annotated[str, typer.Argument(help="Code of an error or finding, such as DCM-GAP.")]) -> None:
    """Explain a code."""
    from medrecon.core.codes import EXPLANATIONS

    if code.upper() not in EXPLANATIONS:
        raise UsageError("ARG-NAME", f"there is no code {code[:40]!r}", "`medrecon inspect` and every error print the code.")
    typer.echo(f"{code.upper()}: {EXPLANATIONS[code.upper()]}")


def main() -> None:
    """Run the command line and end the process with a documented exit code."""
    leash.hold()
    threads.settle(os.environ)
    signal.signal(signal.SIGTERM, _cancel)
    sys.excepthook = _say_unexpected
    try:
        typer.main.get_command(app)()  # not app(): that would put its own traceback in place of ours
    except MedreconError as error:
        typer.echo(f"medrecon: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _cancel(_signal: int, _frame: FrameType | None) -> None:
    raise CancelledError("RUN-CANCELLED", "the run was cancelled; nothing half-written was left")


def _say_unexpected(kind: type[BaseException], _error: BaseException, trace: Any) -> None:  # noqa: ANN401 (a traceback)
    """Name an unexpected error and its place without its message: a library's message may quote a header."""
    import traceback

    last = traceback.extract_tb(trace)[-1:]
    place = f" at {Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    typer.echo(
        f"medrecon: UNEXPECTED: {kind.__name__}{place}. Please report this with the output of `medrecon doctor`.", err=True
    )


def _read_options(
    allow: list[str] | None = None,
    input_spacing: str | None = None,
    thickness: float | None = None,
    profile: str | None = None,
    quantity: str | None = None,
) -> ReadOptions:
    from medrecon.core.findings import check_allowances
    from medrecon.core.reading import ReadOptions
    from medrecon.core.settings import parse

    data: dict[str, object] = {
        "allow": check_allowances(allow or ()),
        "thickness_mm": thickness,
        "profile": profile,
        "quantity": quantity,
    }
    if input_spacing is not None:
        data["spacing_mm"] = tuple(input_spacing.split(","))
    return parse(ReadOptions, data, "reading options")


def _given(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (f"{name}={value}",)


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _later(command: str, issue: str) -> UsageError:
    return UsageError(
        "CMD-LATER", f"`medrecon {command}` is not built yet", f"It comes with issue {issue}; see the roadmap in README."
    )


def _add_later_commands() -> None:
    """Register the commands of the published interface that are not built yet; each says which issue brings it."""
    for name, issue in _ROADMAP.items():

        def later(_arguments: Annotated[list[str] | None, typer.Argument()] = None, name: str = name, issue: str = issue) -> None:
            raise _later(name, issue)

        app.command(name, help=f"Comes with issue {issue}.", context_settings={"ignore_unknown_options": True})(later)


_add_later_commands()
