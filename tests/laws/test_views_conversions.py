"""Geometries of other programs: RTK's and ASTRA's own numbers as judges, and round trips for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medrecon.core.errors import GeometryError, InputError
from medrecon.core.grid import Grid
from medrecon.core.rtk_geometry import (
    IEC_TO_LPS,
    first_pixel_mm,
    read_rtk_xml,
    rtk_matrices,
    views_from_rtk,
    views_to_rtk,
    write_rtk_xml,
)
from medrecon.core.view_conversions import (
    LeapConeBeam,
    views_from_astra,
    views_from_leap,
    views_from_leap_cone,
    views_from_tigre,
    views_to_astra,
    views_to_leap,
    views_to_leap_cone,
    views_to_tigre,
)
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators.xray_transform import XRayTransform
from tests.makers_xray import Ellipsoids, shepp_logan

GOLDEN = Path(__file__).parents[1] / "golden"
ANGLES = np.array([0.3, 1.7, 4.4])  # those of the golden files
PANEL = Detector((5, 8), (1.5, 2.0))
BENT = Detector((5, 8), (1.5, 2.0), 950.0)

CIRCLE = ViewGeometry.cone(ANGLES, 600, 950, PANEL, offset_u_mm=3, offset_v_mm=-2, isocentre_lps_mm=(4, -5, 6))
CURVED = ViewGeometry.cone(ANGLES, 600, 950, BENT, offset_u_mm=0.5, isocentre_lps_mm=(4, -5, 6))
TILTED = ViewGeometry.cone(
    ANGLES, 600, 950, PANEL, offset_u_mm=3, source_offset_u_mm=1.5, in_plane_rad=0.02, tilt_rad=0.05, slant_rad=-0.03
)
PARALLEL = ViewGeometry.parallel(ANGLES, PANEL, offset_u_mm=1.25, in_plane_rad=0.1, isocentre_lps_mm=(1, 2, 3))
UPRIGHT_PARALLEL = ViewGeometry.parallel(ANGLES, PANEL, offset_u_mm=1.25, offset_v_mm=2, isocentre_lps_mm=(1, 2, 3))
HELIX = ViewGeometry.helical(np.linspace(0, 9, 7), 600, 950, PANEL, pitch_mm_per_turn=12, z0_mm=-4, offset_u_mm=1)
UNFOCUSED = ViewGeometry.cone(ANGLES, 600, 950, Detector((5, 8), (1.5, 2.0), 700.0), source_offset_u_mm=2)


@pytest.fixture(scope="module")
def rtk() -> dict[str, Any]:
    """What RTK 2.7 says about a few scans; see `tests.golden.make_xray_peers`."""
    content: dict[str, Any] = json.loads((GOLDEN / "xray_rtk.json").read_text())
    return content


@pytest.fixture(scope="module")
def astra() -> dict[str, Any]:
    """What ASTRA 2.5 says about a few scans."""
    content: dict[str, Any] = json.loads((GOLDEN / "xray_astra.json").read_text())
    return content


def same_place(a: ViewGeometry, b: ViewGeometry, tolerance: float = 1e-9) -> bool:
    """Whether the same points fall into the same pixels, from the same sources."""
    points = np.random.default_rng(0).uniform(-30, 30, (20, 3))
    off = [float(np.abs(x - y).max()) for x, y in zip(a.project(points)[:2], b.project(points)[:2], strict=True)]
    if a.sources_lps_mm is not None and b.sources_lps_mm is not None:
        off.append(float(np.abs(a.sources_lps_mm - b.sources_lps_mm).max()))
    return max(off) < tolerance and np.abs(a.isocentre - b.isocentre).max() < 1e-6 and len(a) == len(b)


@pytest.mark.parametrize("case", ["cone", "varying", "parallel", "cylinder", "focused"])
def test_a_scan_read_from_rtks_file_projects_as_rtk_does(case: str, rtk: dict[str, Any]) -> None:
    views = views_from_rtk(read_rtk_xml(rtk[case]["xml"].encode()), (12, 13), (4.0, 5.0), (-22.0, -30.0))
    phantom = Ellipsoids(
        (np.diag([1 / 14, 1 / 9, 1 / 6]) @ IEC_TO_LPS.T)[None], (IEC_TO_LPS @ [5.0, -3.0, 2.0])[None], np.ones(1)
    )
    np.testing.assert_allclose(phantom.project(views), rtk[case]["projections"], atol=2e-5)
    if views.sources_lps_mm is not None:
        np.testing.assert_allclose(views.sources_lps_mm @ IEC_TO_LPS, rtk[case]["sources"], atol=1e-9)
    mirrored = replace(views, u=-views.u, left_handed=True)
    assert np.abs(phantom.project(mirrored) - rtk[case]["projections"]).max() > 1


def test_our_shepp_logan_is_rtks(rtk: dict[str, Any]) -> None:
    views = views_from_rtk(read_rtk_xml(rtk["shepp_logan"]["xml"].encode()), (16, 16), (32.0, 32.0))
    np.testing.assert_allclose(shepp_logan(128.0).project(views), rtk["shepp_logan"]["projections"], atol=2e-4)


@pytest.mark.parametrize("case", ["cone", "varying", "parallel", "cylinder", "focused"])
def test_rtk_parameters_survive_our_vectors_and_our_file(case: str, rtk: dict[str, Any]) -> None:
    parameters = read_rtk_xml(rtk[case]["xml"].encode())
    views = views_from_rtk(parameters, (12, 13), (4.0, 5.0))
    again = read_rtk_xml(write_rtk_xml(views_to_rtk(views)).encode())
    for name in ("gantry_deg", "sdd_mm", "out_of_plane_deg", "in_plane_deg", "projection_offset_x_mm", "projection_offset_y_mm"):
        np.testing.assert_allclose(getattr(again, name), getattr(parameters, name), atol=1e-7)
    assert again.cylinder_radius_mm == parameters.cylinder_radius_mm


@pytest.mark.parametrize(
    "views",
    [CIRCLE, CURVED, TILTED, PARALLEL, HELIX, UNFOCUSED],
    ids=["circle", "curved", "tilted", "parallel", "helix", "unfocused"],
)
def test_views_survive_rtk(views: ViewGeometry) -> None:
    parameters = read_rtk_xml(write_rtk_xml(views_to_rtk(views)).encode())
    detector = views.detector
    back = views_from_rtk(parameters, detector.shape, detector.pitch_mm, first_pixel_mm(detector), views.isocentre)
    assert same_place(views, back, 1e-8)
    shifted = views_from_rtk(parameters, detector.shape, detector.pitch_mm, (-3.0, -7.5), views.isocentre)
    assert not same_place(views, shifted, 0.1)


def test_the_matrix_of_rtk_projects_as_our_views_do() -> None:
    parameters = views_to_rtk(TILTED)
    points = np.random.default_rng(1).uniform(-30, 30, (9, 3))
    in_iec = np.column_stack([points @ IEC_TO_LPS, np.ones(9)])
    homogeneous = np.einsum("kij,pj->kpi", rtk_matrices(parameters), in_iec)
    column, row, _ = TILTED.project(points)
    np.testing.assert_allclose(homogeneous[..., 0] / homogeneous[..., 2], PANEL.column_mm(column), atol=1e-8)
    np.testing.assert_allclose(homogeneous[..., 1] / homogeneous[..., 2], PANEL.row_mm(row), atol=1e-8)


def test_values_carry_over_and_angles_may_have_their_old_name() -> None:
    text = b"""<?xml version="1.0"?><!DOCTYPE RTKGEOMETRY><RTKThreeDCircularGeometry version="2">
    <SourceToIsocenterDistance>500</SourceToIsocenterDistance><SourceToDetectorDistance>900</SourceToDetectorDistance>
    <Projection><Angle>10</Angle><ProjectionOffsetX>4</ProjectionOffsetX></Projection>
    <Projection><GantryAngle>20</GantryAngle></Projection>
    <Projection><GantryAngle>30</GantryAngle><ProjectionOffsetX>0</ProjectionOffsetX></Projection>
    </RTKThreeDCircularGeometry>"""
    parameters = read_rtk_xml(text)
    assert parameters.gantry_deg.tolist() == [10, 20, 30]
    assert parameters.projection_offset_x_mm.tolist() == [4, 4, 0]


GOOD = write_rtk_xml(views_to_rtk(ViewGeometry.cone([0.1, 0.2], 500, 900, PANEL)))
BROKEN = {
    "no XML": ("PRJ-XML", b"\x00\x01"),
    "cut": ("PRJ-XML", GOOD[: len(GOOD) // 2].encode()),
    "another root": ("PRJ-XML", b"<scan version='3'/>"),
    "version 4": ("PRJ-XML", GOOD.replace('version="3"', 'version="4"').encode()),
    "entities": ("PRJ-XML", GOOD.replace("<!DOCTYPE RTKGEOMETRY>", '<!DOCTYPE a [<!ENTITY b "c">]>').encode()),
    "a word for a number": ("PRJ-XML", GOOD.replace(">500<", ">far<").encode()),
    "not a number": ("PRJ-XML", GOOD.replace(">500<", ">nan<").encode()),
    "a short matrix": ("PRJ-XML", GOOD.replace("</Matrix>", "1</Matrix>").encode()),
    "a matrix that disagrees": (
        "PRJ-XML",
        GOOD.replace("<SourceToIsocenterDistance>500", "<SourceToIsocenterDistance>600").encode(),
    ),
    "no view": ("PRJ-FEW", b'<RTKThreeDCircularGeometry version="3"/>'),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rtk_file_is_refused_with_its_code(case: str) -> None:
    code, text = BROKEN[case]
    with pytest.raises(InputError) as caught:
        read_rtk_xml(text)
    assert caught.value.code == code
    assert "far" not in str(caught.value)


def test_the_whole_rtk_file_is_accepted() -> None:
    assert len(read_rtk_xml(GOOD.encode())) == 2


def test_our_constructors_give_astras_vectors(astra: dict[str, Any]) -> None:
    """ASTRA's cone has SOD 600 and ODD 350, columns 2 mm and rows 1.5 mm."""
    kind, vectors = views_to_astra(ViewGeometry.cone(ANGLES, 600, 950, PANEL))
    assert kind == "cone_vec"
    np.testing.assert_allclose(vectors, astra["cone_vec"], atol=1e-9)
    kind, vectors = views_to_astra(ViewGeometry.parallel(ANGLES, PANEL))
    assert kind == "parallel3d_vec"
    np.testing.assert_allclose(vectors, astra["parallel3d_vec"], atol=1e-9)


