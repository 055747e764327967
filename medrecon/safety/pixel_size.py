"""What a header says of its pixels, and whether the bytes in hand agree.

Sizes are multiplied in Python integers before anything is allocated. Native pixels must be there in full; a tail shorter
than a frame is dropped, anything longer is refused, so that no frame appears that the header does not announce.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from medrecon.core.errors import DicomError
from medrecon.core.words import counted
from medrecon.safety.elements import DOUBLE_PIXEL_DATA, FLOAT_PIXEL_DATA, PIXEL_DATA, UNDEFINED, Element, Fragments, Walk
from medrecon.safety.limits import Limits
from medrecon.safety.syntaxes import RLE

_YBR = frozenset(("YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_422", "YBR_PARTIAL_420"))
_PHOTOMETRIC = _YBR | {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB"}
SOP_CLASS, _SAMPLES, _PHOTOMETRIC_TAG, _PLANAR, _FRAMES = 0x00080016, 0x00280002, 0x00280004, 0x00280006, 0x00280008
_ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH_BIT, _SIGN = 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103
WANTED = frozenset(
    (SOP_CLASS, _SAMPLES, _PHOTOMETRIC_TAG, _PLANAR, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH_BIT, _SIGN)
)
_NAMES = {_ROWS: "Rows (0028,0010)", _COLUMNS: "Columns (0028,0011)", _ALLOCATED: "BitsAllocated (0028,0100)"}
_BITS = frozenset((1, 8, 16, 32, 64))
_FLOAT_BITS = {FLOAT_PIXEL_DATA: 32, DOUBLE_PIXEL_DATA: 64}
_RLE_MOST_GROWTH = 64  # a run of 2 bytes becomes at most 128
_AGAIN = "Export the file again from where it came from."


class Size(NamedTuple):
    """What a header says of its pixels."""

    rows: int
    columns: int
    samples: int
    bits: int
    stored: int
    sign: int
    planar: int
    photometric: str
    frames: int
    notes: tuple[str, ...]

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame; YBR_FULL_422 stores two thirds of its samples."""
        bits = self.rows * self.columns * self.samples * self.bits
        return bits // 3 * 2 if self.photometric == "YBR_FULL_422" and self.samples == 3 else bits


class Place(NamedTuple):
    """Bytes of the pixels, and bytes beyond them in the same element."""

    length: int
    tail: int


def announced(data: bytes, walk: Walk, little: bool, limits: Limits) -> Size:
    """Read the size of the pixels out of the header and refuse what cannot be or is beyond the limits."""
    tag = walk.pixels[0] if walk.pixels else PIXEL_DATA
    header = _Header(data, walk.found, little)
    notes: list[str] = []
    rows, columns, bits = (header.required(t) for t in (_ROWS, _COLUMNS, _ALLOCATED))
    size = Size(
        rows=rows,
        columns=columns,
        samples=header.or_else(_SAMPLES, 1, notes, "no-samples"),
        bits=bits,
        stored=header.or_else(_STORED, bits, notes, "no-stored"),
        sign=header.or_else(_SIGN, 0, notes, "no-sign"),
        planar=header.or_else(_PLANAR, 0, [], ""),
        photometric=header.photometric(),
        frames=header.frames(notes),
        notes=tuple(notes),
    )
    _check_bits(size, tag, header.or_else(_HIGH_BIT, size.stored - 1, [], ""))
    _check_size(size, limits)
    return size


def native(walk: Walk, size: Size, limits: Limits) -> Place:
    """Compare native pixels with the bytes in hand."""
    _, element = _pixel_element(walk)
    if element.length == UNDEFINED:
        raise DicomError("DCM-PIXELS", "the pixels have no length although they are not compressed.", _AGAIN)
    expected = (size.frames * size.frame_bits + 7) // 8
    in_hand = min(element.length, walk.end - element.value)
    if in_hand < expected:
        raise DicomError("DCM-PIXELS", f"the header announces {expected} bytes of pixels, and {in_hand} are there.", _AGAIN)
    if element.length > in_hand and not limits.length_beyond_end:
        raise DicomError("DCM-LENGTH", f"the pixels claim {element.length} bytes, and {in_hand} are left.", _AGAIN)
    tail = in_hand - expected - (expected % 2 if in_hand > expected else 0)
    if tail * 8 >= size.frame_bits:
        raise DicomError("DCM-PIXELS", f"the header announces {expected} bytes of pixels, and {in_hand} are there.", _AGAIN)
    return Place(expected, tail)


