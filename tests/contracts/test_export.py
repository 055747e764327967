"""An exported result is what a run would have written, and without its patient where that was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.datadict import keyword_for_tag

import medrecon as mr
from medrecon.core.errors import InputError, MedreconError, UsageError
from medrecon.core.source import Source, SourceInstance
from medrecon.export import ExportRequest, export
from medrecon.run import Request, run
from medrecon.safety.deidentify import KEPT, deidentified
from tests.makers_dicom import POISON, POISON_ID, make_series

ALL = ("nifti", "nrrd", "mha", "dicom", "stl", "ply", "obj", "dicom_stl", "maps", "report")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "in"
    make_series(folder, shape=(8, 28, 24), modality="CT", tilt_deg=10.0)
    return folder


@pytest.fixture(scope="module")
def result(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("result")
    _, written = run(Request(study, out, mr.load_config("fast"), formats=("nifti", "stl", "maps", "report")))
    return written["run"].parent


@pytest.fixture(scope="module")
def direct(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with DICOM written right away."""
    out = tmp_path_factory.mktemp("direct")
    _, written = run(Request(study, out, mr.load_config("fast"), formats=("nifti", "dicom")))
    return written["run"].parent


def slices(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted((folder / "dicom").iterdir())]


def texts(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_every_format_can_be_exported_from_a_result(study: Path, result: Path, tmp_path: Path) -> None:
    written = export(ExportRequest(result, tmp_path, ALL, study))
    assert set(ALL) - {"maps"} <= set(written)
    assert all(path.exists() for path in written.values())
    record = json.loads((tmp_path / result.name / "run.json").read_text())
    assert set(record["outputs"]) == {path.name for name, path in written.items() if name != "run"}


def test_exported_dicom_is_what_the_run_would_have_written(study: Path, result: Path, direct: Path, tmp_path: Path) -> None:
    export(ExportRequest(result, tmp_path, ("dicom",), study))
    for ours, wanted in zip(slices(tmp_path / result.name), slices(direct), strict=True):
        assert ours == wanted


def test_the_comparison_with_the_run_fails_on_another_configuration(study: Path, direct: Path, tmp_path: Path) -> None:
    config = mr.load_config("fast", None, ("method=interpolate",))
    _, written = run(Request(study, tmp_path, config, formats=("dicom",)))
    assert slices(written["run"].parent)[0].SeriesInstanceUID != slices(direct)[0].SeriesInstanceUID


def test_exported_volumes_hold_the_same_values_at_the_same_place(study: Path, result: Path, tmp_path: Path) -> None:
    export(ExportRequest(result, tmp_path, ("nifti", "mha"), study))
    image = nibabel.Nifti1Image.from_filename(tmp_path / result.name / "volume.nii.gz")
    mha = mr.read(tmp_path / result.name / "volume.mha")
    assert isinstance(mha, mr.Volume)
    assert np.allclose(np.asarray(image.dataobj).transpose(2, 1, 0), mha.voxels, atol=1e-3)


def test_the_check_for_identity_finds_it_where_it_was_not_removed(study: Path, result: Path, tmp_path: Path) -> None:
    export(ExportRequest(result, tmp_path, ("dicom",), study))
    assert POISON_ID in texts(tmp_path)


def test_two_deidentified_exports_of_one_study_still_belong_together(study: Path, result: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(ExportRequest(result, tmp_path / name, ("dicom",), study, deidentify=True))
    first, second = (slices(tmp_path / name / result.name)[0] for name in ("a", "b"))
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID"):
        assert first[keyword].value == second[keyword].value
    assert first.PatientID


HEADER: dict[str, Any] = {
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": POISON}]},
    "00100020": {"vr": "LO", "Value": [POISON_ID]},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00081030": {"vr": "LO", "Value": [f"study of {POISON}"]},
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00091001": {"vr": "LO", "Value": [POISON]},
    "00104000": {"vr": "LT", "Value": [POISON]},
}
SOURCE = Source("dicom", "series-1", "CT", ("hash",), (SourceInstance("1.2", "1.2.3.4"),), HEADER)


def test_only_listed_technical_facts_stay_in_the_header() -> None:
    header = deidentified(SOURCE, b"secret").header
    assert header["00080060"] == HEADER["00080060"]
    assert POISON not in json.dumps(header)
    assert POISON_ID not in json.dumps(header)
    said = {keyword_for_tag(tag) for tag in header} - set(KEPT)
    assert said == {
        "PatientID",
        "PatientName",
        "StudyInstanceUID",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
        "LongitudinalTemporalInformationModified",
    }


def test_replaced_identifiers_are_valid_and_need_the_secret() -> None:
    ours, others = (deidentified(SOURCE, secret) for secret in (b"ours", b"theirs"))
    for source in (ours, others):
        uid = source.header["0020000D"]["Value"][0]
        assert pydicom.uid.UID(uid).is_valid
        assert uid != "1.2.3"
    assert ours.header["0020000D"] != others.header["0020000D"]
    assert ours.instances[0].sop_instance_uid != others.instances[0].sop_instance_uid


def refused(request: ExportRequest) -> MedreconError:
    with pytest.raises(MedreconError) as caught:
        export(request)
    return caught.value


def test_dicom_without_its_source_is_refused_before_anything_is_written(result: Path, tmp_path: Path) -> None:
    error = refused(ExportRequest(result, tmp_path, ("nifti", "dicom")))
    assert isinstance(error, UsageError)
    assert error.code == "ARG-SOURCE"
    assert list(tmp_path.iterdir()) == []


def test_another_study_than_the_one_it_was_made_from_is_refused(study: Path, result: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_series(other, shape=(8, 28, 24), modality="CT", tilt_deg=10.0, change=lambda image, _: setattr(image, "KVP", 80))
    error = refused(ExportRequest(result, tmp_path / "out", ("dicom",), other))
    assert isinstance(error, InputError)
    assert error.code == "INP-CHANGED"
    assert study.exists()


def test_an_earlier_export_is_replaced_only_when_asked(study: Path, result: Path, tmp_path: Path) -> None:
    export(ExportRequest(result, tmp_path, ("nifti",), study))
    assert refused(ExportRequest(result, tmp_path, ("nifti",), study)).code == "OUT-EXISTS"
    export(ExportRequest(result, tmp_path, ("nifti",), study, overwrite=True))


@pytest.mark.parametrize("gone", ["run.json", "volume.nii.gz"])
def test_a_folder_that_is_no_whole_result_is_refused(result: Path, tmp_path: Path, gone: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in result.iterdir():
        if path.name != gone and path.is_file():
            (broken / path.name).write_bytes(path.read_bytes())
    assert refused(ExportRequest(broken, tmp_path / "out", ("nifti",))).code == "INP-RESULT"


def test_a_folder_that_cannot_be_made_is_refused_by_code(result: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    assert refused(ExportRequest(result, tmp_path / "file" / "out", ("nifti",))).code == "OUT-WRITE"


def test_an_unknown_format_is_refused(result: Path, tmp_path: Path) -> None:
    assert refused(ExportRequest(result, tmp_path, ("nonsense",))).code == "ARG-NAME"