def test_a_fan_through_squares_projects_as_in_astra(astra: dict[str, Any]) -> None:
    """ASTRA's rows grow towards -y, and its line model is exact, so that only smooth rays are compared closely."""
    squares = torch.tensor(astra["squares"])[None].flip(1)
    grid = Grid.from_parts((1, 24, 24), (1, 1, 1), (-11.5, -11.5, 0))
    views = ViewGeometry.fan(ANGLES, 60, 90, 20, 1.5)
    got = XRayTransform(views, grid).forward(squares)[:, 0]
    expected = torch.tensor(astra["fan"])
    assert float((got - expected).norm() / expected.norm()) < 0.1
    assert float((got.flip(1) - expected).norm() / expected.norm()) > 0.5


@pytest.mark.parametrize(
    "views",
    [CIRCLE, CURVED, TILTED, PARALLEL, HELIX, UNFOCUSED],
    ids=["circle", "curved", "tilted", "parallel", "helix", "unfocused"],
)
def test_views_survive_astra(views: ViewGeometry) -> None:
    kind, vectors = views_to_astra(views)
    assert same_place(views, views_from_astra(kind, vectors, views.detector.shape, views.isocentre))


@pytest.mark.parametrize("views", [CIRCLE, UPRIGHT_PARALLEL, HELIX], ids=["circle", "parallel", "helix"])
def test_views_survive_tigre(views: ViewGeometry) -> None:
    parameters = views_to_tigre(views, (1.0, 2.0, 3.0))
    back = views_from_tigre(parameters, (1.0, 2.0, 3.0))
    points = np.random.default_rng(0).uniform(-30, 30, (20, 3))
    for a, b in zip(views.project(points), back.project(points), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-8)


