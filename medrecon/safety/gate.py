"""The gate before any DICOM parser: what does not pass here is never parsed, what passes has sizes that were checked.

A file is loaded without waiting, its element headers are walked, and the size of its pixels, multiplied in Python
integers, is compared with the bytes in hand. The gate reads no patient text, decodes nothing and keeps no state.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medrecon.core.errors import DicomError, InputError
from medrecon.safety import pixel_size
from medrecon.safety.elements import UNDEFINED, Walk
from medrecon.safety.inflate import inflate
from medrecon.safety.limits import Limits
from medrecon.safety.syntaxes import COMPRESSED, DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, encoding

_LONG_META = frozenset((b"OB", b"OW", b"UN", b"SQ", b"UT"))
_SHORT_META = frozenset((b"UL", b"UI", b"SH", b"AE", b"LO", b"UR", b"ST", b"LT"))
_OPEN_WITHOUT_WAITING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_MOST_META_ELEMENTS = 1000  # the standard knows 20
_START_BYTES = 1 << 15  # hold nearly every header
_AGAIN = "Export the file again from where it came from."
_DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class GatedFile:
    """A DICOM file that may be parsed: its bytes, and how large its pixels are.

    Hand ``header`` to ``pydicom.dcmread(BytesIO(header), force=True)``: it is what the gate has walked, and ends before the
    pixels. Native pixel bytes are ``data[pixel_offset : pixel_offset + pixel_length]``; encapsulated ones go to
    `medrecon.safety.quarantine`.

    Parameters
    ----------
    transfer_syntax_uid : str
        Of `data`. A deflated file was inflated and is Explicit VR Little Endian here; notes say ``deflated``.
    rows, columns, samples_per_pixel, bits_allocated, bits_stored, frames, pixel_representation, planar_configuration : int
        Zero where there are no pixels (`frames` 1). `bits_allocated` is one of 1, 8, 16, 32, 64.
    photometric : str
        A defined term, or empty where the file has none.
    pixel_tag : int
        ``0x7FE00010``, or the tag of float (8) or double (9) pixels, or 0.
    pixel_offset : int or None
        First byte of the pixels in `data`; of encapsulated pixels the first item, which is the offset table.
    pixel_length : int
        Bytes of the pixels, without tail: what the header announces for native ones, all items for encapsulated ones.
    tail_bytes : int
        Bytes of the pixel element beyond the announced ones, less than a frame, to be dropped and noted.
    header_length : int
        Bytes of `data` before the pixel element.
    notes : tuple of str
        What was odd but harmless: ``deflated``, ``no-preamble``, ``no-syntax``, ``other-syntax``, ``unknown-vr``,
        ``length-cut``, ``no-delimiter``, ``frames-zero``, ``no-samples``, ``no-sign``.
    """

    data: bytes = field(repr=False)
    transfer_syntax_uid: str
    header_length: int
    rows: int = 0
    columns: int = 0
    samples_per_pixel: int = 0
    bits_allocated: int = 0
    bits_stored: int = 0
    pixel_representation: int = 0
    planar_configuration: int = 0
    photometric: str = ""
    frames: int = 1
    pixel_tag: int = 0
    pixel_offset: int | None = None
    pixel_length: int = 0
    tail_bytes: int = 0
    encapsulated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def has_pixels(self) -> bool:
        """Whether there is a pixel element."""
        return self.pixel_offset is not None

    @property
    def header(self) -> bytes:
        """The bytes that a parser may see: everything before the pixel element."""
        return self.data[: self.header_length]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stored values: (frames, rows, columns), for colour with the samples as a last axis."""
        plane = (self.frames, self.rows, self.columns)
        return plane if self.samples_per_pixel <= 1 else (*plane, self.samples_per_pixel)

    @property
    def decoded_bytes(self) -> int:
        """Size of the stored values in memory, one bit taking a byte."""
        return self.frames * self.rows * self.columns * self.samples_per_pixel * max(1, self.bits_allocated // 8)


def load(path: Path, limits: Limits = _DEFAULT) -> bytes:
    """Read a whole file, a regular one only, without ever waiting for one that is not.

    Raises
    ------
    InputError
        ``INP-KIND`` for a folder, pipe, socket or device, ``INP-GONE`` where it was removed, ``INP-UNREADABLE`` where the
        system refuses.
    DicomError
        ``DCM-LIMIT`` for a file that is too large; nothing of it is read.
    """
    return _loaded(path, limits.file_bytes, None)[0]


def load_start(path: Path, limits: Limits = _DEFAULT) -> tuple[bytes, int]:
    """Read the first bytes of a file, as `load` does, and return them with the size of the whole file."""
    return _loaded(path, limits.file_bytes, _START_BYTES)


def gate(data: bytes | memoryview, limits: Limits = _DEFAULT) -> GatedFile | None:
    """Judge a file in memory before any parser sees it.

    Returns
    -------
    GatedFile or None
        None for something that is not DICOM.

    Raises
    ------
    DicomError
        ``DCM-LENGTH``, ``DCM-DEPTH``, ``DCM-LIMIT``, ``DCM-PARSE`` for its structure, ``DCM-CODEC`` for a transfer syntax
        that is not on the list, ``DCM-TAG``, ``DCM-BITS``, ``DCM-PIXELS`` for what it says of its pixels.
    """
    data = bytes(data)
    if len(data) > limits.file_bytes:
        raise _too_large(len(data), limits.file_bytes)
    if data[128:132] == b"DICM":
        return _gate_part10(data, _read_meta(data, 132), (), limits)
    return _gate_headerless(data, limits)


def gate_start(start: bytes, size: int, limits: Limits = _DEFAULT) -> GatedFile | None:
    """Judge a file of `size` bytes by its first ones, where these settle it; None where the whole file is needed.

    They do where plain pixels begin within them, since the walk ends there. The result is that of `gate` for the whole file,
    except that its `data` end early.
    """
    if start[128:132] != b"DICM":
        return None
    try:
        meta = _read_meta(start, 132)
        if meta.syntax == DEFLATED or meta.syntax in COMPRESSED:
            return None
        gated = _gate_part10(start, meta, (), limits, size)
    except (DicomError, struct.error):
        return None  # refused, or not seen far enough: what is wrong is said of the whole file
    return gated if gated.pixel_offset is not None and gated.pixel_offset <= len(start) else None


class _Meta(NamedTuple):
    """The file meta group: where it ends, and the transfer syntax, empty where there is none."""

    end: int
    syntax: str


def _gate_part10(data: bytes, meta: _Meta, notes: tuple[str, ...], limits: Limits, size: int | None = None) -> GatedFile:
    syntax, start = meta.syntax, meta.end
    if syntax == DEFLATED:
        prefix = _plain_prefix()
        data = inflate(memoryview(data)[start:], limits, prefix=prefix)
        syntax, start, notes = EXPLICIT_LITTLE, len(prefix), (*notes, "deflated")
    if not syntax:
        syntax, notes = _guess_syntax(data, start), (*notes, "no-syntax")
    if start + 8 > len(data):
        raise DicomError("DCM-LENGTH", f"the file ends before its first element: it has {len(data)} bytes.", _AGAIN)
    walk = Walk(data, start, encoding(syntax), pixel_size.WANTED, limits, size)
    return _judge(data, syntax, walk, notes, limits)


def _gate_headerless(data: bytes, limits: Limits) -> GatedFile | None:
    """Accept a data set without preamble only where all of it makes sense; anything else is simply not DICOM."""
    if data[:2] not in (b"\x02\x00", b"\x08\x00") or data[3:4] != b"\x00" or len(data) < 8:
        return None
    try:
        meta = _read_meta(data, 0)
        syntax = meta.syntax or _guess_syntax(data, meta.end)
        if syntax == DEFLATED:
            return None
        walk = Walk(data, meta.end, encoding(syntax), pixel_size.WANTED, limits)
    except DicomError:
        return None
    if pixel_size.SOP_CLASS not in walk.found and walk.pixels is None:
        return None
    return _judge(data, syntax, walk, ("no-preamble",), limits)


def _read_meta(data: bytes, at: int) -> _Meta:
    """Read group 0002, which is always Explicit VR Little Endian, to its end as its elements tell it."""
    syntax, size, left = "", len(data), _MOST_META_ELEMENTS
    while data[at : at + 2] == b"\x02\x00" and at + 8 <= size:
        left -= 1
        if left < 0:
            raise DicomError("DCM-LIMIT", f"more than {_MOST_META_ELEMENTS} elements in the file meta group.", _AGAIN)
        number, vr, length = struct.unpack_from("<H2sH", data, at + 2)
        value = at + 8
        if vr not in _SHORT_META:
            value = at + 12
            length = struct.unpack_from("<I", data, at + 8)[0] if value <= size else UNDEFINED
        if length > size - value:
            raise DicomError(
                "DCM-LENGTH", f"the file meta element at byte {at} claims {length} bytes, {size - value} are left.", _AGAIN
            )
        if vr not in _SHORT_META and vr not in _LONG_META:
            raise DicomError("DCM-PARSE", f"the file meta element at byte {at} has a value representation that is none.", _AGAIN)
        if number == 0x0000 and length == 4:
            _check_group_length(struct.unpack_from("<I", data, value)[0], size - value - 4)
        elif number == 0x0010:
            syntax = data[value : value + length].strip(b"\0 ").decode("ascii", "replace")
        at = value + length
    return _Meta(at, syntax)


def _check_group_length(announced: int, left: int) -> None:
    """Refuse a meta group that claims more than the file; a merely wrong one is common and ignored."""
    if announced > left:
        raise DicomError("DCM-LENGTH", f"the file meta group claims {announced} bytes, and {left} are left.", _AGAIN)


def _guess_syntax(data: bytes, at: int) -> str:
    """Where the file does not say, tell explicit from implicit by the first element, as pydicom does."""
    return EXPLICIT_LITTLE if data[at + 4 : at + 6].isalpha() and data[at + 4 : at + 6].isupper() else IMPLICIT_LITTLE


def _plain_prefix() -> bytes:
    """Return preamble and meta group of an Explicit VR Little Endian file."""
    uid = EXPLICIT_LITTLE.encode() + b"\0"
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element)) + element


