"""Tracked frames: the places that PLUS gives them, judged by matrices multiplied by hand, and what is refused with which code."""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medrecon as mr
from medrecon.core.errors import MedreconError
from medrecon.core.findings import Verdict
from medrecon.core.scans import SliceScan
from tests.makers_tracked import CALIBRATION, at, sweep, words, write_config, write_sequence

SHAPE = (5, 12, 9)


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return rng.integers(1, 255, SHAPE, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Path:
    """A good sweep with its configuration."""
    write_sequence(tmp_path / "sweep.igs.mha", pixels, sweep(len(pixels)))
    write_config(tmp_path / "probe.xml")
    return tmp_path


def scan_of(path: Path, **options: Any) -> SliceScan:
    found = mr.read(path, **options)
    assert isinstance(found, SliceScan)
    return found


def place(scan: SliceScan, k: int, row: float, column: float) -> list[float]:
    return [float(v) for v in scan.poses.to_lps_mm[k] @ [0, row, column, 1]][:3]


def refusal(path: Path, **options: Any) -> str:
    """The code with which a path is refused; an empty word where it loads."""
    started, code = time.monotonic(), ""
    try:
        mr.read(path, **options)
    except MedreconError as error:
        code = error.code
    assert time.monotonic() - started < 20
    return code


def codes(path: Path) -> dict[str, Verdict]:
    return {finding.code: finding.verdict for finding in mr.find(path)[0].findings}


def test_a_pixel_stands_where_calibration_and_tracker_put_it(folder: Path, pixels: np.ndarray) -> None:
    scan = scan_of(folder)
    assert np.array_equal(scan.pixels, pixels)
    for k in range(len(pixels)):
        expected = at(z=k, turn_deg=0.5 * k) @ CALIBRATION @ [7, 4, 0, 1]  # column, row; the reference body moves along
        assert place(scan, k, row=4, column=7) == pytest.approx(expected[:3])
    assert scan.measured is None
    assert scan.source.modality == "US"


def test_the_place_check_fails_where_rows_and_columns_are_swapped(folder: Path) -> None:
    expected = CALIBRATION @ [7, 4, 0, 1]
    assert place(scan_of(folder), 0, row=7, column=4) != pytest.approx(expected[:3])


@pytest.mark.parametrize("how", ["packed", "beside", "packed beside", "one file", "zip"])
def test_every_way_to_store_a_sequence_gives_the_same_scan(folder: Path, pixels: np.ndarray, how: str) -> None:
    wanted = scan_of(folder)
    (folder / "sweep.igs.mha").unlink()
    name = "sweep.mhd" if "beside" in how else "sweep.mha"
    packed = "packed" in how
    beside = ("sweep.zraw" if packed else "sweep.raw") if "beside" in how else ""
    path = write_sequence(folder / name, pixels, sweep(len(pixels)), packed=packed, raw_beside=beside)
    where = path if how == "one file" else folder
    if how == "zip":
        where = folder / "sweep.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for member in (path, folder / "probe.xml"):
                archive.write(member, f"study/{member.name}")
    found = scan_of(where)
    assert np.array_equal(found.pixels, wanted.pixels)
    assert np.allclose(found.poses.to_lps_mm, wanted.poses.to_lps_mm)
    assert len(mr.find(where)) == 1
    assert mr.find(where).skipped == ()


def test_a_listing_tells_frames_from_a_volume(folder: Path, pixels: np.ndarray) -> None:
    write_sequence(folder / "volume.mha", pixels, [{"ImageStatus": "OK"}])  # as IGSIO writes its volumes
    kinds = {info.reader: (info.kind, info.modality) for info in mr.find(folder)}
    assert kinds == {"tracked_frames": ("slices", "US"), "metaimage": ("volume", "")}


@pytest.mark.parametrize("field", ["ImageStatus", "ProbeToTrackerTransformStatus", "ReferenceToTrackerTransformStatus"])
def test_a_frame_whose_status_is_not_ok_changes_nothing(folder: Path, pixels: np.ndarray, field: str) -> None:
    frames = sweep(len(pixels))
    frames[2] |= {field: "INVALID", "ProbeToTrackerTransform": "nan " * 16}
    write_sequence(folder / "sweep.igs.mha", pixels, frames)
    scan = scan_of(folder)
    assert np.array_equal(scan.pixels, np.delete(pixels, 2, axis=0))
    found = next(finding for finding in scan.findings if finding.code == "US-STATUS")
    assert found.numbers == {"dropped": 1, "frames": 5, "first_dropped": 2}


def test_a_tool_that_is_not_needed_may_be_out_of_sight(folder: Path, pixels: np.ndarray) -> None:
    frames = [f | {"StylusToTrackerTransform": words(at()), "StylusToTrackerTransformStatus": "MISSING"} for f in sweep(5)]
    write_sequence(folder / "sweep.igs.mha", pixels, frames)
    assert len(scan_of(folder).poses) == 5


def test_frames_without_a_transform_are_left_out(folder: Path, pixels: np.ndarray) -> None:
    frames = sweep(len(pixels))
    frames[4] = {"Timestamp": "0.4"}
    write_sequence(folder / "sweep.igs.mha", pixels, [*frames[:3], frames[4]])  # and one without any field
    assert len(scan_of(folder).poses) == 3


def test_left_and_right_are_said_to_be_unknown_and_the_beam_to_be_assumed(folder: Path) -> None:
    assert codes(folder) == {"US-FRAME": Verdict.WARN, "US-BEAM": Verdict.WARN}
    scan = scan_of(folder, thickness_mm=3.0)
    assert (scan.poses.thickness_mm == 3.0).all()
    assert {f.code: f.verdict for f in scan.findings} == {"US-FRAME": Verdict.WARN, "US-BEAM": Verdict.OK}


def test_the_calibration_may_stand_in_the_file_and_a_transform_may_be_given_backwards(tmp_path: Path, pixels: np.ndarray) -> None:
    frames = [{"TrackerToProbeTransform": words(at(z=-k))} for k in range(5)]
    write_sequence(tmp_path / "a.mha", pixels, frames, extra={"ImageToProbeTransform": words(CALIBRATION)})
    scan = scan_of(tmp_path / "a.mha")
    assert place(scan, 3, row=4, column=7) == pytest.approx((at(z=3) @ CALIBRATION @ [7, 4, 0, 1])[:3])
    assert "tracker itself" in next(f.fact for f in scan.findings if f.code == "US-FRAME")  # there is no reference body


def test_clip_rectangle_and_fan_are_what_was_measured(folder: Path, pixels: np.ndarray) -> None:
    cut = 'ClipRectangleOrigin="1 2" ClipRectangleSize="6 8" FanAnglesDeg="-44 44" FanOriginPixel="4 1"'
    write_config(folder / "probe.xml", cut=f'{cut} FanRadiusStartPixel="2" FanRadiusStopPixel="7"')
    scan = scan_of(folder)
    assert np.array_equal(scan.pixels, pixels[:, 2:11, 1:8])  # both ends count
    expected = CALIBRATION @ [1, 2, 0, 1]
    assert place(scan, 0, 0, 0) == pytest.approx(expected[:3])
    row, column = np.mgrid[2:11, 1:8]
    angle, radius = np.degrees(np.arctan2(column - 4, row - 1)), np.hypot(column - 4, row - 1)
    assert scan.measured is not None
    assert np.array_equal(scan.measured[3], (np.abs(angle) < 44) & (radius >= 2) & (radius <= 7))


@pytest.mark.parametrize(
    ("orientation", "turned"), [("UFA", np.s_[:, :, ::-1]), ("MN", np.s_[:, ::-1]), ("UN", np.s_[:, ::-1, ::-1])]
)
def test_images_stored_the_other_way_round_are_turned_to_fit_the_calibration(
    folder: Path, pixels: np.ndarray, orientation: str, turned: Any
) -> None:
    write_sequence(folder / "sweep.igs.mha", pixels[turned], sweep(5), extra={"UltrasoundImageOrientation": orientation})
    write_config(folder / "probe.xml", cut='ClipRectangleOrigin="1 2" ClipRectangleSize="6 8"')
    assert np.array_equal(scan_of(folder).pixels, pixels[:, 2:11, 1:8])


def test_a_configuration_with_the_name_of_the_sequence_is_taken_and_else_they_must_agree(folder: Path) -> None:
    other = CALIBRATION @ np.diag([2.0, 2, 2, 1])
    write_config(folder / "again.xml")
    assert refusal(folder) == ""  # they say the same
    write_config(folder / "other.xml", other)
    assert refusal(folder) == "US-CONFIG"
    write_config(folder / "sweep.xml", other)
    assert scan_of(folder).poses.pixel_spacing_mm[0] == pytest.approx([0.8, 1.0])


def test_a_mirrored_calibration_and_its_mirror_image_place_pixels_alike(folder: Path) -> None:
    mirrored = scan_of(folder)
    write_config(folder / "probe.xml", CALIBRATION @ np.diag([1.0, 1, -1, 1]))
    assert np.allclose(scan_of(folder).poses.to_lps_mm, mirrored.poses.to_lps_mm)
    across, down, normal = mirrored.poses.to_lps_mm[0, :3, [2, 1, 0]]
    assert np.dot(np.cross(across, down), normal) > 0


def test_a_calibration_that_leans_is_used_as_it_is_and_said(folder: Path) -> None:
    leaning = CALIBRATION.copy()
    leaning[0, 1] = 0.4 * np.tan(np.radians(3))
    write_config(folder / "probe.xml", leaning)
    assert codes(folder)["US-LEAN"] is Verdict.OK
    assert place(scan_of(folder), 0, 10, 3) == pytest.approx((leaning @ [3, 10, 0, 1])[:3])
    leaning[0, 1] = 0.2
    write_config(folder / "probe.xml", leaning)
    assert refusal(folder) == "US-POSE"


def broken(frames: list[dict[str, str]], value: str, field: str = "ProbeToTrackerTransform") -> list[dict[str, str]]:
    return [f | {field: value} if k == 3 else f for k, f in enumerate(frames)]


@pytest.mark.parametrize(
    "value",
    ["nan " * 16, "1 0 0", "", "1 0 0 0 0 1 0 0 0 0 0 0 0 0 0 1", words(np.diag([1.0, 1, 1, 2])), "a " * 16, "inf " * 16],
    ids=["nan", "short", "empty", "singular", "projective", "words", "infinite"],
)
def test_a_matrix_that_claims_to_be_right_and_is_not_is_refused(folder: Path, pixels: np.ndarray, value: str) -> None:
    write_sequence(folder / "sweep.igs.mha", pixels, broken(sweep(5), value))
    assert refusal(folder) == "US-POSE"
    write_sequence(folder / "sweep.igs.mha", pixels, broken(broken(sweep(5), value), "INVALID", "ProbeToTrackerTransformStatus"))
    assert refusal(folder) == ""


def test_what_lacks_a_calibration_or_frames_is_refused_with_the_way_out(folder: Path, pixels: np.ndarray) -> None:
    (folder / "probe.xml").unlink()
    assert refusal(folder) == "US-CALIBRATION"
    write_config(folder / "probe.xml")
    lost = [f | {"ImageStatus": "INVALID"} for f in sweep(5)]
    write_sequence(folder / "sweep.igs.mha", pixels, lost)
    assert refusal(folder) == "US-FEW"
    write_sequence(folder / "sweep.igs.mha", pixels, sweep(1))
    assert refusal(folder) == "US-FEW"
    write_sequence(folder / "sweep.igs.mha", pixels, sweep(5))
    write_config(folder / "probe.xml", CALIBRATION @ np.diag([1000.0, 1000, 1000, 1]))
    assert refusal(folder) == "US-POSE"


def test_frames_stored_in_an_unknown_orientation_are_refused(folder: Path, pixels: np.ndarray) -> None:
    write_sequence(folder / "sweep.igs.mha", pixels, sweep(5), extra={"UltrasoundImageOrientation": "FMA"})
    assert refusal(folder) == "US-ORIENT"


@pytest.mark.parametrize(
    "text",
    [
        "<PlusConfiguration",
        '<!DOCTYPE a [<!ENTITY x "y">]><PlusConfiguration>&x;</PlusConfiguration>',
        "<PlusConfiguration><CoordinateDefinitions><Transform From='A' To='B'/></CoordinateDefinitions></PlusConfiguration>",
        '<PlusConfiguration><VolumeReconstruction ClipRectangleSize="1 nan"/></PlusConfiguration>',
        '<PlusConfiguration><VolumeReconstruction FanAnglesDeg="-95 45" FanOriginPixel="1 1"/></PlusConfiguration>',
    ],
    ids=["cut", "entity", "short matrix", "nan", "fan"],
)
def test_a_damaged_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "probe.xml").write_text(text, encoding="utf-8")
    assert refusal(folder) == "US-CONFIG"


