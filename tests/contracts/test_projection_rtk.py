"""RTK's geometry with its projections beside it, in each of the formats in which they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

import medrecon as mr
from medrecon.core.errors import GeometryError, InputError, MedreconError
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.writers import _projections_rtk
from tests import makers_projections as makers

PITCH = (makers.ROW_PITCH_MM, makers.COLUMN_PITCH_MM)


def read(path: Path, **options: object) -> ProjectionScan:
    scan = mr.read(path, **options)  # type: ignore[arg-type]  # any option
    assert isinstance(scan, ProjectionScan)
    return scan


@pytest.fixture(scope="module")
def scan() -> ProjectionScan:
    return makers.scanned(makers.cone_views())


def write(folder: Path, scan: ProjectionScan, xml: str | None = None) -> Path:
    makers.write_mha(folder / "projections.mha", scan.pixels, PITCH, makers.centred_origin_mm())
    return makers.write_text(folder / "geometry.xml", xml or makers.rtk_xml(makers.degrees()))


def test_an_rtk_scan_is_read_upright_and_not_mirrored(scan: ProjectionScan, tmp_path: Path) -> None:
    back = read(write(tmp_path, scan))
    assert makers.mismatch(back) < 1e-5
    np.testing.assert_allclose(makers.sources(back), makers.sources(scan), atol=1e-9)
    assert back.measures is Measured.LINE_INTEGRALS
    assert makers.mismatch(makers.mirrored(back)) > 0.05


def test_a_detector_off_the_central_ray_stands_where_its_origin_says(tmp_path: Path) -> None:
    scan = makers.scanned(makers.cone_views(offset_u_mm=12.0, offset_v_mm=-5.0))
    x, y = makers.centred_origin_mm()
    makers.write_mha(tmp_path / "projections.mha", scan.pixels, PITCH, (x + 7.0, y))
    extra = "  <ProjectionOffsetX>5</ProjectionOffsetX><ProjectionOffsetY>-5</ProjectionOffsetY>\n"
    path = makers.write_text(tmp_path / "geometry.xml", makers.rtk_xml(makers.degrees(), extra=extra))
    assert makers.mismatch(read(path)) < 1e-5


def test_the_projections_are_no_series_of_their_own(scan: ProjectionScan, tmp_path: Path) -> None:
    write(tmp_path, scan)
    assert [(info.reader, info.kind) for info in mr.find(tmp_path)] == [("rtk", "projections")]
    (tmp_path / "geometry.xml").unlink()
    assert [(info.reader, info.kind) for info in mr.find(tmp_path)] == [("metaimage", "volume")]


def test_a_volume_beside_the_scan_stays_a_volume(scan: ProjectionScan, tmp_path: Path) -> None:
    write(tmp_path, scan)
    makers.write_mha(tmp_path / "fdk.mha", np.zeros((5, 6, 7), np.float32), (1, 1), (0, 0))
    assert sorted((info.reader, info.shape[0]) for info in mr.find(tmp_path)) == [("metaimage", 5), ("rtk", makers.VIEWS)]


def test_of_two_fitting_sets_the_one_with_the_geometrys_name_is_taken(scan: ProjectionScan, tmp_path: Path) -> None:
    path = write(tmp_path, scan)
    makers.write_mha(tmp_path / "other.mha", scan.pixels * 0, PITCH, makers.centred_origin_mm())
    with pytest.raises(InputError) as raised:
        read(path)
    assert raised.value.code == "PRJ-FILES"
    (tmp_path / "projections.mha").rename(tmp_path / "geometry.mha")
    assert makers.mismatch(read(path)) < 1e-5


@pytest.mark.parametrize("single", [True, False])
def test_tiff_projections_need_the_pitch_from_the_caller(single: bool, scan: ProjectionScan, tmp_path: Path) -> None:
    path = makers.write_text(tmp_path / "geometry.xml", makers.rtk_xml(makers.degrees()))
    if single:
        tifffile.imwrite(tmp_path / "stack.tif", scan.pixels, photometric="minisblack")
    else:
        for k, image in enumerate(scan.pixels):
            tifffile.imwrite(tmp_path / f"{k + 5}.tif", image)
    with pytest.raises(InputError) as raised:
        read(path)
    assert raised.value.code == "PRJ-PITCH"
    assert makers.mismatch(read(path, spacing_mm=(1.0, *PITCH))) < 1e-5


def test_integers_are_counts(scan: ProjectionScan, tmp_path: Path) -> None:
    path = makers.write_text(tmp_path / "geometry.xml", makers.rtk_xml(makers.degrees()))
    counts = np.round(5000 * np.exp(-scan.pixels)).astype(np.uint16)
    makers.write_mha(tmp_path / "projections.mha", counts, PITCH, makers.centred_origin_mm())
    back = read(path)
    assert back.measures is Measured.COUNTS
    np.testing.assert_array_equal(back.pixels, counts)


def test_what_our_writer_writes_comes_back(tmp_path: Path) -> None:
    scan = makers.scanned(makers.cone_views(offset_u_mm=3.0, source_offset_v_mm=2.0, tilt_rad=0.05))
    _projections_rtk.write(scan, tmp_path / "scan")
    back = read(tmp_path / "scan")
    np.testing.assert_array_equal(back.pixels, scan.pixels)
    assert makers.mismatch(back) < 1e-5


@pytest.mark.parametrize(
    ("xml", "code"),
    [
        (makers.rtk_xml(makers.degrees()[:-1]), "PRJ-SHAPE"),
        (makers.rtk_xml([]), "PRJ-FEW"),
        (makers.rtk_xml(makers.degrees(), sid_mm=300, sdd_mm=200), "PRJ-GEOM"),
        (makers.rtk_xml(makers.degrees(), sid_mm=0.2, sdd_mm=0.3), "PRJ-GEOM"),
        (makers.rtk_xml(makers.degrees()).replace("300.0", "nan"), "PRJ-XML"),
        (makers.rtk_xml(makers.degrees()).replace('version="3"', 'version="4"'), "PRJ-XML"),
        (makers.rtk_xml(makers.degrees())[:-20], "PRJ-XML"),
        (
            makers.rtk_xml(makers.degrees()).replace("RTKGEOMETRY>", 'RTKGEOMETRY [<!ENTITY a SYSTEM "file:///etc/hosts">]>'),
            "PRJ-XML",
        ),
    ],
    ids=["one-angle-less", "no-view", "source-behind", "metres", "nan", "version", "cut", "entity"],
)
def test_a_geometry_that_cannot_be_ends_in_its_code(xml: str, code: str, scan: ProjectionScan, tmp_path: Path) -> None:
    path = write(tmp_path, scan, xml)
    assert mr.find(path)[0].verdict == "refused"
    with pytest.raises((GeometryError, InputError)) as raised:
        read(path)
    assert raised.value.code == code


def test_cut_projections_are_refused_before_they_are_decoded(scan: ProjectionScan, tmp_path: Path) -> None:
    path = write(tmp_path, scan)
    whole = (tmp_path / "projections.mha").read_bytes()
    (tmp_path / "projections.mha").write_bytes(whole[:-1])
    with pytest.raises(MedreconError) as raised:
        read(path)
    assert raised.value.code == "PRJ-FILES"


def test_not_a_number_in_a_metaimage_is_found(scan: ProjectionScan, tmp_path: Path) -> None:
    pixels = scan.pixels.copy()
    pixels[1, 2, 3] = np.nan
    makers.write_mha(tmp_path / "projections.mha", pixels, PITCH, makers.centred_origin_mm())
    path = makers.write_text(tmp_path / "geometry.xml", makers.rtk_xml(makers.degrees()))
    with pytest.raises(InputError) as raised:
        read(path)
    assert raised.value.code == "PRJ-VALUE"
    masked = read(path, allow=["bad-pixels"])
    assert masked.measured is not None
    assert np.argwhere(~masked.measured).tolist() == [[1, 2, 3]]


def test_flat_panel_images_of_elekta_go_with_an_rtk_geometry(tmp_path: Path) -> None:
    pitch = 409.6 / 96, 409.6 / 96
    scan = makers.scanned(ViewGeometry.cone(makers.angles_rad(), 1000, 1536, Detector((96, 96), pitch)))
    for k, image in enumerate(scan.pixels):
        makers.write_his(tmp_path / f"{k + 5}.his", image)
    makers.write_text(tmp_path / "geometry.xml", makers.rtk_xml(makers.degrees(), 1000, 1536))
    assert [info.reader for info in mr.find(tmp_path)] == ["rtk"]
    back = read(tmp_path)
    assert back.measured is not None
    assert np.abs(back.pixels - makers.phantom().project(back.views))[back.measured].max() < 1e-3
