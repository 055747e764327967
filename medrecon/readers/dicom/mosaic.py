"""Siemens mosaics: many slices in one large picture, row by row of tiles.

How many tiles there are and on which side of the first one the others lie stands only in private tags: in Siemens' CSA
header, or, for the number, in a tag beside it. A mosaic that lost them is refused, because nothing else tells.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from medrecon.core.errors import DicomError
from medrecon.core.words import counted
from medrecon.readers.dicom.tags import Tags

_MOST_TAGS, _MOST_ITEMS = 1000, 1000
_NAMES = frozenset(("NumberOfImagesInMosaic", "SliceNormalVector"))


class Tile(NamedTuple):
    """One slice inside a mosaic: its first pixel, its shape, and its distance from the first tile along the image normal."""

    corner: tuple[int, int]
    shape: tuple[int, int]
    depth_mm: float


def tiles(tags: Tags, shape: tuple[int, int]) -> tuple[Tile, ...]:
    """Return the tiles of a mosaic of `shape`, none where the image is no mosaic; empty tiles are left out.

    Raises
    ------
    DicomError
        ``DCM-MOSAIC`` where the private tags are gone or do not fit the picture.
    """
    if "MOSAIC" not in tags.words_of("ImageType"):
        return ()
    csa = csa_values(tags.private_of(0x0029, 0x10, "SIEMENS CSA HEADER"))
    count = _count(tags, csa)
    side = math.ceil(math.sqrt(count))
    rows, columns = shape[0] // side, shape[1] // side
    if count < 1 or (rows * side, columns * side) != shape or min(rows, columns) < 1:
        raise _refused(tags, f"{counted(count, 'tile', 'does', 'do')} not fit a picture of {shape[0]} x {shape[1]}")
    step = tags.need_floats("SpacingBetweenSlices", 1)[0] if count > 1 else 0.0
    step = math.copysign(step, _side(tags, csa))
    return tuple(Tile((k // side * rows, k % side * columns), (rows, columns), k * step) for k in range(count))


def csa_values(header: object) -> Mapping[str, tuple[float, ...]]:
    """Take the needed numbers from a CSA header, version 2 (``SV10``); an unreadable header has none."""
    found: dict[str, tuple[float, ...]] = {}
    if not isinstance(header, bytes) or not header.startswith(b"SV10"):
        return found
    try:
        at, count = 16, min(struct.unpack_from("<I", header, 8)[0], _MOST_TAGS)
        for _ in range(count):
            name = header[at : at + 64].partition(b"\0")[0].decode("ascii")
            items, at = _csa_items(header, at)
            if name in _NAMES:
                found[name] = tuple(float(item) for item in items)
    except (struct.error, ValueError):  # cut short, or no numbers where numbers belong
        pass
    return found


def _csa_items(header: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the values of the CSA tag that begins at `at` that are not empty, and where the next tag begins."""
    count, at, items = struct.unpack_from("<i", header, at + 76)[0], at + 84, []
    for _ in range(min(count, _MOST_ITEMS)):
        length = struct.unpack_from("<i", header, at + 4)[0]
        if not 0 <= length <= len(header) - at - 16:
            raise ValueError
        items.append(header[at + 16 : at + 16 + length].partition(b"\0")[0].strip())
        at += 16 + (length + 3) // 4 * 4
    return [item for item in items if item], at


def _count(tags: Tags, csa: Mapping[str, tuple[float, ...]]) -> int:
    plain = tags.private_of(0x0019, 0x0A, "SIEMENS MR HEADER")
    number = csa.get("NumberOfImagesInMosaic") or ((float(plain),) if isinstance(plain, int) else ())
    if not number or not math.isfinite(number[0]):
        raise _refused(tags, "the number of its tiles is missing")
    return int(number[0])


def _side(tags: Tags, csa: Mapping[str, tuple[float, ...]]) -> float:
    """Return on which side of the first tile the next one lies: positive along row direction x column direction."""
    normal = csa.get("SliceNormalVector", ())
    directions = tags.need_floats("ImageOrientationPatient", 6)
    side = float(np.cross(directions[:3], directions[3:]) @ np.asarray(normal)) if len(normal) == 3 else math.nan
    if not abs(side) > 0.5:  # also where it is no number
        raise _refused(tags, "the direction of its slices (CSA SliceNormalVector) is missing")
    return side


def _refused(tags: Tags, fact: str) -> DicomError:
    hint = "Private tags were lost, perhaps on anonymising; export the series again with them, or as single images."
    return DicomError("DCM-MOSAIC", f"file {tags.number} is a Siemens mosaic, and {fact}.", hint)
