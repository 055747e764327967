"""Each ray counts once: the weights of conjugate rays add up to 1, for every scan that measures rays twice."""

from __future__ import annotations

import numpy as np
import pytest

from medrecon.core.views import Detector, ViewGeometry
from medrecon.methods._redundancy import Fans, angular_steps, check_redundancy, redundancy_weights

FULL = np.arange(360) * 2 * np.pi / 360
HALF_FAN = float(np.arctan(128 * 1.6 / 900))


def fan(angles_rad: np.ndarray, **offsets: float) -> ViewGeometry:
    return ViewGeometry.fan(angles_rad, 500, 900, 256, 1.6, **offsets)


def arc(degrees: float, n: int = 400) -> np.ndarray:
    return np.asarray(np.arange(n) * np.radians(degrees) / n)


SCANS = {
    "full turn": fan(FULL),
    "short scan of least length": fan(arc(180 + 2 * np.degrees(HALF_FAN))),
    "short scan, 240 degrees": fan(arc(240)),
    "short scan, 330 degrees": fan(arc(330)),
    "displaced by a third": fan(FULL, offset_u_mm=70),
    "displaced by a quarter pixel": fan(FULL, offset_u_mm=0.4),
    "displaced, curved": ViewGeometry.fan(FULL, 500, 900, 256, 1.6, curve_radius_mm=900, offset_u_mm=-70),
    "displaced and short": fan(arc(300), offset_u_mm=40),
    "source beside the central ray": fan(FULL, source_offset_u_mm=15),
    "parallel, 220 degrees": ViewGeometry.parallel(arc(220), Detector((1, 256), (1, 1))),
    "parallel, displaced": ViewGeometry.parallel(FULL, Detector((1, 256), (1, 1)), offset_u_mm=40),
}


def weighed(views: ViewGeometry) -> tuple[Fans, np.ndarray, float]:
    fans = Fans.of(views)
    _, covered = angular_steps(fans.azimuth_rad)
    weights = redundancy_weights(fans, covered)
    return fans, weights, check_redundancy(fans, covered, weights).rms


@pytest.mark.parametrize("views", SCANS.values(), ids=list(SCANS))
def test_weights_of_conjugate_rays_add_up_to_one(views: ViewGeometry) -> None:
    _, weights, rms = weighed(views)
    assert rms < 0.01
    assert weights.min() >= 0
    assert weights.max() <= 1


@pytest.mark.parametrize("name", ["short scan, 240 degrees", "displaced by a third"])
def test_the_sum_fails_on_mirrored_weights(name: str) -> None:
    fans, weights, _ = weighed(SCANS[name])
    _, covered = angular_steps(fans.azimuth_rad)
    assert check_redundancy(fans, covered, weights[:, ::-1]).rms > 0.1


def test_a_full_turn_halves_every_ray() -> None:
    np.testing.assert_allclose(weighed(SCANS["full turn"])[1], 0.5)


def test_a_half_turn_of_a_parallel_beam_keeps_every_ray_whole() -> None:
    views = ViewGeometry.parallel(FULL / 2, Detector((1, 64), (1, 1)))
    np.testing.assert_allclose(weighed(views)[1], 1.0)


def test_a_displaced_detector_gets_the_weights_of_wang() -> None:
    views = ViewGeometry.parallel(FULL, Detector((1, 200), (1, 1)), offset_u_mm=50)
    fans, weights, _ = weighed(views)
    t = fans.distance_mm[0]
    wang = np.where(t < 50, (1 + np.sin(np.pi * t / 100)) / 2, 1.0)
    np.testing.assert_allclose(weights[0], wang, atol=1e-5)


def test_a_view_stands_for_half_the_gap_to_both_neighbours() -> None:
    azimuth = np.radians([0.0, 10, 20, 50, 90, 150, 200, 260, 310])
    steps, covered = angular_steps(azimuth)
    assert covered.is_full
    assert np.degrees(steps[3]) == pytest.approx(35)
    assert steps.sum() == pytest.approx(2 * np.pi)


def test_the_open_end_of_a_short_scan_counts_for_no_view() -> None:
    steps, covered = angular_steps(np.radians(np.arange(0, 200, 2.0)))
    np.testing.assert_allclose(np.degrees(steps), 2.0)
    assert np.degrees(covered.length_rad) == pytest.approx(200)
    assert not covered.is_full


def test_a_sparse_full_turn_is_not_taken_for_a_short_scan() -> None:
    assert angular_steps(np.arange(10) * 2 * np.pi / 10)[1].is_full
    assert angular_steps(np.arange(720) * 2 * np.pi / 720)[1].is_full


def test_limited_angles_are_reported_as_rays_that_nobody_measured() -> None:
    fans = Fans.of(fan(arc(90)))
    _, covered = angular_steps(fans.azimuth_rad)
    check = check_redundancy(fans, covered, redundancy_weights(fans, covered))
    assert check.unseen_share == pytest.approx(0.5, abs=0.03)
    assert check.arc_deg == pytest.approx(90)
