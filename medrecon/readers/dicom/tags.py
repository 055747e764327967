"""Values of DICOM tags as plain Python values: the one border at which pydicom's exceptions become coded errors.

A needed tag that is missing, not finite or unreadable raises; an optional one that is unreadable counts as absent and its
name is remembered in `Tags.odd`. No message holds a value that is text.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import struct
import warnings
from collections.abc import Iterator, Sequence

from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.errors import BytesLengthException, InvalidDicomError

from medrecon.core.errors import DicomError

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


def parse(header: bytes, number: int) -> Dataset:
    """Parse what a gated file has before its pixels; values are converted later, one by one.

    Raises
    ------
    DicomError
        ``DCM-PARSE`` with the file's number.
    """
    try:
        return dcmread(io.BytesIO(header), force=True)
    except LIBRARY_ERRORS as error:
        raise DicomError("DCM-PARSE", f"file {number} cannot be parsed ({type(error).__name__}).", _AGAIN) from error


class Tags:
    """The tags of one image.

    Parameters
    ----------
    values : Dataset
        Where to look; see `flatten` for images in several data sets.
    number : int
        The file's number, for messages.
    """

    def __init__(self, values: Dataset, number: int) -> None:
        self.values = values
        self.number = number
        self.odd: set[str] = set()

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
            fact = f"{shown(keyword)} in file {self.number} does not hold {count} finite number(s)."
            raise DicomError("DCM-TAG", fact, _AGAIN)
        return numbers

    def number_of(self, keyword: str) -> float | None:
        """Return the first value of an optional tag as a finite number."""
        numbers = self.numbers_of(keyword)
        return numbers[0] if numbers else None

    def numbers_of(self, keyword: str) -> tuple[float, ...]:
        """Return all values of an optional tag, none where they are not all finite."""
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
        try:
            value = self._value(keyword)
        except DicomError:
            self.odd.add(keyword)
            return ()
        return tuple(str(item).strip(" \0") for item in _items(value))

    def private_of(self, group: int, element: int, creator: str) -> object:
        """Return the value of a private tag, None where it is absent or unreadable."""
        try:
            return self.values.get_private_item(group, element, creator).value
        except LIBRARY_ERRORS:
            return None

    def _numbers(self, keyword: str) -> tuple[float, ...]:
        value = self._value(keyword)
        try:
            return tuple(float(str(item)) for item in _items(value))
        except LIBRARY_ERRORS as error:
            raise self._unreadable(keyword) from error

    def _value(self, keyword: str) -> object:
        try:
            return self.values.get(keyword)
        except LIBRARY_ERRORS as error:
            raise self._unreadable(keyword) from error

    def _unreadable(self, keyword: str) -> DicomError:
        return DicomError("DCM-PARSE", f"{shown(keyword)} in file {self.number} cannot be understood.", _AGAIN)


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


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _items(value: object) -> Sequence[object]:
    """Return a tag's value as a list: empty for an empty value, one item for a single one."""
    if value is None or value == "" or value == b"":
        return ()
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
