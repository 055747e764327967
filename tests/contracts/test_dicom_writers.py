"""Every written DICOM object conforms, belongs to its source, says what it is, and is the same when it is made again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage

from medrecon import writers
from medrecon.core.errors import GeometryError, OutputError
from medrecon.core.grid import Grid
from medrecon.core.source import Source, SourceInstance
from medrecon.core.volume import Quantity, Volume
from medrecon.writers import dicom
from tests.makers_dicom import CORONAL, POISON, make_series
from tests.makers_written_dicom import CONTEXT, dcentvfy_complaints, dciodvfy_errors, files_in, source_of, standing, turned_grid

CORONAL_GRID = turned_grid(directions=np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]))


@pytest.fixture(scope="module")
def ct_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_series(tmp_path_factory.mktemp("ct"), shape=(4, 6, 5))


@pytest.fixture(scope="module")
def mr_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_series(tmp_path_factory.mktemp("mr"), modality="MR", orientation=CORONAL, shape=(3, 6, 5))


@pytest.fixture(scope="module")
def ct(ct_files: list[Path]) -> Source:
    return source_of(ct_files)


@pytest.fixture(scope="module")
def mr(mr_files: list[Path]) -> Source:
    return source_of(mr_files)


def partly_seen(volume: Volume) -> Volume:
    seen = np.ones(volume.grid.shape, dtype=bool)
    seen[:, :2] = seen[0] = False
    return replace(volume, seen=seen)


def fractional(volume: Volume) -> Volume:
    return volume.with_voxels(volume.voxels * np.float32(0.37))


def without(source: Source, *tags: str) -> Source:
    return replace(source, header={tag: value for tag, value in source.header.items() if tag not in tags})


def including(source: Source, **values: tuple[str, list[object]]) -> Source:
    """Return the source with attributes changed in its header, each as (VR, values)."""
    new = {f"{pydicom.datadict.tag_for_keyword(key):08X}": {"vr": vr, "Value": value} for key, (vr, value) in values.items()}
    return replace(source, header={**source.header, **new})


def written(volume: Volume, folder: Path, context: writers.WriteContext = CONTEXT) -> list[Dataset]:
    dicom.write(volume, folder, context)
    return [pydicom.dcmread(path) for path in files_in(folder)]


_CASES: dict[str, Callable[[Source, Source], Volume]] = {
    "CT axial": lambda ct, _: standing(turned_grid(), source=ct),
    "CT coronal, partly seen": lambda ct, _: partly_seen(standing(CORONAL_GRID, source=ct)),
    "CT oblique": lambda ct, _: standing(turned_grid(turn_deg=(20, -35, 50)), source=ct),
    "CT without Hounsfield units": lambda ct, _: fractional(standing(turned_grid(), Quantity.ARBITRARY, ct)),
    "CT of lossy images": lambda ct, _: standing(turned_grid(), source=including(ct, LossyImageCompression=("CS", ["01"]))),
    "CT of a knee of unknown side": lambda ct, _: standing(
        turned_grid(), source=including(ct, BodyPartExamined=("CS", ["KNEE"]))
    ),
    "CT of a head that claims a side": lambda ct, _: standing(turned_grid(), source=including(ct, Laterality=("CS", ["L"]))),
    "CT without patient position": lambda ct, _: standing(turned_grid(), source=without(ct, "00185100")),
    "CT without frame of reference": lambda ct, _: standing(turned_grid(), source=without(ct, "00200052")),
    "MR coronal": lambda _, mr: standing(CORONAL_GRID, Quantity.ARBITRARY, mr),
    "MR reformatted, partly seen": lambda _, mr: partly_seen(standing(turned_grid(), Quantity.ARBITRARY, mr)),
    "MR with fractions": lambda _, mr: fractional(standing(turned_grid(), Quantity.ARBITRARY, mr)),
    "MR of varying sequences": lambda _, mr: standing(
        turned_grid(), Quantity.ARBITRARY, without(mr, "00180020", "00180021", "00180081")
    ),
    "MR gated inversion recovery": lambda _, mr: standing(
        turned_grid(), Quantity.ARBITRARY, including(mr, ScanningSequence=("CS", ["IR", "EP"]), ScanOptions=("CS", ["PPG", "FS"]))
    ),
    "MR of enhanced frames": lambda _, mr: standing(turned_grid(), Quantity.ARBITRARY, _enhanced(mr)),
    "nothing known, Hounsfield units": lambda *_: standing(turned_grid()),
    "nothing known, attenuation": lambda *_: replace(
        standing(turned_grid()),
        quantity=Quantity.ATTENUATION_PER_MM,
        voxels=np.abs(standing(turned_grid()).voxels) * np.float32(1e-5),
    ),
    "nothing known, any values": lambda *_: partly_seen(fractional(standing(turned_grid(), Quantity.ARBITRARY))),
    "ultrasound": lambda *_: standing(turned_grid(), Quantity.ARBITRARY, Source(modality="US")),
    "one slice": lambda ct, _: standing(turned_grid((1, 4, 3)), source=ct),
    "nothing seen": lambda ct, _: replace(standing(turned_grid(), source=ct), seen=np.zeros((5, 7, 6), dtype=bool)),
}


def _enhanced(source: Source) -> Source:
    frames = tuple(SourceInstance("1.2.840.10008.5.1.4.1.1.4.1", "2.25.77", frame) for frame in (1, 2, 3))
    return replace(source, instances=frames)


@pytest.mark.parametrize("case", _CASES.values(), ids=_CASES)
def test_the_validator_finds_no_error_in_any_file(
    case: Callable[[Source, Source], Volume], ct: Source, mr: Source, tmp_path: Path
) -> None:
    volume = case(ct, mr)
    dicom.write(volume, tmp_path / "dicom", CONTEXT)
    files = files_in(tmp_path / "dicom")
    assert len(files) == volume.grid.shape[0]
    assert [error for path in files for error in dciodvfy_errors(path)] == []
    assert dcentvfy_complaints(files, alone=True) == []


def test_the_validator_check_fails_on_a_file_without_a_required_attribute(ct: Source, tmp_path: Path) -> None:
    image = written(standing(turned_grid(), source=ct), tmp_path / "dicom")[0]
    del image.KVP
    image.save_as(tmp_path / "broken.dcm")
    assert any("KVP" in error for error in dciodvfy_errors(tmp_path / "broken.dcm"))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_series_is_one_of_its_source_study(modality: str, ct_files: list[Path], mr_files: list[Path], tmp_path: Path) -> None:
    files = ct_files if modality == "CT" else mr_files
    dicom.write(standing(turned_grid(), source=source_of(files)), tmp_path / "dicom", CONTEXT)
    assert dcentvfy_complaints([*files, *files_in(tmp_path / "dicom")]) == []


def test_the_study_check_fails_when_the_patient_differs(ct_files: list[Path], ct: Source, tmp_path: Path) -> None:
    images = written(standing(turned_grid(), source=ct), tmp_path / "dicom")
    images[0].PatientID = "somebody else"
    images[0].save_as(tmp_path / "other.dcm")
    assert any("PatientID" in line for line in dcentvfy_complaints([*ct_files, tmp_path / "other.dcm"]))


def test_a_derived_series_carries_what_an_archive_needs(ct_files: list[Path], ct: Source, tmp_path: Path) -> None:
    source = pydicom.dcmread(ct_files[0])
    images = written(standing(turned_grid(), source=ct), tmp_path / "dicom")
    image = images[2]
    for kept in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime"):
        assert image[kept].value == source[kept].value
    assert image.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert image.SpecificCharacterSet == source.SpecificCharacterSet
    assert image.SeriesInstanceUID != source.SeriesInstanceUID
    assert image.SeriesDescription == "interpolate research use"
    assert image.ContentQualification == "RESEARCH"
    assert image.BurnedInAnnotation == "NO"
    assert image.Manufacturer == "medrecon"
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert [i.InstanceNumber for i in images] == [1, 2, 3, 4, 5]
    assert len({i.SOPInstanceUID for i in images}) == 5
    assert (image.RescaleSlope, image.RescaleIntercept, image.RescaleType) == (1, 0, "HU")
    assert (image.KVP, image.AcquisitionNumber) == (120, 1)
    assert (image.BitsStored, image.PixelRepresentation) == (16, 1)


def test_a_derived_series_names_its_source_images_and_both_machines(ct_files: list[Path], ct: Source, tmp_path: Path) -> None:
    image = written(standing(CORONAL_GRID, source=ct), tmp_path / "dicom")[0]
    named = [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence]
    assert named == [pydicom.dcmread(path).SOPInstanceUID for path in ct_files]
    assert {item.PurposeOfReferenceCodeSequence[0].CodeValue for item in image.SourceImageSequence} == {"121322"}
    assert [code.CodeValue for code in image.DerivationCodeSequence] == ["113085", "113072"]
    machines = {i.PurposeOfReferenceCodeSequence[0].CodeValue: i.Manufacturer for i in image.ContributingEquipmentSequence}
    assert machines == {"109101": "medrecon tests", "109102": "medrecon"}
    assert "not for diagnosis" in image.DerivationDescription


def test_frames_of_one_source_object_are_one_reference(mr: Source, tmp_path: Path) -> None:
    image = written(standing(turned_grid(), Quantity.ARBITRARY, _enhanced(mr)), tmp_path / "dicom")[0]
    (reference,) = image.SourceImageSequence
    assert list(reference.ReferencedFrameNumber) == [1, 2, 3]


@pytest.mark.parametrize(
    ("quantity", "modality", "expected"),
    [
        (Quantity.HOUNSFIELD, "", CTImageStorage),
        (Quantity.ATTENUATION_PER_MM, "", CTImageStorage),
        (Quantity.ARBITRARY, "CT", CTImageStorage),
        (Quantity.ARBITRARY, "MR", MRImageStorage),
        (Quantity.ARBITRARY, "", SecondaryCaptureImageStorage),
        (Quantity.ARBITRARY, "US", SecondaryCaptureImageStorage),
        (Quantity.ARBITRARY, "../etc", SecondaryCaptureImageStorage),
    ],
)
def test_the_class_of_image_says_no_more_than_is_known(quantity: Quantity, modality: str, expected: str, tmp_path: Path) -> None:
    image = written(standing(turned_grid(), quantity, Source(modality=modality)), tmp_path / "dicom")[0]
    assert image.SOPClassUID == expected
    known = {str(CTImageStorage): "CT", str(MRImageStorage): "MR"}
    assert image.Modality == known.get(expected, "US" if modality == "US" else "OT")
    assert image.PatientName == ""
    assert image.PatientID == ""


@pytest.mark.parametrize(
    ("turn_deg", "third"), [((0, 0, 0), "AXIAL"), ((25, 0, 0), "AXIAL"), ((45, 0, 0), "MPR"), ((90, 0, 0), "MPR")]
)
def test_only_planes_that_a_gantry_reaches_are_called_axial(
    turn_deg: tuple[float, float, float], third: str, ct: Source, tmp_path: Path
) -> None:
    image = written(standing(turned_grid(turn_deg=turn_deg), source=ct), tmp_path / "dicom")[0]
    assert image.ImageType[2] == third


def test_planes_of_the_source_are_not_called_reformatted(mr: Source, tmp_path: Path) -> None:
    same = written(standing(CORONAL_GRID, Quantity.ARBITRARY, mr), tmp_path / "same")[0]
    turned = written(standing(turned_grid(), Quantity.ARBITRARY, mr), tmp_path / "turned")[0]
    assert (same.ImageType[2], turned.ImageType[2]) == ("OTHER", "MPR")


def test_the_gantry_tilt_of_the_source_is_not_copied(ct: Source, tmp_path: Path) -> None:
    tilted = including(ct, GantryDetectorTilt=("DS", [-18.5]))
    assert "GantryDetectorTilt" not in written(standing(turned_grid(), source=tilted), tmp_path / "dicom")[0]


def test_lossy_compression_and_burned_in_text_are_never_forgotten(ct: Source, tmp_path: Path) -> None:
    lossy = including(
        ct,
        LossyImageCompression=("CS", ["01"]),
        LossyImageCompressionRatio=("DS", [12.5]),
        LossyImageCompressionMethod=("CS", ["ISO_15444_1"]),
        BurnedInAnnotation=("CS", ["YES"]),
    )
    image = written(standing(turned_grid(), source=lossy), tmp_path / "dicom")[0]
    assert (image.LossyImageCompression, image.LossyImageCompressionRatio) == ("01", 12.5)
    assert (image.LossyImageCompressionMethod, image.BurnedInAnnotation) == ("ISO_15444_1", "YES")


def test_synthetic_data_is_said_only_of_learned_volumes(ct: Source, tmp_path: Path) -> None:
    volume = standing(turned_grid(), source=ct)
    assert "SyntheticData" not in written(volume, tmp_path / "measured")[0]
    invented = written(volume, tmp_path / "invented", replace(CONTEXT, invented=True))[0]
    assert invented.SyntheticData == "YES"
    assert "inferred" in invented.DerivationDescription
    assert dciodvfy_errors(files_in(tmp_path / "invented")[0]) == []


def test_the_same_input_and_settings_give_the_same_bytes(ct: Source, tmp_path: Path) -> None:
    volume = standing(turned_grid(), source=ct)
    for name in ("once", "again"):
        dicom.write(volume, tmp_path / name, CONTEXT)
    assert [p.read_bytes() for p in files_in(tmp_path / "once")] == [p.read_bytes() for p in files_in(tmp_path / "again")]


@pytest.mark.parametrize("change", ["settings", "method", "place", "source", "values of unknown settings"])
def test_another_result_never_takes_the_same_identifiers(change: str, ct: Source, tmp_path: Path) -> None:
    volume, context = standing(turned_grid(), source=ct), CONTEXT
    other, other_context = volume, context
    if change == "settings":
        other_context = replace(context, settings_hash="f" * 64)
    elif change == "method":
        other_context = replace(context, method="consistent_spline")
    elif change == "place":
        other = replace(volume, grid=turned_grid(spacing_mm=(2.5, 0.75, 1.2500001)))
    elif change == "source":
        other = replace(volume, source=replace(ct, instances=ct.instances[:-1]))
    else:
        context = other_context = replace(context, settings_hash="")
        other = volume.with_voxels(volume.voxels + 1)
    first, second = written(volume, tmp_path / "a", context), written(other, tmp_path / "b", other_context)
    assert first[0].SeriesInstanceUID != second[0].SeriesInstanceUID
    assert not {i.SOPInstanceUID for i in first} & {i.SOPInstanceUID for i in second}
    assert first[0].StudyInstanceUID == second[0].StudyInstanceUID
    assert first[0].FrameOfReferenceUID == second[0].FrameOfReferenceUID


def test_results_of_one_file_without_a_study_share_a_study_and_a_frame(tmp_path: Path) -> None:
    volume = standing(turned_grid(), source=Source("nifti", file_hashes=("abc",)))
    first = written(volume, tmp_path / "a")[0]
    second = written(volume, tmp_path / "b", replace(CONTEXT, settings_hash="f" * 64))[0]
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_no_file_holds_a_date_that_the_source_does_not_have(ct: Source, tmp_path: Path) -> None:
    image = written(standing(turned_grid(), source=ct), tmp_path / "dicom")[0]
    dates = {str(e.value) for e in image.iterall() if e.VR in {"DA", "DT"} and e.value}
    assert dates <= {"20200102", "19500101"}


def test_slices_are_perpendicular_to_a_millionth_and_say_their_thickness(ct: Source, tmp_path: Path) -> None:
    volume = standing(turned_grid(turn_deg=(20, -35, 50)), source=ct)
    image = written(volume, tmp_path / "dicom")[0]
    across, down = np.reshape(np.array(image.ImageOrientationPatient, dtype=float), (2, 3))
    np.testing.assert_allclose([across @ across, down @ down, across @ down], [1, 1, 0], atol=1e-6)
    assert [float(v) for v in image.PixelSpacing] == [0.75, 1.25]
    assert (image.SliceThickness, image.SpacingBetweenSlices) == (2.5, 2.5)


def test_a_sheared_grid_is_refused_and_nothing_is_written(ct: Source, tmp_path: Path) -> None:
    sheared = turned_grid().to_lps_mm.copy()
    sheared[1, 0] += 0.5
    with pytest.raises(GeometryError) as refusal:
        dicom.write(standing(Grid((5, 7, 6), sheared), source=ct), tmp_path / "dicom", CONTEXT)
    assert refusal.value.code == "VOL-SHEARED"
    assert list(tmp_path.iterdir()) == []


def test_a_volume_with_a_value_that_is_no_number_is_refused_and_nothing_is_written(ct: Source, tmp_path: Path) -> None:
    volume = standing(turned_grid(), source=ct)
    voxels = volume.voxels.copy()
    voxels[2, 3, 4] = np.nan
    with pytest.raises(OutputError) as refusal:
        dicom.write(volume.with_voxels(voxels), tmp_path / "dicom", CONTEXT)
    assert refusal.value.code == "OUT-FINITE"
    assert list(tmp_path.iterdir()) == []


def test_no_name_and_no_message_holds_patient_text(ct: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    volume = standing(turned_grid(), source=ct)
    dicom.write(volume.with_voxels(volume.voxels * 1000), tmp_path / "dicom", CONTEXT)
    assert any("clipped" in message for message in caplog.messages)
    names = [path.name for path in files_in(tmp_path / "dicom")]
    assert names == [f"slice-{k:05d}.dcm" for k in range(1, 6)]
    assert not any(part in text for text in (*names, *caplog.messages) for part in POISON.split("^"))
    assert POISON in str(pydicom.dcmread(tmp_path / "dicom" / names[0]).PatientName)  # it is there to be found
