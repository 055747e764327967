"""Images of Elekta's and PerkinElmer's flat panels (``.his``), from their bytes alone."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import InputError
from medrecon.readers import _projections
from medrecon.readers._listing import open_regular
from medrecon.safety.limits import Limits

MAGIC = b"\x00\x70\x44\x00"  # file type 0x7000 and a header of 68 bytes
PANEL_MM = 409.6  # RTK takes every panel to be this long
_HEADER_BYTES, _UNSIGNED_16 = 68, 4
_HIGHEST = 65536.0
_BORDER = 4


def shape_of(path: Path) -> tuple[int, int]:
    """Return (rows, columns) of an image after comparing them with the length of its file."""
    with open_regular(path) as file:
        head = file.read(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or not head.startswith(MAGIC):
        raise _projections.damaged("an image has no header of a flat panel")
    left, upper, right, lower, frames = struct.unpack_from("<5H", head, 12)
    rows, columns = lower - upper + 1, right - left + 1
    if frames != 1 or struct.unpack_from("<H", head, 32)[0] != _UNSIGNED_16:
        raise InputError("PRJ-HEADER", f"an image has {frames} frames or is not of 16 bits.", "Export single frames of 16 bits.")
    if not (0 < rows <= Limits().side and 0 < columns <= Limits().side):
        raise _projections.damaged(f"an image of {rows} x {columns} pixels cannot be")
    needed, available = 2 * rows * columns, path.stat().st_size - _offset(head)
    if available < needed:
        raise _projections.cut(needed, available)
    return rows, columns


def line_integrals(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return line integrals; the panel stores 65536 less the intensity, so that air is dark."""
    with open_regular(path) as file:
        offset = _offset(file.read(_HEADER_BYTES))
        file.seek(offset)
        data = file.read(2 * shape[0] * shape[1])
    if len(data) < 2 * shape[0] * shape[1]:
        raise _projections.cut(2 * shape[0] * shape[1], len(data))
    raw = np.frombuffer(data, "<u2").reshape(shape).astype(np.float32)
    raw[(raw == 0) | (raw == _HIGHEST - 1)] = 1  # no reading
    integrals: NDArray[np.float32] = np.log(_HIGHEST / (_HIGHEST - raw)).astype(np.float32)
    return integrals


def measured(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return False in the border of the panel, whose pixels hold no reading."""
    inside = np.zeros(shape, dtype=np.bool_)
    inside[:, _BORDER:-_BORDER, _BORDER:-_BORDER] = True
    return inside


def pitch_mm(shape: tuple[int, int]) -> tuple[float, float]:
    """Return the pitch (row, column) of a panel of 409.6 mm."""
    return PANEL_MM / shape[0], PANEL_MM / shape[1]


def _offset(head: bytes) -> int:
    return _HEADER_BYTES + int(struct.unpack_from("<H", head, 10)[0])
