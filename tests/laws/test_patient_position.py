"""However the patient lay: left stays left, the head stays up, and the series says how the patient lay.

The oracle is a table of where the patient's sides point for somebody who faces the gantry, written down from the words of
DICOM PS3.3 C.7.3.1.1.2: which end enters first, which side is down.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

import medrecon as mr
from medrecon.config import ProjectionConfig, load_config
from medrecon.core.errors import GeometryError, UsageError
from medrecon.core.findings import Verdict
from medrecon.core.patient_position import PatientPosition, from_supine
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ReadOptions
from medrecon.core.views import Detector, ViewGeometry
from medrecon.run import Request, run
from medrecon.steps.corrections import line_integrals_of
from tests import makers_projections as makers
from tests.makers_xray import Ellipsoids, lettered

RIGHT, LEFT, DOWN, UP, IN, OUT = (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)
#: Where the patient's left, back and head point, for somebody who stands before the gantry and looks into it.
SEEN = {
    "HFS": (RIGHT, DOWN, IN),
    "HFP": (LEFT, UP, IN),
    "HFDR": (UP, RIGHT, IN),
    "HFDL": (DOWN, LEFT, IN),
    "FFS": (LEFT, DOWN, OUT),
    "FFP": (RIGHT, UP, OUT),
    "FFDR": (UP, LEFT, OUT),
    "FFDL": (DOWN, RIGHT, OUT),
}
POSITIONS = tuple(SEEN)


def placed(position: str) -> NDArray[np.float64]:
    """The rotation (4, 4) that lays a patient on the table: from LPS to the gantry's right, down, inwards."""
    motion = np.eye(4)
    motion[:3, :3] = np.column_stack(SEEN[position])
    return motion


def lying(position: str, phantom: Ellipsoids, views: ViewGeometry) -> ProjectionScan:
    """What a gantry measures of a phantom on its table; `views` are in the gantry's own axes."""
    return ProjectionScan(phantom.moved(placed(position)).project(views), views)


def read(path: Path) -> ProjectionScan:
    scan = mr.read(path)
    assert isinstance(scan, ProjectionScan)
    return scan


def told(scan: ProjectionScan, **settings: object) -> ProjectionScan:
    return line_integrals_of(scan, ProjectionConfig.model_validate(settings))[0]


@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_is_a_rotation_and_the_one_of_the_standard(position: str) -> None:
    turn = from_supine(PatientPosition(position))
    np.testing.assert_array_equal(turn @ placed(position)[:3, :3], np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)


def test_no_two_positions_are_alike() -> None:
    assert {str(position) for position in PatientPosition} == set(POSITIONS)
    assert len({from_supine(position).tobytes() for position in PatientPosition}) == len(POSITIONS)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_dicom_scan_stands_upright_in_the_patient_that_its_header_lays_down(position: str, tmp_path: Path) -> None:
    makers.write_ct_pd(tmp_path, lying(position, makers.phantom(), makers.curved_views()), position=position)
    back = read(tmp_path)
    assert back.position == position
    assert makers.mismatch(back) < 1e-3
    assert makers.mismatch(makers.mirrored(back)) > 0.05
    assert [f.verdict for f in back.findings if f.code == "PRJ-POSITION"] == [Verdict.OK]


def test_a_dicom_scan_of_another_position_than_its_header_says_is_not_upright(tmp_path: Path) -> None:
    makers.write_ct_pd(tmp_path, lying("FFP", makers.phantom(), makers.curved_views()), position="FFS")
    assert makers.mismatch(read(tmp_path)) > 0.05


