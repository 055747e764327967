"""Headers taken from what they share with the header before are those that pydicom reads from each file alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medrecon.core.errors import DicomError
from medrecon.readers.dicom.alike import AlikeHeaders
from medrecon.readers.dicom.tags import Tags, quiet_library
from medrecon.safety.gate import GatedFile, gate
from tests.makers_dicom import make_series

Change = Callable[[Dataset, int], None]


def texts_of_many_lengths(image: Dataset, k: int) -> None:
    image.SliceLocation = [0, 1.5, 122.25, -7.125][k % 4]
    image.ImageComments = "x" * (7 * k)
    image.add_new(0x00091001, "UN", bytes(k))


def an_element_that_comes_and_goes(image: Dataset, k: int) -> None:
    if k % 3 == 1:
        image.AcquisitionNumber = k


def another_character_set_in_one(image: Dataset, k: int) -> None:
    image.SpecificCharacterSet = "ISO_IR 192" if k == 4 else "ISO_IR 100"
    image.PatientComments = "Müller" if k == 4 else "Meier"


def sequences_that_differ(image: Dataset, k: int) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID = f"1.2.{k}"
    image.ReferencedImageSequence = Items([item] * (k % 2 + 1))
    image["ReferencedImageSequence"].is_undefined_length = k > 4
    same = Dataset()
    same.CodeMeaning = "head"
    image.AnatomicRegionSequence = Items([same])
    image["AnatomicRegionSequence"].is_undefined_length = True


def a_representation_that_changes(image: Dataset, k: int) -> None:
    image.add_new(0x00091001, "UN" if k % 2 else "LO", b"ab" if k % 2 else "ab")


def nothing(image: Dataset, k: int) -> None:
    del image, k


CHANGES: list[Change] = [
    nothing,
    texts_of_many_lengths,
    an_element_that_comes_and_goes,
    another_character_set_in_one,
    sequences_that_differ,
    a_representation_that_changes,
]


def plain(values: Dataset) -> dict[int, Any]:
    """All values of a header as pydicom converts them, sequences and their items included."""
    return {int(one.tag): (one.VR, [plain(item) for item in one.value] if one.VR == "SQ" else one.value) for one in values}


def gated(data: bytes) -> GatedFile:
    found = gate(data)
    assert found is not None
    return found


def difference(files: Sequence[bytes], headers: AlikeHeaders) -> list[int]:
    """Which files' headers are not those that pydicom reads from them alone, with nothing that it did not see."""
    wrong = []
    for number, data in enumerate(files):
        tags = headers.tags(gated(data), number)
        alone = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        raw = {int(element.tag): element.value for element in alone.values() if isinstance(element.value, bytes)}
        same = all(tags.elements[tag].value == value for tag, value in raw.items())
        if not same or list(tags.elements) != [int(tag) for tag in alone.keys()] or plain(tags.values) != plain(alone):  # noqa: SIM118
            wrong.append(number)
    return wrong


def readable(data: bytes) -> bool:
    """Whether the gate and pydicom alone accept a file; pydicom refuses in many ways."""
    try:
        with quiet_library():
            gated(data)
            plain(pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True))
    except (DicomError, ValueError, NotImplementedError, OSError, LookupError, TypeError, AttributeError):
        return False
    return True


def written(folder: Path, change: Change, syntax: str = ExplicitVRLittleEndian) -> list[bytes]:
    make_series(folder, shape=(9, 8, 8), change=change, transfer_syntax=syntax)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_header_is_that_of_its_file(tmp_path: Path, change: Change, syntax: str) -> None:
    assert difference(written(tmp_path, change, syntax), AlikeHeaders()) == []


def test_headers_of_several_series_and_syntaxes_one_after_the_other_are_those_of_their_files(tmp_path: Path) -> None:
    syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
    files = [
        data
        for k, (change, syntax) in enumerate(zip(CHANGES[:4], syntaxes, strict=True))
        for data in written(tmp_path / str(k), change, syntax)
    ]
    mixed = [files[k] for k in np.random.default_rng(0).permutation(len(files))]
    assert difference([*files, *mixed], AlikeHeaders()) == []


def test_damaged_headers_between_good_ones_are_those_of_their_files(tmp_path: Path) -> None:
    """Bytes overwritten at random: what the gate and pydicom accept is read alike, whatever stood there before."""
    good, headers, rng, seen = written(tmp_path, texts_of_many_lengths), AlikeHeaders(), np.random.default_rng(1), 0
    for _ in range(400):
        data = bytearray(good[int(rng.integers(len(good)))])
        for at in rng.integers(300, len(data) - 200, rng.integers(1, 4)):
            data[at] = int(rng.integers(256))
        if not readable(bytes(data)):
            continue
        seen += 1
        with quiet_library():
            assert difference([bytes(data)], headers) == []
    assert seen > 100


def test_what_is_the_same_in_all_files_is_kept_once(tmp_path: Path) -> None:
    headers = AlikeHeaders()
    tags = [headers.tags(gated(data), k) for k, data in enumerate(written(tmp_path, nothing))]
    patients = {id(one.elements[0x00100020]) for one in tags}
    places = {one.elements[0x00200032].value for one in tags}
    assert (len(patients), len(places)) == (1, 9)


def test_the_comparison_finds_a_header_that_is_another_files(tmp_path: Path) -> None:
    files = written(tmp_path, nothing)
    first = gated(files[0])

    class Stuck(AlikeHeaders):
        def tags(self, file: GatedFile, number: int) -> Tags:
            return super().tags(first if number == 5 else file, number)

    assert difference(files, Stuck()) == [5]
