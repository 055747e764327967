"""DICOM files written byte by byte, so that they can be wrong in exactly one place; no DICOM library takes part."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE, JPEG_2000, JPEG_LS = (
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
)
UNDEFINED = 0xFFFFFFFF
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}

SOP_CLASS, SAMPLES, PHOTOMETRIC, FRAMES = 0x00080016, 0x00280002, 0x00280004, 0x00280008
ROWS, COLUMNS, ALLOCATED, STORED, HIGH_BIT, SIGN = 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103
PIXELS = 0x7FE00010
_VR = {SOP_CLASS: b"UI", PHOTOMETRIC: b"CS", FRAMES: b"IS", PIXELS: b"OW"}


def element(tag: int, vr: bytes, value: bytes, length: int | None = None, syntax: str = EXPLICIT) -> bytes:
    """One element; `length` makes it lie about its value's size."""
    order = ">" if syntax == BIG else "<"
    said = len(value) if length is None else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<I", said) + value
    if vr in _LONG:
        return head + vr + b"\0\0" + struct.pack(f"{order}I", said) + value
    return head + vr + struct.pack(f"{order}H", said) + value


def item(content: bytes, length: int | None = None) -> bytes:
    """One item of a sequence or one fragment, little endian."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


def item_end() -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


def sequence_end() -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def nested(depth: int, syntax: str = EXPLICIT, defined: bool = False, vr: bytes = b"SQ") -> bytes:
    """Sequences within sequences (0040,A730), `depth` of them."""
    content = b""
    for _ in range(depth):
        if defined:
            content = element(0x0040A730, vr, item(content), syntax=syntax)
        else:
            value = item(content + item_end(), UNDEFINED) + sequence_end()
            content = element(0x0040A730, vr, value, UNDEFINED, syntax)
    return content


def meta(syntax: str, group_length: int | None = None) -> bytes:
    """The file meta group with nothing but the transfer syntax."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    rest = element(0x00020010, b"UI", uid)
    said = len(rest) if group_length is None else group_length
    return element(0x00020000, b"UL", struct.pack("<I", said)) + rest


def file(data_set: bytes, syntax: str = EXPLICIT, preamble: bytes = bytes(128), group_length: int | None = None) -> bytes:
    """A whole file; a deflated one is deflated here."""
    if syntax == DEFLATED:
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data_set = squeeze.compress(data_set) + squeeze.flush()
    return preamble + b"DICM" + meta(syntax, group_length) + data_set


def header(values: Mapping[int, int | bytes | None] | None = None, syntax: str = EXPLICIT) -> bytes:
    """The elements of a small image (4 x 6 pixels of 16 bits) without its pixels; None leaves one out."""
    order = ">" if syntax == BIG else "<"
    usual: dict[int, int | bytes | None] = {SOP_CLASS: b"1.2.840.10008.5.1.4.1.1.2\0", SAMPLES: 1, PHOTOMETRIC: b"MONOCHROME2 "}
    usual |= {ROWS: 4, COLUMNS: 6, ALLOCATED: 16, STORED: 12, HIGH_BIT: 11, SIGN: 0}
    written = sorted((usual | dict(values or {})).items())
    return b"".join(
        element(tag, _VR.get(tag, b"US"), value if isinstance(value, bytes) else struct.pack(f"{order}H", value), syntax=syntax)
        for tag, value in written
        if value is not None
    )


def image(
    values: Mapping[int, int | bytes | None] | None = None,
    pixels: bytes = bytes(range(48)),
    syntax: str = EXPLICIT,
    before: bytes = b"",
    length: int | None = None,
) -> bytes:
    """A small native image; `before` stands in front of the pixels, `length` lets the pixel element lie."""
    return file(header(values, syntax) + before + element(PIXELS, b"OW", pixels, length, syntax), syntax)


def compressed(
    fragments: list[bytes], syntax: str, values: Mapping[int, int | bytes | None] | None = None, end: bool = True
) -> bytes:
    """A small compressed image with an empty offset table."""
    items = item(b"") + b"".join(map(item, fragments)) + (sequence_end() if end else b"")
    return file(header(values) + element(PIXELS, b"OB", items, UNDEFINED), syntax)


def rle(planes: list[bytes]) -> bytes:
    """RLE Lossless by literal runs only: as DICOM PS3.5 Annex G writes it, never smaller than its input."""
    segments = [b"".join(bytes([len(p[i : i + 128]) - 1]) + p[i : i + 128] for i in range(0, len(p), 128)) for p in planes]
    segments = [s + b"\0" * (len(s) % 2) for s in segments]
    offsets = [64 + sum(len(s) for s in segments[:k]) for k in range(len(segments))]
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(offsets))) + b"".join(segments)
