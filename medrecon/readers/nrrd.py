"""NRRD: ``.nrrd`` in one file, ``.nhdr`` with its data beside it.

The place comes from space, directions and origin. A file without spacing is refused, one whose space is none of the
three that name the patient's sides is taken as LPS with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medrecon.core.errors import InputError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.readers import _itk, _volumes
from medrecon.readers._listing import open_regular

_PACKINGS = {
    **dict.fromkeys(("raw",), "raw"),
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
    **dict.fromkeys(("gz", "gzip"), "deflate"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
}
_GAPS = ("byte skip", "byteskip", "line skip", "lineskip")
_SIDES = {"ras", "las", "lps", "right-anterior-superior", "left-anterior-superior", "left-posterior-superior"}
_MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "micron": 0.001, "microns": 0.001}


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file begins with NRRD's magic word."""
    return head.startswith(b"NRRD000")


def companions(path: Path) -> list[Path]:
    """Return the data file that a detached header names, where it may name it."""
    try:
        fields, _, end = _header(path)
        stored = _stored(path, fields, end)
    except (InputError, OSError):
        return []
    return [] if stored.path == path else [stored.path]


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the volumes in NRRD files, one for each time point or component."""
    return _volumes.find_each("nrrd", "NRRD file", files, lambda path: _describe(path, options))


read = _itk.read


def _describe(path: Path, options: ReadOptions) -> list[_volumes.Described]:
    fields, keys, end = _header(path)
    findings: list[Finding] = []
    space = fields.get("space", "").lower().removesuffix("-time").removesuffix("t")
    if space not in _SIDES:
        fact = "the file does not name the patient's sides; its axes are assumed to run to left, back and head (LPS)."
        findings.append(Finding("VOL-SIDES", Verdict.WARN, fact, hint="Left and right may be swapped: check them."))
    spacing = None
    if not fields.keys() & {"space directions", "spacings"}:
        spacing = options.spacing_mm
        findings.append(_volumes.no_spacing(spacing))
    unit = _unit(fields, findings)
    stored = _stored(path, fields, end)
    return _itk.describe(path, "NrrdImageIO", stored, findings, spacing_mm=spacing, mm_per_unit=unit, keys=keys)


def _header(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """Return the fields, the key-value pairs, and where the header ends."""
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    with open_regular(path) as file:
        for number, line in enumerate(_itk.header_lines(file)):
            if not line:
                break
            key = re.match(r"([^:]+):=(.*)", line)
            field = re.match(r"([^:]+): ?(.*)", line)
            if key:
                keys[key[1]] = key[2]
            elif field:
                name = field[1].strip().lower()
                if name in fields:
                    raise InputError("VOL-HEADER", "the header has one field twice.", "Export the file again.")
                fields[name] = field[2].strip()
            elif number and not line.startswith("#"):
                raise InputError("VOL-HEADER", f"line {number + 1} of the header is no field.", "Export the file again.")
        return fields, keys, file.tell()


def _stored(path: Path, fields: dict[str, str], end: int) -> _itk.Stored:
    packing = _PACKINGS.get(fields.get("encoding", "").lower())
    if packing is None:
        raise InputError("VOL-HEADER", "the voxels are encoded in a way that is not read here.", "Save them as raw or gzip.")
    name = fields.get("data file", fields.get("datafile"))
    if {"data file", "datafile"} <= fields.keys() or any(
        fields.get(k, "0") != "0" for k in ("byte skip", "byteskip", "line skip", "lineskip")
    ):
        raise InputError("VOL-HEADER", "the voxels begin behind a gap, or in two places.", "Save the file in one piece.")
    if name is None:
        return _itk.Stored(path, end, packing)
    if name.startswith("LIST") or "%" in name:
        raise InputError("VOL-DETACHED", "the voxels are spread over several files.", "Save the file in one piece.")
    return _itk.Stored(_itk.beside(path, name), 0, packing)


def _unit(fields: dict[str, str], findings: list[Finding]) -> float:
    """Millimetres in one unit of the header; mm where it names none or an unknown one."""
    names = set(re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))) - {""}
    known = {_MM_PER_UNIT[name] for name in names if name in _MM_PER_UNIT}
    if len(known) > 1:
        raise InputError("VOL-HEADER", "the header names several units of length.", "Save the file in mm.")
    unit = known.pop() if known else 1.0
    if names and names != {"mm"}:
        findings.append(Finding("VOL-UNIT", Verdict.OK, f"lengths are taken in units of {unit:g} mm and were turned into mm."))
    return unit
