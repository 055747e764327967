"""What the readers of projections in DICOM share: a file past the gate with its tags, and its frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import InputError
from medrecon.core.reading import ListedFile
from medrecon.core.source import Source, SourceInstance
from medrecon.readers.dicom.headers import Contents, SeriesKey, StoredFile, inheritable, series_key, stored_file
from medrecon.readers.dicom.inherited import common_header
from medrecon.readers.dicom.stored import frames_of
from medrecon.readers.dicom.tags import LIBRARY_ERRORS, Tags, parse, quiet_library
from medrecon.safety import gate
from medrecon.safety.limits import Limits

_BATCH = 128
_INTEGERS = {1: "<u1", 2: "<u2", 4: "<u4"}


@dataclass(frozen=True, slots=True, eq=False)
class DicomFile:
    """One file: how its pixels are written and what its header says.

    Parameters
    ----------
    tags : Tags
    elements : mapping
        For the header that a derived series inherits. Patient text.
    """

    stored: StoredFile
    key: SeriesKey
    tags: Tags = field(repr=False)
    elements: Mapping[int, Any] = field(repr=False)

    def number(self, tag: int) -> float | None:
        """Return the first number of a private tag, None where it is absent."""
        found = self.numbers(tag)
        return float(found[0]) if found.size else None

    def numbers(self, tag: int) -> NDArray[np.float64]:
        """Return the numbers of a private tag, whose type the file may not tell: then 32-bit floats.

        Raises
        ------
        InputError
            ``PRJ-HEADER`` for values that are no finite numbers.
        """
        return self._finite(tag, "<f4")

    def integer(self, tag: int) -> int | None:
        """Return a private tag that holds an unsigned integer."""
        value = self._value(tag)
        size = len(value) if isinstance(value, bytes) else 0
        found = self._finite(tag, _INTEGERS.get(size, "<u2"))
        return round(float(found[0])) if found.size else None

    def text(self, tag: int) -> str:
        """Return a private tag as text for comparison."""
        value = self._value(tag)
        return (value.decode("latin-1") if isinstance(value, bytes) else str(value or "")).strip(" \0").upper()

    def need(self, tag: int) -> float:
        """Return a number, or raise where it is absent."""
        found = self.number(tag)
        if found is None:
            name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
            raise InputError("PRJ-HEADER", f"{name} is missing in file {self.stored.number}.", "Export the scan again.")
        return found

    def _value(self, tag: int) -> object:
        try:
            return self.tags.values[tag].value if tag in self.tags.values else None
        except LIBRARY_ERRORS as error:
            raise self._unreadable(tag) from error

    def _finite(self, tag: int, dtype: str) -> NDArray[np.float64]:
        value = self._value(tag)
        try:
            found = _as_numbers(value, dtype)
        except (ValueError, TypeError, struct.error) as error:
            raise self._unreadable(tag) from error
        if not np.isfinite(found).all():
            raise self._unreadable(tag)
        return found

    def _unreadable(self, tag: int) -> InputError:
        name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        return InputError("PRJ-HEADER", f"{name} in file {self.stored.number} is no finite number.", "Export the scan again.")


def opened(listed: ListedFile, limits: Limits) -> DicomFile | None:
    """Pass a file through the gate and parse it; None where it is no DICOM or has no grey pixels.

    Raises
    ------
    MedreconError
        What the gate refuses it for.
    """
    data = gate.load(listed.path, limits)
    gated = gate.gate(data, limits)
    if gated is None or not gated.has_pixels or gated.samples_per_pixel != 1 or gated.bits_allocated not in (8, 16, 32):
        return None
    with quiet_library():
        header = parse(gated, listed.number)
        tags = Tags(header, listed.number)
        stored = stored_file(gated, listed, len(data), tags, tags.text_of("SOPClassUID"))
        return DicomFile(stored, series_key(tags), tags, inheritable(header))


def agreed(known: Mapping[int, Any] | None, file: DicomFile) -> Mapping[int, Any]:
    """Keep of what is known of earlier files what this one says too; a scan has tens of thousands of files."""
    if known is None:
        return file.elements
    others = file.elements
    return {
        tag: one for tag, one in known.items() if tag in others and (one.VR, one.value) == (others[tag].VR, others[tag].value)
    }


def source_of(files: Sequence[StoredFile], key: SeriesKey, elements: Mapping[int, Any]) -> Source:
    """Return the header in which all files agree, and their instances."""
    instances = tuple(SourceInstance(one.sop_class_uid, one.sop_instance_uid) for one in files)
    return Source(instances=instances, header=common_header([Contents(files[0], key, None, elements=elements)], []))


def frames(files: Sequence[StoredFile]) -> Iterator[tuple[StoredFile, NDArray[Any]]]:
    """Yield every file with its stored values (frames, rows, columns), decoding a batch at a time."""
    for first in range(0, len(files), _BATCH):
        batch = files[first : first + _BATCH]
        yield from zip(batch, frames_of(batch, Limits()), strict=True)


def _as_numbers(value: object, dtype: str) -> NDArray[np.float64]:
    """Turn what pydicom gives for a private tag into numbers; bytes are of the given type."""
    if value is None or value == b"" or value == "":
        return np.empty(0)
    if not isinstance(value, bytes):
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return np.array([float(str(item)) for item in items])
    return np.frombuffer(value, dtype=dtype).astype(np.float64)
