"""Projections in DICOM: a helical CT with one file a view, and the rotational run of a C-arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

import medrecon as mr
from medrecon.core.errors import DicomError, GeometryError, InputError
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import ViewGeometry
from medrecon.preprocess.line_integrals import to_line_integrals
from tests import makers_dicom
from tests import makers_projections as makers


def read(path: Path, **options: object) -> ProjectionScan:
    scan = mr.read(path, **options)  # type: ignore[arg-type]  # any option
    assert isinstance(scan, ProjectionScan)
    return scan


def refusal(path: Path) -> str:
    with pytest.raises((GeometryError, InputError, DicomError)) as raised:
        read(path)
    assert "Miller" not in str(raised.value)
    return raised.value.code


@pytest.mark.parametrize("flying", [False, True])
@pytest.mark.parametrize("typed", [False, True])
def test_a_helical_ct_is_read_upright_and_not_mirrored(flying: bool, typed: bool, tmp_path: Path) -> None:
    scan = makers.scanned(makers.curved_views(flying=flying))
    makers.write_ct_pd(tmp_path, scan, flying, typed)
    back = read(tmp_path)
    assert makers.mismatch(back) < 1e-3
    assert makers.mismatch(makers.mirrored(back)) > 0.05
    assert makers.mismatch(makers.upside_down(back)) > 0.05
    np.testing.assert_allclose(makers.sources(back), makers.sources(scan), atol=1e-3)
    assert back.views.detector == scan.views.detector
    assert back.source.modality == "CT"
    assert len(back.source.instances) == len(back.views)


def test_the_focal_spots_flight_matters(tmp_path: Path) -> None:
    makers.write_ct_pd(tmp_path, makers.scanned(makers.curved_views(flying=True)), flying=False)
    assert makers.mismatch(read(tmp_path)) > 0.01


def test_the_water_value_of_the_scanner_is_told(tmp_path: Path) -> None:
    makers.write_ct_pd(tmp_path, makers.scanned(makers.curved_views()))
    water = [finding for finding in read(tmp_path).findings if finding.code == "PRJ-WATER"]
    assert water[0].numbers["water_per_mm"] == pytest.approx(0.0192)


def test_images_and_projections_of_one_folder_are_told_apart(tmp_path: Path) -> None:
    makers.write_ct_pd(tmp_path, makers.scanned(makers.curved_views()))
    makers_dicom.make_series(tmp_path / "images")
    assert sorted((info.reader, info.kind) for info in mr.find(tmp_path)) == [("ct_pd", "projections"), ("dicom", "slices")]


def edited(paths: list[Path], which: int, **changes: object) -> None:
    data = pydicom.dcmread(paths[which])
    for name, value in changes.items():
        tag = int(name.removeprefix("t"), 16)
        if value is None:
            del data[tag]
        else:
            data[tag].value = value
    data.save_as(paths[which], enforce_file_format=True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"t70311001": float("nan")}, "PRJ-HEADER"),
        ({"t70311003": None}, "PRJ-HEADER"),
        ({"t70291011": 7}, "PRJ-SHAPE"),
        ({"t70311031": 310.0}, "PRJ-SHAPE"),
        ({"t00200013": 2}, "PRJ-SHAPE"),
    ],
    ids=["angle-nan", "no-radius", "columns", "other-detector", "number-twice"],
)
def test_one_odd_view_refuses_the_scan_with_its_code(changes: dict[str, object], code: str, tmp_path: Path) -> None:
    paths = makers.write_ct_pd(tmp_path, makers.scanned(makers.curved_views()))
    edited(paths, 3, **changes)
    assert refusal(tmp_path) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"t70311003": 400.0}, "PRJ-GEOM"),
        ({"t70311003": 0.2, "t70311031": 0.3}, "PRJ-GEOM"),
        ({"t7029100b": "SPHERICAL"}, "PRJ-HEADER"),
    ],
    ids=["source-behind", "metres", "spherical"],
)
def test_a_scanner_that_cannot_be_is_refused(changes: dict[str, object], code: str, tmp_path: Path) -> None:
    paths = makers.write_ct_pd(tmp_path, makers.scanned(makers.curved_views()))
    for which in range(len(paths)):
        edited(paths, which, **changes)
    assert refusal(tmp_path) == code


def test_degrees_in_place_of_radians_are_refused(tmp_path: Path) -> None:
    paths = makers.write_ct_pd(tmp_path, makers.scanned(makers.curved_views()))
    for which, angle in enumerate(makers.degrees()):
        edited(paths, which, t70311001=angle)
    assert refusal(tmp_path) == "PRJ-UNIT"


def test_a_missing_view_is_told_and_a_cut_one_refuses_the_scan(tmp_path: Path) -> None:
    paths = makers.write_ct_pd(tmp_path, makers.scanned(makers.curved_views()))
    paths[4].unlink()
    back = read(tmp_path)
    assert len(back.views) == makers.VIEWS - 1
    assert makers.mismatch(back) < 1e-3
    assert any(finding.code == "PRJ-FEW" and "missing" in finding.fact for finding in back.findings)
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    assert refusal(tmp_path).startswith("DCM-")


# -- angiography ---------------------------------------------------------------------------------------------------------


def run() -> ProjectionScan:
    primary = -100.0 + 25.0 * np.arange(makers.VIEWS)
    return makers.scanned(ViewGeometry.c_arm(primary, 10.0, makers.SID_MM, makers.SDD_MM, makers.detector()))


STEPS = [0.0, *[25.0] * (makers.VIEWS - 1)]


@pytest.mark.parametrize(
    "increments", [STEPS, STEPS[1:], [25.0 * k for k in range(makers.VIEWS)]], ids=["steps", "short", "ramp"]
)
def test_a_rotational_run_is_read_upright_and_not_mirrored(increments: list[float], tmp_path: Path) -> None:
    back = read(makers.write_xa(tmp_path / "run.dcm", run(), increments))
    assert back.measures is Measured.COUNTS
    assert "PRJ-FLAT" in {finding.code for finding in back.findings}
    _, flat, _ = makers.as_counts(run(), open_beam=4000.0, offset=0.0)
    integrals = to_line_integrals(back, open_beam=flat)
    assert makers.mismatch(integrals) < 5e-3
    assert makers.mismatch(makers.mirrored(integrals)) > 0.05
    assert makers.mismatch(makers.upside_down(integrals)) > 0.05
    np.testing.assert_allclose(makers.sources(back), makers.sources(run()), atol=1e-6)


def test_the_detector_in_front_of_the_chest_has_the_source_behind_the_back(tmp_path: Path) -> None:
    """The standard's words: a primary angle of 0 has the detector in front of the patient, +90 at the patient's left."""
    for first, position in ((0.0, (0, makers.SID_MM, 0)), (90.0, (-makers.SID_MM, 0, 0))):
        path = makers.write_xa(
            tmp_path / "run.dcm", run(), STEPS, PositionerPrimaryAngle=str(first), PositionerSecondaryAngle="0"
        )
        np.testing.assert_allclose(makers.sources(read(path))[0], position, atol=1e-6)


def test_an_angiogram_that_does_not_turn_is_left_alone(tmp_path: Path) -> None:
    path = makers.write_xa(tmp_path / "run.dcm", run(), [0.0] * makers.VIEWS)
    listing = mr.find(path)
    assert list(listing) == []
    assert [(one.what, one.code) for one in listing.skipped] == [("image without a place in the patient", "DCM-OTHER")]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"FieldOfViewHorizontalFlip": "YES"}, "PRJ-HAND"),
        ({"FieldOfViewRotation": "90"}, "PRJ-HAND"),
        ({"PixelIntensityRelationship": "LOG"}, "PRJ-HEADER"),
        ({"DistanceSourceToPatient": None}, "PRJ-HEADER"),
        ({"DistanceSourceToPatient": "400"}, "PRJ-GEOM"),
        ({"PositionerPrimaryAngleIncrement": ["25", "25", "25"]}, "PRJ-SHAPE"),
    ],
)
def test_a_run_that_cannot_be_placed_is_refused(changes: dict[str, object], code: str, tmp_path: Path) -> None:
    assert refusal(makers.write_xa(tmp_path / "run.dcm", run(), STEPS, **changes)) == code


def test_saturated_rows_are_refused_or_by_name_masked(tmp_path: Path) -> None:
    scan = run()
    pixels = scan.pixels.copy()
    pixels[1, 5] = -10.0  # far more than the open beam: 4095
    path = makers.write_xa(tmp_path / "run.dcm", ProjectionScan(np.maximum(pixels, -0.05), scan.views), STEPS)
    data = pydicom.dcmread(path)
    stored = np.frombuffer(data.PixelData, "<u2").reshape(scan.views.shape).copy()
    stored[1, 5] = 4095
    data.PixelData = np.minimum(stored, 4095).tobytes()
    data.save_as(path)
    assert refusal(path) == "PRJ-VALUE"
    back = read(path, allow=["bad-pixels"])
    assert back.measured is not None
    assert (~back.measured).sum() == makers.COLUMNS
