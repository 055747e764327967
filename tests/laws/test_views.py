"""The geometry of views: positions written down by hand, laws between the constructors, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from medrecon.core.errors import GeometryError
from medrecon.core.field_of_view import field_of_view_radius_mm, judge_field_of_view, recommended_grid, recommended_spacing_mm
from medrecon.core.findings import Verdict
from medrecon.core.grid import Grid
from medrecon.core.projections import Measured, ProjectionScan, covered_arc_rad, judge_arc, judge_values
from medrecon.core.views import Detector, ViewGeometry

PANEL = Detector((5, 8), (1.5, 2.0))
BENT = Detector((5, 8), (1.5, 2.0), curve_radius_mm=950.0)
TURN = np.linspace(0, 2 * np.pi, 12, endpoint=False)


def general_cone(detector: Detector = PANEL) -> ViewGeometry:
    """Every offset, tilt and shift at once, at uneven angles."""
    return ViewGeometry.cone(
        TURN**1.1,
        np.linspace(580, 620, 12),
        950.0,
        detector,
        offset_u_mm=3.0,
        offset_v_mm=-2.0,
        source_offset_u_mm=1.5,
        source_offset_v_mm=0.7,
        in_plane_rad=0.02,
        tilt_rad=0.05,
        slant_rad=-0.03,
        isocentre_lps_mm=(4, -5, 6),
    )


def general_parallel(detector: Detector = PANEL) -> ViewGeometry:
    return ViewGeometry.parallel(TURN, detector, offset_u_mm=1.0, in_plane_rad=0.1, tilt_rad=0.2, slant_rad=-0.1)


GEOMETRIES = {
    "cone": general_cone(),
    "curved cone": general_cone(BENT),
    "parallel": general_parallel(),
    "helical": ViewGeometry.helical(TURN * 3, 600, 950, BENT, pitch_mm_per_turn=20),
    "fan": ViewGeometry.fan(TURN, 541, 949, 16, 1.0, curve_radius_mm=949),
    "c-arm": ViewGeometry.c_arm(np.linspace(-100, 100, 7), np.linspace(-30, 20, 7), 750, 1200, PANEL),
}


@pytest.mark.parametrize(
    ("angle_deg", "source", "u"),
    [(0, (0, -600, 0), (1, 0, 0)), (90, (600, 0, 0), (0, 1, 0)), (180, (0, 600, 0), (-1, 0, 0)), (270, (-600, 0, 0), (0, -1, 0))],
)
def test_a_positive_angle_moves_the_source_from_the_front_to_the_patients_left(
    angle_deg: float, source: tuple[float, float, float], u: tuple[float, float, float]
) -> None:
    views = ViewGeometry.cone(np.radians([angle_deg]), 600, 1000, PANEL)
    np.testing.assert_allclose(np.asarray(views.sources_lps_mm), np.array([source]), atol=1e-9)
    np.testing.assert_allclose(views.u, [u], atol=1e-12)
    np.testing.assert_allclose(views.v, [(0, 0, 1)], atol=1e-12)
    np.testing.assert_allclose(views.centres_lps_mm, -np.asarray([source]) * 400 / 600, atol=1e-9)


def test_the_centre_of_an_even_detector_lies_between_its_two_middle_pixels() -> None:
    views = ViewGeometry.cone([0.0], 600, 1000, PANEL)
    np.testing.assert_allclose(views.pixel_lps_mm(0, 2, 3), [-1.0, 400, 0])
    np.testing.assert_allclose(views.pixel_lps_mm(0, 2, 4), [1.0, 400, 0])
    column, row, depth = views.project([0, 0, 0])
    assert (column[0], row[0], depth[0]) == pytest.approx((3.5, 2.0, 600))


def test_a_quarter_pixel_shift_of_the_detector_survives() -> None:
    shifted = ViewGeometry.cone(TURN, 600, 1000, PANEL, offset_u_mm=0.25 * PANEL.pitch_mm[1])
    np.testing.assert_allclose(shifted.project([0, 0, 0])[0], 3.25)
    np.testing.assert_allclose(shifted.piercing_mm[:, 0], -0.5)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_point_on_the_ray_to_a_pixel_appears_in_that_pixel(name: str, rng: np.random.Generator) -> None:
    views = GEOMETRIES[name]
    for view in range(len(views)):
        row, column = rng.uniform(0, np.asarray(views.detector.shape) - 1)
        pixel = views.pixel_lps_mm(view, row, column)
        if views.sources_lps_mm is None:
            on_ray = pixel - rng.uniform(10, 500) * np.asarray(views.ray_directions)[view]
        else:
            on_ray = views.sources_lps_mm[view] + rng.uniform(0.2, 0.9) * (pixel - views.sources_lps_mm[view])
        got_column, got_row, depth = views.project(on_ray)
        assert (got_column[view], got_row[view]) == pytest.approx((column, row), abs=1e-8)
        assert views.is_parallel or depth[view] > 0


def test_the_pixel_check_fails_for_a_detector_that_counts_from_the_other_side() -> None:
    views = general_cone()
    pixel = views.pixel_lps_mm(0, 1.0, 2.0)
    mirrored = replace(views, u=-views.u, left_handed=True)
    assert mirrored.project(pixel)[0][0] == pytest.approx(7 - 2.0)


@pytest.mark.parametrize("name", ["cone", "parallel", "c-arm"])
def test_matrices_give_the_same_pixels_as_the_vectors(name: str, rng: np.random.Generator) -> None:
    views = GEOMETRIES[name]
    points = rng.uniform(-50, 50, (20, 3))
    homogeneous = np.einsum("kij,pj->kpi", views.matrices(), np.column_stack([points, np.ones(20)]))
    column, row, depth = views.project(points)
    np.testing.assert_allclose(homogeneous[..., 0] / homogeneous[..., 2], column, atol=1e-8)
    np.testing.assert_allclose(homogeneous[..., 1] / homogeneous[..., 2], row, atol=1e-8)
    if not views.is_parallel:
        np.testing.assert_allclose(homogeneous[..., 2], depth, atol=1e-8)


@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_views_come_back_from_their_matrices_whatever_the_scale_and_sign(scale: float) -> None:
    views = general_cone()
    back = ViewGeometry.from_matrices(scale * views.matrices(), PANEL, isocentre_lps_mm=views.isocentre)
    for name in ("sources_lps_mm", "centres_lps_mm", "u", "v"):
        np.testing.assert_allclose(getattr(back, name), getattr(views, name), atol=1e-7)


def test_matrices_that_do_not_fit_the_pixel_pitch_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"PRJ-GEOM.*differ by 25"):
        ViewGeometry.from_matrices(general_cone().matrices(), Detector((5, 8), (1.5, 1.5)))


def test_mirrored_matrices_are_refused_until_declared() -> None:
    mirrored = general_cone().matrices()
    mirrored[:, 0] = 7 * mirrored[:, 2] - mirrored[:, 0]  # column -> 7 - column
    with pytest.raises(GeometryError, match=r"PRJ-HAND"):
        ViewGeometry.from_matrices(mirrored, PANEL)
    declared = ViewGeometry.from_matrices(mirrored, PANEL, left_handed=True)
    np.testing.assert_allclose(declared.u, -general_cone().u, atol=1e-9)


def test_the_c_arm_looks_along_the_dicom_positioner_angles() -> None:
    """PS3.3 C.8.7.5.1.2: 0 in front of the chest, primary +90 at the patient's left, secondary +90 at the head."""
    views = ViewGeometry.c_arm([0, 90, 0], [0, 0, 45], 700, 1000, PANEL)
    to_detector = views.normals
    np.testing.assert_allclose(to_detector, [(0, -1, 0), (1, 0, 0), (0, -np.sqrt(0.5), np.sqrt(0.5))], atol=1e-12)
    np.testing.assert_allclose(views.u[0], (1, 0, 0), atol=1e-12)  # seen from in front, patient's left on the right side
    np.testing.assert_allclose(views.v[0], (0, 0, -1), atol=1e-12)  # feet down