def _judge(data: bytes, syntax: str, walk: Walk, notes: tuple[str, ...], limits: Limits) -> GatedFile:
    if walk.pixels is None:
        return GatedFile(data, syntax, walk.end, notes=(*notes, *walk.notes))
    tag, element = walk.pixels
    size = pixel_size.announced(data, walk, syntax != EXPLICIT_BIG, limits)
    place = pixel_size.encapsulated(walk, size, syntax) if syntax in COMPRESSED else pixel_size.native(walk, size, limits)
    return GatedFile(
        data=data,
        transfer_syntax_uid=syntax,
        header_length=element.start,
        rows=size.rows,
        columns=size.columns,
        samples_per_pixel=size.samples,
        bits_allocated=size.bits,
        bits_stored=size.stored,
        pixel_representation=size.sign,
        planar_configuration=size.planar,
        photometric=size.photometric,
        frames=size.frames,
        pixel_tag=tag,
        pixel_offset=element.value,
        pixel_length=place.length,
        tail_bytes=place.tail,
        encapsulated=syntax in COMPRESSED,
        notes=(*notes, *size.notes, *walk.notes),
    )


def _loaded(path: Path, limit: int, most: int | None) -> tuple[bytes, int]:
    """Return at most `most` bytes of a file, and its size."""
    try:
        descriptor = os.open(path, _OPEN_WITHOUT_WAITING)
        try:
            return _read_regular(descriptor, limit, most)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise InputError("INP-GONE", "a file is gone since it was listed.", "Run again on a quiet folder.") from error
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO):  # a folder on Windows, a socket
            raise _not_a_file() from error
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise InputError("INP-UNREADABLE", f"a file cannot be read ({name}).", "Check its permissions and the disk.") from error


def _read_regular(descriptor: int, limit: int, most: int | None) -> tuple[bytes, int]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _not_a_file()
    if status.st_size > limit:
        raise _too_large(status.st_size, limit)
    wanted = status.st_size if most is None else min(most, status.st_size)
    data = os.read(descriptor, wanted)
    while len(data) < wanted and (more := os.read(descriptor, wanted - len(data))):
        data += more  # one call gives at most 2 GiB
    return data, status.st_size if len(data) == wanted else len(data)


def _not_a_file() -> InputError:
    return InputError("INP-KIND", "something in the listing is not a regular file.", "Pipes, sockets and devices are never read.")


def _too_large(size: int, limit: int) -> DicomError:
    return DicomError(
        "DCM-LIMIT", f"a file of {size} bytes; {limit} are allowed.", "Raise file_bytes only if you trust the file."
    )