@pytest.mark.parametrize(
    "cut", ['ClipRectangleOrigin="50 50" ClipRectangleSize="5 5"', 'FanAnglesDeg="-9 9" FanOriginPixel="0 99"']
)
def test_a_cut_that_leaves_nothing_is_refused(folder: Path, cut: str) -> None:
    write_config(folder / "probe.xml", cut=cut)
    assert refusal(folder) == "US-CLIP"


@pytest.mark.parametrize("packed", [False, True])
def test_pixels_that_end_early_are_refused(folder: Path, pixels: np.ndarray, packed: bool) -> None:
    path = write_sequence(folder / "sweep.igs.mha", pixels, sweep(5), packed=packed)
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(folder) == "VOL-CUT"


@pytest.mark.parametrize(
    ("dims", "packed"),
    [("9 12 900000000", False), ("2 2 100000000", True), ("60000 12 5", False), ("9 12", False), ("0 12 5", False)],
)
def test_no_memory_is_taken_for_what_a_header_only_announces(folder: Path, pixels: np.ndarray, dims: str, packed: bool) -> None:
    write_sequence(folder / "sweep.igs.mha", pixels, sweep(5), packed=packed, extra={"DimSize": dims})
    assert refusal(folder) in {"VOL-CUT", "VOL-LIMIT", "INP-NONE"}