@pytest.mark.parametrize("named", ["", "SITTING"])
def test_where_nothing_tells_the_position_it_is_assumed_and_said(named: str, tmp_path: Path) -> None:
    makers.write_ct_pd(tmp_path, lying("HFS", makers.phantom(), makers.curved_views()), position=named)
    back = read(tmp_path)
    assert back.position is None
    assert makers.mismatch(back) < 1e-3
    assert [f.verdict for f in back.findings if f.code == "PRJ-POSITION"] == [Verdict.WARN]


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    paths = makers.write_ct_pd(tmp_path, lying("HFS", makers.phantom(), makers.curved_views()), position="HFS")
    data = pydicom.dcmread(paths[2])
    data.PatientPosition = "FFS"
    data.save_as(paths[2], enforce_file_format=True)
    with pytest.raises(GeometryError, match=r"PRJ-POSITION.*2 different"):
        read(tmp_path)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_settings_tell_the_position_where_no_file_does(position: str, tmp_path: Path) -> None:
    scan = lying(position, makers.phantom(), makers.cone_views())
    makers.write_text(tmp_path / "scan.xml", makers.rtk_xml(makers.degrees()))
    pitch = (makers.ROW_PITCH_MM, makers.COLUMN_PITCH_MM)
    makers.write_mha(tmp_path / "scan.mha", scan.pixels, pitch, makers.centred_origin_mm())
    unsaid = read(tmp_path)
    assert unsaid.position is None
    assert makers.mismatch(told(unsaid, patient_position=position)) < 1e-3
    assert (makers.mismatch(unsaid) < 1e-3) == (position == "HFS")


def test_the_settings_overrule_the_files_and_that_is_said(tmp_path: Path) -> None:
    makers.write_ct_pd(tmp_path, lying("FFP", makers.phantom(), makers.curved_views()), position="HFS")
    turned, notes = line_integrals_of(read(tmp_path), ProjectionConfig(patient_position=PatientPosition.FFP))
    assert makers.mismatch(turned) < 1e-3
    assert [(f.code, f.verdict, f.numbers) for f in notes] == [
        ("PRJ-POSITION", Verdict.WARN, {"position": "FFP", "in_files": "HFS"})
    ]
    assert not [f for f in turned.findings if f.code == "PRJ-POSITION"]
    again = told(turned, patient_position="FFP")
    np.testing.assert_array_equal(again.views.u, turned.views.u)


def test_a_position_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"CFG-VALUE.*patient_position"):
        load_config("cbct-fast", None, ("projections.patient_position=HFX",))


# -- angiograms: their angles are the patient's own, only the detector may hang upside down ------------------------------


STEPS = [0.0, *[25.0] * (makers.VIEWS - 1)]


def angiogram() -> ProjectionScan:
    primary = -100.0 + np.cumsum(STEPS)
    return makers.scanned(ViewGeometry.c_arm(primary, 10.0, makers.SID_MM, makers.SDD_MM, makers.detector()))


@pytest.mark.parametrize("position", POSITIONS)
def test_the_angles_of_an_angiogram_are_about_the_patient_however_he_lies(position: str, tmp_path: Path) -> None:
    scan = angiogram()
    back = read(makers.write_xa(tmp_path / "run.dcm", scan, STEPS, PatientPosition=position, PatientOrientation=["L", "F"]))
    assert back.position == position
    np.testing.assert_allclose(back.views.u, scan.views.u, atol=1e-9)
    assert [f.verdict for f in back.findings if f.code == "PRJ-POSITION"] == [Verdict.OK]


def test_an_angiogram_whose_rows_grow_to_the_head_is_turned_by_half_a_turn(tmp_path: Path) -> None:
    scan = angiogram()
    upside_down = replace(scan, pixels=scan.pixels[:, ::-1, ::-1])
    back = read(makers.write_xa(tmp_path / "run.dcm", upside_down, STEPS, PatientOrientation=["R", "H"]))
    np.testing.assert_allclose(back.views.u, -scan.views.u, atol=1e-9)
    np.testing.assert_allclose(back.views.v, -scan.views.v, atol=1e-9)


