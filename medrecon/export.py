"""A finished result in other formats, in another place, with or without its patient: what ``medrecon export`` does.

Nothing is reconstructed again. What the result folder holds is copied, other formats are written from its volume and its
surfaces, and DICOM takes patient and study from the source, which must still be the one that the result was made from.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medrecon import writers
from medrecon.core.errors import GeometryError, InputError, OutputError, UsageError
from medrecon.core.mesh import Surface
from medrecon.core.progress import Tick, silent
from medrecon.core.projections import ProjectionScan
from medrecon.core.provenance import hash_of
from medrecon.core.reading import ReadOptions
from medrecon.core.scans import SliceScan
from medrecon.core.volume import Volume
from medrecon.result import RECORD_NAME, REPORT_NAME, check_formats, digest, write_context
from medrecon.safety.atomic import replacing

_NEED_SOURCE = ("dicom", "dicom_stl")
_COVERAGE = "coverage.nii.gz"
_MAPS = (_COVERAGE, "residual.nii.gz")
_VOLUME = "volume.nii.gz"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export and how.

    Parameters
    ----------
    folder : Path
        A result folder that holds ``run.json`` and ``volume.nii.gz``.
    out : Path
        Files go to ``out/<name of the result folder>/``.
    formats : tuple of str
    source : Path, optional
        What the result was made from; needed for DICOM.
    options : ReadOptions
        As the source was read for the result.
    deidentify : bool
        Leave the patient out of DICOM objects, and the identifiers of the source out of ``run.json``.
    overwrite : bool
    """

    folder: Path
    out: Path
    formats: tuple[str, ...]
    source: Path | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    deidentify: bool = False
    overwrite: bool = False


def export(request: ExportRequest, tick: Tick = silent) -> dict[str, Path]:
    """Write a result in the wanted formats; return the path of every file or folder, by format.

    Raises
    ------
    UsageError
        ``ARG-NAME`` for an unknown format, ``ARG-SOURCE`` where DICOM is wanted without the source, ``OUT-EXISTS``.
    InputError
        ``INP-RESULT`` where the folder holds no finished result, ``INP-CHANGED`` where the source is another one.
    OutputError
        ``OUT-WRITE`` where the folder cannot be made, and what a writer refuses.
    """
    wanted = check_formats(request.formats)
    result = _Saved(request)
    target = request.out / request.folder.name
    if (target / RECORD_NAME).exists() and not request.overwrite:
        raise UsageError("OUT-EXISTS", "there is an exported result of that name already", "Pass --overwrite to replace it.")
    context = result.context(needed=not set(_NEED_SOURCE).isdisjoint(wanted))
    _make(target)
    written: dict[str, Path] = {}
    for done, name in enumerate(wanted):
        written |= _export_one(name, result, target, context)
        tick((done + 1) / (len(wanted) + 1))
    record = result.record_for(written)
    with replacing(target / RECORD_NAME) as scratch:
        scratch.write_text(json.dumps(record, indent=1), encoding="utf-8")
    tick(1.0)
    return written | {"run": target / RECORD_NAME}


def _export_one(name: str, result: _Saved, target: Path, context: writers.WriteContext) -> dict[str, Path]:
    if name == "maps":
        return {file.partition(".")[0]: _copy(result.file(file), target / file) for file in _MAPS}
    if name == "report":
        return {"report": _copy(result.file(REPORT_NAME), target / REPORT_NAME)}
    if name == "nifti":
        return {name: _copy(result.file(_VOLUME), target / _VOLUME)}
    writer = writers.get(name)
    if writer.writes == "volume":
        writer.write(replace(result.volume, source=context.source), target / writer.target, context)
        return {name: target / writer.target}
    written = {}
    for number, surface in enumerate(result.surfaces, start=1):
        path = target / writer.target.format(name=surface.name)
        writer.write(surface, path, context)
        written[name if number == 1 else f"{name}-{number}"] = path
    return written