def test_a_helix_climbs_by_its_pitch_each_turn_and_keeps_its_angles() -> None:
    views = ViewGeometry.helical(np.linspace(0, 4 * np.pi, 41), 600, 1000, BENT, pitch_mm_per_turn=30, z0_mm=-7)
    sources = np.asarray(views.sources_lps_mm)
    np.testing.assert_allclose(sources[[0, 20, 40], 2], [-7, 23, 53])
    np.testing.assert_allclose(sources[0, :2], sources[40, :2], atol=1e-9)
    np.testing.assert_allclose(views.axis, (0, 0, 1), atol=1e-9)


def test_all_columns_of_a_focused_detector_are_equally_far_from_the_source() -> None:
    views = ViewGeometry.cone(TURN, 600, 950, BENT)
    away = views.column_points_lps_mm() - np.asarray(views.sources_lps_mm)[:, None]
    np.testing.assert_allclose(np.linalg.norm(away, axis=-1), 950)
    angle = np.arccos(np.einsum("kci,kci->kc", away[:, 1:], away[:, :-1]) / 950**2)
    np.testing.assert_allclose(angle, 2.0 / 950, rtol=1e-7)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_moving_scanner_and_points_together_changes_no_pixel(name: str, rng: np.random.Generator) -> None:
    views = GEOMETRIES[name]
    motion = np.eye(4)
    motion[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    motion[:3, :3] *= np.linalg.det(motion[:3, :3])
    motion[:3, 3] = rng.uniform(-40, 40, 3)
    points = rng.uniform(-30, 30, (10, 3))
    for before, after in zip(
        views.project(points), views.moved(motion).project(points @ motion[:3, :3].T + motion[:3, 3]), strict=True
    ):
        np.testing.assert_allclose(after, before, atol=1e-8)


def test_the_isocentre_is_found_from_the_vectors_alone() -> None:
    views = ViewGeometry.cone(TURN, 600, 1000, PANEL, offset_u_mm=30, isocentre_lps_mm=(1, 2, 3))
    bare = ViewGeometry.from_vectors(views.sources_lps_mm, views.centres_lps_mm, views.u, views.v, PANEL)
    np.testing.assert_allclose(bare.isocentre, (1, 2, 3), atol=1e-9)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_geometry_survives_a_pickle_and_stays_read_only(name: str) -> None:
    views = GEOMETRIES[name]
    back = pickle.loads(pickle.dumps(views))
    np.testing.assert_array_equal(back.centres_lps_mm, views.centres_lps_mm)
    np.testing.assert_array_equal(back.isocentre, views.isocentre)
    with pytest.raises(ValueError, match="read-only"):
        back.u[0] = 0


REFUSED: dict[str, tuple[str, Callable[[], object]]] = {
    "degrees for radians": ("PRJ-UNIT", lambda: ViewGeometry.cone(np.arange(360.0), 600, 1000, PANEL)),
    "degrees for radians in a helix": (
        "PRJ-UNIT",
        lambda: ViewGeometry.helical(np.arange(3600.0), 600, 1000, PANEL, pitch_mm_per_turn=10),
    ),
    "a few degrees for radians": ("PRJ-UNIT", lambda: ViewGeometry.cone(np.arange(0.0, 11.0, 0.5), 600, 1000, PANEL)),
    "no angles": ("PRJ-FEW", lambda: ViewGeometry.cone([], 600, 1000, PANEL)),
    "too few distances": ("PRJ-SHAPE", lambda: ViewGeometry.cone(TURN, [600, 600], 1000, PANEL)),
    "an angle that is not a number": ("PRJ-GEOM", lambda: ViewGeometry.cone([0, np.nan], 600, 1000, PANEL)),
    "the source behind the detector": ("PRJ-GEOM", lambda: ViewGeometry.cone(TURN, 1000, 600, PANEL)),
    "a negative distance": ("PRJ-GEOM", lambda: ViewGeometry.cone(TURN, -600, 1000, PANEL)),
    "a distance of zero": ("PRJ-GEOM", lambda: ViewGeometry.cone(TURN, 0, 1000, PANEL)),
    "both distances in metres": ("PRJ-GEOM", lambda: ViewGeometry.cone(TURN, 0.6, 1.0, Detector((256, 256), (0.4, 0.4)))),
    "one distance in metres": ("PRJ-GEOM", lambda: ViewGeometry.cone(TURN, 0.6, 1000, PANEL)),
    "the pitch in metres": ("PRJ-GEOM", lambda: ViewGeometry.cone(TURN, 600, 1000, Detector((256, 256), (4e-4, 4e-4)))),
    "the pitch in micrometres": ("PRJ-GEOM", lambda: Detector((256, 256), (400, 400))),
    "distances in micrometres": ("PRJ-GEOM", lambda: ViewGeometry.cone(TURN, 6e5, 1e6, PANEL)),
    "a detector without rows": ("PRJ-SHAPE", lambda: Detector((0, 8), (1, 1))),
    "a mirrored detector": ("PRJ-HAND", lambda: replace(general_cone(), u=-general_cone().u)),
    "a mirrored detector of a parallel beam": ("PRJ-HAND", lambda: replace(general_parallel(), v=-general_parallel().v)),
    "skew axes": (
        "PRJ-GEOM",
        lambda: replace(general_cone(), u=np.tile([0.6, 0.8, 0], (12, 1)), v=np.tile([0, 1.0, 0], (12, 1))),
    ),
    "a detector edge on": ("PRJ-GEOM", lambda: replace(general_parallel(), ray_directions=general_parallel().u)),
    "a stretching motion": ("PRJ-GEOM", lambda: general_cone().moved(np.diag([1, 1, 1.1, 1]))),
    "a mirroring motion": ("PRJ-GEOM", lambda: general_cone().moved(np.diag([-1.0, 1, 1, 1]))),
    "a column arc beyond half a turn": ("PRJ-GEOM", lambda: Detector((4, 400), (1, 1), curve_radius_mm=100)),
    "neither source nor direction": ("PRJ-GEOM", lambda: ViewGeometry(np.zeros((1, 3)), np.eye(3)[:1], np.eye(3)[1:2], PANEL)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_impossible_geometry_is_refused_with_its_code(case: str) -> None:
    code, make = REFUSED[case]
    with pytest.raises(GeometryError) as caught:
        make()
    assert caught.value.code == code


def test_the_repaired_geometries_are_accepted() -> None:
    ViewGeometry.cone(np.radians(np.arange(360.0)), 600, 1000, PANEL)
    ViewGeometry.helical(np.radians(np.arange(3600.0)), 600, 1000, PANEL, pitch_mm_per_turn=10)
    ViewGeometry.c_arm(np.arange(200.0), 0, 600, 1000, PANEL)
    ViewGeometry.cone(TURN, 600, 1000, Detector((256, 256), (0.4, 0.4)))
    ViewGeometry.cone(TURN, 20, 800, Detector((2000, 2000), (0.127, 0.127)))  # micro-CT, fortyfold magnification
    replace(general_cone(), u=-general_cone().u, left_handed=True)


def test_the_recommended_grid_holds_what_the_detector_sees_at_its_resolution() -> None:
    views = ViewGeometry.cone(TURN, 600, 1200, Detector((100, 200), (1.0, 1.0)), isocentre_lps_mm=(10, 20, 30))
    assert recommended_spacing_mm(views) == pytest.approx(0.5)
    radius = 600 * np.sin(np.arctan(100 / 1200))
    assert field_of_view_radius_mm(views) == pytest.approx(radius)
    grid = recommended_grid(views)
    assert grid.shape == (100, round(4 * radius), round(4 * radius))
    np.testing.assert_allclose(grid.to_lps((np.asarray(grid.shape) - 1) / 2), (10, 20, 30), atol=0.26)


def test_a_displaced_detector_sees_as_far_as_its_longer_side() -> None:
    views = ViewGeometry.cone(TURN, 600, 1200, Detector((10, 200), (1.0, 1.0)), offset_u_mm=60)
    assert field_of_view_radius_mm(views) == pytest.approx(600 * np.sin(np.arctan(160 / 1200)))


@pytest.mark.parametrize(("shift_mm", "verdict"), [(0, None), (5000, Verdict.REFUSED)])
def test_a_grid_outside_the_field_of_view_is_refused(shift_mm: float, verdict: Verdict | None) -> None:
    grid = Grid.from_parts((9, 9, 9), (1, 1, 1), (-4, -4, -4 + shift_mm))
    findings = judge_field_of_view(ViewGeometry.cone(TURN, 600, 1000, PANEL), grid)
    assert [finding.verdict for finding in findings] == ([] if verdict is None else [verdict])


@pytest.mark.parametrize(
    ("angles_deg", "arc_deg", "warned"),
    [
        (np.arange(0, 360, 2), 360, False),
        (np.arange(180), 180, False),
        (np.arange(350, 375), 25, True),
        (np.arange(90) + 270, 90, True),
    ],
)
def test_a_small_arc_is_called_limited_angle(angles_deg: np.ndarray, arc_deg: float, warned: bool) -> None:
    views = ViewGeometry.parallel(np.radians(angles_deg[::-1]), PANEL)
    assert np.degrees(covered_arc_rad(views)) == pytest.approx(arc_deg)
    assert [f.code for f in judge_arc(views)] == (["PRJ-FEW"] if warned else [])


def test_pixels_that_do_not_fit_the_geometry_are_refused_with_both_numbers() -> None:
    with pytest.raises(GeometryError, match=r"PRJ-SHAPE.*11 x 5 x 8.*12 views of 5 rows and 8 columns"):
        ProjectionScan(np.zeros((11, 5, 8), np.float32), general_cone())


def test_taking_views_takes_their_geometry_along() -> None:
    scan = ProjectionScan(np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 5, 8), np.float32), general_cone())
    part = scan.take([7, 2])
    assert part.pixels[:, 0, 0].tolist() == [7, 2]
    np.testing.assert_array_equal(part.views.centres_lps_mm, scan.views.centres_lps_mm[[7, 2]])


def test_impossible_values_are_counted_and_may_be_masked_by_name() -> None:
    pixels = np.ones((4, 3, 2), np.float32)
    pixels[1, 0, 0], pixels[3, 2, 1], pixels[3, 2, 0] = np.nan, -1, np.inf
    (finding,) = judge_values(pixels, Measured.COUNTS)
    assert (finding.numbers["count"], finding.numbers["views"], finding.numbers["first_view"]) == (3, 2, 2)
    assert finding.allow == "bad-pixels"
    assert judge_values(np.where(pixels > 0, 1, 1).astype(np.float32), Measured.COUNTS) == ()
    (row,) = judge_values(np.pad(np.full((1, 1, 2), 65535, np.float32), ((0, 0), (0, 2), (0, 0))), Measured.COUNTS, 65535)
    assert row.numbers["count"] == 2
