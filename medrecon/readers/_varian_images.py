"""Images of Varian's cone beams: ``.hnc`` (plain), ``.hnd`` and ``.xim`` (packed by a predictor), from their bytes alone.

Every size that a header announces is compared with the bytes in hand before anything is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.readers import _projections
from medrecon.readers._listing import open_regular
from medrecon.safety.limits import Limits

_MOST_PROPERTIES = 10_000
_OBI_FIELDS = {"resolution_x_mm": 352, "resolution_y_mm": 360, "angle_deg": 432, "norm_chamber": 440}
_OBI_HEADER, _HNC_PIXELS, _HND_PIXELS = 488, 512, 1024
_XIM_HEADER = struct.Struct("<8s6i")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One detector image and what its file says about it.

    Parameters
    ----------
    pixels : (rows, columns), or None where the file holds none
    values : mapping
        Numbers by the name of the field or property.
    """

    pixels: NDArray[Any] | None
    shape: tuple[int, int]
    values: dict[str, float] = field(default_factory=dict)


def read_obi(path: Path, with_pixels: bool = True) -> Frame:
    """Read a ``.hnd`` or ``.hnc`` file."""
    data = _bytes(path, None if with_pixels else _HND_PIXELS)
    if len(data) < _OBI_HEADER:
        raise _projections.cut(_OBI_HEADER, len(data))
    columns, rows = struct.unpack_from("<2I", data, 120)
    _refuse_sizes(rows, columns)
    values = {name: struct.unpack_from("<d", data, at)[0] for name, at in _OBI_FIELDS.items()}
    if not with_pixels:
        return Frame(None, (rows, columns), values)
    if path.suffix.lower() == ".hnc":
        needed = _HNC_PIXELS + 2 * rows * columns
        if len(data) < needed:
            raise _projections.cut(needed, len(data))
        pixels = np.frombuffer(data, "<u2", rows * columns, _HNC_PIXELS).reshape(rows, columns)
        return Frame(pixels, (rows, columns), values)
    table = -(-(rows - 1) * columns // 4)
    packed = data[_HND_PIXELS + table :]
    return Frame(unpack(data[_HND_PIXELS : _HND_PIXELS + table], packed, (rows, columns)), (rows, columns), values)


def read_xim(path: Path, with_pixels: bool = True) -> Frame:
    """Read a ``.xim`` file; its properties come after the pixels."""
    data = _Bytes(_bytes(path, None))
    _, _, columns, rows, _, item_bytes, packed = _XIM_HEADER.unpack(data.take(_XIM_HEADER.size))
    if rows * columns == 0:
        return Frame(None, (0, 0))
    _refuse_sizes(rows, columns)
    if packed:
        table, values = data.sized(), data.sized()
        data.integer()
        pixels = unpack(table, values, (rows, columns)) if with_pixels else None
    else:
        raw = data.sized()
        if item_bytes not in (1, 2, 4) or len(raw) < rows * columns * item_bytes:
            raise _projections.cut(rows * columns * item_bytes, len(raw))
        pixels = np.frombuffer(raw, f"<u{item_bytes}", rows * columns).reshape(rows, columns)
    data.take(4 * data.count())
    return Frame(pixels if with_pixels else None, (rows, columns), dict(_properties(data)))


def unpack(table: bytes, packed: bytes, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Undo the predictor ``f[i] = difference + f[i-1] + f[i-W] - f[i-W-1]`` on the flat index.

    The first row and one pixel more are stored as they are. Of two neighbouring rows the difference g has
    ``g[i] = difference + g[i-1]``, so that two cumulative sums undo it all.

    Parameters
    ----------
    table : bytes
        Two bits for each further pixel, lowest first: 0 for 1 byte, 1 for 2, 2 for 4.
    packed : bytes
        The pixels that are stored as they are, then the differences.
    """
    rows, columns = shape
    count = (rows - 1) * columns - 1
    if len(packed) < 4 * (columns + 1) or len(table) * 4 < count:
        raise _projections.cut(4 * (columns + 1) + -(-count // 4), len(packed) + len(table))
    first = np.frombuffer(packed, "<i4", columns + 1).astype(np.int64)
    differences = _differences(np.frombuffer(table, np.uint8), packed[4 * (columns + 1) :], count)
    between_rows = np.cumsum(np.concatenate([[first[columns] - first[0]], differences])).reshape(rows - 1, columns)
    pixels = np.empty(shape, dtype=np.int64)
    pixels[0] = first[:columns]
    pixels[1:] = pixels[0] + np.cumsum(between_rows, axis=0)
    return pixels


def _differences(table: NDArray[np.uint8], packed: bytes, count: int) -> NDArray[np.int64]:
    codes = ((table[:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).reshape(-1)[:count]
    if count and codes.max() > 2:
        raise _projections.damaged("the table of sizes holds a code that does not exist")
    sizes = np.array([1, 2, 4])[codes]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if starts[-1] > len(packed) + 3:  # the end of the buffer may lack up to three bytes
        raise _projections.cut(int(starts[-1]), len(packed))
    buffer = np.frombuffer(packed + bytes(4), np.uint8)
    result = np.empty(count, dtype=np.int64)
    for code, kind in enumerate(("<i1", "<i2", "<i4")):
        where = np.flatnonzero(codes == code)
        gathered = buffer[starts[where, None] + np.arange(1 << code)]
        result[where] = np.ascontiguousarray(gathered).view(kind)[:, 0]
    return result


def _properties(data: _Bytes) -> list[tuple[str, float]]:
    found = []
    for _ in range(min(data.count(), _MOST_PROPERTIES)):
        name = data.sized().decode("latin-1")
        kind = data.integer()
        if kind == 0:
            found.append((name, float(data.integer())))
        elif kind == 1:
            found.append((name, float(struct.unpack("<d", data.take(8))[0])))
        elif kind in (2, 4, 5):
            data.sized()
        else:
            raise _projections.damaged("a property has a type that does not exist")
    return found


class _Bytes:
    """Bytes that are taken from the front, and never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count < 0 or self._at + count > len(self._data):
            raise _projections.cut(count, len(self._data) - self._at)
        self._at += count
        return self._data[self._at - count : self._at]

    def integer(self) -> int:
        """Return the next 32-bit integer."""
        return int(struct.unpack("<i", self.take(4))[0])

    def count(self) -> int:
        """Return the next integer where it is a count of things."""
        number = self.integer()
        if number < 0:
            raise _projections.damaged("a count is negative")
        return number

    def sized(self) -> bytes:
        """Return bytes whose number stands in front of them."""
        return self.take(self.integer())


def _refuse_sizes(rows: int, columns: int) -> None:
    if not (1 < rows <= Limits().side and 1 < columns <= Limits().side):
        raise _projections.damaged(f"an image of {rows} x {columns} pixels cannot be")


def _bytes(path: Path, most: int | None) -> bytes:
    if path.stat().st_size > Limits().frame_bytes:
        raise _projections.damaged(f"an image file is longer than {Limits().frame_bytes} bytes")
    with open_regular(path) as file:
        return file.read() if most is None else file.read(most)
