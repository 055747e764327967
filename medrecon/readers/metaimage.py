"""MetaImage: ``.mha`` in one file, ``.mhd`` with its data beside it.

Positions are LPS, as ITK writes them. A file without spacing is refused; tracked frames, which the same suffix may
hold, are no volume.
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


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file begins with the keys of a MetaImage header."""
    return re.match(rb"\s*(ObjectType\s*=\s*Image\b|NDims\s*=\s*\d)", head) is not None


def companions(path: Path) -> list[Path]:
    """Return the data file that a ``.mhd`` header names, where it may name it."""
    try:
        stored = _stored(path, *_header(path))
    except (InputError, OSError):
        return []
    return [] if stored.path == path else [stored.path]


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the volumes in MetaImage files, one for each time point or component."""
    return _volumes.find_each("metaimage", "MetaImage file", files, lambda path: _describe(path, options))


read = _itk.read


def _describe(path: Path, options: ReadOptions) -> list[_volumes.Described]:
    keys, end = _header(path)
    findings: list[Finding] = []
    if any(key.startswith("Seq_Frame") and key.endswith("Transform") for key in keys):
        fact = "the file holds tracked frames, each with its own place, and no volume."
        findings.append(Finding("VOL-TRACKED", Verdict.REFUSED, fact, hint="Compound the frames into a volume first."))
    spacing = None
    if not keys.keys() & {"ElementSpacing", "ElementSize"}:
        spacing = options.spacing_mm
        findings.append(_volumes.no_spacing(spacing))
    return _itk.describe(path, "MetaImageIO", _stored(path, keys, end), findings, spacing_mm=spacing, keys=keys)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Return the keys of the header, and where it ends: after the line that says where the voxels are."""
    keys: dict[str, str] = {}
    with open_regular(path) as file:
        for line in _itk.header_lines(file):
            key, equals, value = (part.strip() for part in line.partition("="))
            if key in keys or ":" in key or (line.strip() and not equals):  # ITK takes a colon for an equals sign
                raise InputError("VOL-HEADER", "the header has one key twice, or a line without one.", "Export the file again.")
            keys[key] = value
            if key == "ElementDataFile":
                return keys, file.tell()
    raise InputError("VOL-HEADER", "the header does not say where the voxels are.", "Export the file again.")


def _stored(path: Path, keys: dict[str, str], end: int) -> _itk.Stored:
    name = keys["ElementDataFile"]
    if keys.get("HeaderSize", "0") != "0":
        raise InputError("VOL-HEADER", "the voxels begin behind a gap.", "Save the file in one piece.")
    if name == "LIST" or "%" in name:
        raise InputError("VOL-DETACHED", "the voxels are spread over several files.", "Save the file in one piece.")
    packing = "deflate" if _is_true(keys, "CompressedData") else "raw" if _is_true(keys, "BinaryData") else "text"
    length = keys.get("CompressedDataSize", "") if packing == "deflate" else ""
    packed = int(length) if length.isdecimal() else None
    if name in ("LOCAL", "Local", "local"):
        return _itk.Stored(path, end, packing, packed)
    return _itk.Stored(_itk.beside(path, name), 0, packing, packed)


def _is_true(keys: dict[str, str], key: str) -> bool:
    return keys.get(key, "False")[:1] in ("T", "t", "1")
