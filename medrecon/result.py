"""What a reconstruction returns, and how it is saved.

A result is the volume, its surfaces, how far to trust them and where they came from. Saving writes one file or folder
a format, each under its final name only when whole, and ``run.json`` last: a folder with a ``run.json`` is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon import writers
from medrecon.core.errors import OutputError, UsageError
from medrecon.core.field_of_view import geometry_summary
from medrecon.core.findings import Finding, Verdict, judge
from medrecon.core.mesh import Surface
from medrecon.core.progress import Tick, silent
from medrecon.core.projections import ProjectionScan
from medrecon.core.provenance import RESEARCH_LABEL, Provenance, hash_of
from medrecon.core.scans import SliceScan
from medrecon.core.volume import Volume
from medrecon.safety.atomic import replacing

if TYPE_CHECKING:
    from medrecon.quality.assess import Quality

#: What is written where the user names no formats.
DEFAULT_FORMATS = ("nifti", "dicom", "stl", "report")
#: Formats that hold what is known about a result instead of a volume or a surface.
RESULT_FORMATS = ("maps", "report")
REPORT_NAME = "report.html"
RECORD_NAME = "run.json"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A volume, its surfaces, and what is known about both.

    Parameters
    ----------
    volume : Volume
    surfaces : tuple of Surface
    quality : Quality
        Residual, coverage, what was inferred.
    provenance : Provenance
    scan : SliceScan or ProjectionScan
        What was measured, as the method saw it: projections as line integrals.
    findings : tuple of Finding
        What was noticed on the way, beside the findings of the scan and of the quality.
    uncertainty : Volume, optional
        In the unit of the volume: how far two ways of making it are apart, where the method tells. A sign of doubt, no
        confidence interval.
    metrics : mapping
        Comparison with a known truth, where one was given.
    """

    volume: Volume
    surfaces: tuple[Surface, ...]
    quality: Quality
    provenance: Provenance
    scan: SliceScan | ProjectionScan
    findings: tuple[Finding, ...] = ()
    uncertainty: Volume | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Findings of the scan, of the run and of the quality, in this order."""
        return (*self.scan.findings, *self.findings, *self.quality.findings)

    @property
    def verdict(self) -> Verdict:
        """The gravest finding under the allowances of the scan."""
        return judge(self.all_findings, self.scan.allowed)

    def as_json(self) -> dict[str, Any]:
        """Return everything but the arrays as plain data: the content of ``run.json``."""
        return {
            "label": RESEARCH_LABEL,
            "verdict": str(self.verdict),
            "findings": [finding.as_json() for finding in self.all_findings],
            "input": _input(self.scan),
            "volume": _volume(self.volume),
            "quality": self.quality.as_json() | _doubt(self.uncertainty),
            "surfaces": [{"name": surface.name, **surface.measures} for surface in self.surfaces],
            "metrics": dict(self.metrics),
            "provenance": self.provenance.as_json(),
        }

    def save(self, folder: Path | str, formats: Iterable[str] = DEFAULT_FORMATS, tick: Tick = silent) -> dict[str, Path]:
        """Write the result and return the path of every file or folder, by format; several surfaces are ``stl``, ``stl-2``...

        Raises
        ------
        UsageError
            ``ARG-NAME`` for a format that does not exist; nothing is written then.
        OutputError
            ``OUT-SPACE``, ``OUT-WRITE`` and what a writer refuses.
        """
        folder = Path(folder)
        wanted = check_formats(formats)
        _make(folder)
        written: dict[str, Path] = {}
        for done, name in enumerate(wanted):
            own = {"maps": self._write_maps, "report": self._write_report}.get(name)
            written |= own(folder) if own else self._write(name, folder)
            tick((done + 1) / (len(wanted) + 1))
        record = self.as_json() | {"outputs": {path.name: digest(path) for path in written.values()}}
        with replacing(folder / RECORD_NAME) as scratch:
            scratch.write_text(json.dumps(record, indent=1), encoding="utf-8")
        tick(1.0)
        return written | {"run": folder / RECORD_NAME}

    def _write(self, name: str, folder: Path) -> dict[str, Path]:
        writer = writers.get(name)
        things = (self.volume,) if writer.writes == "volume" else self.surfaces
        written: dict[str, Path] = {}
        for number, thing in enumerate(things, start=1):
            target = folder / writer.target.format(name=getattr(thing, "name", ""))
            writer.write(thing, target, self._context())
            written[name if number == 1 else f"{name}-{number}"] = target
        return written

    def _write_report(self, folder: Path) -> dict[str, Path]:
        from medrecon.quality.report import render

        with replacing(folder / REPORT_NAME) as scratch:
            scratch.write_text(render(self), encoding="utf-8")
        return {"report": folder / REPORT_NAME}

    def _write_maps(self, folder: Path) -> dict[str, Path]:
        from medrecon.quality.maps import coverage_volume

        maps = {"coverage": coverage_volume(self.volume, self.quality), "residual": self._residual_volume()}
        if self.uncertainty is not None:
            maps["uncertainty"] = self.uncertainty
        for name, values in maps.items():
            writers.get("nifti").write(values, folder / f"{name}.nii.gz", self._context())
        return {name: folder / f"{name}.nii.gz" for name in maps}

    def _residual_volume(self) -> Volume:
        if isinstance(self.scan, SliceScan):
            from medrecon.quality.maps import residual_volume

            return residual_volume(self.volume, self.scan, self.quality)
        from medrecon.quality.projection_maps import projection_residual_volume

        return projection_residual_volume(self.volume, self.scan, self.quality)

    def _context(self) -> writers.WriteContext:
        return write_context(self.scan, self.provenance.method, self.provenance.config_hash, str(self.verdict))


def write_context(scan: SliceScan | ProjectionScan, method: str, config_hash: str, verdict: str) -> writers.WriteContext:
    """Hand over what decides new UIDs: whatever decides the result, the configuration and how the scan was read."""
    if isinstance(scan, ProjectionScan):
        settings: list[object] = [config_hash, scan.views.detector.pitch_mm, scan.allowed]  # an axis that was found changes views
        source = scan.source.briefly()
    else:
        poses, source = scan.poses, scan.source
        settings = [config_hash, poses.thickness_mm.tolist(), poses.profile.kind, poses.profile.table, scan.allowed]
    return writers.WriteContext(method=method, settings_hash=hash_of(settings), verdict=verdict, source=source)


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """Return the formats without repeats; raise `UsageError` (``ARG-NAME``) for one that does not exist."""
    wanted = tuple(dict.fromkeys(formats))
    known = (*writers.names(), *RESULT_FORMATS)
    for name in wanted:
        if name not in known:
            raise UsageError("ARG-NAME", f"there is no format called {name[:40]!r}", f"Known: {', '.join(known)}.")
    return wanted


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and hashes of its files in sorted order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = [f"{digest(file)}  {file.relative_to(path).as_posix()}\n" for file in sorted(path.rglob("*")) if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "OUT-WRITE", f"the output folder could not be made ({type(error).__name__})", "Choose another folder."
        ) from error


def _input(scan: SliceScan | ProjectionScan) -> dict[str, Any]:
    if isinstance(scan, ProjectionScan):
        return _projections(scan)
    poses = scan.poses
    return {
        "kind": "slices",
        "modality": scan.source.modality,
        "slices": len(poses),
        "image_shape": list(poses.image_shape),
        "pixel_spacing_mm": [float(v) for v in poses.pixel_spacing_mm[0]],
        "thickness_mm": sorted({round(float(t), 4) for t in poses.thickness_mm}),
        "depths_mm": [round(float(d), 4) for d in poses.depths_mm],
        "profile": poses.profile.kind,
        "quantity": str(scan.quantity),
        "instances": [instance.sop_instance_uid for instance in scan.source.instances],
        "allowed": list(scan.allowed),
    }


def _projections(scan: ProjectionScan) -> dict[str, Any]:
    return {
        "kind": "projections",
        "modality": scan.source.modality,
        "geometry": geometry_summary(scan.views),
        "geometry_hash": scan.views.digest,
        "measures": str(scan.measures),
        "measured_share": 1.0 if scan.measured is None else float(scan.measured.mean()),
        "instances": [instance.sop_instance_uid for instance in scan.source.instances],
        "allowed": list(scan.allowed),
    }


def _doubt(uncertainty: Volume | None) -> dict[str, float]:
    if uncertainty is None:
        return {}
    values = uncertainty.voxels if uncertainty.seen is None else uncertainty.voxels[uncertainty.seen]
    if not values.size:
        return {}
    return {"uncertainty_mean": float(values.mean()), "uncertainty_p95": float(np.percentile(values, 95))}


def _volume(volume: Volume) -> dict[str, Any]:
    return {
        "shape": list(volume.grid.shape),
        "spacing_mm": list(volume.grid.spacing_mm),
        "to_lps_mm": volume.grid.to_lps_mm.tolist(),
        "quantity": str(volume.quantity),
    }
