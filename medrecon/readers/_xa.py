"""How an angiogram of `xa` becomes a scan: its angles, its distances, and what must not have been done to its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from medrecon.core.errors import GeometryError, InputError, MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Float64
from medrecon.core.patient_position import PatientPosition, position_of
from medrecon.core.progress import Tick
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.views import Detector, ViewGeometry
from medrecon.readers import _dicom_frames, _projections
from medrecon.readers._dicom_frames import DicomFile
from medrecon.readers.dicom.headers import StoredFile
from medrecon.readers.dicom.tags import Tags, shown
from medrecon.safety.limits import Limits

#: The sides of the patient that Patient Orientation names, LPS.
_SIDES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}
_SIDEWAYS, _OPPOSITE = 0.2, 0.5  # cosines between a side that is named and the columns


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the rotational runs; see `medrecon.readers.xa.find`."""
    series: list[SeriesInfo] = []
    skipped: list[Skipped] = []
    for listed in files:
        try:
            file = _dicom_frames.opened(listed, Limits())
        except MedreconError as error:
            skipped.append(Skipped(listed.number, "damaged angiogram", error.code))
            continue
        if file is None or file.stored.layout.frames < 2 or not _turns(file.tags):
            skipped.append(Skipped(listed.number, "image without a place in the patient", "DCM-OTHER"))
            continue
        info = _projections.found("xa", partial(_describe, file), [listed.path])
        if info is not None and info.id not in {one.id for one in series}:
            series.append(info)
        else:
            skipped.append(Skipped(listed.number, "copy of another angiogram", "INP-COPY"))
    return series, skipped


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one run; see `medrecon.readers.xa.read`."""
    stored: StoredFile = _projections.begin(info, options).header
    ((_, pixels),) = _dicom_frames.frames([stored])
    tick(1.0)
    highest = float(2**stored.layout.bits_stored - 1)
    return _projections.finish(info, options, pixels, saturation=highest)


def _turns(tags: Tags) -> bool:
    increments = tags.numbers_of("PositionerPrimaryAngleIncrement") + tags.numbers_of("PositionerSecondaryAngleIncrement")
    return any(increment != 0 for increment in increments)


def _describe(file: DicomFile) -> _projections.Described:
    tags, layout = file.tags, file.stored.layout
    _refuse_changed_images(tags)
    findings = [*_intensity(tags)]
    primary, noticed = _angles(tags, "Primary", layout.frames)
    secondary, more = _angles(tags, "Secondary", layout.frames)
    sid, sdd = _needed(tags, "DistanceSourceToPatient", 1)[0], _needed(tags, "DistanceSourceToDetector", 1)[0]
    row_pitch, column_pitch = _needed(tags, "ImagerPixelSpacing", 2)
    views = ViewGeometry.c_arm(primary, secondary, sid, sdd, Detector((layout.rows, layout.columns), (row_pitch, column_pitch)))
    position = position_of(tags.text_of("PatientPosition"))
    views, orientation = _upright(views, tags)
    hint = "Give the open beam before the logarithm is taken."
    findings += [
        *noticed,
        *more,
        _lay(position),
        *orientation,
        Finding("PRJ-FLAT", Verdict.WARN, "the file holds no open beam; its values are counts", hint=hint),
        _projections.assumed("reading rotational angiograms was tried on made files alone; the isocentre is taken as the origin"),
    ]
    return _projections.Described(
        views=views,
        paths=(file.stored.path,),
        measures=Measured.COUNTS,
        findings=tuple(findings),
        header=file.stored,
        modality="XA",
        source=_dicom_frames.source_of([file.stored], file.key, file.elements),
        position=position,
    )


def _lay(position: PatientPosition | None) -> Finding:
    """Say how the patient lay; the positioner's angles are the patient's own, so that nothing is turned for it."""
    if position is not None:
        return _projections.stated_position(position)
    return _projections.unknown_position("the file does not say how the patient lay; its angles are those about the patient")


def _upright(views: ViewGeometry, tags: Tags) -> tuple[ViewGeometry, list[Finding]]:
    """Turn the detector by half a turn where Patient Orientation (0020,0020) says that rows grow to the head, not the feet.

    Raises
    ------
    GeometryError
        ``PRJ-HAND`` where it says that the image is mirrored, or lies on its side.
    """
    named = tags.words_of("PatientOrientation")
    if len(named) != 2 or not all(named):
        return views, [_projections.assumed("the file does not say which end of its images is the head; rows grow to the feet")]
    across, down = (_SIDES.get(one[0].upper()) for one in named)
    if across is None or down is None or not abs(down[2]):
        raise GeometryError("PRJ-HAND", "the rows of the images do not grow to head or feet", "Export them as they were taken.")
    if down[2] > 0:
        views = replace(views, u=-views.u, v=-views.v)
    along = views.u[[0, len(views) // 2]] @ np.asarray(across)  # it is said of the whole run, so of its first or middle image
    if along.max() < _SIDEWAYS and along.min() < -_OPPOSITE:
        raise GeometryError("PRJ-HAND", "the images are mirrored, as their orientation says", "Export them as they were taken.")
    return views, []


def _refuse_changed_images(tags: Tags) -> None:
    """Refuse images that were turned or flipped after they were taken: left and right would be a guess."""
    flipped = tags.text_of("FieldOfViewHorizontalFlip").upper() == "YES"
    turned = tags.number_of("FieldOfViewRotation") or 0.0
    if flipped or turned % 360:
        raise GeometryError(
            "PRJ-HAND",
            f"the images were {'flipped' if flipped else f'turned by {turned:g} degrees'}",
            "Export them as they were taken.",
        )


def _intensity(tags: Tags) -> list[Finding]:
    """Refuse values that are not proportional to what the detector received."""
    relation, sign = tags.text_of("PixelIntensityRelationship").upper(), tags.integer_of("PixelIntensityRelationshipSign")
    if relation not in ("LIN", "") or sign == -1:
        raise InputError(
            "PRJ-HEADER", "the pixels are not linear in the X-rays received.", "Export the run with linear values (LIN)."
        )
    return [] if relation else [_projections.assumed("the file does not say that its values are linear; they are taken so")]


def _angles(tags: Tags, which: str, count: int) -> tuple[Float64, list[Finding]]:
    """Return the angle of every frame in degrees: the first one and the steps from each frame to the next."""
    first = _needed(tags, f"Positioner{which}Angle", 1)[0]
    increments = np.array(tags.numbers_of(f"Positioner{which}AngleIncrement"))
    if not increments.size:
        return np.full(count, first), []
    if len(increments) == count - 1:
        increments = np.append(0.0, increments)
    _projections.same_count(count, len(increments))
    if _is_ramp(increments):
        what = "the angles' increments grow evenly; they are taken as measured from the first frame, not from frame to frame"
        return first + increments, [_projections.assumed(what, "Check the arc of the views.")]
    return first + np.cumsum(increments), []


def _is_ramp(increments: Float64) -> bool:
    """Whether increments grow as angles do, where steps from frame to frame would be nearly equal."""
    steps = np.diff(increments)
    step = float(np.median(steps)) if len(steps) > 2 else 0.0
    return step != 0 and bool(np.abs(steps - step).max() < 0.5 * abs(step))


def _needed(tags: Tags, keyword: str, count: int) -> tuple[float, ...]:
    found = tags.floats(keyword, count)
    if found is None:
        raise InputError("PRJ-HEADER", f"{shown(keyword)} is missing.", "Without it nobody knows where the source was.")
    return found
