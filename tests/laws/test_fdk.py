"""Filtered back projection gives a ball of 0.02 per mm back as 0.02 per mm, whatever the scanner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medrecon.core.errors import CancelledError, GeometryError
from medrecon.core.grid import Grid
from medrecon.core.progress import silent
from medrecon.core.views import Detector, ViewGeometry
from medrecon.methods import _circular, _ramp
from medrecon.methods._ramp import WINDOWS, RampFilter, ramp_kernel
from medrecon.methods._redundancy import redundancy_weights
from medrecon.methods.fdk import FdkConfig, fdk
from medrecon.operators.xray_transform import XRayTransform
from tests.makers_xray import Ellipsoids, ball, centred_grid, lettered

DENSITY, RADIUS, CENTRE = 0.02, 60.0, (15.0, -9.0, 0.0)
FULL = np.arange(360) * 2 * np.pi / 360
HALF_FAN = float(np.arctan(512 * 0.8 / 2 / 900))
SHORT = np.arange(280) * (np.pi + 2 * HALF_FAN) / 280
PANEL = Detector((64, 256), (3.2, 1.6))

#: Scans of one plane: SID 500, SDD 900, 512 columns.
FANS = {
    "flat": ViewGeometry.fan(FULL, 500, 900, 512, 0.8),
    "curved": ViewGeometry.fan(FULL, 500, 900, 512, 0.8, curve_radius_mm=900),
    "source beside the central ray": ViewGeometry.fan(FULL, 500, 900, 512, 0.8, source_offset_u_mm=20),
    "slanted detector": ViewGeometry.cone(FULL, 500, 900, Detector((1, 512), (1, 0.8)), slant_rad=0.1),
    "uneven angles": ViewGeometry.fan(np.sort(np.random.default_rng(1).uniform(0, 2 * np.pi, 960)), 500, 900, 512, 0.8),
    "short scan": ViewGeometry.fan(SHORT, 500, 900, 512, 0.8),
    "short scan, 260 degrees": ViewGeometry.fan(np.radians(np.arange(0, 260, 0.75)), 500, 900, 512, 0.8),
    "displaced detector": ViewGeometry.fan(FULL, 500, 900, 512, 0.8, offset_u_mm=120),
    "displaced to the other side": ViewGeometry.fan(FULL, 500, 900, 512, 0.8, offset_u_mm=-120),
    "displaced, ten degrees missing": ViewGeometry.fan(
        np.radians(np.arange(0, 350, 0.5)), 500, 900, 512, 0.8, offset_u_mm=-20, curve_radius_mm=900
    ),
    "parallel, half a turn": ViewGeometry.parallel(FULL / 2, Detector((1, 512), (1, 0.5))),
    "parallel, full turn": ViewGeometry.parallel(FULL, Detector((1, 512), (1, 0.5))),
    "parallel, half a turn and 40 degrees": ViewGeometry.parallel(
        np.radians(np.arange(0, 220, 0.5)), Detector((1, 512), (1, 0.5))
    ),
    "parallel, slanted": ViewGeometry.parallel(FULL, Detector((1, 512), (1, 0.5)), slant_rad=0.2),
}

CONES = {
    "detector shifted": ViewGeometry.cone(FULL[::2], 600, 1000, PANEL, offset_u_mm=15, offset_v_mm=9),
    "tilted": ViewGeometry.cone(FULL[::2], 600, 1000, PANEL, tilt_rad=0.1),
    "turned in its plane": ViewGeometry.cone(FULL[::2], 600, 1000, PANEL, in_plane_rad=0.05),
    "curved": ViewGeometry.cone(FULL[::2], 600, 1000, Detector((64, 256), (3.2, 1.6), 1000.0), offset_v_mm=9),
    "C-arm, 200 degrees": ViewGeometry.c_arm(np.arange(-100, 100, 0.8), 0, 600, 1000, PANEL),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small problems: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plane(n: int = 48, spacing_mm: float = 4.0) -> Grid:
    """One slice of voxels in the plane of the circle."""
    origin = (-(n - 1) / 2 * spacing_mm, -(n - 1) / 2 * spacing_mm, 0.0)
    return Grid.from_parts((1, n, n), (spacing_mm, spacing_mm, spacing_mm), origin)


def reconstructed(views: ViewGeometry, grid: Grid, phantom: Ellipsoids, **settings: Any) -> NDArray[np.float32]:
    y = torch.from_numpy(phantom.project(views))
    return fdk(XRayTransform(views, grid), y, FdkConfig(**settings), silent).numpy()


def inside(voxels: NDArray[np.float32], grid: Grid, radius_mm: float = RADIUS) -> NDArray[np.float32]:
    """Voxels well within the ball."""
    points = grid.to_lps(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1))
    chosen: NDArray[np.float32] = voxels[np.linalg.norm(points - np.array(CENTRE), axis=-1) < 0.8 * radius_mm]
    return chosen


@pytest.mark.parametrize("views", FANS.values(), ids=list(FANS))
def test_a_disc_of_0_02_per_mm_comes_back_to_five_digits(views: ViewGeometry) -> None:
    grid = plane()
    values = inside(reconstructed(views, grid, ball(RADIUS, CENTRE, DENSITY)), grid)
    assert values.mean() == pytest.approx(DENSITY, abs=1e-6)
    assert values.std() < 5e-5


@pytest.mark.parametrize("views", CONES.values(), ids=list(CONES))
def test_a_ball_in_a_cone_beam_comes_back_up_to_its_cone_angle(views: ViewGeometry) -> None:
    grid = Grid.from_parts((3, 40, 40), (4.0, 4.0, 4.0), (-78.0, -78.0, -4.0))
    values = inside(reconstructed(views, grid, ball(50.0, CENTRE, DENSITY)), grid, 50.0)
    assert values.mean() == pytest.approx(DENSITY, abs=1e-5)
    assert values.std() < 2e-5


def test_a_cylinder_that_is_not_about_the_source_is_looked_at_as_a_plane() -> None:
    grid = plane()
    views = ViewGeometry.fan(FULL, 500, 900, 512, 0.8, curve_radius_mm=600)
    assert inside(reconstructed(views, grid, ball(RADIUS, CENTRE, DENSITY)), grid).mean() == pytest.approx(DENSITY, abs=3e-5)


def test_mirrored_short_scan_weights_fail_the_disc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_circular, "redundancy_weights", lambda fans, arc: redundancy_weights(fans, arc)[:, ::-1].copy())
    monkeypatch.setattr(_circular, "refuse_unbalanced", lambda _: None)
    grid = plane()
    values = inside(reconstructed(FANS["short scan"], grid, ball(RADIUS, CENTRE, DENSITY)), grid)
    assert abs(values.mean() / DENSITY - 1) > 0.01
    assert values.std() > 5e-4


def test_a_displaced_detector_without_room_beside_it_fails_the_disc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_circular, "_columns_missing_on_one_side", lambda _: 0)
    grid = plane()
    values = inside(reconstructed(FANS["displaced detector"], grid, ball(RADIUS, CENTRE, DENSITY)), grid)
    assert abs(values.mean() / DENSITY - 1) > 0.01


def test_a_ramp_sampled_in_frequency_fails_the_disc(monkeypatch: pytest.MonkeyPatch) -> None:
    def sampled(self: RampFilter) -> NDArray[np.float64]:
        return np.arange(self.length // 2 + 1) / self.length / self.pitch

    monkeypatch.setattr(_ramp.RampFilter, "response", property(sampled))
    grid = plane()
    values = inside(reconstructed(FANS["flat"], grid, ball(RADIUS, CENTRE, DENSITY)), grid)
    assert values.mean() / DENSITY - 1 < -0.005


@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_keeps_the_amplitude(window: str) -> None:
    grid = plane()
    values = inside(reconstructed(FANS["flat"], grid, ball(RADIUS, CENTRE, DENSITY), window=window, cutoff=0.8), grid)
    assert values.mean() == pytest.approx(DENSITY, abs=3e-6)


def test_the_kernel_sums_to_its_closed_form_and_the_windows_are_ordered_by_smoothness() -> None:
    kernel = ramp_kernel(np.abs(np.arange(-4000, 4001)), 0.5)
    assert kernel.sum() * 0.5 == pytest.approx(0, abs=1e-4)  # 1/4 = 2/pi^2 (1 + 1/9 + 1/25 + ...)
    energy = [float((RampFilter(256, 1.0, window=window).response ** 2).sum()) for window in WINDOWS]
    names = dict(zip(WINDOWS, energy, strict=True))
    assert names["ram-lak"] > names["shepp-logan"] > names["cosine"] > names["hamming"] > names["hann"] > 0


def test_a_filtered_row_is_the_convolution_with_the_kernel() -> None:
    row = np.random.default_rng(0).normal(size=50)
    kernel = ramp_kernel(np.abs(np.arange(-49, 50)), 0.7)
    direct = np.convolve(row, kernel)[49:99] * 0.7
    np.testing.assert_allclose(RampFilter(50, 0.7).apply(torch.from_numpy(row)).numpy(), direct, atol=1e-12)


def test_the_order_of_the_views_changes_nothing() -> None:
    views, grid, phantom = CONES["detector shifted"], centred_grid(16, 8.0), ball(50.0, CENTRE, DENSITY)
    shuffled = views.take(np.random.default_rng(0).permutation(len(views)))
    np.testing.assert_allclose(reconstructed(shuffled, grid, phantom), reconstructed(views, grid, phantom), atol=2e-7)


def test_reversing_the_rotation_and_the_columns_mirrors_the_volume() -> None:
    panel, grid, phantom = Detector((48, 96), (1.5, 1.5)), centred_grid(40, 1.5), lettered()
    angles = np.arange(90) * 2 * np.pi / 90
    y = torch.from_numpy(phantom.project(ViewGeometry.cone(angles, 600, 900, panel)))
    right = fdk(XRayTransform(ViewGeometry.cone(angles, 600, 900, panel), grid), y, FdkConfig(), silent)
    mirrored = fdk(XRayTransform(ViewGeometry.cone(-angles, 600, 900, panel), grid), y.flip(2), FdkConfig(), silent)
    assert float((mirrored - right.flip(2)).abs().max()) < 1e-5 * float(right.abs().max())
    truth = torch.from_numpy(phantom.voxels(grid))
    likeness = [float((truth * x).sum() / truth.norm() / x.norm()) for x in (right, mirrored)]
    assert likeness[0] > 0.85
    assert likeness[1] < likeness[0] - 0.1


def test_a_truncated_row_is_carried_on_and_the_patient_loses_its_bright_rim() -> None:
    narrow, grid = ViewGeometry.fan(FULL, 500, 900, 150, 0.8), plane(24, 2.0)
    phantom = ball(RADIUS, (0.0, 0.0, 0.0), DENSITY)
    cut, carried = (reconstructed(narrow, grid, phantom, truncation=share) for share in (0.0, "auto"))
    assert np.abs(carried - DENSITY).mean() < 0.35 * np.abs(cut - DENSITY).mean()


def test_dead_pixels_are_bridged_and_their_values_never_used() -> None:
    views, grid = CONES["detector shifted"], centred_grid(16, 8.0)
    y = torch.from_numpy(ball(50.0, CENTRE, DENSITY).project(views))
    measured = torch.ones_like(y, dtype=torch.bool)
    measured[:, 20:22, 100:102] = False
    clean = fdk(XRayTransform(views, grid), y, FdkConfig(), silent)
    bridged = fdk(XRayTransform(views, grid, measured), torch.where(measured, y, torch.nan), FdkConfig(), silent)
    assert float((bridged - clean).abs().max()) < 0.02 * DENSITY


def test_further_passes_bring_the_residual_down() -> None:
    views, grid = ViewGeometry.cone(FULL[::4], 300, 500, Detector((32, 48), (6.0, 6.0))), centred_grid(32, 5.0)
    A, y = XRayTransform(views, grid), torch.from_numpy(ball(50.0, (0, 0, 20), DENSITY).project(views))
    once, thrice = (fdk(A, y, FdkConfig(passes=passes), silent) for passes in (1, 3))
    assert float((A.forward(thrice) - y).norm()) < 0.8 * float((A.forward(once) - y).norm())


def test_the_values_do_not_depend_on_what_reaches_the_axis_grid() -> None:
    views, phantom, grid = CONES["curved"], ball(50.0, CENTRE, DENSITY), centred_grid(12, 8.0)
    turn = np.eye(4)
    turn[:3, :3] = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    oblique = Grid(grid.shape, turn @ grid.to_lps_mm)
    values = inside(reconstructed(views, oblique, phantom), oblique, 40.0)
    assert values.mean() == pytest.approx(DENSITY, abs=1e-4)


def test_two_views_are_too_few() -> None:
    with pytest.raises(GeometryError, match="PRJ-FEW"):
        reconstructed(FANS["flat"].take([0, 99]), plane(8), ball(RADIUS))


def test_weights_that_do_not_add_up_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_circular, "redundancy_weights", lambda fans, arc: redundancy_weights(fans, arc)[:, ::-1].copy())
    with pytest.raises(GeometryError, match="PRJ-WEIGHTS"):
        reconstructed(FANS["short scan"], plane(8), ball(RADIUS))


def test_a_tick_that_raises_ends_it() -> None:
    views = FANS["flat"]

    def cancel(_: float) -> None:
        raise CancelledError("RUN-CANCELLED", "the user asked to stop")

    with pytest.raises(CancelledError):
        fdk(XRayTransform(views, plane(8)), torch.zeros(views.shape), FdkConfig(), cancel)