def test_tigres_angle_zero_has_the_source_on_x() -> None:
    """TIGRE: source at (DSO cos a, DSO sin a, 0), u = (-sin a, cos a, 0); the helix moves the image against the source."""
    parameters = views_to_tigre(ViewGeometry.cone([np.pi / 2], 600, 950, PANEL, offset_u_mm=3, offset_v_mm=-2))
    assert parameters.angles_rad[0] == pytest.approx(0)
    assert (parameters.source_origin_mm[0], parameters.source_detector_mm[0]) == pytest.approx((600, 950))
    np.testing.assert_allclose(parameters.detector_offset_mm, [[-2, 3]])
    climbing = views_to_tigre(HELIX)
    np.testing.assert_allclose(np.diff(climbing.image_offset_mm[:, 0]), -12 * 1.5 / (2 * np.pi))


@pytest.mark.parametrize("views", [CIRCLE, TILTED, HELIX], ids=["circle", "tilted", "helix"])
def test_views_survive_leaps_modular_beam(views: ViewGeometry) -> None:
    assert same_place(views, views_from_leap(views_to_leap(views), views.isocentre), 1e-3)  # LEAP keeps float32


@pytest.mark.parametrize("views", [CIRCLE, CURVED], ids=["flat", "curved"])
def test_views_survive_leaps_cone_beam(views: ViewGeometry) -> None:
    assert same_place(views, views_from_leap_cone(views_to_leap_cone(views), views.isocentre), 1e-8)


