"""Varian, Elekta and Nikon: no sample is at hand, so that files are put together from what is published of the formats."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

import medrecon as mr
from medrecon.core.errors import GeometryError, InputError
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.preprocess.line_integrals import to_line_integrals
from medrecon.readers import _varian_images
from tests import makers_projections as makers


def read(path: Path, **options: object) -> ProjectionScan:
    scan = mr.read(path, **options)  # type: ignore[arg-type]  # any option
    assert isinstance(scan, ProjectionScan)
    return scan


def refusal(path: Path) -> str:
    with pytest.raises((GeometryError, InputError)) as raised:
        read(path)
    assert "Miller" not in str(raised.value)
    return raised.value.code


def assert_upright(scan: ProjectionScan, tolerance: float) -> None:
    integrals = to_line_integrals(scan)
    seen = np.ones(integrals.pixels.shape, bool) if integrals.measured is None else integrals.measured
    for changed, holds in ((integrals, True), (makers.mirrored(integrals), False), (makers.upside_down(integrals), False)):
        off = np.abs(changed.pixels - makers.phantom().project(scan.views))[seen].max()
        assert (off < tolerance) if holds else (off > 0.05)


# -- Varian --------------------------------------------------------------------------------------------------------------


def test_the_predictor_comes_back_bit_by_bit(rng: np.random.Generator) -> None:
    for spread in (40, 20_000, 2**29):
        pixels = rng.integers(0, spread, (16, 24))
        table, values = makers.packed(pixels)
        np.testing.assert_array_equal(_varian_images.unpack(table, values, (16, 24)), pixels)
    np.testing.assert_array_equal(_varian_images.unpack(table, values[:-3] + bytes(0), (16, 24))[:-1], pixels[:-1])


def test_a_predictor_with_a_wrong_code_or_too_few_bytes_is_refused(rng: np.random.Generator) -> None:
    table, values = makers.packed(rng.integers(0, 40, (16, 24)))
    for bad, code in (
        ((b"\xff" + table[1:], values), "PRJ-HEADER"),
        ((table, values[:-4]), "PRJ-CUT"),
        ((table[:9], values), "PRJ-CUT"),
    ):
        with pytest.raises(InputError) as raised:
            _varian_images.unpack(*bad, (16, 24))
        assert raised.value.code == code


def write_obi(folder: Path, scan: ProjectionScan, xml: str, plain: bool = False) -> Path:
    (folder / "Scan0").mkdir(parents=True)
    for k, image in enumerate(scan.pixels):
        norm = 500.0 + 50.0 * (k % 2)  # the tube drifts, and the counts with it
        counts = np.round((60_000 if plain else 139_000) * np.exp(-image.astype(np.float64)) * norm / 525.0).astype(np.int64)
        name = f"Proj_{k + 5}.{'hnc' if plain else 'hnd'}"
        makers.write_hnd(folder / "Scan0" / name, counts, makers.degrees()[k], norm, plain)
    return makers.write_text(folder / "ProjectionInfo.xml", xml)


def test_an_obi_scan_is_read_upright_and_its_tube_drift_taken_out(tmp_path: Path) -> None:
    scan = makers.scanned(makers.cone_views(offset_u_mm=7.0, offset_v_mm=-3.0))
    write_obi(tmp_path, scan, makers.obi_xml("HalfFan", 5.0, 2.0, -3.0))
    back = read(tmp_path)
    assert_upright(back, 1e-4)
    np.testing.assert_allclose(makers.sources(back), makers.sources(scan), atol=1e-9)
    assert {finding.code for finding in back.findings} == {"PRJ-ASSUMED", "PRJ-FLAT", "PRJ-POSITION"}


def test_the_lateral_position_counts_for_a_half_fan_only(tmp_path: Path) -> None:
    scan = makers.scanned(makers.cone_views(offset_u_mm=5.0))
    assert_upright(read(write_obi(tmp_path / "a", scan, makers.obi_xml("FullFan", 5.0, 2.0))), 1e-4)


def test_plain_obi_images_are_read(tmp_path: Path) -> None:
    scan = makers.scanned(makers.cone_views())
    back = read(write_obi(tmp_path, scan, makers.obi_xml(), plain=True))
    expected = scan.pixels + np.log(139_000 / 60_000)  # the assumed counts in air are not those of this scan
    np.testing.assert_allclose(to_line_integrals(back).pixels, expected, atol=1e-3)


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_truebeam_scan_with_blanks_is_read_upright(is_packed: bool, tmp_path: Path) -> None:
    scan = makers.scanned(makers.cone_views(offset_u_mm=12.0, offset_v_mm=4.0))
    counts, flat, _ = makers.as_counts(scan, open_beam=100_000.0, offset=0.0)
    frames, air = tmp_path / "Acquisitions" / "1", tmp_path / "Calibrations" / "Air-1"
    frames.mkdir(parents=True)
    air.mkdir(parents=True)
    numbers = {"KVDetectorLat": 1.2, "KVDetectorLng": 0.4, "PixelWidth": 0.3, "PixelHeight": 0.4}
    for k, image in enumerate(counts):
        norm = 2.0 + k
        of_view = numbers | {"KVSourceRtn": 180.0 - makers.degrees()[k], "KVNormChamber": norm}
        makers.write_xim(frames / f"Proj_{k + 5}.xim", np.round(image * norm).astype(np.int64), of_view, is_packed)
    makers.write_xim(frames / "Proj_99.xim", counts[0].astype(np.int64), {}, empty=True)
    makers.write_xim(air / "FilterBowtie1.xim", np.round(flat * 3).astype(np.int64), numbers | {"KVNormChamber": 3.0})
    makers.write_text(tmp_path / "Scan.xml", makers.scan_xml())
    listing = mr.find(tmp_path)
    assert [(info.reader, info.shape) for info in listing] == [("varian", scan.views.shape)]
    back = read(tmp_path)
    assert back.measures is Measured.TRANSMISSION
    assert_upright(back, 1e-3)
    (air / "FilterBowtie1.xim").unlink()
    assert read(tmp_path).measures is Measured.COUNTS


def test_a_varian_scan_that_is_cut_or_lacks_something_is_refused(tmp_path: Path) -> None:
    scan = makers.scanned(makers.cone_views())
    path = write_obi(tmp_path / "a", scan, makers.obi_xml())
    image = sorted((tmp_path / "a" / "Scan0").iterdir())[3]
    whole = image.read_bytes()
    for size in (100, 1024, len(whole) - 10):
        image.write_bytes(whole[:size])
        assert refusal(path) == "PRJ-CUT"
    image.write_bytes(whole[:120] + struct.pack("<2I", 2**31, 2**31) + whole[128:])
    assert refusal(path) == "PRJ-HEADER"
    image.write_bytes(whole)
    for before, after, code in (
        ("<CalibratedSID>300.0", "<CalibratedSID>100.0", "PRJ-GEOM"),
        ("<CalibratedSID>300.0", "<CalibratedSID>three", "PRJ-HEADER"),
        ("CalibratedSID", "Other", "PRJ-HEADER"),
        ("</ProjectionInfo>", "", "PRJ-HEADER"),
        ("<ProjectionInfo>", '<!DOCTYPE a [<!ENTITY b "c">]><ProjectionInfo>', "PRJ-HEADER"),
    ):
        makers.write_text(path, makers.obi_xml().replace(before, after))
        assert refusal(path) == code, after
    makers.write_text(path, makers.obi_xml())
    for one in (tmp_path / "a" / "Scan0").iterdir():
        one.unlink()
    assert refusal(path) == "PRJ-FILES"


@pytest.mark.parametrize("size", [4, 30, 40, 200, -1])
def test_a_cut_xim_is_refused(size: int, tmp_path: Path) -> None:
    whole = makers.write_xim(tmp_path / "a.xim", np.arange(96).reshape(8, 12), {"KVSourceRtn": 1.0}).read_bytes()
    _varian_images.read_xim(tmp_path / "a.xim")
    (tmp_path / "a.xim").write_bytes(whole[:size])
    with pytest.raises(InputError) as raised:
        _varian_images.read_xim(tmp_path / "a.xim")
    assert raised.value.code == "PRJ-CUT"


# -- Elekta --------------------------------------------------------------------------------------------------------------


def elekta_scan() -> ProjectionScan:
    """Few pixels over the whole panel of 409.6 mm, so that a letter is about as large as a pixel."""
    pitch = 409.6 / 96, 409.6 / 96
    views = ViewGeometry.cone(makers.angles_rad(), 1000, 1536, Detector((96, 96), pitch), offset_u_mm=-6.0, offset_v_mm=4.0)
    return makers.scanned(views)


@pytest.mark.parametrize(("angle", "centre"), [("GantryAngle", "UCentre"), ("antryAngle", "Uentre")])
def test_an_elekta_scan_is_read_upright(angle: str, centre: str, tmp_path: Path) -> None:
    scan = elekta_scan()
    angles = [value - 360 if value > 180 else value for value in makers.degrees()]
    path = makers.write_text(tmp_path / "_Frames.xml", makers.frames_xml(angles, 6.0, -4.0, angle, centre))
    for k, image in enumerate(scan.pixels):
        makers.write_his(tmp_path / f"{k + 5}.his", image)
    back = read(path)
    assert_upright(back, 1e-3)
    assert [info.reader for info in mr.find(tmp_path)] == ["elekta_his"]
    assert mr.find(tmp_path).skipped == ()
    assert back.measured is not None
    assert not back.measured[:, :4].any()


def test_elekta_images_of_oblong_panels_have_rows_and_columns_the_right_way_round(tmp_path: Path) -> None:
    from medrecon.readers import _his

    image = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    path = makers.write_his(tmp_path / "a.his", image)
    assert _his.shape_of(path) == (6, 10)
    np.testing.assert_allclose(_his.line_integrals(path, (6, 10)), image, atol=1e-4)


def test_elekta_scans_that_lack_something_are_refused(tmp_path: Path) -> None:
    path = makers.write_text(tmp_path / "_Frames.xml", makers.frames_xml(makers.degrees(), 0, 0))
    assert refusal(path) == "PRJ-FILES"
    for k, image in enumerate(elekta_scan().pixels):
        makers.write_his(tmp_path / f"{k}.his", image)
    read(path)
    makers.write_text(path, makers.frames_xml(makers.degrees()[1:], 0, 0))
    assert refusal(path) == "PRJ-SHAPE"
    makers.write_text(path, makers.frames_xml(makers.degrees(), 0, 0).replace("<VCentre>0</VCentre>", "", 1))
    assert refusal(path) == "PRJ-HEADER"
    makers.write_text(path, makers.frames_xml(makers.degrees(), 0, 0).replace("10.0", "nan"))
    assert refusal(path) == "PRJ-HEADER"
    makers.write_text(path, makers.frames_xml(makers.degrees(), 0, 0))
    (tmp_path / "3.his").write_bytes((tmp_path / "3.his").read_bytes()[:-1])
    assert refusal(path) == "PRJ-CUT"
    path.unlink()
    assert {(one.what, one.code) for one in mr.find(tmp_path).skipped} == {
        ("flat-panel image without a list of frames", "PRJ-FILES")
    }


# -- Nikon ---------------------------------------------------------------------------------------------------------------


def write_nikon(folder: Path, scan: ProjectionScan, changes: dict[str, object] | None = None) -> Path:
    """The first pixel is at the top right, seen from the source: rows go down, columns to the left."""
    counts = np.round(60_000 * np.exp(-scan.pixels.astype(np.float64))).astype(np.uint16)[:, ::-1, ::-1]
    for k, image in enumerate(counts):
        tifffile.imwrite(folder / f"probe_{k + 1:04d}.tif", image)
    return makers.write_text(folder / "probe.xtekct", makers.xtekct(changes))


def test_a_nikon_scan_is_read_upright(tmp_path: Path) -> None:
    scan = makers.scanned(makers.cone_views())
    back = read(write_nikon(tmp_path, scan))
    assert_upright(back, 1e-3)
    np.testing.assert_allclose(makers.sources(back), makers.sources(scan), atol=1e-9)
    assert [(info.reader, info.kind) for info in mr.find(tmp_path)] == [("nikon", "projections")]


def test_nikons_offsets_of_detector_and_axis_are_understood_as_cil_does(tmp_path: Path) -> None:
    """The axis 2 mm beside the central ray is the same as source and detector 2 mm to the other side."""
    scan = makers.scanned(makers.cone_views(offset_u_mm=-5.0 - 2.0, offset_v_mm=3.0, source_offset_u_mm=-2.0))
    assert_upright(read(write_nikon(tmp_path, scan, {"DetectorOffsetX": 5, "DetectorOffsetY": -3, "ObjectOffsetX": 2})), 1e-3)
    old: dict[str, object] = {
        "DetectorOffsetX": 5,
        "DetectorOffsetY": -3,
        "CentreOfRotationTop": 2.5,
        "CentreOfRotationBottom": 3.5,
    }
    assert_upright(read(write_nikon(tmp_path, scan, old)), 1e-3)


def test_a_nikon_axis_that_leans_is_told(tmp_path: Path) -> None:
    back = read(write_nikon(tmp_path, makers.scanned(makers.cone_views()), {"ObjectTilt": 0.3}))
    assert any("0.3 degrees" in finding.fact for finding in back.findings)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Projections": 9}, "PRJ-SHAPE"),
        ({"DetectorPixelsX": 5}, "PRJ-SHAPE"),
        ({"WhiteLevel": 0}, "PRJ-FLAT"),
        ({"SrcToObject": 400}, "PRJ-GEOM"),
        ({"SrcToObject": 0}, "PRJ-GEOM"),
        ({"SrcToObject": 0.2, "SrcToDetector": 0.3}, "PRJ-GEOM"),
        ({"SrcToObject": "near"}, "PRJ-HEADER"),
        ({"InputFolderName": "../elsewhere", "Name": "other"}, "PRJ-SHAPE"),
    ],
)
def test_a_nikon_scan_that_cannot_be_is_refused(changes: dict[str, object], code: str, tmp_path: Path) -> None:
    assert refusal(write_nikon(tmp_path, makers.scanned(makers.cone_views()), changes)) == code
