"""A helix gives a ball back as it is, on curved and flat detectors, in either sense, with a focal spot that jumps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Grid
from medrecon.core.progress import silent
from medrecon.core.views import Detector, ViewGeometry
from medrecon.methods import _helical
from medrecon.methods.fdk import FdkConfig, fdk
from medrecon.operators.xray_transform import XRayTransform
from tests.makers_xray import ball

DENSITY, RADIUS, CENTRE = 0.02, 50.0, (20.0, -12.0, 5.0)
ANGLES = np.arange(160 * 5) * 2 * np.pi / 160
CURVED, FLAT = Detector((32, 128), (2.5, 3.1), 1000.0), Detector((32, 128), (2.5, 3.1))
JUMPS = np.where(np.arange(len(ANGLES)) % 2, 0.6, -0.6)
PITCH, START = 40.0, -100.0

HELICES = {
    "curved": ViewGeometry.helical(ANGLES, 600, 1000, CURVED, pitch_mm_per_turn=PITCH, z0_mm=START),
    "flat": ViewGeometry.helical(ANGLES, 600, 1000, FLAT, pitch_mm_per_turn=PITCH, z0_mm=START),
    "the other way around": ViewGeometry.helical(-ANGLES, 600, 1000, FLAT, pitch_mm_per_turn=PITCH, z0_mm=-START),
    "quarter detector shift": ViewGeometry.helical(
        ANGLES, 600, 1000, CURVED, offset_u_mm=0.775, pitch_mm_per_turn=PITCH, z0_mm=START
    ),
    "focal spot jumping along u": ViewGeometry.helical(
        ANGLES, 600, 1000, CURVED, source_offset_u_mm=JUMPS, pitch_mm_per_turn=PITCH, z0_mm=START
    ),
    "focal spot jumping along v": ViewGeometry.helical(
        ANGLES, 600, 1000, CURVED, source_offset_v_mm=JUMPS, pitch_mm_per_turn=PITCH, z0_mm=START
    ),
    "shuffled": ViewGeometry.helical(ANGLES, 600, 1000, CURVED, pitch_mm_per_turn=PITCH, z0_mm=START).take(
        np.random.default_rng(0).permutation(len(ANGLES))
    ),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def around_the_ball(views: ViewGeometry, slices: int = 3) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values within the ball, and in a shell around it."""
    grid = Grid.from_parts((slices, 40, 40), (6.0, 4.5, 4.5), (-19.5 * 4.5, -19.5 * 4.5, -6.0))
    y = torch.from_numpy(ball(RADIUS, CENTRE, DENSITY).project(views))
    voxels = fdk(XRayTransform(views, grid), y, FdkConfig(), silent).numpy()
    points = grid.to_lps(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1))
    distance = np.linalg.norm(points - np.array(CENTRE), axis=-1)
    return voxels[distance < 0.8 * RADIUS], voxels[(distance > 1.2 * RADIUS) & (distance < 1.5 * RADIUS)]


@pytest.mark.parametrize("views", HELICES.values(), ids=list(HELICES))
def test_a_ball_comes_back_from_a_helix(views: ViewGeometry) -> None:
    assert _helical.is_helical(views)
    inside, outside = around_the_ball(views)
    assert inside.mean() == pytest.approx(DENSITY, abs=5e-6)
    assert inside.std() < 1e-5  # 10 HU of water are 2e-4
    assert abs(outside.mean()) < 5e-5


def test_a_helix_taken_for_a_circle_fails_the_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_helical, "is_helical", lambda _: False)
    inside, _ = around_the_ball(HELICES["curved"])
    assert abs(inside.mean() / DENSITY - 1) > 0.01 or inside.std() > 1e-4


def test_a_jumping_focal_spot_is_told_from_a_steady_one() -> None:
    for name, spots in (("curved", 1), ("focal spot jumping along u", 2), ("focal spot jumping along v", 2)):
        views = HELICES[name]
        assert len(_helical._focal_spots(views, _helical._in_order(views))) == spots


def test_a_circle_is_no_helix_even_when_its_source_wobbles() -> None:
    circle = np.arange(240) * 2 * np.pi / 240
    wobble = np.random.default_rng(0).normal(scale=0.5, size=240)
    assert not _helical.is_helical(ViewGeometry.cone(circle, 600, 1000, FLAT))
    assert not _helical.is_helical(ViewGeometry.cone(circle, 600, 1000, FLAT, source_offset_v_mm=wobble))
    assert not _helical.is_helical(ViewGeometry.parallel(circle, FLAT))


def test_a_helix_with_one_detector_row_is_refused() -> None:
    views = ViewGeometry.helical(ANGLES, 600, 1000, Detector((1, 64), (2.5, 2.1)), pitch_mm_per_turn=PITCH, z0_mm=START)
    grid = Grid.from_parts((1, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(GeometryError, match="PRJ-FEW"):
        fdk(XRayTransform(views, grid), torch.zeros(views.shape), FdkConfig(), silent)
