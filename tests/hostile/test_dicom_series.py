"""Bad DICOM series: each ends in one coded refusal or a marked result, the other series go on, and no patient text shows.

The cases are numbered as in the project's list of inputs to survive (D1 to D12, D19 to D25).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import ImplicitVRLittleEndian

from medrecon.core.errors import DicomError, GeometryError, MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.progress import silent
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.scans import SliceScan
from medrecon.readers import dicom
from tests.makers_dicom import CORONAL, POISON, POISON_ID, make_enhanced, make_series, plan_series, uid, write

OPTIONS = ReadOptions()
SHAPE = (5, 8, 7)


def listed(paths: Iterable[Path]) -> list[ListedFile]:
    return [ListedFile(k, path) for k, path in enumerate(paths, start=1)]


def find(paths: Iterable[Path], options: ReadOptions = OPTIONS) -> tuple[list[SeriesInfo], list[Skipped]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dicom.find(listed(paths), options)


def read(info: SeriesInfo, options: ReadOptions = OPTIONS) -> SliceScan:
    return dicom.read(info, options, silent)


def one(paths: Iterable[Path]) -> SeriesInfo:
    (info,) = find(paths)[0]
    return info


def finding(info: SeriesInfo, code: str) -> Finding:
    return next(found for found in info.findings if found.code == code)


def broken(folder: Path, change: Callable[[Dataset], None], which: int = 2, **how: Any) -> list[Path]:
    """Write a good series of five slices in which one is changed."""
    return make_series(folder, shape=SHAPE, change=lambda image, k: change(image) if k == which else None, **how)


def without(*names: str) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        for name in names:
            delattr(image, name)

    return change


def refused(paths: Iterable[Path], code: str, kind: type[MedreconError] = DicomError) -> SeriesInfo:
    """Check that the one series is refused with a code, at find and at read, and cannot be allowed."""
    info = one(paths)
    assert info.verdict is Verdict.REFUSED
    with pytest.raises(kind) as caught:
        read(info, ReadOptions(allow=("missing-slices", "duplicates")))
    assert caught.value.code == code
    assert caught.value.hint
    return info


# D1


@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_missing_tag_refuses_its_series_by_name_and_file_number_and_others_go_on(tmp_path: Path, name: str) -> None:
    bad = broken(tmp_path / "bad", without(name))
    good = make_series(tmp_path / "good", shape=SHAPE, seed=1)
    infos, _ = find([*bad, *good])
    assert [info.verdict for info in infos] == [Verdict.REFUSED, Verdict.OK]
    assert finding(infos[0], "DCM-TAG").fact.startswith(f"{name} (")
    assert finding(infos[0], "DCM-TAG").numbers["file"] == 3
    with pytest.raises(DicomError, match="DCM-TAG"):
        read(infos[0])
    assert read(infos[1]).pixels.shape == SHAPE


@pytest.mark.parametrize("name", ["Rows", "Columns", "BitsAllocated"])
def test_a_file_whose_pixels_have_no_size_is_found_missing_in_its_series(tmp_path: Path, name: str) -> None:
    paths = broken(tmp_path, without(name))
    infos, skipped = find(paths)
    assert [(s.number, s.code) for s in skipped] == [(3, "DCM-TAG")]
    assert infos[0].verdict is Verdict.REFUSED
    assert finding(infos[0], "DCM-TAG").numbers == {"file": 3}
    with pytest.raises(DicomError, match="DCM-TAG"):
        read(infos[0], ReadOptions(allow=("missing-slices",)))


def test_the_repaired_series_is_read(tmp_path: Path) -> None:
    assert one(make_series(tmp_path, shape=SHAPE)).verdict is Verdict.OK


def test_a_pixel_spacing_that_no_header_has_can_be_given(tmp_path: Path) -> None:
    paths = make_series(tmp_path, shape=SHAPE, change=lambda image, _: delattr(image, "PixelSpacing"))
    refused(paths, "DCM-TAG")
    options = ReadOptions(spacing_mm=(1.0, 0.5, 0.7))
    (info,), _ = find(paths, options)
    assert read(info, options).poses.pixel_spacing_mm[0].tolist() == [0.5, 0.7]
    assert finding(info, "DCM-OVERRIDE").verdict is Verdict.OK


# D2 to D4 stand with the laws of splitting


def test_real_series_of_two_orientations_are_split_with_the_angle(shared_data: Path) -> None:
    infos, _ = find(sorted((shared_data / "dicom/known_bad/sliceorientation/001").iterdir()))
    assert [info.shape for info in infos] == [(2, 288, 288)] * 2
    assert all(finding(info, "DCM-ORIENT").numbers["angle_deg"] == pytest.approx(90, abs=5) for info in infos)


def test_four_real_frames_at_one_position_are_a_time_series_and_no_volume(shared_data: Path) -> None:
    infos, _ = find(sorted((shared_data / "dicom/known_bad/notavolume/001").iterdir()))
    assert len(infos) == 4
    for info in infos:
        with pytest.raises(GeometryError, match="DCM-FEW"):
            read(info)


def test_nine_encodings_of_one_real_image_are_one_image(shared_data: Path) -> None:
    info = one(sorted((shared_data / "dicom/transfer_syntaxes/In").iterdir()))
    assert finding(info, "DCM-DUP").verdict is Verdict.WARN
    assert info.file_count == 9
    assert read(info).pixels.shape == (35, 64, 64)


# D3


@pytest.mark.parametrize(
    "orientation",
    [[1, 0, 0, 0.1, 1, 0], [2, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]],
    ids=["not perpendicular", "not unit", "equal", "zero"],
)
def test_directions_that_are_no_perpendicular_unit_vectors_are_refused(tmp_path: Path, orientation: list[float]) -> None:
    def turn(image: Dataset) -> None:
        image.ImageOrientationPatient = orientation

    refused(broken(tmp_path, turn), "DCM-ORIENT")


@pytest.mark.parametrize("value", ["NaN", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    "name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"]
)
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, name: str, value: str) -> None:
    paths = make_series(tmp_path, shape=SHAPE)
    overwrite(paths[1], name, value)
    info = refused(paths, "DCM-TAG")
    assert finding(info, "DCM-TAG").numbers["file"] == 2


def overwrite(path: Path, name: str, text: str, vr: str | None = None) -> None:
    """Replace the first value of a tag in the bytes of a file, whatever the text."""
    image = pydicom.dcmread(path)
    element = image[name]
    values = [str(v) for v in element.value] if element.VM > 1 else [str(element.value)]
    raw = "\\".join([text, *values[1:]]).encode()
    raw += b" " * (len(raw) % 2)
    tag, vr = element.tag, vr or element.VR
    del image[name]
    image.save_as(path)
    data = path.read_bytes()
    header = tag.group.to_bytes(2, "little") + tag.elem.to_bytes(2, "little") + vr.encode() + len(raw).to_bytes(2, "little")
    at = next(
        (e.file_tell or 0) - (12 if e.VR in ("OB", "OW", "SQ", "UT", "UN") else 8) for e in pydicom.dcmread(path) if e.tag > tag
    )
    path.write_bytes(data[:at] + header + raw + data[at:])


# D5 to D8


def test_real_series_with_a_missing_slice_name_the_pair_and_the_place(shared_data: Path) -> None:
    for number, (step, usual) in {"001": (10.0, 5.0), "002": (1.499, 0.750)}.items():
        info = one(sorted((shared_data / "dicom/known_bad/sliceincrement" / number).iterdir()))
        found = finding(info, "DCM-GAP")
        assert (found.verdict, found.allow) == (Verdict.REFUSED, "missing-slices")
        assert all(part in found.fact for part in ("3 and 4", f"{step:.3f} mm", f"{usual:.3f} mm"))
        with pytest.raises(GeometryError, match="DCM-GAP"):
            read(info)
        scan = read(info, ReadOptions(allow=("missing-slices",)))
        assert scan.verdict is Verdict.WARN
    assert finding(info, "DCM-TILT").numbers["tilt_deg"] == pytest.approx(15.5, abs=0.01)


def test_real_uneven_and_tilted_series_are_used_as_they_are_with_all_steps_named(shared_data: Path) -> None:
    info = one(sorted((shared_data / "dicom/ct_tilt_uneven_gaps").iterdir()))
    steps: Any = finding(info, "DCM-UNEVEN").numbers["steps_mm"]
    np.testing.assert_allclose(steps, [[1.081, 1], [4.002, 13], [6.998, 13]], atol=2e-3)
    assert finding(info, "DCM-TILT").numbers["tilt_deg"] == pytest.approx(18.5, abs=0.01)
    assert (info.verdict, info.spacing_mm[0], info.thickness_mm) == (Verdict.WARN, None, (4.0, 7.0))


@pytest.mark.parametrize(("folder", "degrees"), [("known_bad/gantrytilting/001", 14.0), ("ct_tilt_minus18", 18.5)])
def test_real_tilted_series_are_a_warning_with_the_angle(shared_data: Path, folder: str, degrees: float) -> None:
    paths = [path for path in sorted((shared_data / "dicom" / folder).iterdir()) if path.name != "DIRFILE"]
    info = one(paths)
    assert finding(info, "DCM-TILT").numbers["tilt_deg"] == pytest.approx(degrees, abs=0.01)
    assert info.verdict is Verdict.WARN


def test_one_slice_is_no_volume_and_nothing_allows_it(tmp_path: Path) -> None:
    info = refused(make_series(tmp_path, shape=(1, 8, 8), thickness_mm=None), "DCM-FEW", GeometryError)
    assert info.thickness_mm is None
    assert info.spacing_mm == (None, 1.0, 1.0)


def test_two_slices_are_a_warning(tmp_path: Path) -> None:
    info = one(make_series(tmp_path, shape=(2, 8, 8)))
    assert (info.verdict, finding(info, "DCM-FEW").numbers["slices"]) == (Verdict.WARN, 2)
    assert read(info).pixels.shape == (2, 8, 8)


# D9


def test_the_studies_of_a_real_medium_are_listed_apart() -> None:
    root = Path(str(get_testdata_file("dicomdirtests/DICOMDIR", download=False))).parent
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and dicom.claims(path, path.read_bytes()[:512])]
    infos, _ = find(paths)
    truth: dict[str, set[str]] = {}
    for path in paths:
        image = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        if "Rows" in image and "ImagePositionPatient" in image:
            truth.setdefault(image.SeriesInstanceUID, set()).add(image.StudyInstanceUID)
    assert len({info.content.part.key.series_uid for info in infos if hasattr(info.content, "part")}) == len(truth)
    assert len({info.id for info in infos}) == len(infos)


# D11


def test_pixels_that_are_short_refuse_the_series_and_a_short_tail_is_dropped_and_noted(tmp_path: Path) -> None:
    def short(image: Dataset) -> None:
        image.PixelData = image.PixelData[:-6]

    def tail(image: Dataset) -> None:
        image.PixelData = image.PixelData + b"\0" * 6

    info = one(broken(tmp_path / "short", short))
    assert info.verdict is Verdict.REFUSED
    with pytest.raises(DicomError, match="DCM-PIXELS"):
        read(info, ReadOptions(allow=("missing-slices",)))
    longer = one(broken(tmp_path / "tail", tail))
    assert finding(longer, "DCM-PIXELS").verdict is Verdict.OK
    np.testing.assert_array_equal(read(longer).pixels, plan_series(shape=SHAPE).values)


def test_pixels_longer_by_a_frame_are_refused(tmp_path: Path) -> None:
    def twice(image: Dataset) -> None:
        image.PixelData = image.PixelData * 2

    assert one(broken(tmp_path, twice)).verdict is Verdict.REFUSED


def test_a_damaged_object_that_only_refers_to_a_series_does_not_refuse_it(tmp_path: Path) -> None:
    good = make_series(tmp_path / "good", shape=SHAPE)

    def refer(image: Dataset) -> None:
        reference = Dataset()
        reference.SeriesInstanceUID = uid("series", 0, 0, "CT")
        image.ReferencedSeriesSequence = [reference]
        image.PixelData = image.PixelData[:-6]

    bad = broken(tmp_path / "bad", refer, seed=1)
    infos, skipped = find([*good, bad[2]])
    assert [(info.verdict, info.file_count) for info in infos] == [(Verdict.OK, 5)]
    assert [s.code for s in skipped] == ["DCM-PIXELS"]


def test_real_files_with_a_tail_load_and_truncated_ones_do_not() -> None:
    padded = Path(str(get_testdata_file("MR_small_padded.dcm", download=False)))
    info = one([padded])
    assert finding(info, "DCM-PIXELS").numbers["tail_bytes"] == 128
    infos, skipped = find([Path(str(get_testdata_file("MR_truncated.dcm", download=False)))])
    assert not infos
    assert [s.code for s in skipped] == ["DCM-PIXELS"]


# D12


def test_a_slope_of_0_and_a_table_of_values_are_refused(tmp_path: Path) -> None:
    def flat(image: Dataset) -> None:
        image.RescaleSlope = 0

    def table(image: Dataset) -> None:
        image.ModalityLUTSequence = [Dataset()]

    refused(broken(tmp_path / "flat", flat), "DCM-RESCALE")
    refused(broken(tmp_path / "table", table), "DCM-RESCALE")


def test_a_wrong_sign_flag_beside_jpeg_2000_gives_the_right_values(tmp_path: Path) -> None:
    image = pydicom.dcmread(str(get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)))
    truth = image.pixel_array
    paths = []
    for k in (0, 1):
        image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing = [0, 0, k], [1, 0, 0, 0, 1, 0], [1, 1]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(uid("j2k", k))
        paths.append(tmp_path / str(k))
        image.save_as(paths[-1])
    slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
    np.testing.assert_allclose(read(one(paths)).pixels[0], truth * slope + intercept, atol=1e-3)


# D19


@pytest.mark.parametrize("name", ["ImagePositionPatient", "PixelSpacing", "RescaleSlope"])
def test_a_needed_tag_that_cannot_be_understood_is_refused_with_the_file_number(tmp_path: Path, name: str) -> None:
    paths = make_series(tmp_path, shape=SHAPE)
    overwrite(paths[3], name, POISON)
    info = refused(paths, "DCM-PARSE")
    assert finding(info, "DCM-PARSE").numbers["file"] == 4


def test_a_tag_that_is_not_needed_and_cannot_be_understood_is_a_finding(tmp_path: Path) -> None:
    paths = make_series(tmp_path, shape=SHAPE, modality="MR", intercept=0)
    overwrite(paths[3], "EchoTime", POISON)
    info = one(paths)
    assert finding(info, "DCM-PARSE").verdict is Verdict.WARN
    assert "EchoTime (0018,0081)" in finding(info, "DCM-PARSE").fact
    assert read(info).pixels.shape == SHAPE


def test_real_odd_files_end_in_a_series_or_a_code() -> None:
    for name in (
        "badVR.dcm",
        "nested_priv_SQ.dcm",
        "no_meta.dcm",
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "JPEG2000-embedded-sequence-delimiter.dcm",
    ):
        survives([Path(str(get_testdata_file(name, download=False)))])


# D20


def medium(folder: Path, file_ids: list[list[str]]) -> Path:
    """Write a DICOMDIR that refers to the given files."""
    directory = Dataset()
    directory.SOPClassUID, directory.SOPInstanceUID = "1.2.840.10008.1.3.10", uid("dicomdir")
    directory.DirectoryRecordSequence = []
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file_id in file_ids:
            record = Dataset()
            record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", file_id
            directory.DirectoryRecordSequence.append(record)
        write(directory, folder / "DICOMDIR")
    return folder / "DICOMDIR"


def test_a_dicomdir_stands_for_its_files_in_any_case_and_each_once(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "m" / "images", shape=SHAPE)
    index = medium(tmp_path / "m", [["IMAGES", path.name] for path in paths] + [["images", paths[0].name]])
    assert dicom.expand(index) == [path.resolve() for path in paths]
    assert dicom.expand(paths[0]) is None


def test_real_media_expand_to_their_files() -> None:
    index = Path(str(get_testdata_file("dicomdirtests/DICOMDIR", download=False)))
    files = dicom.expand(index)
    assert files is not None
    assert len(files) == 31
    assert all(path.is_relative_to(index.parent.resolve()) for path in files)


@pytest.mark.parametrize(
    "file_id", [["..", "secret"], ["/etc/passwd"], ["a", "..", "..", "b"], ["C:\\x"], ["a/../../b"], ["a\tb"], ["."]]
)
def test_a_dicomdir_that_leaves_its_folder_is_refused(tmp_path: Path, file_id: list[str]) -> None:
    make_series(tmp_path / "m", shape=(2, 4, 4))
    with pytest.raises(DicomError, match="DCM-ESCAPE"):
        dicom.expand(medium(tmp_path / "m", [["IM0000"], file_id]))


def test_a_dicomdir_that_leaves_its_folder_through_a_link_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "outside", shape=(2, 4, 4))
    index = medium(tmp_path / "m", [["LINK", "IM0000"]])
    (tmp_path / "m" / "LINK").symlink_to(tmp_path / "outside")
    with pytest.raises(DicomError, match="DCM-ESCAPE"):
        dicom.expand(index)


# D21 and D24


@pytest.mark.parametrize("name", ["..", "/etc/x", "CON", "1" * 300, "a\0b", "$(id)", "\x1b[2J"])
def test_names_come_from_hashes_whatever_the_uids_say(tmp_path: Path, name: str) -> None:
    def steer(image: Dataset, _: int) -> None:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
            image[keyword].value = name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = make_series(tmp_path, shape=SHAPE, change=steer)
    info = one(paths)
    assert info.id.removeprefix("series-").isalnum()
    assert len(info.id) == len("series-") + 16
    assert name not in repr(info)
    assert read(info).pixels.shape == SHAPE


def test_real_files_of_17_character_sets_neither_break_nor_show(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(str(get_testdata_file("CT_small.dcm", download=False))).parents[1] / "charset_files"
    paths = sorted(folder.glob("*.dcm"))
    assert len(paths) >= 17
    with caplog.at_level(logging.DEBUG):
        infos, skipped = find(paths)
    shown = repr(infos) + repr(skipped) + caplog.text + "".join(capfd.readouterr())
    names = {str(pydicom.dcmread(path).get("PatientName", "")).split("^")[0] for path in paths} - {""}
    assert len(names) > 8
    assert not [name for name in names if name in shown]


# D22, D23, D25


def test_junk_is_skipped_and_counted_and_the_series_is_read(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "s", shape=SHAPE)
    (tmp_path / "head").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "noise").write_bytes(b"\0" * 128 + b"DICM" + bytes(range(256)) * 4)
    (tmp_path / "short").write_bytes(b"\x08\x00\x05\x00CS")
    infos, skipped = find([*paths, tmp_path / "head", tmp_path / "noise", tmp_path / "short"])
    assert [s.number for s in skipped] == [6, 7, 8]
    assert infos[0].verdict is Verdict.OK


def test_an_executable_head_in_the_preamble_is_never_written_on_and_changes_nothing(tmp_path: Path) -> None:
    paths = make_series(tmp_path, shape=SHAPE)
    for path in paths:
        path.write_bytes(b"MZ\x90\x00" + path.read_bytes()[4:])
    scan = read(one(paths))
    np.testing.assert_array_equal(scan.pixels, plan_series(shape=SHAPE).values)
    assert b"MZ" not in repr(scan.source.header).encode()


@pytest.mark.parametrize("with_meta", [True, False])
def test_files_without_preamble_are_read(tmp_path: Path, with_meta: bool) -> None:
    paths = make_series(tmp_path, shape=SHAPE, transfer_syntax=ImplicitVRLittleEndian)
    for path in paths:
        data = path.read_bytes()
        meta_bytes = pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength + 12  # the length element itself has 12
        path.write_bytes(data[132 if with_meta else 132 + meta_bytes :])
    assert all(dicom.claims(path, path.read_bytes()[:512]) for path in paths)
    assert read(one(paths)).pixels.shape == SHAPE


def test_a_file_that_is_gone_or_no_file_is_skipped_and_waits_for_nobody(tmp_path: Path) -> None:
    paths = make_series(tmp_path, shape=SHAPE)
    os.mkfifo(tmp_path / "pipe")
    infos, skipped = find([*paths, tmp_path / "gone", tmp_path / "pipe"])
    assert [s.number for s in skipped] == [6, 7]
    assert infos[0].verdict is Verdict.OK


def test_what_is_no_picture_of_a_plane_is_counted_as_other(shared_data: Path, tmp_path: Path) -> None:
    def coloured(image: Dataset, _: int) -> None:
        image.PhotometricInterpretation, image.SamplesPerPixel, image.PlanarConfiguration = "RGB", 3, 0
        image.BitsAllocated = image.BitsStored = 8
        image.HighBit = 7
        image.PixelData = b"\0" * (3 * 8 * 7)

    colour = make_series(tmp_path / "c", shape=(1, 8, 7), first_number=90, change=coloured)
    screenshot = make_series(tmp_path / "s", shape=(1, 8, 7), first_number=91, change=lambda image, _: as_screenshot(image))
    good = make_series(tmp_path / "g", shape=SHAPE)
    files = [*good, *colour, *screenshot, shared_data / "dicom/ct_tilt_minus18/DIRFILE"]
    files += [Path(str(get_testdata_file(name, download=False))) for name in ("test-SR.dcm", "examples_palette.dcm")]
    infos, skipped = find(files)
    assert len(infos) == 1
    assert infos[0].verdict is Verdict.OK
    assert {s.number: s.code for s in skipped} == dict.fromkeys(range(6, 11), "DCM-OTHER")
    assert {s.what for s in skipped} >= {
        "colour image",
        "image without a place in the patient",
        "DICOM directory",
        "DICOM object without pixels",
        "palette image",
    }


def as_screenshot(image: Dataset) -> None:
    image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    del image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing


def test_a_ct_image_without_a_place_is_refused_and_not_skipped(tmp_path: Path) -> None:
    refused(make_series(tmp_path, shape=SHAPE, change=lambda image, _: without("ImagePositionPatient")(image)), "DCM-TAG")


def test_frames_without_functional_groups_are_refused(tmp_path: Path) -> None:
    def many(image: Dataset, _: int) -> None:
        image.NumberOfFrames = 3
        image.PixelData = image.PixelData * 3

    refused(make_series(tmp_path, shape=(1, 8, 7), change=many), "DCM-TAG")


def test_fewer_frame_descriptions_than_frames_are_refused(tmp_path: Path) -> None:
    def fewer(image: Dataset) -> None:
        del image.PerFrameFunctionalGroupsSequence[-1]

    make_enhanced(tmp_path / "e", change=fewer)
    refused([tmp_path / "e"], "DCM-TAG")


# No patient text anywhere


def test_a_patients_name_shows_in_no_message_finding_repr_name_or_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(image: Dataset) -> None:
        image.ImageComments = POISON

    folders = [make_series(tmp_path / POISON / "good", shape=SHAPE), broken(tmp_path / "tag", without("PixelSpacing"), seed=1)]
    folders.append(make_series(tmp_path / "gap", shape=(7, 8, 7), drop=[3], seed=2, tilt_deg=4, orientation=CORONAL))
    folders.append(broken(tmp_path / "slope", lambda image: setattr(image, "RescaleSlope", 0), seed=3))
    folders.append(broken(tmp_path / "short", lambda image: setattr(image, "PixelData", image.PixelData[:-2]), seed=4))
    nasty = make_series(tmp_path / "vr", shape=SHAPE, seed=5)
    overwrite(nasty[2], "PixelSpacing", POISON)
    overwrite(nasty[3], "RescaleSlope", POISON)
    folders.append(nasty)
    texts: list[str] = []
    with caplog.at_level(logging.DEBUG):
        infos, skipped = find([path for folder in folders for path in folder])
        for info in infos:
            try:
                texts.append(repr(read(info)))
            except MedreconError as error:
                texts += [str(error), repr(error)]
    texts += [repr(infos), repr(skipped), json.dumps([info.as_json() for info in infos]), caplog.text, *capfd.readouterr()]
    shown = "\n".join(texts).upper()
    assert len(infos) == 6
    for secret in (*POISON.split("^"), POISON_ID, "1950"):
        assert secret not in shown


def test_the_leak_check_fails_on_the_header_that_derived_series_inherit(tmp_path: Path) -> None:
    assert POISON in str(read(one(make_series(tmp_path, shape=SHAPE))).source.header)


# Everything in hand


def survives(paths: list[Path]) -> None:
    """A volume or a coded error, nothing else."""
    infos, _ = find(paths)
    for info in infos:
        with contextlib.suppress(MedreconError):
            read(info, ReadOptions(allow=("missing-slices", "duplicates")))


def test_every_hostile_file_ends_in_a_volume_or_a_coded_error(shared_data: Path) -> None:
    paths = sorted((shared_data / "hostile_dicom").rglob("*.dcm"))
    assert len(paths) > 300
    for path in paths:
        survives([path])
    survives(paths)


def test_hostile_pixels_are_refused_also_with_a_place_in_the_patient(shared_data: Path, tmp_path: Path) -> None:
    """The hostile files have no position at all, so that a reader could refuse them for that alone; here they get one."""
    refusals = 0
    for path in sorted((shared_data / "hostile_dicom").glob("cat0[49]*/*.dcm")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = pydicom.dcmread(path, force=True)
                for k in (0, 1):
                    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, k], [1, 0, 0, 0, 1, 0]
                    image.PixelSpacing, image.SOPInstanceUID = [1, 1], uid("hostile", k)
                    image.save_as(tmp_path / str(k))
        except (ValueError, TypeError, AttributeError, NotImplementedError, OSError):
            shutil.copy(path, tmp_path / "0")  # pydicom cannot write it again; as it is, then
        infos, skipped = find([tmp_path / "0", tmp_path / "1"] if (tmp_path / "1").exists() else [tmp_path / "0"])
        survives([tmp_path / "0"])
        refusals += bool(skipped) or any(info.verdict is Verdict.REFUSED for info in infos)
        for rest in tmp_path.iterdir():
            rest.unlink()
    assert refusals > 15


def test_every_small_file_that_pydicom_ships_ends_in_a_volume_or_a_coded_error() -> None:
    folder = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size < 1 << 20]
    claimed = [path for path in paths if dicom.claims(path, path.read_bytes()[:512])]
    assert len(claimed) > 100
    survives(claimed)
