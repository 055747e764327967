"""One study from a path to a folder of results: what ``medrecon run`` does, and the batch with every study.

The output goes to ``out/<series id>/``. A folder that holds a finished result is not touched unless asked to.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from medrecon import writers
from medrecon.config import Choice, ReconstructionConfig
from medrecon.core.errors import UsageError
from medrecon.core.mesh import Surface
from medrecon.core.progress import Reporter, Stages
from medrecon.core.reading import ReadOptions
from medrecon.core.scans import SliceScan
from medrecon.core.volume import Quantity, Volume
from medrecon.result import DEFAULT_FORMATS, RECORD_NAME, Result, check_formats
from medrecon.surface.settings import SurfaceConfig

_STAGES = {"read": 0.15, "work": 0.65, "write": 0.2}


@dataclass(frozen=True, slots=True)
class Request:
    """One study to reconstruct.

    Parameters
    ----------
    path : Path
        Folder, file or ZIP.
    out : Path
        Results go to ``out/<series id>/``.
    series : str, optional
        Id of the series; needed where there are several usable ones.
    config : ReconstructionConfig or Choice
        A choice is settled when it is known whether slices or projections were measured.
    options : ReadOptions
    formats : tuple of str
    truth : Path, optional
        A volume known to be right, on the same patient space; the result is compared with it.
    overwrite : bool
    """

    path: Path
    out: Path
    config: ReconstructionConfig | Choice
    series: str | None = None
    options: ReadOptions = dataclasses.field(default_factory=ReadOptions)
    formats: tuple[str, ...] = DEFAULT_FORMATS
    truth: Path | None = None
    overwrite: bool = False


def run(request: Request, report: Reporter | None = None) -> tuple[Result, dict[str, Path]]:
    """Read, reconstruct and save one study; return the result and what was written, by format.

    Raises
    ------
    UsageError
        ``OUT-INPUT`` where the output lies in the input, ``OUT-EXISTS`` where a finished result is there already.
    MedreconError
        Whatever reading, reconstructing and writing refuse.
    """
    from medrecon.pipeline import preset_kind_of, reconstruct
    from medrecon.readers import read

    _refuse_output_in_input(request)
    check_formats(request.formats)
    stages = Stages(_STAGES, report)
    scan = read(request.path, request.series, request.options, stages.tick("read"))
    folder = request.out / (scan.source.series_id or "series")
    _refuse_finished(folder, request.overwrite)
    config = request.config.config(preset_kind_of(scan)) if isinstance(request.config, Choice) else request.config
    result = reconstruct(scan, config, progress=stages.within("work"))
    if request.truth is not None:
        result = with_truth(result, request.truth, request.options)
    return result, result.save(folder, request.formats, stages.tick("write"))


def with_truth(result: Result, truth: Path, options: ReadOptions) -> Result:
    """Compare the result, and the plainest method beside it (`interpolate`, or `fdk`), with a volume known to be right.

    Raises
    ------
    UsageError
        ``ARG-TRUTH`` where the truth is no volume, or in another unit than the result.
    """
    from medrecon.pipeline import reconstruct
    from medrecon.quality.truth import compare
    from medrecon.readers import read

    known = read(truth, None, options)
    if not isinstance(known, Volume):
        raise UsageError("ARG-TRUTH", "the truth is a series of slices, not a volume", "Give a NIfTI, NRRD or MetaImage volume.")
    _refuse_another_unit(result.volume, known)
    ours = compare(result.volume, known)
    metrics = {"psnr_db": ours.psnr_db, "ssim": ours.ssim, "range": ours.data_range}
    plainest, short = ("interpolate", "cubic") if isinstance(result.scan, SliceScan) else ("fdk", "fdk")
    if result.provenance.method != plainest:
        done = {"method": plainest, "settings": {}, "surfaces": (), "projections": {}}  # the scan is corrected already
        plain = ReconstructionConfig.model_validate(dict(result.provenance.config) | done)
        beside = compare(reconstruct(result.scan, plain).volume, known)
        metrics |= {f"{short}_psnr_db": beside.psnr_db, f"{short}_ssim": beside.ssim}
    return dataclasses.replace(result, metrics=metrics)


def _refuse_another_unit(volume: Volume, truth: Volume) -> None:
    """Refuse to compare Hounsfield units with attenuation; a file that does not say is taken at its word."""
    if Quantity.ARBITRARY in (volume.quantity, truth.quantity) or volume.quantity is truth.quantity:
        return
    raise UsageError(
        "ARG-TRUTH",
        f"the truth holds {truth.quantity} values, the result {volume.quantity}",
        "Calibrate the result, such as with --set hounsfield.water_per_mm=0.0206, or give a truth in its unit.",
    )


def _refuse_output_in_input(request: Request) -> None:
    """Results among the input would be read as input by the next run."""
    source, out = request.path.resolve(), request.out.resolve()
    if source.is_dir() and (out == source or source in out.parents):
        raise UsageError(
            "OUT-INPUT", "the output folder lies inside the input folder", "Choose an output folder outside the input."
        )


def _refuse_finished(folder: Path, overwrite: bool) -> None:
    if (folder / RECORD_NAME).exists() and not overwrite:
        raise UsageError("OUT-EXISTS", f"{folder.name} holds a finished result already", "Pass --overwrite to replace it.")


def surface_file(path: Path, out: Path, settings: SurfaceConfig, options: ReadOptions, report: Reporter | None = None) -> Surface:
    """Extract one surface of a volume, or of a series reconstructed first, and write it; the ending of `out` is the format.

    Raises
    ------
    UsageError
        ``ARG-ENDING`` for an ending that no writer has.
    """
    from medrecon.pipeline import preset_kind_of, reconstruct
    from medrecon.readers import read
    from medrecon.surface.extract import make_surface

    writer, stages = _writer_for(out), Stages({"read": 0.2, "surface": 0.75, "write": 0.05}, report)
    found = read(path, None, options, stages.tick("read"))
    bare = Choice(assignments=("surfaces=[]",))
    volume = found if isinstance(found, Volume) else reconstruct(found, bare.config(preset_kind_of(found))).volume
    surface = make_surface(volume, settings, stages.tick("surface"))
    writer.write(surface, out, writers.WriteContext(source=volume.source))
    stages.tick("write")(1.0)
    return surface


def _writer_for(out: Path) -> writers.Writer:
    """Find the surface writer whose files end as `out` does."""
    known = [writer for writer in map(writers.get, writers.names()) if writer.writes == "surface"]
    for writer in known:
        if Path(writer.target).suffix == out.suffix.lower():
            return writer
    endings = ", ".join(sorted(Path(writer.target).suffix for writer in known))
    raise UsageError("ARG-ENDING", f"no surface format ends in {out.suffix[:20]!r}", f"Known endings: {endings}.")
