"""What the readers of volume files share: listing one file's volumes, judging a grid, and finishing what was read.

A volume file is judged from its header and its length; no voxel is decoded before `finish`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core import findings as judging
from medrecon.core.errors import GeometryError, InputError, MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Grid
from medrecon.core.interop import measured_volume
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.source import Source
from medrecon.core.volume import Quantity, Volume
from medrecon.readers._listing import open_regular
from medrecon.safety.limits import Limits, refuse_volume
from medrecon.safety.text import short_id

#: How a file of ours says what its values measure, in NIfTI's description or under a key of NRRD and MetaImage.
RESEARCH_USE = "research use"
MOST_PARTS = 4096  # volumes in one file; a run of functional MR has at most a few thousand
MOST_PAGES = 16_384  # pages in one file, as a volume has no longer side

_STEP = 1 << 20
_THICK = 1.5  # times the next wider spacing
_LONGEST_MM = 10_000.0
_OF_GEOMETRY = frozenset({"NII-AFFINE", "VOL-EXTENT", "VOL-FEW", "VOL-SPACING", "IMG-SPACING", "IMG-GAP"})


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """One volume in a file, as found: what its reader needs to read it.

    Parameters
    ----------
    grid : Grid or None
        None where the series is refused for having none.
    part : int
        Which volume of the file, from 0.
    paths, stamps, sha256 : one per file
        Size and time of change tell whether the file is still the one that was judged.
    header : object
        Whatever the reader wants to keep.
    """

    grid: Grid | None
    paths: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]
    sha256: tuple[str, ...]
    quantity: Quantity = Quantity.ARBITRARY
    part: int = 0
    header: Any = None


@dataclass(frozen=True, slots=True)
class Described:
    """What a header says about one volume.

    Parameters
    ----------
    shape : (slices, rows, columns)
    spacing_mm : (slice, row, column), used where there is no grid
    """

    shape: tuple[int, int, int]
    grid: Grid | None
    findings: tuple[Finding, ...] = ()
    quantity: Quantity = Quantity.ARBITRARY
    parts: tuple[str, ...] = ()
    part: int = 0
    header: Any = None
    companions: tuple[Path, ...] = ()


def find_each(
    reader: str, what: str, files: Sequence[ListedFile], describe: Callable[[Path], list[Described]]
) -> tuple[list[SeriesInfo], list[Skipped]]:
    """Describe every file; one that cannot be understood, and a second copy of the same bytes, are skipped with a code."""
    series: list[SeriesInfo] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    for file in files:
        try:
            found = series_of(reader, (file.path,), describe(file.path))
        except MedreconError as error:
            skipped.append(Skipped(file.number, what, error.code))
            continue
        except OSError:
            skipped.append(Skipped(file.number, what, "INP-UNREADABLE"))
            continue
        if found[0].id in seen:
            skipped.append(Skipped(file.number, f"copy of another {what}", "INP-COPY"))
            continue
        seen.update(info.id for info in found)
        series += found
    return series, skipped


def series_of(reader: str, paths: tuple[Path, ...], volumes: Sequence[Described]) -> list[SeriesInfo]:
    """Give the volumes of one file, or of one stack of files, their identity, which follows from the bytes."""
    paths = (*paths, *volumes[0].companions)
    hashes, stamps = tuple(map(file_sha256, paths)), tuple(map(_stamp, paths))
    return [
        SeriesInfo(
            id=f"series-{short_id(reader, *hashes, str(one.part))}",
            reader=reader,
            kind="volume",
            modality="",
            shape=one.shape,
            spacing_mm=one.grid.spacing_mm if one.grid is not None else (None, 0.0, 0.0),
            findings=one.findings,
            parts=one.parts,
            file_count=len(paths),
            content=VolumeFile(one.grid, paths, stamps, hashes, one.quantity, one.part, one.header),
        )
        for one in volumes
    ]


def begin(info: SeriesInfo, options: ReadOptions) -> VolumeFile:
    """Return what was found, or raise: for a refusal that is not allowed, a file changed meanwhile, too little memory."""
    content = info.content
    if not isinstance(content, VolumeFile):
        raise InputError("INP-SERIES", "the series was not found by this reader.", "Pass a result of `find`.")
    refuse(info.findings, options)
    if tuple(map(_stamp, content.paths)) != content.stamps:
        raise InputError("INP-CHANGED", "a file was changed since it was found.", "Find the series again.")
    refuse_volume(8 * int(np.prod(info.shape, dtype=np.int64)), Limits())  # as stored, and as float32
    return content


def finish(info: SeriesInfo, options: ReadOptions, values: NDArray[Any]) -> Volume:
    """Make the volume of what was decoded, (slices, rows, columns); voxels that are not finite count as not measured."""
    content = info.content
    if not isinstance(content, VolumeFile) or content.grid is None:
        raise InputError("INP-SERIES", "the series has no place in space.", "Pass a result of `find` that is not refused.")
    volume = measured_volume(values, content.grid, options.quantity or content.quantity)
    findings = info.findings
    if options.quantity is not None and options.quantity is not content.quantity:
        fact = f"the values were declared to be {options.quantity}, the file says {content.quantity}."
        findings = (*findings, Finding("VOL-QUANTITY", Verdict.OK, fact))
    if volume.seen is not None:
        missing = int(volume.seen.size - np.count_nonzero(volume.seen))
        fact = f"{missing} of {volume.seen.size} voxels are not finite and count as not measured."
        findings = (*findings, Finding("VOL-NAN", Verdict.WARN, fact, {"voxels": missing}))
    source = Source(reader=info.reader, series_id=info.id, modality=info.modality, file_hashes=content.sha256)
    return replace(volume, source=source, findings=findings, allowed=options.allow)


def refuse(findings: Iterable[Finding], options: ReadOptions) -> None:
    """Raise for the first finding that refuses the series and is not allowed."""
    found = tuple(findings)
    grave = next((f for f in found if judging.judge([f], options.allow) is Verdict.REFUSED), None)
    if grave is not None:
        judging.refuse(found, options.allow, GeometryError if grave.code in _OF_GEOMETRY else InputError)


def judge_shape(shape: tuple[int, int, int], grid: Grid | None) -> list[Finding]:
    """Judge what every volume is judged by: more than one plane each way, a plausible size, planes that look thick."""
    if min(shape) < 2:
        fact = f"the image has {' x '.join(map(str, shape))} voxels: a single plane is no volume."
        return [Finding("VOL-FEW", Verdict.REFUSED, fact, {"shape": list(shape)}, hint="Give at least two planes.")]
    if grid is None:
        return []
    extents = np.asarray(grid.shape) * grid.spacing_mm
    if extents.max() > _LONGEST_MM:
        fact = f"the volume would be {extents.max() / 1000:.3g} m long: its unit or its spacing is wrong."
        hint = "Correct the header, or give the spacing (--input-spacing)."
        return [Finding("VOL-EXTENT", Verdict.REFUSED, fact, {"extent_mm": extents.tolist()}, hint=hint)]
    return _thick(grid)


def no_spacing(given_mm: tuple[float, float, float] | None) -> Finding:
    """Say that a file carries no spacing: refused, or the one that the caller gave."""
    if given_mm is None:
        hint = "Give it: spacing_mm=(slice, row, column), or --input-spacing."
        return Finding("VOL-SPACING", Verdict.REFUSED, "the file does not say how far its voxels stand apart.", hint=hint)
    fact = f"the file carries no spacing; {' x '.join(f'{step:g}' for step in given_mm)} mm was given."
    return Finding("VOL-GIVEN", Verdict.WARN, fact, {"spacing_mm": list(given_mm)})


def file_sha256(path: Path) -> str:
    """Hash a file in steps."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(_STEP):
            digest.update(piece)
    return digest.hexdigest()


def spoken_quantity(text: str) -> Quantity:
    """Return the quantity that our own writers name in a description, ``arbitrary`` for anything else."""
    words = text.removeprefix(f"{RESEARCH_USE}; ")
    return Quantity(words) if words in set(Quantity) else Quantity.ARBITRARY


def _thick(grid: Grid) -> list[Finding]:
    axis = int(np.argmax(grid.spacing_mm))
    widest, other = grid.spacing_mm[axis], max(step for k, step in enumerate(grid.spacing_mm) if k != axis)
    if widest <= _THICK * other:
        return []
    name = ("slice", "row", "column")[axis]
    fact = f"planes along the {name} axis stand {widest:.3g} mm apart, {widest / other:.1f} times the next wider spacing: "
    numbers = {"axis": axis, "spacing_mm": widest, "other_mm": other}
    return [Finding("VOL-THICK", Verdict.OK, fact + f"they can be reconstructed as slices along axis {axis}.", numbers)]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(
            "INP-GONE", "a file is gone since it was listed.", "Run again when nothing changes the folder."
        ) from error
    return status.st_size, status.st_mtime_ns