@pytest.mark.parametrize("curved", [False, True])
def test_leaps_cone_beam_stands_where_leap_says(curved: bool) -> None:
    """Source at R (cos a, sin a, 0) - tau (-sin a, cos a, 0); the central ray meets (center_row, center_col)."""
    beam = LeapConeBeam(5, 8, 1.5, 2.0, 1.75, 3.0, np.array([0.0, 90.0]), 600.0, 950.0, 4.0, curved)
    views = views_from_leap_cone(beam)
    np.testing.assert_allclose(np.asarray(views.sources_lps_mm), [(600, -4, 0), (4, 600, 0)], atol=1e-9)
    column, row, _ = views.project([(0, -4, 0), (4, 0, 0)])
    np.testing.assert_allclose(np.diag(column), 3.0)
    np.testing.assert_allclose(np.diag(row), 1.75)
    assert same_place(views, views_from_leap_cone(views_to_leap_cone(views)), 1e-8)


IMPOSSIBLE: dict[str, Callable[[], object]] = {
    "a mirrored read-out to RTK": lambda: views_to_rtk(replace(CIRCLE, u=-CIRCLE.u, left_handed=True)),
    "an oblique parallel beam to RTK": lambda: views_to_rtk(ViewGeometry.parallel(ANGLES, PANEL, tilt_rad=0.2)),
    "a curved parallel beam to ASTRA": lambda: views_to_astra(ViewGeometry.parallel(ANGLES, BENT)),
    "a tilted detector to TIGRE": lambda: views_to_tigre(TILTED),
    "a shifted source to TIGRE": lambda: views_to_tigre(ViewGeometry.cone(ANGLES, 600, 950, PANEL, source_offset_u_mm=1)),
    "a curved detector to TIGRE": lambda: views_to_tigre(CURVED),
    "a parallel beam to LEAP": lambda: views_to_leap(PARALLEL),
    "a curved detector to LEAP's modules": lambda: views_to_leap(CURVED),
    "a helix to LEAP's cone beam": lambda: views_to_leap_cone(HELIX),
    "an unfocused detector to LEAP's cone beam": lambda: views_to_leap_cone(UNFOCUSED),
    "changing distances to LEAP's cone beam": lambda: views_to_leap_cone(ViewGeometry.cone(ANGLES, [600, 610, 620], 950, PANEL)),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_another_program_cannot_say_is_refused(case: str) -> None:
    with pytest.raises(GeometryError) as caught:
        IMPOSSIBLE[case]()
    assert caught.value.code == "PRJ-EXPORT"


@pytest.mark.parametrize("shape", [(3, 11), (0, 12), (12,)])
def test_vectors_of_the_wrong_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="PRJ-SHAPE"):
        views_from_astra("cone_vec", np.ones(shape), (4, 4))


def test_rtk_itself_reads_our_file_and_agrees(tmp_path: Path) -> None:
    rtk = pytest.importorskip("itk", reason="itk-rtk is not installed (extra: peers)").RTK
    path = tmp_path / "geometry.xml"
    path.write_text(write_rtk_xml(views_to_rtk(TILTED)))
    reader = rtk.ThreeDCircularProjectionGeometryXMLFileReader.New()
    reader.SetFilename(str(path))
    reader.GenerateOutputInformation()
    geometry = reader.GetOutputObject()
    sources = np.array([list(geometry.GetSourcePosition(k))[:3] for k in range(3)])
    np.testing.assert_allclose(np.asarray(TILTED.sources_lps_mm) @ IEC_TO_LPS, sources, atol=1e-6)
    matrices = [[[geometry.GetMatrix(k).GetVnlMatrix().get(i, j) for j in range(4)] for i in range(3)] for k in range(3)]
    np.testing.assert_allclose(rtk_matrices(views_to_rtk(TILTED)), matrices, rtol=1e-6, atol=1e-6)
