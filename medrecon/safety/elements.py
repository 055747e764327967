"""A walk over the element headers of a DICOM data set, in a loop, without loading a value.

It answers where the few values stand that decide how large the pixels are, and where the pixels begin. Every length is
compared with the bytes in hand, the depth of sequences and the number of elements are bounded. It decides nothing about
pixels; that is the gate's.
"""

from __future__ import annotations

import struct
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from medrecon.core.errors import DicomError
from medrecon.safety.limits import Limits

UNDEFINED = 0xFFFFFFFF
PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009
_PIXELS = frozenset((PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA))
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = frozenset((_ITEM, _ITEM_END, _SEQUENCE_END))
#: Values that may be as large as the file: encapsulated document, waveform, spectroscopy, surface points and triangles.
_BULK = _PIXELS | {0x00420011, 0x54001010, 0x56000020, 0x00660016, 0x00660023, 0x00660029}
_SHORT_TEXT = frozenset((b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"LT", b"PN", b"SH", b"ST", b"TM", b"UI"))
_SHORT_FORM = _SHORT_TEXT | {b"AT", b"FD", b"FL", b"SL", b"SS", b"UL", b"US"}
_RAW_FORM = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"))
_LONG_FORM = _RAW_FORM | {b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_IMPLICIT = b""
_DELIMITER_GROUP = (b"\xfe\xff", b"\xff\xfe")
_GRAVE = frozenset(("DCM-DEPTH", "DCM-LIMIT"))
_AGAIN = "Export the file again from where it came from."


class Element(NamedTuple):
    """Where one element stands: its first byte, its value and the value's length; `vr` is empty in implicit encoding."""

    start: int
    vr: bytes
    value: int
    length: int


class Fragments(NamedTuple):
    """The items of encapsulated data: the offset after them, how many there are, and the bytes they hold."""

    end: int
    items: int
    total_bytes: int


class Encoding(NamedTuple):
    """How a data set is written."""

    explicit: bool
    little: bool = True


class _Open(NamedTuple):
    """A sequence or an item that the walk is inside of; `end` is the enclosing one's where it has none of its own."""

    is_sequence: bool
    end: int
    bounded: bool
    explicit: bool
    guessed: bool


class Walk:
    """One walk over a data set.

    Parameters
    ----------
    data : bytes
        The whole file.
    start : int
        Offset of the first element.
    encoding : Encoding
        As declared; `explicit` is corrected where the first element shows that the declaration is wrong.
    wanted : set of int
        Tags of the top level whose place is remembered in `found`; of a repeated tag the last one counts, as in pydicom.
    size : int, optional
        Of the file, where `data` are only its first bytes; walking beyond them raises `struct.error` or goes astray.

    Raises
    ------
    DicomError
        ``DCM-LENGTH``, ``DCM-DEPTH``, ``DCM-LIMIT`` or ``DCM-PARSE``.
    """

    def __init__(
        self, data: bytes, start: int, encoding: Encoding, wanted: AbstractSet[int], limits: Limits, size: int | None = None
    ) -> None:
        self.found: dict[int, Element] = {}
        self.pixels: tuple[int, Element] | None = None
        self.notes: list[str] = []
        self.end = len(data) if size is None else size
        self._data, self._limits, self._left = data, limits, limits.elements
        self._value_bytes, self._nesting, self._bulk = limits.value_bytes, limits.nesting, 0
        order = "<" if encoding.little else ">"
        self._tag_and_long = struct.Struct(f"{order}HHI").unpack_from
        self._explicit_header = struct.Struct(f"{order}HH2sH").unpack_from
        self._long = struct.Struct(f"{order}I").unpack_from
        explicit = self._really_explicit(start, self.end, encoding.explicit)
        if explicit != encoding.explicit:
            self.notes.append("other-syntax")
        self._top_level(start, explicit, wanted)

    def fragments(self, start: int) -> Fragments:
        """Walk the items of encapsulated data that begin at `start`, up to their delimiter."""
        at, items, total = start, 0, 0
        while at + 8 <= self.end:
            group, element, length = self._tag_and_long(self._data, at)
            tag = group << 16 | element
            if tag == _SEQUENCE_END:
                return Fragments(at + 8, items, total)
            if tag != _ITEM or length == UNDEFINED:
                raise _parse(at, "encapsulated data are not a list of items")
            self._count()
            if length > self.end - at - 8:
                raise _too_long(at, length, self.end - at - 8)
            at, items, total = at + 8 + length, items + 1, total + length
        if at != self.end:
            raise _parse(at, "encapsulated data end inside an item header")
        self.notes.append("no-delimiter")
        return Fragments(at, items, total)

    def _top_level(self, at: int, explicit: bool, wanted: AbstractSet[int]) -> None:
        end, data, first, stops = self.end, self._data, at, wanted | _DELIMITERS | _PIXELS
        while at + 8 <= end:
            at = self._pass_plain(at, end, explicit, stops)
            if at + 8 > end:
                continue
            tag, element = self._header(at, end, explicit)
            if tag in wanted:
                self.found[tag] = element
            elif tag in _PIXELS:
                self.pixels = tag, element
                end = element.start
                break
            elif tag >> 16 == 0xFFFE:
                raise _parse(at, "a delimiter stands outside any sequence")
            at = self._after(tag, element, end, explicit)
        else:
            if any(data[at:end]):
                raise _cut_header(at, end)
        if end - first - self._bulk > self._limits.header_bytes:
            raise _over(f"the header takes {end - first} bytes, {self._limits.header_bytes} are allowed.")

    def _pass_plain(self, at: int, end: int, explicit: bool, stops: AbstractSet[int]) -> int:
        """Pass the plain elements that come next, without a call for each; they are most of every header."""
        return self._pass_explicit(at, end, stops) if explicit else self._pass_implicit(at, end, stops)

    def _pass_explicit(self, at: int, end: int, stops: AbstractSet[int]) -> int:
        data, unpack, left, last = self._data, self._explicit_header, self._left, end - 8
        while at <= last and left > 0:
            group, number, vr, length = unpack(data, at)
            behind = at + 8 + length
            if vr not in _SHORT_FORM or behind > end or group << 16 | number in stops:
                break
            at = behind
            left -= 1
        self._left = left
        return at

    def _pass_implicit(self, at: int, end: int, stops: AbstractSet[int]) -> int:
        data, unpack, left, last = self._data, self._tag_and_long, self._left, end - 8
        most = self._value_bytes
        while at <= last and left > 0:
            group, number, length = unpack(data, at)
            value = at + 8
            behind = value + length
            if behind > end or length > most or group << 16 | number in stops or data[value : value + 2] in _DELIMITER_GROUP:
                break
            at = behind
            left -= 1
        self._left = left
        return at

    def _header(self, at: int, end: int, explicit: bool) -> tuple[int, Element]:
        """Read one element header; the 8 bytes at `at` are known to be there."""
        self._count()
        if not explicit:
            group, number, length = self._tag_and_long(self._data, at)
            return group << 16 | number, Element(at, _IMPLICIT, at + 8, length)
        group, number, vr, length = self._explicit_header(self._data, at)
        tag = group << 16 | number
        if vr in _SHORT_FORM:
            return tag, Element(at, vr, at + 8, length)
        if vr in _LONG_FORM:
            if at + 12 > end:
                raise _cut_header(at, end)
            return tag, Element(at, vr, at + 12, self._long(self._data, at + 8)[0])
        return tag, self._odd_header(at, vr, length)

    def _odd_header(self, at: int, vr: bytes, length: int) -> Element:
        """Do with a VR that does not exist what pydicom does, so that both see the same elements."""
        if _is_capital(vr):
            self._note("unknown-vr")
            return Element(at, vr, at + 8, length)
        return Element(at, _IMPLICIT, at + 8, self._long(self._data, at + 4)[0])

    def _after(self, tag: int, element: Element, end: int, explicit: bool) -> int:
        """Return the offset behind an element's value, having walked whatever is inside it."""
        sequence = self._as_sequence(element, end, explicit)
        return self._after_value(tag, element, end) if sequence is None else self._sequence(element.value, sequence)

    def _as_sequence(self, element: Element, end: int, explicit: bool) -> _Open | None:
        """Return the sequence that an element begins, or None where it holds a plain value.

        Implicit encoding and UN do not name sequences, so that a value which begins like one is walked as a guess.
        """
        start, vr, value, length = element
        if vr in _SHORT_FORM or vr in _RAW_FORM:
            return None
        named = vr == b"SQ"
        if length == UNDEFINED and (named or vr == b"UN" or vr == _IMPLICIT):
            return _Open(True, end, False, explicit, False)
        if named or ((vr == b"UN" or vr == _IMPLICIT) and length >= 8 and self._is_item(value, end)):
            return _Open(True, value + self._fitting(start, length, end - value), True, explicit, not named)
        return None

    def _after_value(self, tag: int, element: Element, end: int) -> int:
        start, vr, value, length = element
        if length == UNDEFINED:
            if vr not in _RAW_FORM:
                raise _parse(start, "a plain value has an undefined length")
            after = self.fragments(value).end
            if after > end:
                raise _too_long(start, after - value, end - value)
            return after
        if length > end - value:
            length = self._fitting(start, length, end - value)
        if length > self._value_bytes:
            if tag not in _BULK:
                raise _over(f"one value takes {length} bytes, {self._value_bytes} are allowed.")
            self._bulk += length
        return value + length

    def _sequence(self, at: int, sequence: _Open) -> int:
        """Walk a sequence and all that is nested in it, with a list of what is open; return the offset behind it."""
        inside = [sequence]
        while inside:
            try:
                at = self._step(at, inside)
            except DicomError as error:
                grave = error.code in _GRAVE and not isinstance(error, _UnendedError)
                if grave or not any(part.guessed for part in inside):
                    raise
                at = _leave_the_guess(inside)
        return at

    def _step(self, at: int, inside: list[_Open]) -> int:
        here = inside[-1]
        if here.bounded and at >= here.end:
            inside.pop()
            return here.end
        if at + 8 > here.end:
            raise _cut_header(at, here.end) if here.bounded else _unended(at)
        return self._step_in_sequence(at, inside) if here.is_sequence else self._step_in_item(at, inside)

    def _step_in_sequence(self, at: int, inside: list[_Open]) -> int:
        """Open the next item, or leave the sequence at its delimiter."""
        here = inside[-1]
        group, element, length = self._tag_and_long(self._data, at)
        tag, value = group << 16 | element, at + 8
        if tag == _SEQUENCE_END and not here.bounded:
            inside.pop()
            return value
        if tag != _ITEM:
            raise _parse(at, "a sequence holds something that is not an item")
        self._count()
        bounded = length != UNDEFINED
        end = value + self._fitting(at, length, here.end - value) if bounded else here.end
        explicit = here.explicit and self._really_explicit(value, end, here.explicit)
        inside.append(_Open(False, end, bounded, explicit, False))
        return value

    def _step_in_item(self, at: int, inside: list[_Open]) -> int:
        """Pass one element of an item, go into it where it is a sequence, or leave the item at its delimiter."""
        here = inside[-1]
        if (behind := self._pass_plain(at, here.end, here.explicit, _DELIMITERS)) != at:
            return behind
        tag, element = self._header(at, here.end, here.explicit)
        if tag == _ITEM_END and (not here.bounded or at + 8 == here.end):
            inside.pop()
            return at + 8
        if tag >> 16 == 0xFFFE:
            raise _parse(at, "a delimiter stands where an element should")
        nested = self._as_sequence(element, here.end, here.explicit)
        if nested is None:
            return self._after_value(tag, element, here.end)
        if len(inside) // 2 >= self._nesting:
            raise _too_deep(self._nesting)
        inside.append(nested)
        return element.value

    def _really_explicit(self, at: int, end: int, expected: bool) -> bool:
        """Look at the first element of a data set, which shows whether VRs are written down."""
        vr = self._data[at + 4 : at + 6]
        if at + 8 > end or (self._data[at : at + 2] in _DELIMITER_GROUP):
            return expected
        return _is_capital(vr)

    def _is_item(self, at: int, end: int) -> bool:
        if at + 8 > end:
            return False
        group, element, _ = self._tag_and_long(self._data, at)
        return bool(group << 16 | element == _ITEM)

    def _fitting(self, at: int, length: int, left: int) -> int:
        """Return the length where it fits into what is left; else refuse it, or cut it where that is allowed."""
        if length <= left:
            return length
        if not self._limits.length_beyond_end:
            raise _too_long(at, length, left)
        self._note("length-cut")
        return left

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _over(f"more than {self._limits.elements} elements.")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


class _UnendedError(DicomError):
    """A sequence without end: grave where it is one, harmless where it was only guessed to be one."""


def _leave_the_guess(inside: list[_Open]) -> int:
    """Close everything inside the innermost guess and the guess itself: it was a plain value after all."""
    while not (part := inside.pop()).guessed:
        pass
    return part.end


def _is_capital(vr: bytes) -> bool:
    return len(vr) == 2 and 0x41 <= vr[0] <= 0x5A and 0x41 <= vr[1] <= 0x5A


def _parse(at: int, what: str) -> DicomError:
    return DicomError("DCM-PARSE", f"{what}, at byte {at}.", _AGAIN)


def _too_long(at: int, length: int, left: int) -> DicomError:
    return DicomError("DCM-LENGTH", f"the element at byte {at} claims {length} bytes, and {left} are left.", _AGAIN)


def _cut_header(at: int, end: int) -> DicomError:
    return DicomError("DCM-LENGTH", f"the data end inside an element header: {end - at} bytes are left at byte {at}.", _AGAIN)


def _unended(at: int) -> DicomError:
    return _UnendedError("DCM-DEPTH", f"a sequence of undefined length has no end before byte {at}.", _AGAIN)


def _too_deep(nesting: int) -> DicomError:
    return DicomError(
        "DCM-DEPTH", f"sequences are nested more than {nesting} deep.", "No scanner writes that; do not open the file."
    )


def _over(what: str) -> DicomError:
    return DicomError("DCM-LIMIT", what, "Raise the limit by its name only if you trust where the file comes from.")
