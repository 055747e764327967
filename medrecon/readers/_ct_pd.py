"""How the files of `ct_pd` become a scan: grouped by series and source, placed by their cylinder coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from medrecon.core import _view_checks as checks
from medrecon.core.errors import GeometryError, InputError, MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Float64
from medrecon.core.progress import Tick
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.views import Detector, ViewGeometry
from medrecon.readers import _dicom_frames, _projections
from medrecon.readers._dicom_frames import DicomFile
from medrecon.readers.dicom.headers import SeriesKey, StoredFile
from medrecon.safety.limits import Limits

_PITCH_U, _PITCH_V, _SHAPE, _ROWS, _COLUMNS = 0x70291002, 0x70291006, 0x7029100B, 0x70291010, 0x70291011
_PHI, _Z, _RHO, _RADIUS, _CENTRE = 0x70311001, 0x70311002, 0x70311003, 0x70311031, 0x70311033
_SHIFT_PHI, _SHIFT_Z, _SHIFT_RHO, _SOURCE = 0x7033100B, 0x7033100C, 0x7033100D, 0x70331063
_WATER = 0x70411001


class _Frame(NamedTuple):
    """What all views of a scan share."""

    shape: str
    rows: int
    columns: int
    row_pitch_mm: float
    column_pitch_mm: float
    radius_mm: float
    central_column: float
    central_row: float


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """One file: where its focal centre was, how far the focal spot flew from it, and how its values are scaled."""

    file: StoredFile
    frame: _Frame
    place: tuple[float, float, float]
    shift: tuple[float, float, float]
    scale: tuple[float, float]
    source: int
    water: str
    position: str


@dataclass(slots=True, eq=False)
class _Group:
    """The views of one series and source, and the header in which they agree."""

    key: SeriesKey
    views: list[_View] = field(default_factory=list)
    elements: Mapping[int, Any] | None = None

    def add(self, view: _View, file: DicomFile) -> None:
        """Add a view and forget the rest of its file."""
        self.views.append(view)
        self.elements = _dicom_frames.agreed(self.elements, file)


@dataclass(frozen=True, slots=True)
class _Header:
    """What `read` needs of every view."""

    files: tuple[StoredFile, ...]
    scales: tuple[tuple[float, float], ...]


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the scans; see `medrecon.readers.ct_pd.find`."""
    groups: dict[tuple[SeriesKey, int], _Group] = {}
    damaged: dict[SeriesKey | None, list[tuple[ListedFile, MedreconError]]] = {}
    skipped = []
    for listed in files:
        file = None
        try:
            file = _dicom_frames.opened(listed, Limits())
            if file is None:
                skipped.append(Skipped(listed.number, "CT projection without pixels", "DCM-OTHER"))
                continue
            view = _view(file)
            groups.setdefault((file.key, view.source), _Group(file.key)).add(view, file)
        except MedreconError as error:
            damaged.setdefault(None if file is None else file.key, []).append((listed, error))
    series = []
    for (key, source), group in groups.items():
        unknown = damaged.get(None, []) if len({one for one, _ in groups}) == 1 else []
        lost = [error for _, error in (*damaged.get(key, []), *unknown)]
        info = _projections.found("ct_pd", partial(_describe, group, lost), [view.file.path for view in group.views])
        if info is not None:
            several = len([one for one in groups if one[0] == key]) > 1
            series.append(replace(info, parts=(f"source {source}",) if several else ()))
    skipped += [
        Skipped(listed.number, "damaged CT projection", error.code) for many in damaged.values() for listed, error in many
    ]
    return series, skipped


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; see `medrecon.readers.ct_pd.read`."""
    header: _Header = _projections.begin(info, options).header
    pixels = np.empty(info.shape, dtype=np.float32)
    for k, (_, stored) in enumerate(_dicom_frames.frames(header.files)):
        slope, intercept = header.scales[k]
        pixels[k] = (stored[0].T[:, ::-1] * np.float64(slope) + intercept).astype(np.float32)
        tick((k + 1) / len(pixels))
    return _projections.finish(info, options, pixels)


def _view(file: DicomFile) -> _View:
    centre = file.numbers(_CENTRE)
    rows, columns = file.integer(_ROWS), file.integer(_COLUMNS)
    if len(centre) != 2 or rows is None or columns is None:
        raise InputError("PRJ-HEADER", f"file {file.stored.number} lacks the detector's size or centre.", "Export it again.")
    layout = file.stored.layout
    if (layout.rows, layout.columns, layout.frames) != (columns, rows, 1):
        raise GeometryError(
            "PRJ-SHAPE",
            f"file {file.stored.number} has {layout.rows} x {layout.columns} pixels for {columns} columns and {rows} rows",
        )
    frame = _Frame(
        file.text(_SHAPE),
        rows,
        columns,
        file.need(_PITCH_V),
        file.need(_PITCH_U),
        file.need(_RADIUS),
        float(centre[0]),
        float(centre[1]),
    )
    slope, intercept = file.tags.floats("RescaleSlope", 1), file.tags.floats("RescaleIntercept", 1)
    return _View(
        file.stored,
        frame,
        (file.need(_PHI), file.need(_Z), file.need(_RHO)),
        (file.number(_SHIFT_PHI) or 0.0, file.number(_SHIFT_Z) or 0.0, file.number(_SHIFT_RHO) or 0.0),
        (slope[0] if slope else 1.0, intercept[0] if intercept else 0.0),
        file.integer(_SOURCE) or 1,
        file.text(_WATER),
        file.tags.text_of("PatientPosition"),
    )


def _describe(group: _Group, lost: list[MedreconError]) -> _projections.Described:
    views = sorted(group.views, key=lambda view: view.file.instance_number)
    if lost:
        raise InputError(lost[0].code, f"{len(lost)} views of the scan are damaged: {lost[0].fact}", "Copy them again.")
    frames = {view.frame for view in views}
    if len(frames) > 1:
        raise GeometryError("PRJ-SHAPE", f"the detector differs between views: {len(frames)} kinds of it", "Split the scan.")
    numbers = [view.file.instance_number for view in views]
    if len(set(numbers)) < len(numbers):
        twice = len(numbers) - len(set(numbers))
        raise GeometryError("PRJ-SHAPE", f"{twice} of {len(views)} views bear a number that another one bears", "Split the scan.")
    files = tuple(view.file for view in views)
    geometry, position, lay = _projections.lying(_views(views, frames.pop()), _one_position(views))
    return _projections.Described(
        views=geometry,
        paths=tuple(file.path for file in files),
        findings=(lay, *_gaps(numbers), *_water(views)),
        header=_Header(files, tuple(view.scale for view in views)),
        modality="CT",
        source=_dicom_frames.source_of(files, group.key, group.elements or {}),
        position=position,
    )


def _one_position(views: list[_View]) -> str:
    """Return the patient position in which all files agree."""
    named = {view.position for view in views}
    if len(named) > 1:
        raise GeometryError("PRJ-POSITION", f"the files name {len(named)} different patient positions", "Split the scan.")
    return named.pop()


def _views(views: list[_View], frame: _Frame) -> ViewGeometry:
    if frame.shape not in ("CYLINDRICAL", "FLAT"):
        raise InputError("PRJ-HEADER", "the detector is neither cylindrical nor flat.", "Other shapes are not read.")
    places, shifts = (np.array([getattr(view, name) for view in views]) for name in ("place", "shift"))
    phi, z, rho = places.T
    checks.unwrapped_angles(phi)
    detector = Detector(
        (frame.rows, frame.columns),
        (frame.row_pitch_mm, frame.column_pitch_mm),
        frame.radius_mm if frame.shape == "CYLINDRICAL" else None,
    )
    centred = ViewGeometry.cone(
        np.mod(phi, 2 * np.pi),
        rho,
        frame.radius_mm,
        detector,
        offset_u_mm=(frame.central_column - (frame.columns + 1) / 2) * frame.column_pitch_mm,
        offset_v_mm=((frame.rows + 1) / 2 - frame.central_row) * frame.row_pitch_mm,
        isocentre_lps_mm=np.column_stack([np.zeros_like(z), np.zeros_like(z), z]),
    )
    if not shifts.any():
        return centred
    return replace(centred, sources_lps_mm=_cylindrical(phi + shifts[:, 0], z + shifts[:, 1], rho + shifts[:, 2]))


def _cylindrical(phi: Float64, z: Float64, rho: Float64) -> Float64:
    """Return points (n, 3) in LPS mm."""
    return np.column_stack([rho * np.sin(phi), -rho * np.cos(phi), z])


def _gaps(numbers: list[int]) -> list[Finding]:
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    what = "the files do not say how the gantry's axes lie; taken as IEC's, angles from above, z growing into the gantry"
    found = [_projections.assumed(what, "Compare with the images of the same scan.")]
    if missing:
        fact = f"{missing} of {missing + len(numbers)} views are missing; every view is used at its own place"
        found.append(Finding("PRJ-FEW", Verdict.WARN, fact, {"missing": missing}))
    return found


def _water(views: list[_View]) -> list[Finding]:
    try:
        water = float(views[0].water)  # a decimal string, also where its type is not told
    except ValueError:
        return []
    if not 0 < water < np.inf:
        return []
    fact = f"water attenuates this spectrum by {water:.6g} per mm, as the scanner says"
    return [Finding("PRJ-WATER", Verdict.OK, fact, {"water_per_mm": water})]