def test_colours_and_many_fixed_transforms_are_handled(folder: Path, pixels: np.ndarray) -> None:
    coloured = np.repeat(pixels, 3, axis=2)
    extra = {"ElementNumberOfChannels": "3", "DimSize": "9 12 5"}
    write_sequence(folder / "sweep.igs.mha", coloured, sweep(5), extra=extra)
    assert mr.find(folder).skipped[0].code == "VOL-TYPE"
    many = {f"A{k}ToA{k + 1}Transform": words(at()) for k in range(20_000)}
    write_sequence(folder / "sweep.igs.mha", pixels, sweep(5), extra=many)
    assert refusal(folder) == ""


def test_no_text_of_a_header_reaches_a_message(folder: Path, pixels: np.ndarray) -> None:
    frames = broken(sweep(5), "Mueller " * 16)
    write_sequence(folder / "sweep.igs.mha", pixels, frames, extra={"PatientName": "Mueller"})
    for finding in mr.find(folder)[0].findings:
        assert "Mueller" not in str(finding)


def test_a_real_sweep_of_a_spine_phantom_is_read_with_its_configuration(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "tracked_ultrasound"
    shutil.copy(data / "Data" / "SpinePhantomFreehand.igs.mha", tmp_path)
    assert refusal(tmp_path) == "US-CALIBRATION"
    shutil.copy(data / "Config" / "Config_VolumeReconstruction_SonixRP_TRUS_D70mm_NN_LATE.xml", tmp_path / "probe.xml")
    scan = scan_of(tmp_path)
    assert scan.pixels.shape == (21, 581, 421)
    assert codes(tmp_path) == {"US-FRAME": Verdict.WARN, "US-LEAN": Verdict.OK, "US-BEAM": Verdict.WARN}
