"""What is taken over from a source survives as text, and nothing in a source can break a written object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medrecon.core.mesh import Surface
from medrecon.core.source import Source, SourceInstance
from medrecon.core.volume import Quantity
from medrecon.writers import WriteContext, dicom, dicom_stl
from tests.makers_dicom import make_series
from tests.makers_written_dicom import CONTEXT, dcentvfy_complaints, dciodvfy_errors, files_in, source_of, standing, turned_grid

GRID = turned_grid((1, 3, 2))
TRIANGLE = Surface(np.eye(3), np.array([[0, 1, 2]]), "bone")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return source_of(make_series(tmp_path_factory.mktemp("ct"), shape=(2, 4, 3)))


def with_header(source: Source, **elements: object) -> Source:
    """Return the source with whole JSON elements put in place of those of its header."""
    new = {f"{pydicom.datadict.tag_for_keyword(keyword):08X}": element for keyword, element in elements.items()}
    return replace(source, header={**source.header, **new})


def one_image(source: Source, folder: Path, quantity: Quantity = Quantity.HOUNSFIELD) -> Dataset:
    dicom.write(standing(GRID, quantity, source), folder, CONTEXT)
    return pydicom.dcmread(files_in(folder)[0])


def named(name: dict[str, str], charset: list[str | None]) -> dict[str, Any]:
    return {"PatientName": {"vr": "PN", "Value": [name]}, "SpecificCharacterSet": {"vr": "CS", "Value": charset}}


_NAMES: dict[str, tuple[dict[str, str], list[str | None], list[str]]] = {
    "German in Latin 1": ({"Alphabetic": "Äneas^Rüdiger"}, ["ISO_IR 100"], ["ISO_IR 100"]),
    "Japanese in ISO 2022": (
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
        [None, "ISO 2022 IR 87"],
        ["", "ISO 2022 IR 87"],
    ),
    "half-width katakana": ({"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ"}, ["ISO_IR 13"], ["ISO_IR 13"]),
    "Greek": ({"Alphabetic": "Διονυσιος"}, ["ISO_IR 126"], ["ISO_IR 126"]),
    "Chinese in GB18030": ({"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}, ["GB18030"], ["GB18030"]),
    "plain text without a set": ({"Alphabetic": "Doe^Jane"}, [], []),
    "plain text in the default set": ({"Alphabetic": "Doe^Jane"}, ["ISO_IR 6"], []),
    "umlauts without a set": ({"Alphabetic": "Äneas^Rüdiger"}, [], ["ISO_IR 192"]),
    "Greek in Latin 1": ({"Alphabetic": "Διονυσιος"}, ["ISO_IR 100"], ["ISO_IR 192"]),
    "kanji in the katakana set": ({"Alphabetic": "山田"}, ["ISO_IR 13"], ["ISO_IR 192"]),
    "a set that does not exist": ({"Alphabetic": "Äneas"}, ["KLINGON"], ["ISO_IR 192"]),
}


@pytest.mark.parametrize(("name", "charset", "declared"), _NAMES.values(), ids=_NAMES)
def test_every_name_comes_back_in_a_set_that_holds_it(
    name: dict[str, str], charset: list[str | None], declared: list[str], ct: Source, tmp_path: Path
) -> None:
    image = one_image(with_header(ct, **named(name, charset)), tmp_path / "dicom")
    assert str(image.PatientName) == "=".join(name.values())
    found = image.get("SpecificCharacterSet") or []
    assert ([found] if isinstance(found, str) else list(found)) == declared
    if declared != ["ISO_IR 13"]:  # the validator does not know the upper half of that set (JIS X 0201)
        assert dciodvfy_errors(files_in(tmp_path / "dicom")[0]) == []


_HOSTILE: dict[str, tuple[str, object]] = {
    "a date that is none": ("StudyDate", {"vr": "DA", "Value": ["20200199999"]}),
    "a date range": ("PatientBirthDate", {"vr": "DA", "Value": ["19500101-19600101"]}),
    "a sex that is none": ("PatientSex", {"vr": "CS", "Value": ["banana"]}),
    "a NUL in a name": ("PatientName", {"vr": "PN", "Value": [{"Alphabetic": "A\0B"}]}),
    "an escape in an identifier": ("PatientID", {"vr": "LO", "Value": ["\x1b[2J"]}),
    "a name of 500 letters": ("PatientName", {"vr": "PN", "Value": [{"Alphabetic": "A" * 500}]}),
    "two identifiers": ("PatientID", {"vr": "LO", "Value": ["A", "B"]}),
    "a backslash": ("StudyID", {"vr": "SH", "Value": ["A\\B"]}),
    "a number for a name": ("PatientName", {"vr": "PN", "Value": [7]}),
    "a list for a name": ("PatientName", {"vr": "PN", "Value": [["A"]]}),
    "no list": ("PatientName", {"vr": "PN", "Value": "A"}),
    "no element": ("PatientName", "A"),
    "another value representation": ("KVP", {"vr": "SQ", "Value": [{"00100010": {"vr": "PN", "Value": ["A"]}}]}),
    "not a number": ("KVP", {"vr": "DS", "Value": ["NaN"]}),
    "a number that is no number": ("PatientWeight", {"vr": "DS", "Value": [float("nan")]}),
    "a number of 30 digits": ("PatientWeight", {"vr": "DS", "Value": [70.12345678901234567890123]}),
    "a study that is a path": ("StudyInstanceUID", {"vr": "UI", "Value": ["../../etc"]}),
    "a frame of reference of 300 digits": ("FrameOfReferenceUID", {"vr": "UI", "Value": ["1" * 300]}),
    "an empty study": ("StudyInstanceUID", {"vr": "UI", "Value": [None]}),
    "a deep sequence": ("IssuerOfAccessionNumberSequence", {"vr": "SQ", "Value": [{"00080051": {"vr": "SQ", "Value": [{}]}}]}),
    "de-identified by no method": ("PatientIdentityRemoved", {"vr": "CS", "Value": ["YES"]}),
    "an orientation of words": ("ImageOrientationPatient", {"vr": "DS", "Value": ["left", "right"]}),
    "a huge series number": ("SeriesNumber", {"vr": "IS", "Value": [2**31 - 1]}),
    "a window that is no number": ("WindowCenter", {"vr": "DS", "Value": ["bright"]}),
    "a window of two centres": ("WindowCenter", {"vr": "DS", "Value": [40, 50]}),
    "a window without width": ("WindowWidth", {"vr": "DS", "Value": [0]}),
    "a patient position that is none": ("PatientPosition", {"vr": "CS", "Value": ["UPSIDE DOWN"]}),
}


@pytest.mark.parametrize(("keyword", "element"), _HOSTILE.values(), ids=_HOSTILE)
def test_no_header_breaks_a_written_object(keyword: str, element: object, ct: Source, tmp_path: Path) -> None:
    source = with_header(ct, **{keyword: element})
    one_image(source, tmp_path / "dicom")
    dicom_stl.write(TRIANGLE, tmp_path / "surface.dcm", replace(CONTEXT, source=source))
    for path in (files_in(tmp_path / "dicom")[0], tmp_path / "surface.dcm"):
        assert dciodvfy_errors(path) == []


@pytest.mark.parametrize("valid", [0, 1])
def test_a_source_image_without_a_valid_identifier_is_not_named(valid: int, ct: Source, tmp_path: Path) -> None:
    instances = (SourceInstance("1.2", "../etc"), *ct.instances[:valid])
    image = one_image(replace(ct, instances=instances), tmp_path / "dicom")
    named_images = [item.ReferencedSOPInstanceUID for item in image.get("SourceImageSequence", [])]
    assert named_images == [instance.sop_instance_uid for instance in ct.instances[:valid]]
    assert dciodvfy_errors(files_in(tmp_path / "dicom")[0]) == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["vr", "Value", "Alphabetic", "00100020"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=100)
@given(header=st.dictionaries(st.sampled_from(["00100010", "00100020", "00080020", "0020000D", "00080005", "00181020"]), _JSON))
def test_anything_for_a_header_gives_an_object(header: dict[str, Any]) -> None:
    from medrecon.writers import _dicom_common as common

    source = Source("dicom", "series-0", "CT", ("a",), (), header)
    identity = common.identify(source, CONTEXT, "test", [])
    made = common.finish(common.begin(source, identity, CONTEXT, "x"), source, identity, 1, pydicom.uid.CTImageStorage)
    again = pydicom.dcmread(pydicom.filebase.DicomBytesIO(common.encode(made)))
    assert str(again.PatientName) == str(made.PatientName or "")
    assert again.StudyInstanceUID.is_valid


@pytest.mark.parametrize("folder", ["mr_sag_supine", "ct_tilt_minus18"])
def test_real_scans_give_conformant_series_and_surfaces(folder: str, shared_data: Path, tmp_path: Path) -> None:
    files = sorted(path for path in (shared_data / "dicom" / folder).iterdir() if path.name != "DIRFILE")
    source = source_of(files)
    quantity = Quantity.HOUNSFIELD if source.modality == "CT" else Quantity.ARBITRARY
    dicom.write(standing(turned_grid((2, 4, 3)), quantity, source), tmp_path / "dicom", CONTEXT)
    dicom_stl.write(TRIANGLE, tmp_path / "surface.dcm", replace(CONTEXT, source=source))
    made = [*files_in(tmp_path / "dicom"), tmp_path / "surface.dcm"]
    assert [error for path in made for error in dciodvfy_errors(path)] == []
    assert dcentvfy_complaints([*files, *made], alone=True) == []


def test_the_context_of_a_bare_call_is_enough(tmp_path: Path) -> None:
    dicom.write(standing(GRID), tmp_path / "dicom", WriteContext())
    dicom_stl.write(TRIANGLE, tmp_path / "surface.dcm", WriteContext())
    for path in (files_in(tmp_path / "dicom")[0], tmp_path / "surface.dcm"):
        assert dciodvfy_errors(path) == []