@pytest.mark.parametrize("orientation", [["R", "F"], ["L", "H"], ["H", "L"], ["L", "A"]])
def test_an_angiogram_that_says_that_it_is_mirrored_or_on_its_side_is_refused(orientation: list[str], tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="PRJ-HAND"):
        read(makers.write_xa(tmp_path / "run.dcm", angiogram(), STEPS, PatientOrientation=orientation))


# -- from the gantry to the written series -------------------------------------------------------------------------------


TURN = np.arange(48) * 2 * np.pi / 48
CONE = ViewGeometry.cone(TURN, 300, 500, Detector((36, 36), (2.0, 2.0)))


def letters() -> Ellipsoids:
    phantom = lettered(2.0, 12.0)
    return replace(phantom, densities=0.02 * phantom.densities)


def series(folder: Path, position: str) -> tuple[NDArray[np.float64], NDArray[np.float64], set[str]]:
    """Values of all voxels, where their own headers place them in LPS, and the patient positions that these name."""
    values, points, named = [], [], set()
    for path in sorted(folder.glob("*.dcm")):
        image = pydicom.dcmread(path)
        assert [float(v) for v in image.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0], position
        row, column = np.indices((image.Rows, image.Columns))
        offset = np.stack([column * float(image.PixelSpacing[1]), row * float(image.PixelSpacing[0]), 0 * row], axis=-1)
        points.append(np.asarray(image.ImagePositionPatient, dtype=float) + offset)
        values.append(image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept))
        named.add(str(image.PatientPosition))
    return np.stack(values), np.stack(points), named


def contrasts(values: NDArray[np.float64], points: NDArray[np.float64]) -> dict[str, float]:
    """How much brighter the letters are than where they would be if turned or mirrored, as a share of all contrast."""
    near = (np.abs(points) < 20).all(axis=-1)
    bright, places = values[near], points[near]
    here = letters().density(places) > 0
    low, high = np.percentile(values, [1, 99.5])
    found = {}
    for what, turn in WRONG.items():
        there = letters().density(places @ turn.T) > 0
        found[what] = float((bright[here & ~there].mean() - bright[there & ~here].mean()) / (high - low))
    return found


WRONG = {name: placed(name)[:3, :3] for name in POSITIONS if name != "HFS"} | {
    "left and right": np.diag([-1.0, 1, 1]),
    "front and back": np.diag([1.0, -1, 1]),
    "head and feet": np.diag([1.0, 1, -1]),
}


def reconstructed(folder: Path, lies: str, said: str) -> Path:
    """Scan a patient who lies somehow, reconstruct with what is said of it, and return the folder of the series."""
    scan = lying(lies, letters(), CONE)
    (folder / "scan").mkdir()
    makers.write_text(folder / "scan" / "scan.xml", makers.rtk_xml(np.degrees(TURN).tolist(), 300, 500))
    makers.write_mha(folder / "scan" / "scan.mha", scan.pixels, (2.0, 2.0), (-35.0, -35.0))
    settings = (
        "surfaces=[]",
        "grid.spacing_mm=1.2",
        "grid.region_lps_mm=[[-21,-21,-21],[21,21,21]]",
        "hounsfield.water_per_mm=0.02",
        f"projections.patient_position={said}",
    )
    run(Request(folder / "scan", folder / "out", load_config("cbct-fast", None, settings), None, ReadOptions(), ("dicom",)))
    (result,) = (folder / "out").iterdir()
    return result / "dicom"


@pytest.mark.parametrize("position", POSITIONS)
def test_the_written_series_is_upright_unmirrored_and_says_how_the_patient_lay(position: str, tmp_path: Path) -> None:
    values, points, named = series(reconstructed(tmp_path, position, position), position)
    assert named == {position}
    assert min(contrasts(values, points).values()) > 0.4


def test_the_check_of_the_series_fails_for_another_position_than_the_patients(tmp_path: Path) -> None:
    values, points, _ = series(reconstructed(tmp_path, "FFS", "HFS"), "HFS")
    assert contrasts(values, points)["FFS"] < -0.4
