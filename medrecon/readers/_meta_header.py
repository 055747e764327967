"""The text header of MetaImage files, which hold volumes or tracked frames."""

from __future__ import annotations

import re
from pathlib import Path

from medrecon.core.errors import InputError
from medrecon.readers import _itk
from medrecon.readers._listing import open_regular

_TRACKED = re.compile(r"Seq_Frame\d+_[A-Z][A-Za-z0-9]*To[A-Z][A-Za-z0-9]*Transform\s*=")


def begins(head: bytes) -> bool:
    """Whether a file begins with the keys of a MetaImage header."""
    return re.match(rb"\s*(ObjectType\s*=\s*Image\b|NDims\s*=\s*\d)", head) is not None


def is_tracked(path: Path) -> bool:
    """Whether a MetaImage holds frames that say where a tracker saw them; no more than its header is read."""
    try:
        with open_regular(path) as file:
            for line in _itk.header_lines(file):
                if line.startswith("ElementDataFile"):
                    return False
                if _TRACKED.match(line):
                    return True
    except (InputError, OSError):
        pass
    return False


def keys_of(path: Path) -> tuple[dict[str, str], int]:
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


def stored(path: Path, keys: dict[str, str], end: int) -> _itk.Stored:
    """Return where the voxels are, in the file itself or beside it."""
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
