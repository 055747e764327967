"""What the readers of projections share: listing scans, judging their geometry, and finishing what was read.

A scan is judged from its headers before a pixel is decoded. Whatever refuses a file that is surely a scan becomes a
finding of a refused series, so that its numbers and its way out are not lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core import findings as judging
from medrecon.core.errors import GeometryError, InputError, MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.patient_position import PatientPosition, between, position_of
from medrecon.core.projections import Measured, ProjectionScan, judge_arc, judge_values
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.source import Source
from medrecon.core.views import ViewGeometry
from medrecon.preprocess.flat_field import flat_field
from medrecon.readers._volumes import file_sha256
from medrecon.safety.limits import Limits, refuse_volume
from medrecon.safety.text import short_id

_ALLOWANCE = "bad-pixels"
_OF_GEOMETRY = frozenset({"PRJ-FEW", "PRJ-GEOM", "PRJ-HAND", "PRJ-POSITION", "PRJ-SHAPE", "PRJ-UNIT"})


@dataclass(frozen=True, slots=True)
class Described:
    """What the headers of one scan say.

    Parameters
    ----------
    views : ViewGeometry
    paths : tuple of Path
        Every file that belongs to the scan.
    measures : Measured
    findings : tuple of Finding
    header : object
        Whatever the reader wants to keep.
    modality : str
    source : Source
        What is known of the patient and the study, for DICOM.
    position : PatientPosition, optional
        How the patient lay, where a header says it; `views` is already that of this position.
    """

    views: ViewGeometry
    paths: tuple[Path, ...]
    measures: Measured = Measured.LINE_INTEGRALS
    findings: tuple[Finding, ...] = ()
    header: Any = None
    modality: str = ""
    source: Source = field(default_factory=Source)
    position: PatientPosition | None = None


@dataclass(frozen=True, slots=True)
class ProjectionFiles:
    """A scan as found: what its reader needs to read it; sizes and times tell whether the files are still the same."""

    described: Described
    stamps: tuple[tuple[int, int], ...]
    sha256: tuple[str, ...]

    @property
    def header(self) -> Any:  # noqa: ANN401 (each reader keeps its own)
        """What the reader kept."""
        return self.described.header


def find_each(
    reader: str, what: str, files: Sequence[ListedFile], describe: Callable[[Path], Described | None]
) -> tuple[list[SeriesInfo], list[Skipped]]:
    """Describe the scan of every file; `describe` returns None for a file that is none after all."""
    series: list[SeriesInfo] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    for file in files:
        try:
            info = found(reader, partial(describe, file.path), [file.path])
        except OSError:
            skipped.append(Skipped(file.number, what, "INP-UNREADABLE"))
            continue
        if info is None:
            skipped.append(Skipped(file.number, f"{what} without projections", "INP-OTHER"))
        elif info.id in seen:
            skipped.append(Skipped(file.number, f"copy of another {what}", "INP-COPY"))
        else:
            seen.add(info.id)
            series.append(info)
    return series, skipped


def found(reader: str, describe: Callable[[], Described | None], paths: Sequence[Path]) -> SeriesInfo | None:
    """Give a scan its identity, which follows from its bytes; what refuses it becomes its finding."""
    try:
        described = describe()
        return None if described is None else _series(reader, described)
    except MedreconError as error:
        hashes = tuple(map(file_sha256, paths))
        finding = Finding(error.code, Verdict.REFUSED, error.fact, hint=error.hint)
        identity = f"series-{short_id(reader, *hashes)}"
        return SeriesInfo(identity, reader, "projections", "", (0, 0, 0), (None, 0.0, 0.0), findings=(finding,))


def begin(info: SeriesInfo, options: ReadOptions, bytes_per_pixel: int = 8) -> ProjectionFiles:
    """Return what was found, or raise: for a refusal that is not allowed, a file changed meanwhile, too little memory."""
    refuse(info.findings, options)
    content = info.content
    if not isinstance(content, ProjectionFiles):
        raise InputError("INP-SERIES", "the scan was not found by this reader.", "Pass a result of `find`.")
    if tuple(map(_stamp, content.described.paths)) != content.stamps:
        raise InputError("INP-CHANGED", "a file was changed since it was found.", "Find the scan again.")
    refuse_volume(bytes_per_pixel * int(np.prod(info.shape, dtype=np.int64)), Limits())
    return content


def finish(
    info: SeriesInfo,
    options: ReadOptions,
    pixels: NDArray[Any],
    *,
    open_beam: ArrayLike | None = None,
    dark: ArrayLike = 0.0,
    saturation: float | None = None,
    measured: NDArray[np.bool_] | None = None,
) -> ProjectionScan:
    """Make the scan of what was decoded: judge the values as stored, then divide by the open beam where there is one.

    Parameters
    ----------
    pixels : (views, rows, columns)
        As the series' `measures` says; counts where `open_beam` is given.
    open_beam, dark : (rows, columns), (images, rows, columns) or a number
    saturation : float, optional
        Largest value of the detector.
    measured : (views, rows, columns) bool, optional
    """
    content = info.content
    if not isinstance(content, ProjectionFiles):
        raise InputError("INP-SERIES", "the scan was not found by this reader.", "Pass a result of `find`.")
    described = content.described
    values = np.asarray(pixels, dtype=np.float32)
    judged_as = Measured.COUNTS if open_beam is not None else described.measures
    noticed = judge_values(values, judged_as, saturation)
    findings = (*info.findings, *noticed)
    refuse(findings, options)
    valid = _usable(values, judged_as, saturation) if noticed else np.ones((1, 1, 1), dtype=np.bool_)
    if measured is not None:
        valid = valid & measured
    if open_beam is not None:
        transmitted = flat_field(values, open_beam, dark)
        values, valid = transmitted.pixels, valid & transmitted.valid
        findings += _dead(transmitted.valid)
    whole = bool(valid.all())
    source = replace(described.source, reader=info.reader, series_id=info.id, modality=info.modality, file_hashes=content.sha256)
    return ProjectionScan(
        pixels=values if whole else np.where(valid, np.nan_to_num(values, posinf=0, neginf=0), np.float32(0)),
        views=described.views,
        measures=described.measures,
        measured=None if whole else np.broadcast_to(valid, values.shape).copy(),
        findings=findings,
        allowed=options.allow,
        source=source,
        position=described.position,
    )


def refuse(findings: Iterable[Finding], options: ReadOptions) -> None:
    """Raise for the first finding that refuses the scan and is not allowed."""
    noticed = tuple(findings)
    grave = next((f for f in noticed if judging.judge([f], options.allow) is Verdict.REFUSED), None)
    if grave is not None:
        judging.refuse(noticed, options.allow, GeometryError if grave.code in _OF_GEOMETRY else InputError)


def assumed(what: str, hint: str = "Left and right may be swapped: check them on something known.") -> Finding:
    """Say what no file of this format says, and what is assumed."""
    return Finding("PRJ-ASSUMED", Verdict.WARN, what, hint=hint)


def lying(views: ViewGeometry, named: str) -> tuple[ViewGeometry, PatientPosition | None, Finding]:
    """Turn views that are right for a patient head first, supine, to the position that a header names.

    Parameters
    ----------
    named : str
        Patient Position (0018,5100); empty where there is none.
    """
    position = position_of(named)
    if position is None:
        return views, None, unknown_position("the files do not say how the patient lay")
    return views.moved(between(None, position)), position, stated_position(position)


def stated_position(position: PatientPosition) -> Finding:
    """Say how the patient lay, as the files say."""
    fact = f"the patient lay {position.words}, as the files say"
    return Finding("PRJ-POSITION", Verdict.OK, fact, {"position": str(position)})


def unknown_position(why: str, verdict: Verdict = Verdict.WARN) -> Finding:
    """Say that nothing tells how the patient lay, and what is assumed."""
    hint = "If not, left and right or head and feet are exchanged: set projections.patient_position."
    return Finding("PRJ-POSITION", verdict, f"{why}; head first, supine (HFS) is assumed", hint=hint)


def pitch_mm(options: ReadOptions, stored: tuple[float, float] | None) -> tuple[float, float]:
    """Return the pitch (row, column) of the file, or the caller's where the file has none.

    Raises
    ------
    InputError
        ``PRJ-PITCH`` where neither says it.
    """
    if stored is not None:
        return stored
    if options.spacing_mm is None:
        raise InputError(
            "PRJ-PITCH",
            "the file does not say how large a detector pixel is.",
            "Give it: spacing_mm=(1, row, column) or --input-spacing 1,row,column; the first number is not used.",
        )
    return options.spacing_mm[1], options.spacing_mm[2]


def same_count(images: int, angles: int) -> None:
    """Refuse angles that do not pair with the images, with both numbers (``PRJ-SHAPE``)."""
    if images != angles:
        raise GeometryError("PRJ-SHAPE", f"there are {images} images and {angles} angles", "One angle belongs to each image.")


def cut(needed: int, available: int) -> InputError:
    """Return the error of a file that ends before its pixels do."""
    return InputError(
        "PRJ-CUT", f"the header announces {needed} bytes of pixels, and the file has {max(available, 0)}.", "Copy it again."
    )


def damaged(what: str) -> InputError:
    """Return the error of a header that cannot be."""
    return InputError("PRJ-HEADER", f"{what}.", "Copy or export the file again.")


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts ``_2`` before ``_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _series(reader: str, described: Described) -> SeriesInfo:
    hashes = tuple(map(file_sha256, described.paths))
    views = described.views
    if views.detector.shape[0] > Limits().side or views.detector.shape[1] > Limits().side:
        raise InputError("PRJ-SHAPE", f"the detector has {views.detector.shape} pixels, at most {Limits().side} are read.")
    return SeriesInfo(
        id=f"series-{short_id(reader, *hashes)}",
        reader=reader,
        kind="projections",
        modality=described.modality,
        shape=views.shape,
        spacing_mm=(None, *views.detector.pitch_mm),
        findings=(*described.findings, *judge_arc(views)),
        file_count=len(described.paths),
        views=views,
        content=ProjectionFiles(described, tuple(map(_stamp, described.paths)), hashes),
    )


def _usable(values: NDArray[np.float32], measures: Measured, saturation: float | None) -> NDArray[np.bool_]:
    usable = np.isfinite(values)
    if measures is not Measured.LINE_INTEGRALS:
        usable &= values >= 0
    if saturation is not None:
        usable &= ~(values >= saturation).all(axis=2, keepdims=True)
    return usable


def _dead(valid: NDArray[np.bool_]) -> tuple[Finding, ...]:
    if valid.all():
        return ()
    count = int(valid.size - np.count_nonzero(valid))
    fact = f"{count} of {valid.size} pixels have an open beam that is not brighter than the dark image; they are not measured"
    return (Finding("PRJ-FLAT", Verdict.WARN, fact, {"pixels": count}),)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError("INP-GONE", "a file is gone since it was listed.", "Find the scan again.") from error
    return status.st_size, status.st_mtime_ns
