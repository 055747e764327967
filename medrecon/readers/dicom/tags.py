"""Values of DICOM tags as plain Python values: the one border at which pydicom's exceptions become coded errors.

A needed tag that is missing, not finite or unreadable raises; an optional one that is unreadable counts as absent and its
name is remembered in `Tags.odd`. No message holds a value that is text.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset

from medrecon.core.errors import DicomError
from medrecon.core.words import counted
from medrecon.safety.gate import GatedFile
from medrecon.safety.syntaxes import COMPRESSED, EXPLICIT_LITTLE, IMPLICIT_LITTLE

#: What pydicom raises on damaged files, measured on hundreds of them.
LIBRARY_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    NotImplementedError,
    OSError,
    ValueError,
    RuntimeError,
    AttributeError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
)


#: Representations whose values are text with backslashes between them; needed as numbers or for comparison only.
_PLAIN_TEXT = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UI"))


_EXPLICIT = frozenset((EXPLICIT_LITTLE, *COMPRESSED))
_ODD_START = frozenset(("no-preamble", "no-syntax", "other-syntax"))
_LONG_META = frozenset((b"OB", b"OW", b"UN", b"SQ", b"UT"))


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Drop pydicom's warnings and log lines, which may quote header text; what matters of them becomes a finding."""
    log = logging.getLogger("pydicom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.addFilter(_nothing)
        try:
            yield
        finally:
            log.removeFilter(_nothing)


def parse(gated: GatedFile, number: int) -> Dataset:
    """Parse what a gated file has before its pixels; values are converted later, one by one.

    Raises
    ------
    DicomError
        ``DCM-PARSE`` with the file's number.
    """
    stream, explicit = io.BytesIO(gated.header), is_explicit(gated)
    try:
        if explicit is None:
            return dcmread(stream, force=True)
        stream.seek(data_set_start(gated.data))
        return read_dataset(stream, is_implicit_VR=not explicit, is_little_endian=True)  # half the time of dcmread
    except LIBRARY_ERRORS as error:
        raise DicomError("DCM-PARSE", f"file {number} cannot be parsed ({type(error).__name__}).", _AGAIN) from error


def is_explicit(gated: GatedFile) -> bool | None:
    """Whether a file writes value representations down; None where that, or where the data set begins, is not plain to see."""
    if _ODD_START & set(gated.notes):
        return None
    return True if gated.transfer_syntax_uid in _EXPLICIT else False if gated.transfer_syntax_uid == IMPLICIT_LITTLE else None


def data_set_start(data: bytes) -> int:
    """Return where the data set begins: behind the elements of group 0002, whose form the gate has checked."""
    at = 132
    while data[at : at + 2] == b"\x02\x00":
        long = data[at + 4 : at + 6] in _LONG_META
        at += (
            12 + int.from_bytes(data[at + 8 : at + 12], "little") if long else 8 + int.from_bytes(data[at + 6 : at + 8], "little")
        )
    return at


class Looked(NamedTuple):
    """What was seen of a header: elements by tag, None where there was none, and the private blocks if they mattered."""

    elements: Mapping[int, Any]
    creators: Mapping[tuple[int, str], int] | None


class Tags:
    """The tags of one image.

    Parameters
    ----------
    values : Dataset
        Where to look; see `flatten` for images in several data sets. `elements` holds them by tag, as raw as they were read.
    number : int
        The file's number, for messages.
    elements : mapping, optional
        The elements of `values` by number, where they are known already.
    """

    def __init__(self, values: Dataset, number: int, elements: Mapping[int, Any] | None = None) -> None:
        self.values = values
        self.number = number
        self.odd: set[str] = set()
        if elements is None:
            elements = {int(tag): element for tag, element in values.items()}  # pydicom's tags compare slowly
        self.elements = elements
        self._creators: Mapping[tuple[int, str], int] | None = None
        self._asked: set[int] = set()

    def __contains__(self, keyword: str) -> bool:
        return self._element(_tag_of(keyword)) is not None

    def looked(self) -> Looked:
        """Return what was looked at so far, and what stood there."""
        return Looked({tag: self.elements.get(tag) for tag in self._asked}, self._creators)

    def shows(self, looked: Looked) -> bool:
        """Whether somebody who looked at the same would see the same."""
        elements = self.elements
        for tag, seen in looked.elements.items():
            here = elements.get(tag)
            if here is not seen and _raw(here) != _raw(seen):
                return False
        return looked.creators is None or looked.creators == self._private()

    def need_floats(self, keyword: str, count: int) -> tuple[float, ...]:
        """Return `count` finite numbers; raise ``DCM-TAG`` where they are missing."""
        numbers = self.floats(keyword, count)
        if numbers is None:
            raise DicomError("DCM-TAG", f"{shown(keyword)} is missing in file {self.number}.", _AGAIN)
        return numbers

    def floats(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Return `count` finite numbers or None where the tag is absent or empty; raise where it holds anything else."""
        numbers = self._numbers(keyword)
        if not numbers:
            return None
        if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
            fact = f"{shown(keyword)} in file {self.number} does not hold {counted(count, 'finite number')}."
            raise DicomError("DCM-TAG", fact, _AGAIN)
        return numbers

    def number_of(self, keyword: str) -> float | None:
        """Return the first value of an optional tag as a finite number."""
        numbers = self.numbers_of(keyword)
        return numbers[0] if numbers else None

    def numbers_of(self, keyword: str) -> tuple[float, ...]:
        """Return all values of an optional tag, none where they are not all finite."""
        if keyword not in self:
            return ()
        try:
            numbers = self._numbers(keyword)
        except DicomError:
            self.odd.add(keyword)
            return ()
        return numbers if all(math.isfinite(number) for number in numbers) else ()

    def integer_of(self, keyword: str) -> int | None:
        """Return the first value of an optional tag as an integer."""
        number = self.number_of(keyword)
        return None if number is None else round(number)

    def text_of(self, keyword: str) -> str:
        """Return an optional tag as text for comparison, never for a message."""
        return "\\".join(self.words_of(keyword))

    def words_of(self, keyword: str) -> tuple[str, ...]:
        """Return the values of an optional tag as stripped text for comparison, never for a message."""
        if keyword not in self:
            return ()
        try:
            value = self._value(keyword)
        except DicomError:
            self.odd.add(keyword)
            return ()
        return tuple(str(item).strip(" \0") for item in _items(value))

    def private_of(self, group: int, element: int, creator: str) -> object:
        """Return the value of a private tag, None where it is absent or unreadable."""
        block = self._private().get((group, creator))
        tag = 0 if block is None else group << 16 | block << 8 | element
        if self._element(tag) is None:
            return None
        try:
            return self.values[tag].value
        except LIBRARY_ERRORS:
            return None

    def _numbers(self, keyword: str) -> tuple[float, ...]:
        value = self._value(keyword)
        try:
            return tuple(float(str(item)) for item in _items(value))
        except LIBRARY_ERRORS as error:
            raise self._unreadable(keyword) from error

    def _value(self, keyword: str) -> object:
        """Return a value as it is: of plain text the bytes are split at once, the rest is converted by pydicom."""
        tag = _tag_of(keyword)
        element = self._element(tag)
        if element is None:
            return None
        if isinstance(element.value, bytes) and (element.VR or _representation(tag)) in _PLAIN_TEXT:
            text = element.value.decode("latin-1")
            return [part.strip(" \0") for part in text.split("\\")] if text.strip(" \0") else None
        try:
            return self.values[tag].value
        except LIBRARY_ERRORS as error:
            raise self._unreadable(keyword) from error

    def _element(self, tag: int) -> Any:  # noqa: ANN401 (raw and converted elements of pydicom)
        self._asked.add(tag)
        return self.elements.get(tag)

    def _private(self) -> Mapping[tuple[int, str], int]:
        if self._creators is None:
            self._creators = self._private_blocks()
        return self._creators

    def _private_blocks(self) -> dict[tuple[int, str], int]:
        """Return which block of a private group belongs to whom."""
        blocks = {}
        for tag, element in self.elements.items():
            if tag & 0x10000 and 0x10 <= tag & 0xFFFF <= 0xFF:
                name = element.value.decode("latin-1") if isinstance(element.value, bytes) else str(element.value)
                blocks[tag >> 16, name.strip(" \0")] = tag & 0xFF
        return blocks

    def _unreadable(self, keyword: str) -> DicomError:
        return DicomError("DCM-PARSE", f"{shown(keyword)} in file {self.number} cannot be understood.", _AGAIN)


@functools.cache
def _tag_of(keyword: str) -> int:
    """Return the number of a tag, 0 for a keyword that the standard does not know."""
    return tag_for_keyword(keyword) or 0


@functools.cache
def _representation(tag: int) -> str:
    """Return how the standard represents a tag, for files that do not say it."""
    return dictionary_VR(tag)


def flatten(layers: Sequence[Dataset]) -> Dataset:
    """Join data sets into one; of a repeated tag the first layer wins. Nothing is converted or copied."""
    return Dataset({tag: element for layer in reversed(layers) for tag, element in layer.items()})


def items_of(values: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence, none where it is absent or is no sequence."""
    try:
        value = values.get(keyword)
    except LIBRARY_ERRORS:
        return ()
    return tuple(item for item in _items(value) if isinstance(item, Dataset))


def shown(keyword: str) -> str:
    """Return a tag as ``Keyword (gggg,eeee)``."""
    tag = tag_for_keyword(keyword)
    return keyword if tag is None else f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


_AGAIN = "Export the series again from its archive."


def _raw(element: Any) -> object:  # noqa: ANN401 (raw and converted elements of pydicom)
    return None if element is None else (element.VR, element.value)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _items(value: object) -> Sequence[object]:
    """Return a tag's value as a list: empty for an empty value, one item for a single one."""
    if value is None or value == "" or value == b"":
        return ()
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
