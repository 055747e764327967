"""DICOM-CT-PD: projections of a clinical CT, one file for each view; helical, curved detector, flying focal spot.

After Chen et al., Med. Phys. 42 (2015) 6964. The focal centre of the detector stands at ``x = -rho sin phi``,
``y = rho cos phi`` with y up, which is anterior for a patient who lies supine: phi is our angle. Readers disagree about
the order of columns; theirs and ours is taken that fits the others' sense of rotation. The place of the patient in the
scanner comes from the images of the same scan, not from these files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medrecon.core.progress import Tick
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.readers._listing import open_regular

ASKED_FIRST = True
_HEADER_BYTES, _FIRST_BYTES = 1 << 16, 1 << 13  # how far a header is searched; what holds nearly every header
#: (7029,1010), the rows of the detector, and (7031,1001), the angle of its focal centre, as they stand in the bytes.
_MARKS = (b"\x29\x70\x10\x10", b"\x31\x70\x01\x10")
_NATIVE_PIXELS = re.compile(rb"\xe0\x7f\x10\x00O[BW]\x00\x00(....)", re.DOTALL)  # and their length


def claims(path: Path, head: bytes) -> bool:
    """Whether a DICOM file carries the private tags of projections before its pixels."""
    if head[128:132] != b"DICM":
        return False
    try:
        with open_regular(path) as file:
            start = file.read(_FIRST_BYTES)
            end = _header_end(start)
            if end is None:
                start += file.read(_HEADER_BYTES - _FIRST_BYTES)
    except OSError:
        return False
    return all(start.find(mark, 0, end) >= 0 for mark in _MARKS)


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the scans, one for each series and source."""
    from medrecon.readers import _ct_pd

    return _ct_pd.find(files, options)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    from medrecon.readers import _ct_pd

    return _ct_pd.read(info, options, tick)


def _header_end(start: bytes) -> int | None:
    """Return where pixels begin that fill all the rest of what is searched; None where an icon's do not, or none are seen."""
    for found in _NATIVE_PIXELS.finditer(start):
        length = int.from_bytes(found.group(1), "little")
        if length != 0xFFFFFFFF and found.end() + length >= _HEADER_BYTES:
            return found.start()
    return None