def encapsulated(walk: Walk, size: Size, syntax: str) -> Place:
    """Check that compressed pixels are in fragments, at least one for each frame, and for RLE large enough."""
    tag, element = _pixel_element(walk)
    if element.length != UNDEFINED or tag != PIXEL_DATA:
        raise DicomError("DCM-PARSE", "the file says that its pixels are compressed, and they are not in fragments.", _AGAIN)
    if size.bits % 8:
        raise DicomError("DCM-BITS", f"compressed pixels cannot have {counted(size.bits, 'bit')} allocated.", _AGAIN)
    fragments = _fragments(walk, element.value)
    count = max(0, fragments.items - 1)  # the first item is the offset table
    if count < size.frames:
        raise DicomError(
            "DCM-PIXELS",
            f"{counted(size.frames, 'frame', 'is', 'are')} announced, "
            f"and {counted(count, 'compressed fragment', 'is', 'are')} there.",
            _AGAIN,
        )
    expected = size.frames * size.frame_bits // 8
    if syntax == RLE and fragments.total_bytes * _RLE_MOST_GROWTH < expected:
        raise DicomError(
            "DCM-PIXELS", f"{fragments.total_bytes} bytes of RLE cannot hold the {expected} bytes that are announced.", _AGAIN
        )
    return Place(fragments.end - element.value, 0)


def _fragments(walk: Walk, start: int) -> Fragments:
    try:
        return walk.fragments(start)
    except DicomError as error:
        if error.code != "DCM-LENGTH":
            raise
        raise DicomError("DCM-PIXELS", f"the compressed pixels are cut short: {error.fact}", _AGAIN) from error


class _Header:
    """The few values that the gate reads."""

    def __init__(self, data: bytes, found: dict[int, Element], little: bool) -> None:
        self._data, self._found, self._order = data, found, "<" if little else ">"

    def or_else(self, tag: int, default: int, notes: list[str], note: str) -> int:
        """Return a number, or the default with a note where it is missing."""
        value = self._number(tag)
        if value is not None:
            return value
        if note:
            notes.append(note)
        return default

    def required(self, tag: int) -> int:
        """Return a number without which pixels make no sense."""
        value = self._number(tag)
        if value is None:
            raise DicomError("DCM-TAG", f"{_NAMES[tag]} is missing although there are pixels.", _AGAIN)
        return value

    def frames(self, notes: list[str]) -> int:
        """Return NumberOfFrames: 1 where it is missing, and as pydicom does where it is 0."""
        text = self._value(_FRAMES).strip(b" \0")
        if not text:
            return 1
        if not text.isdigit() or len(text) > 12:
            raise DicomError("DCM-PARSE", "NumberOfFrames (0028,0008) is not a whole number.", _AGAIN)
        if int(text) == 0:
            notes.append("frames-zero")
        return int(text) or 1

    def photometric(self) -> str:
        """Return PhotometricInterpretation where it is a defined term, else an empty string."""
        text = self._value(_PHOTOMETRIC_TAG)[:64].strip(b" \0").decode("ascii", "replace")
        return text if text in _PHOTOMETRIC else ""

    def _number(self, tag: int) -> int | None:
        value = self._value(tag)
        if not value:
            return None
        if len(value) == 2:
            return int(struct.unpack(f"{self._order}H", value)[0])
        if len(value) == 4 and self._found[tag].vr in (b"UL", b"SL"):
            return int(struct.unpack(f"{self._order}I", value)[0])
        raise DicomError(
            "DCM-PARSE", f"element {tag >> 16:04X},{tag & 0xFFFF:04X} is {len(value)} bytes long instead of 2.", _AGAIN
        )

    def _value(self, tag: int) -> bytes:
        element = self._found.get(tag)
        return b"" if element is None else self._data[element.value : element.value + element.length]


def _pixel_element(walk: Walk) -> tuple[int, Element]:
    if walk.pixels is None:
        raise DicomError("DCM-PIXELS", "there are no pixels.", _AGAIN)
    return walk.pixels


def _check_bits(size: Size, tag: int, high_bit: int) -> None:
    if tag in _FLOAT_BITS:
        possible = size.bits == _FLOAT_BITS[tag]
    else:
        possible = size.bits in _BITS and 1 <= size.stored <= size.bits and high_bit == size.stored - 1 and size.sign in (0, 1)
    if not possible:
        raise DicomError(
            "DCM-BITS",
            f"{size.bits} bits allocated, {size.stored} stored, highest {high_bit}, sign flag {size.sign} is no possible pixel.",
            _AGAIN,
        )


def _check_size(size: Size, limits: Limits) -> None:
    if size.rows == 0 or size.columns == 0 or size.samples not in (1, 3):
        raise DicomError(
            "DCM-PIXELS",
            f"an image of {size.rows} x {size.columns} pixels of {counted(size.samples, 'sample')} cannot be.",
            _AGAIN,
        )
    over = "Raise the limit by its name only if you trust where the file comes from."
    if max(size.rows, size.columns) > limits.side:
        raise DicomError("DCM-LIMIT", f"an image of {size.rows} x {size.columns} pixels; {limits.side} a side are allowed.", over)
    if size.frame_bits > 8 * limits.frame_bytes:
        raise DicomError("DCM-LIMIT", f"a frame of {size.frame_bits // 8} bytes; {limits.frame_bytes} are allowed.", over)
    if size.frames > limits.frames:
        raise DicomError("DCM-LIMIT", f"{size.frames} frames; {limits.frames} are allowed.", over)
