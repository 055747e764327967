"""Beamline HDF5, MATLAB files of Helsinki and Zeiss containers, written here from what is known of each format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

import medrecon as mr
from medrecon.core.errors import GeometryError, InputError
from medrecon.core.grid import Float64
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.preprocess.line_integrals import to_line_integrals
from tests import makers_projections as makers
from tests.makers_ole import write_ole

PITCH = (1.0, 2.0, 2.0)


def read(path: Path, **options: object) -> ProjectionScan:
    scan = mr.read(path, **options)  # type: ignore[arg-type]  # any option
    assert isinstance(scan, ProjectionScan)
    return scan


def refusal(path: Path, **options: object) -> str:
    with pytest.raises((GeometryError, InputError)) as raised:
        read(path, **options)
    return raised.value.code


@pytest.fixture(scope="module")
def scan() -> ProjectionScan:
    return makers.scanned(makers.parallel_views())


@pytest.fixture(scope="module")
def theta_deg(scan: ProjectionScan) -> Float64:
    theta: Float64 = np.degrees(np.pi / len(scan.views) * np.arange(len(scan.views)))
    return theta


# -- DataExchange and NXtomo ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["degrees", "deg", "rad", None])
def test_data_exchange_is_read_upright_whatever_the_unit_of_its_angles(
    unit: str | None, scan: ProjectionScan, theta_deg: Float64, tmp_path: Path
) -> None:
    theta = np.radians(theta_deg) if unit == "rad" else theta_deg
    path = makers.write_data_exchange(tmp_path / "a.h5", scan, theta, unit)
    back = read(path, spacing_mm=PITCH)
    assert back.measures is Measured.TRANSMISSION
    assert makers.mismatch(to_line_integrals(back)) < 1e-3
    assert {finding.code for finding in back.findings} == {"PRJ-ASSUMED"} | ({"PRJ-UNIT"} if unit is None else set())
    assert makers.mismatch(makers.mirrored(to_line_integrals(back))) > 0.05
    assert makers.mismatch(makers.upside_down(to_line_integrals(back))) > 0.05


@pytest.mark.parametrize("linked", [False, True])
def test_nexus_frames_are_told_apart_by_the_image_key(
    linked: bool, scan: ProjectionScan, theta_deg: Float64, tmp_path: Path
) -> None:
    path = makers.write_nxtomo(tmp_path / "a.nxs", scan, theta_deg, tmp_path / "frames.h5" if linked else None)
    back = read(path)
    assert back.views.shape == scan.views.shape
    assert back.views.detector.pitch_mm == (2.0, 2.0)
    assert makers.mismatch(to_line_integrals(back)) < 1e-3
    assert [info.reader for info in mr.find(tmp_path)] == ["data_exchange"]


def test_a_link_to_a_missing_file_or_out_of_the_folder_is_refused(
    scan: ProjectionScan, theta_deg: Float64, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    path = makers.write_nxtomo(tmp_path / "in" / "a.nxs", scan, theta_deg, tmp_path / "in" / "frames.h5")
    (tmp_path / "in" / "frames.h5").rename(tmp_path / "frames.h5")
    assert refusal(path) == "PRJ-LINK"
    for target in ("../frames.h5", str(tmp_path / "frames.h5")):
        with h5py.File(path, "r+") as file:
            del file["entry/instrument/detector/data"]
            file["entry/instrument/detector/data"] = h5py.ExternalLink(target, "/frames")
        assert refusal(path) == "PRJ-LINK"


def test_links_in_circles_and_values_in_other_files_are_refused(scan: ProjectionScan, theta_deg: Float64, tmp_path: Path) -> None:
    path = makers.write_data_exchange(tmp_path / "a.h5", scan, theta_deg)
    with h5py.File(path, "r+") as file:
        del file["exchange/data"]
        file["exchange/data"] = h5py.SoftLink("/exchange/again")
        file["exchange/again"] = h5py.SoftLink("/exchange/data")
    assert refusal(path, spacing_mm=PITCH) == "PRJ-LINK"
    (tmp_path / "values").write_bytes(bytes(8 * 4 * 4 * 4))
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", (8, 4, 4), "f4", external=[(str(tmp_path / "values"), 0, h5py.h5f.UNLIMITED)])
        file["exchange/theta"] = theta_deg
    assert refusal(path, spacing_mm=PITCH) == "PRJ-LINK"


def test_hdf5_sizes_are_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", (10_000, 10_000, 10_000), "f4", chunks=(1, 100, 100))  # 4 TB, never written
        file["exchange/theta"] = np.arange(10_000.0)
    assert refusal(path, spacing_mm=PITCH) == "PRJ-CUT"


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_cut_hdf5_file_is_refused(share: float, scan: ProjectionScan, theta_deg: Float64, tmp_path: Path) -> None:
    path = makers.write_data_exchange(tmp_path / "a.h5", scan, theta_deg)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert refusal(path, spacing_mm=PITCH) == "PRJ-HEADER"


def test_what_an_hdf5_scan_lacks_is_said(scan: ProjectionScan, theta_deg: Float64, tmp_path: Path) -> None:
    path = makers.write_data_exchange(tmp_path / "a.h5", scan, theta_deg[:-1])
    assert refusal(path) == "PRJ-SHAPE"
    path = makers.write_data_exchange(tmp_path / "b.h5", scan, theta_deg)
    assert refusal(path) == "PRJ-PITCH"
    with h5py.File(path, "r+") as file:
        del file["exchange/theta"]
    assert refusal(path, spacing_mm=PITCH) == "PRJ-HEADER"
    with h5py.File(path, "w") as file:
        file["something/else"] = np.zeros(3)
    assert [one.code for one in mr.find(path).skipped] == ["INP-OTHER"]


def test_degrees_that_are_declared_as_radians_and_the_other_way_round_are_refused(tmp_path: Path) -> None:
    views = makers.parallel_views(96)
    scan = replace(makers.scanned(makers.parallel_views(8)), views=views, pixels=np.zeros(views.shape, np.float32))
    degrees = np.arange(96) * 180 / 96
    assert refusal(makers.write_data_exchange(tmp_path / "a.h5", scan, degrees, "rad"), spacing_mm=PITCH) == "PRJ-UNIT"
    assert refusal(makers.write_data_exchange(tmp_path / "b.h5", scan, np.radians(degrees)), spacing_mm=PITCH) == "PRJ-UNIT"
    read(makers.write_data_exchange(tmp_path / "c.h5", scan, degrees), spacing_mm=PITCH)


def test_a_zero_flat_field_is_refused_and_a_dead_pixel_is_marked(
    scan: ProjectionScan, theta_deg: Float64, tmp_path: Path
) -> None:
    path = makers.write_data_exchange(tmp_path / "a.h5", scan, theta_deg)
    with h5py.File(path, "r+") as file:
        white = file["exchange/data_white"][()]
        white[:, 3, 4] = 100.0  # as dark as the dark image
        file["exchange/data_white"][...] = white
    back = read(path, spacing_mm=PITCH)
    assert back.measured is not None
    assert np.argwhere(~back.measured.any(axis=0)).tolist() == [[3, 4]]
    assert "PRJ-FLAT" in {finding.code for finding in back.findings}
    with h5py.File(path, "r+") as file:
        file["exchange/data_white"][...] = 0
    assert refusal(path, spacing_mm=PITCH) == "PRJ-FLAT"


def test_negative_counts_are_refused(scan: ProjectionScan, theta_deg: Float64, tmp_path: Path) -> None:
    path = makers.write_data_exchange(tmp_path / "a.h5", scan, theta_deg)
    with h5py.File(path, "r+") as file:
        file["exchange/data"][2, 3, 4] = -1
    assert refusal(path, spacing_mm=PITCH) == "PRJ-VALUE"
    back = read(path, spacing_mm=PITCH, allow=["bad-pixels"])
    assert back.measured is not None
    assert np.argwhere(~back.measured).tolist() == [[2, 3, 4]]


# -- Helsinki ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fan() -> ProjectionScan:
    return makers.scanned(
        ViewGeometry.fan(makers.angles_rad(), makers.SID_MM, makers.SDD_MM, makers.COLUMNS, makers.COLUMN_PITCH_MM)
    )


def write_helsinki(path: Path, version: int, fields: dict[str, object]) -> Path:
    if version == 7:
        return makers.write_matlab_7(path, fields)
    savemat(path, {"CtDataLimited": fields}, do_compression=True)
    return path


@pytest.mark.parametrize("version", [5, 7])
def test_both_versions_of_matlab_files_give_the_same_scan(version: int, fan: ProjectionScan, tmp_path: Path) -> None:
    fields = makers.helsinki_fields(fan, np.degrees(makers.angles_rad()))
    back = read(write_helsinki(tmp_path / "a.mat", version, fields))
    assert makers.mismatch(back) < 1e-5
    assert makers.mismatch(makers.mirrored(back)) > 0.05
    np.testing.assert_allclose(makers.sources(back), makers.sources(fan), atol=1e-9)


@pytest.mark.parametrize("version", [5, 7])
def test_matlab_files_that_cannot_be_scans_end_in_their_code(version: int, fan: ProjectionScan, tmp_path: Path) -> None:
    angles = np.degrees(makers.angles_rad())
    path = write_helsinki(tmp_path / "a.mat", version, makers.helsinki_fields(fan, angles[:-1]))
    assert refusal(path) == "PRJ-SHAPE"
    fields = makers.helsinki_fields(fan, angles)
    parameters = fields["parameters"]
    assert isinstance(parameters, dict)
    metres = fields | {"parameters": parameters | {"distanceSourceOrigin": 0.2, "distanceSourceDetector": 0.3}}
    assert refusal(write_helsinki(tmp_path / "b.mat", version, metres)) == "PRJ-GEOM"
    lacking = fields | {"parameters": {"angles": angles}}
    assert refusal(write_helsinki(tmp_path / "c.mat", version, lacking)) == "PRJ-HEADER"
    whole = write_helsinki(tmp_path / "d.mat", version, fields).read_bytes()
    (tmp_path / "d.mat").write_bytes(whole[: len(whole) * 2 // 3])
    assert refusal(tmp_path / "d.mat") == "PRJ-HEADER"
    not_finite = fields | {"sinogram": np.full_like(fan.pixels[:, 0], np.nan)}
    assert refusal(write_helsinki(tmp_path / "e.mat", version, not_finite)) == "PRJ-VALUE"


def test_a_matlab_file_that_inflates_without_end_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"CtData": np.zeros((3000, 3000))}, do_compression=True)  # 72 MB in 70 kB
    assert (tmp_path / "a.mat").stat().st_size < 1 << 18
    assert refusal(tmp_path / "a.mat") == "PRJ-HEADER"


# -- Zeiss ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def square() -> ProjectionScan:
    """Pixels of a .txrm are square; the rows and columns are not equally many."""
    panel = Detector((makers.ROWS + 8, makers.COLUMNS), (makers.COLUMN_PITCH_MM,) * 2)
    return makers.scanned(ViewGeometry.cone(makers.angles_rad(), makers.SID_MM, makers.SDD_MM, panel))


def test_a_zeiss_cone_beam_is_read(square: ProjectionScan, tmp_path: Path) -> None:
    angles = -np.degrees(makers.angles_rad())
    path = write_ole(tmp_path / "a.txrm", makers.txrm_streams(square, angles))
    back = read(path)
    assert back.measures is Measured.TRANSMISSION
    assert makers.mismatch(to_line_integrals(back)) < 2e-3
    assert makers.mismatch(makers.mirrored(to_line_integrals(back))) > 0.05
    assert makers.mismatch(makers.upside_down(to_line_integrals(back))) > 0.05
    np.testing.assert_allclose(makers.sources(back), makers.sources(square), atol=1e-4)


def test_zeiss_shifts_move_the_detector_and_not_the_pixels(square: ProjectionScan, tmp_path: Path) -> None:
    """An image that is to be rolled by +2 columns, as others do, was taken by a detector that stood 2 columns further."""
    streams = makers.txrm_streams(square, -np.degrees(makers.angles_rad()))
    shifted = {name: data for name, data in streams.items() if name.startswith("ImageData")}
    for name, data in shifted.items():
        image = np.frombuffer(data, "<f4").reshape(square.views.detector.shape)
        streams[name] = np.roll(image, (-1, -2), axis=(0, 1)).tobytes()
    flat = np.frombuffer(streams["ReferenceData/Image"], "<f4").reshape(square.views.detector.shape)
    streams["ReferenceData/Image"] = np.roll(flat, (-1, -2), axis=(0, 1)).tobytes()
    for letter, shift in (("X", 2), ("Y", 1)):
        streams[f"Alignment/{letter}-Shifts"] = np.full(makers.VIEWS, shift, "<f4").tobytes()
    back = to_line_integrals(read(write_ole(tmp_path / "a.txrm", streams)))
    expected = makers.phantom().project(back.views)
    assert np.abs(back.pixels - expected)[:, 1:-1, 2:-2].max() < 2e-3
    assert np.abs(back.pixels - makers.phantom().project(square.views))[:, 1:-1, 2:-2].max() > 0.05


def test_a_cut_or_contradictory_zeiss_container_is_refused(square: ProjectionScan, tmp_path: Path) -> None:
    streams = makers.txrm_streams(square, -np.degrees(makers.angles_rad()))
    path = write_ole(tmp_path / "a.txrm", streams)
    whole = path.read_bytes()
    for size in (600, len(whole) // 2, len(whole) - 2000):
        path.write_bytes(whole[:size])
        assert refusal(path) in ("PRJ-HEADER", "PRJ-CUT")
    for change, code in (
        ({"ImageInfo/NoOfImages": (100_000).to_bytes(4, "little")}, "PRJ-CUT"),
        ({"ImageInfo/ImageWidth": (2**31 - 1).to_bytes(4, "little")}, "PRJ-HEADER"),
        ({"ImageInfo/NoOfImages": bytes(4)}, "PRJ-FEW"),
        ({"ImageInfo/DataType": (7).to_bytes(4, "little")}, "PRJ-HEADER"),
        ({"ImageInfo/StoRADistance": bytes(4 * makers.VIEWS)}, "PRJ-GEOM"),
    ):
        assert refusal(write_ole(path, streams | change)) == code, change


def test_other_ole_containers_are_counted_as_such(tmp_path: Path) -> None:
    path = write_ole(tmp_path / "a.doc", {"WordDocument/x": b"text"})
    assert [(one.what, one.code) for one in mr.find(path).skipped] == [("OLE container without projections", "INP-OTHER")]