@dataclass(frozen=True)
class _Saved:
    """A result on the disk, each part read when it is needed."""

    request: ExportRequest

    def file(self, name: str) -> Path:
        """Return a file of the result; raise `InputError` (``INP-RESULT``) where it is not there."""
        path = self.request.folder / name
        if not path.is_file():
            raise InputError(
                "INP-RESULT", f"the result folder holds no {name}", "Reconstruct again with the formats nifti, stl, maps, report."
            )
        return path

    @cached_property
    def record(self) -> dict[str, Any]:
        """What the run wrote about itself."""
        try:
            record = json.loads(self.file(RECORD_NAME).read_text(encoding="utf-8"))
            _ = record["provenance"]["config_hash"], record["volume"]["quantity"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                "INP-RESULT", f"the {RECORD_NAME} of the result cannot be read ({type(error).__name__})", "Reconstruct again."
            ) from error
        return dict(record)

    @cached_property
    def volume(self) -> Volume:
        """The volume, with what was never seen as the coverage map has it."""
        volume = self._read(_VOLUME)
        if not (self.request.folder / _COVERAGE).is_file():
            return volume
        seen = self._read(_COVERAGE).voxels > 0
        return volume if seen.all() else replace(volume, seen=seen)

    @cached_property
    def surfaces(self) -> tuple[Surface, ...]:
        """The surfaces that were saved as STL, corners that triangles share joined again."""
        import trimesh

        surfaces = []
        for path in sorted(self.request.folder.glob("surface-*.stl")):
            try:
                mesh: Any = trimesh.load_mesh(path)
                surfaces.append(Surface(mesh.vertices, mesh.faces, path.stem.removeprefix("surface-")))
            except (ValueError, IndexError, AttributeError, GeometryError) as error:
                raise InputError("INP-RESULT", "a surface of the result is damaged", "Make the surface again.") from error
        return tuple(surfaces)

    def context(self, needed: bool) -> writers.WriteContext:
        """Return what writers need beside the data; the source only where it is needed."""
        provenance = self.record["provenance"]
        if not needed:
            return writers.WriteContext(method=str(provenance["method"]), verdict=str(self.record["verdict"]))
        scan = self._scan()
        context = write_context(scan, str(provenance["method"]), str(provenance["config_hash"]), str(self.record["verdict"]))
        if self.request.deidentify:
            from medrecon.safety.deidentify import deidentified

            context = replace(context, source=deidentified(context.source))
        return context

    def record_for(self, written: dict[str, Path]) -> dict[str, Any]:
        """Return the record of the exported files; without identifiers of the source where identity was removed."""
        record = self.record | {"outputs": {path.name: digest(path) for path in written.values()}}
        if self.request.deidentify:
            record |= {"input": {key: value for key, value in record["input"].items() if key != "instances"}}
        return record

    def _read(self, name: str) -> Volume:
        from medrecon.readers import read

        quantity = self.record["volume"]["quantity"] if name == _VOLUME else None
        found = read(self.file(name), None, ReadOptions(quantity=quantity))
        if not isinstance(found, Volume):
            raise InputError("INP-RESULT", f"{name} of the result is no volume", "Reconstruct again.")
        return found

    def _scan(self) -> SliceScan | ProjectionScan:
        """Read the source again and refuse another one than the result was made from."""
        from medrecon.readers import read

        if self.request.source is None:
            raise UsageError("ARG-SOURCE", "DICOM needs the patient and the study of the source", "Pass --source.")
        provenance = self.record["provenance"]
        found = read(self.request.source, str(provenance["series_id"]), self.request.options)
        if hash_of(found.source.file_hashes) != provenance["input_hash"]:
            raise InputError("INP-CHANGED", "the source is not the one that the result was made from", "Reconstruct again.")
        return SliceScan.from_volume(found, axis=int(np.argmax(found.spacing_mm))) if isinstance(found, Volume) else found


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "OUT-WRITE", f"the output folder could not be made ({type(error).__name__})", "Choose another folder."
        ) from error


def _copy(source: Path, target: Path) -> Path:
    with replacing(target) as scratch:
        shutil.copyfile(source, scratch)
    return target
