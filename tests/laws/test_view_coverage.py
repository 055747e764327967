"""From which share of half a turn a point was seen, against what a circle and a fan give in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medrecon.core.field_of_view import field_of_view_radius_mm, recommended_grid
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators.xray_transform import XRayTransform
from medrecon.quality.coverage import INTERPOLATED, MEASURED, UNSEEN
from medrecon.quality.view_coverage import seen_share, view_coverage
from tests.makers_xray import centred_grid

PANEL = Detector((24, 40), (2.0, 2.0))
TURN = np.arange(120) * 2 * np.pi / 120


def share(views: ViewGeometry, *points: tuple[float, float, float]) -> np.ndarray:
    return seen_share(views, np.array(points, dtype=np.float64))


def test_the_axis_is_seen_from_all_sides_and_a_far_point_never() -> None:
    views = ViewGeometry.cone(TURN, 300, 500, PANEL)
    assert share(views, (0, 0, 0), (500, 0, 0), (0, 0, 100)) == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("beyond", [1.05, 1.2, 1.4])
def test_a_point_beyond_a_parallel_beam_is_seen_from_the_share_that_its_circle_lies_within(beyond: float) -> None:
    """It is seen while ``r |sin| < R``: from ``2 / pi asin(R / r)`` of half a turn."""
    views = ViewGeometry.parallel(np.arange(120) * np.pi / 120, PANEL)
    radius = 40.0
    assert share(views, (beyond * radius, 0, 0))[0] == pytest.approx(2 / np.pi * np.arcsin(1 / beyond), abs=0.03)


@pytest.mark.parametrize("arc_deg", [30, 90, 150])
def test_a_limited_arc_is_seen_as_that_share_of_half_a_turn(arc_deg: float) -> None:
    views = ViewGeometry.parallel(np.radians(np.arange(0, arc_deg, 1.0)), PANEL)
    assert share(views, (0, 0, 0))[0] == pytest.approx(arc_deg / 180, abs=0.03)


@pytest.mark.parametrize("views", [5, 25, 75])
def test_few_views_around_a_full_turn_are_sparse_and_not_limited(views: int) -> None:
    geometry = ViewGeometry.cone(np.arange(views) * 2 * np.pi / views, 300, 500, PANEL)
    assert share(geometry, (0, 0, 0))[0] == pytest.approx(1 if views > 12 else views * 30 / 180, abs=0.2)


def test_the_sparse_check_sees_a_gap() -> None:
    angles = TURN[np.abs(TURN - np.pi / 2) > 0.7]
    one_side = angles[angles < np.pi]
    assert share(ViewGeometry.cone(one_side, 300, 500, PANEL), (0, 0, 0))[0] < 0.65


def test_a_displaced_detector_sees_its_field_of_view_from_half_a_turn() -> None:
    views = ViewGeometry.cone(TURN, 300, 500, PANEL, offset_u_mm=30)
    radius = field_of_view_radius_mm(views)
    assert share(views, (0.9 * radius, 0, 0), (0, -0.9 * radius, 0)).min() > 0.97
    assert share(ViewGeometry.cone(TURN, 300, 500, PANEL), (0.9 * radius, 0, 0))[0] < 0.6


def test_dead_columns_take_away_what_only_they_saw() -> None:
    views = ViewGeometry.parallel(np.arange(120) * np.pi / 120, PANEL)
    measured = np.ones(views.shape, dtype=np.bool_)
    measured[:, :, 18:22] = False
    assert seen_share(views, np.zeros((1, 3)), measured)[0] == 0
    assert seen_share(views, np.array([[20.0, 0, 0]]), measured)[0] > 0.7


def test_the_map_is_a_cylinder_of_measured_voxels_with_what_is_beyond_it_outside() -> None:
    views = ViewGeometry.parallel(np.arange(120) * np.pi / 120, PANEL)
    grid = centred_grid(64, 2.0)
    level = view_coverage(XRayTransform(views, grid))
    x, y, z = np.moveaxis(grid.to_lps(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)
    radius = np.hypot(x, y)
    assert (level[(radius < 36) & (np.abs(z) < 22)] == MEASURED).all()
    assert (level[(radius > 46) | (np.abs(z) > 27)] == UNSEEN).all()
    assert (level[(np.abs(radius - 42) < 1) & (np.abs(z) < 20)] == INTERPOLATED).mean() > 0.8


def test_without_half_a_turn_nothing_counts_as_measured() -> None:
    views = ViewGeometry.cone(np.radians(np.arange(0, 90, 2.0)), 300, 500, PANEL)
    level = view_coverage(XRayTransform(views, recommended_grid(views)))
    assert set(np.unique(level)) == {UNSEEN, INTERPOLATED}


def test_a_single_slice_and_a_mask_are_taken_too() -> None:
    views = ViewGeometry.fan(TURN, 300, 500, 40, 2.0)
    A = XRayTransform(views, recommended_grid(views), torch.ones(views.shape, dtype=torch.bool))
    level = view_coverage(A)
    middle = tuple(n // 2 for n in level.shape)
    assert level[middle] == MEASURED


#: What a row of rays through the isocentre covers there, mm.
SEEN_MM = 32 * 2.5 * 600 / 1000


def helix(pitch_mm: float, turns: int, shuffled: bool = False) -> ViewGeometry:
    angles = np.arange(160 * turns) * 2 * np.pi / 160
    low = -pitch_mm * turns / 2
    detector = Detector((32, 128), (2.5, 3.1), 1000.0)
    views = ViewGeometry.helical(angles, 600, 1000, detector, pitch_mm_per_turn=pitch_mm, z0_mm=low)
    return views.take(np.random.default_rng(0).permutation(len(angles))) if shuffled else views


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(("pitch_mm", "turns"), [(40.0, 5), (48.0, 3), (120.0, 4), (200.0, 3), (40.0, 12)])
def test_the_axis_of_a_helix_is_seen_for_as_long_as_the_rows_pass_over_it(pitch_mm: float, turns: int, shuffled: bool) -> None:
    """A point of the axis is seen for ``rows / pitch`` turns, which are twice as many half turns."""
    points = [(0.0, 0.0, float(z)) for z in np.linspace(-0.2, 0.2, 9) * pitch_mm * turns]
    expected = min(1.0, 2 * SEEN_MM / pitch_mm)
    assert share(helix(pitch_mm, turns, shuffled), *points) == pytest.approx(expected, abs=0.06)


def test_a_helix_whose_middle_turns_are_missing_has_not_seen_what_they_saw() -> None:
    views = helix(40.0, 12)
    cut = views.take(np.flatnonzero(np.abs(np.arange(len(views)) - len(views) / 2) > 1.5 * 160))
    assert share(cut, (0, 0, 0))[0] < 0.1
    assert share(cut, (0, 0, 150))[0] > 0.95


def test_the_middle_of_a_helical_scan_lies_within_its_field_of_view() -> None:
    grid = centred_grid(24, 6.0)
    level = view_coverage(XRayTransform(helix(40.0, 8), grid))
    assert (level == MEASURED).all()
