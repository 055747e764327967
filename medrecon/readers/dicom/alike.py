"""Headers of one series: only what differs from the header before is taken anew.

The files of a series repeat most of their header byte for byte. What lies between the few elements that differ is compared
as one run of bytes; these elements alone are read. Whatever has another form is parsed by pydicom as a whole, and is the
form that the next header is compared with. Only headers that passed the gate come here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydicom import Dataset
from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from medrecon.readers.dicom.tags import Tags, data_set_start, is_explicit, parse
from medrecon.safety.elements import UNDEFINED
from medrecon.safety.gate import GatedFile

_CHARACTER_SET = 0x00080005  # pydicom reads sequences with it, so that nothing is taken over where it differs


class AlikeHeaders:
    """A memory of one header, as long as one listing."""

    def __init__(self) -> None:
        self._form: _Form | None = None

    def tags(self, file: GatedFile, number: int) -> Tags:
        """Return the tags before a gated file's pixels, as `parse` would; elements that are the same share their memory.

        Raises
        ------
        DicomError
            ``DCM-PARSE`` with the file's number.
        """
        found = self._form.filled(file) if self._form is not None else None
        if found is None:
            values, found = parse(file, number), []
            self._form = _form_of(file, values, self._form)
        return Tags(values, number) if self._form is None else self._form.tags(found, number)


class _Own(NamedTuple):
    """An element that every file has with a value of its own: its first bytes, how it is written, and pydicom's element."""

    first_bytes: bytes
    length_at: int
    value_at: int
    element: RawDataElement

    def taken(self, data: bytes, at: int) -> RawDataElement | None:
        """Return the element that stands at `at`, None where it is another."""
        value_at = at + self.value_at
        length = int.from_bytes(data[at + self.length_at : value_at], "little")
        value: Any = data[value_at : value_at + length]
        if len(value) != length or not data.startswith(self.first_bytes, at):
            return None
        vr = self.element.VR
        value = value or empty_value_for_VR(vr, raw=True)
        return RawDataElement(self.element.tag, vr, length, value, value_at, self.element.is_implicit_VR, True)


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """What headers of one form share.

    Parameters
    ----------
    explicit : whether value representations are written down
    pieces : the bytes of every element by its tag, in their order
    steps : runs of bytes that are the same in all files, and elements that are not
    values, elements : all elements of one file, by pydicom's tag and by number
    encoding : as `Dataset.set_original_encoding` takes it
    """

    explicit: bool
    pieces: Mapping[int, bytes]
    own: frozenset[int]
    steps: tuple[bytes | _Own, ...]
    values: Mapping[Any, Any]
    elements: Mapping[int, Any]
    encoding: tuple[Any, ...]

    def tags(self, found: Sequence[RawDataElement], number: int) -> Tags:
        """Return the tags of a file that differs from this form in the elements found."""
        values = Dataset({**self.values, **{element.tag: element for element in found}})
        values.set_original_encoding(*self.encoding)
        return Tags(values, number, {**self.elements, **{int(element.tag): element for element in found}})

    def filled(self, gated: GatedFile) -> list[RawDataElement] | None:
        """Return the elements of its own that a header of this form has, None for one of another form."""
        if is_explicit(gated) is not self.explicit:
            return None
        data, at, found = gated.data, data_set_start(gated.data), []
        for step in self.steps:
            if isinstance(step, bytes):
                if not data.startswith(step, at):
                    return None
                at += len(step)
                continue
            element = step.taken(data, at)
            if element is None:
                return None
            found.append(element)
            at += step.value_at + element.length
        return found if at == gated.header_length else None


def _form_of(gated: GatedFile, values: Dataset, before: _Form | None) -> _Form | None:
    """Learn the form of a header: its own are the elements that differ from those of an equal form before."""
    elements = {int(tag): element for tag, element in values.items()}
    explicit = is_explicit(gated)
    pieces = None if explicit is None else _pieces(gated, elements, explicit)
    if explicit is None or pieces is None:
        return None
    own: frozenset[int] = frozenset()
    encoding = (not explicit, True, values.original_character_set)
    if before is not None and before.encoding == encoding and list(before.pieces) == list(pieces):
        same = {tag for tag, piece in pieces.items() if piece == before.pieces[tag]}
        own = before.own | (pieces.keys() - same)
        elements |= {tag: before.elements[tag] for tag in same}  # what is the same shares its memory from the first file on
    steps = tuple(_steps(pieces, own, elements, explicit))
    return _Form(explicit, pieces, own, steps, dict(zip(values.keys(), elements.values(), strict=True)), elements, encoding)


def _pieces(gated: GatedFile, elements: Mapping[int, Any], explicit: bool) -> dict[int, bytes] | None:
    """Cut a header into its elements; None where pydicom and the bytes do not say the same of where they begin."""
    starts = [_value_start(element) - _value_at(element, explicit) for element in elements.values()]
    ends = [*starts[1:], gated.header_length]
    pieces = {tag: gated.data[start:end] for tag, start, end in zip(elements, starts, ends, strict=True)}
    whole = bool(starts) and starts[0] == data_set_start(gated.data) and sum(map(len, pieces.values())) == ends[-1] - starts[0]
    return pieces if whole and all(piece.startswith(_tag_bytes(tag)) for tag, piece in pieces.items()) else None


def _steps(pieces: Mapping[int, bytes], own: frozenset[int], elements: Mapping[int, Any], explicit: bool) -> list[bytes | _Own]:
    steps: list[bytes | _Own] = []
    run: list[bytes] = []
    for tag, piece in pieces.items():
        element = elements[tag]
        if tag not in own or not _can_be_taken(element, explicit):
            run.append(piece)
            continue
        value_at = _value_at(element, explicit)
        long = not explicit or value_at == 12
        steps += [b"".join(run), _Own(piece[: 6 if explicit else 4], value_at - (4 if long else 2), value_at, element)]
        run = []
    return [*steps, b"".join(run)]


def _can_be_taken(element: Any, explicit: bool) -> bool:  # noqa: ANN401 (raw and converted elements of pydicom)
    """Whether an element is plain bytes of a known length, and no other element depends on it."""
    return (
        isinstance(element, RawDataElement)
        and element.tag != _CHARACTER_SET
        and element.length != UNDEFINED
        and (element.VR is not None) is explicit
    )


def _value_start(element: Any) -> int:  # noqa: ANN401 (raw and converted elements of pydicom)
    return int(element.value_tell if isinstance(element, RawDataElement) else element.file_tell)


def _value_at(element: Any, explicit: bool) -> int:  # noqa: ANN401 (raw and converted elements of pydicom)
    """Return how many bytes stand before an element's value."""
    return 12 if explicit and element.VR in EXPLICIT_VR_LENGTH_32 else 8


def _tag_bytes(tag: int) -> bytes:
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
