"""What every method that takes slices must do, whichever poses it is given; a new method joins by being there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medrecon import methods
from medrecon.core.errors import CancelledError
from medrecon.core.grid import Grid
from medrecon.core.output_grid import plan_grid
from medrecon.core.progress import silent
from medrecon.core.scans import SlicePoses
from medrecon.operators.slice_sampler import SliceSampler
from tests.makers_slices import (
    Case,
    padding_mask,
    parallel_poses,
    pixel_centres,
    sampler_cases,
    smooth_volume,
    tilted_poses,
    turned,
    uneven_poses,
    voxel_centres,
)

NAMES = [name for name in methods.names() if methods.get(name).input == "slices"]
CASES = sampler_cases()
SLOPE = np.array([0.3, -0.7, 1.1])
#: They go on from `consistent_spline` at its usual tolerance, and leave it as it is where slices do not lie along the grid.
LEARNED = ("recurrent", "zero_shot")
PRECISE: dict[str, object] = {"tolerance": 1e-4, "iterations": 200}


def run(name: str, A: SliceSampler, y: Tensor, **settings: object) -> Tensor:
    method = methods.get(name)
    return methods.Reconstructed.of(method.run(A, y, method.settings(**settings), silent)).x


def relative_residual(A: SliceSampler, y: Tensor, x: Tensor) -> float:
    seen = torch.from_numpy(A.seen)
    return float((A.forward(x) - y)[seen].norm() / y[seen].norm())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_constant_scan_gives_that_constant_everywhere_first_and_last_slice_included(name: str, case: Case) -> None:
    A = case.make("auto")
    x = run(name, A, torch.full(A.range, 40.0))
    assert x.dtype == torch.float32
    assert tuple(x.shape) == A.domain
    assert (x - 40).abs().max() < 2e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_images_are_not_changed_and_the_progress_rises_to_one(name: str) -> None:
    A = CASES[0].make("auto")
    y = torch.from_numpy(np.random.default_rng(0).standard_normal(A.range)).float()
    before, shares = y.clone(), list[float]()
    method = methods.get(name)
    method.run(A, y, method.settings(), shares.append)
    assert torch.equal(y, before)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_a_job_is_stopped_by_its_tick(name: str) -> None:
    def stop(_: float) -> None:
        raise CancelledError("RUN-CANCELLED", "stopped by the test")

    A = CASES[0].make("auto")
    method = methods.get(name)
    with pytest.raises(CancelledError):
        method.run(A, torch.zeros(A.range), method.settings(), stop)


def ramp_error(name: str, poses: SlicePoses, grid: Grid) -> float:
    """Largest error on a linear ramp in world mm, between the outermost slices and pixels."""
    A = SliceSampler(poses, grid)
    x = run(name, A, torch.from_numpy(pixel_centres(poses) @ SLOPE).float()).numpy()
    places = voxel_centres(grid)
    local = np.einsum("nij,...j->n...i", np.linalg.inv(poses.to_lps_mm)[:, :3, :3], places) + 0.0
    local -= np.einsum("nij,nj->ni", np.linalg.inv(poses.to_lps_mm)[:, :3, :3], poses.to_lps_mm[:, :3, 3])[:, None, None, None]
    between = (local[0, ..., 0] >= 0) & (local[-1, ..., 0] <= 0)
    size = np.asarray(poses.image_shape) - 1
    inside = between & ((local[..., 1:] >= 1) & (local[..., 1:] <= size - 1)).all(axis=(0, -1))
    assert inside.any()
    return float(np.abs(x - places @ SLOPE)[inside].max())


RAMPS = {
    "regular": (parallel_poses(), plan_grid(parallel_poses())),
    "uneven": (uneven_poses(), plan_grid(uneven_poses())),
    "coarse": (parallel_poses(), plan_grid(parallel_poses(), 1.7)),
    "tilted": (tilted_poses(shape=(24, 24)), plan_grid(tilted_poses(shape=(24, 24)))),
    "oblique": (turned(parallel_poses(), 25), plan_grid(turned(parallel_poses(), 25), 0.9, "patient")),
}


@pytest.mark.parametrize("case", RAMPS)
def test_a_linear_ramp_in_world_mm_is_reproduced_inside(case: str) -> None:
    assert ramp_error("interpolate", *RAMPS[case]) < 1e-4


def test_the_ramp_check_fails_half_a_voxel_off() -> None:
    poses, grid = RAMPS["regular"]
    moved = poses.to_lps_mm.copy()
    moved[:, :3, 3] += 0.5
    A = SliceSampler(SlicePoses(moved, poses.image_shape, poses.thickness_mm, poses.profile), grid)
    x = run("interpolate", A, torch.from_numpy(pixel_centres(poses) @ SLOPE).float()).numpy()
    assert np.abs(x - voxel_centres(grid) @ SLOPE)[4:-4, 2:-2, 2:-2].min() > 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipping_the_scan_flips_the_result(name: str, axis: int, rng: np.random.Generator) -> None:
    poses = parallel_poses()
    A = SliceSampler(poses, plan_grid(poses))
    y = torch.from_numpy(rng.standard_normal(A.range)).float()
    assert (run(name, A, y.flip(axis)) - run(name, A, y).flip(axis)).abs().max() < 1e-3


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in {"thinner-than-a-voxel"}], ids=str)
def test_slicing_the_consistent_volume_again_gives_the_images_back(case: Case, rng: np.random.Generator) -> None:
    A = case.make("auto")
    y = A.forward(torch.from_numpy(smooth_volume(A.grid, rng)).float())
    plain, consistent = (relative_residual(A, y, run(name, A, y)) for name in ("interpolate", "consistent_spline"))
    assert consistent < plain
    assert consistent < 1e-2
    if case.name.startswith("regular"):
        assert consistent < 1e-3


@pytest.mark.parametrize("case", [c for c in CASES if c.separable], ids=str)
def test_both_paths_lead_every_method_to_the_same_volume(case: Case, rng: np.random.Generator) -> None:
    fast, general = case.make("separable"), case.make("general")
    y = fast.forward(torch.from_numpy(smooth_volume(fast.grid, rng)).float())
    for name in NAMES:
        settings: dict[str, dict[str, object]] = {"consistent_spline": PRECISE, "zero_shot": {"steps": 2}}
        a, b = (run(name, A, y, **settings.get(name, {})) for A in (fast, general))
        assert float((a - b).norm() / a.norm()) < (1e-2 if name in LEARNED else 2e-3)


def padded(value: float) -> tuple[SliceSampler, Tensor]:
    """A scan with values from 20 to 60 inside a circle, and `value` as padding."""
    poses, mask = parallel_poses(), padding_mask()
    A = SliceSampler(poses, plan_grid(poses), mask)
    y = torch.from_numpy(np.random.default_rng(3).uniform(20, 60, A.range)).float()
    return A, torch.where(torch.from_numpy(mask), y, value)


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_in_padding_pixels_does_not_matter(name: str) -> None:
    (A, y), (_, z) = padded(-1500.0), padded(0.0)
    assert torch.equal(run(name, A, y), run(name, A, z))


def test_padding_does_not_leak_below_the_least_measured_value() -> None:
    A, y = padded(-1500.0)
    assert run("interpolate", A, y, order=1).min() >= 20 - 1e-3


def test_the_leak_check_fails_without_the_mask() -> None:
    A, y = padded(-1500.0)
    assert run("interpolate", SliceSampler(A.poses, A.grid), y, order=1).min() < -1000


@pytest.mark.parametrize("name", NAMES)
def test_a_slice_that_is_all_padding_is_bridged(name: str) -> None:
    poses = parallel_poses()
    mask = np.ones((6, 12, 14), dtype=np.bool_)
    mask[2] = False
    A = SliceSampler(poses, plan_grid(poses), mask)
    y = torch.full(A.range, 40.0)
    y[2] = -1500.0
    assert (run(name, A, y) - 40).abs().max() < 2e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_scan_without_any_measured_pixel_gives_a_finite_volume(name: str) -> None:
    poses = parallel_poses()
    A = SliceSampler(poses, plan_grid(poses), np.zeros((6, 12, 14), dtype=np.bool_))
    assert torch.isfinite(run(name, A, torch.full(A.range, -1500.0))).all()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_few_slices_are_enough(name: str, count: int) -> None:
    poses = parallel_poses(count)
    A = SliceSampler(poses, plan_grid(poses))
    assert (run(name, A, torch.full(A.range, 40.0)) - 40).abs().max() < 2e-3


def test_slices_at_one_place_are_averaged() -> None:
    poses = parallel_poses(4).take([0, 1, 1, 2])
    A = SliceSampler(poses, plan_grid(poses))
    y = torch.zeros(A.range)
    y[1], y[2] = 10.0, 30.0
    x = run("interpolate", A, y, order=1)
    index = round(float(A.geometry.start[1, 0]) - 0.5)
    assert float(x[index : index + 2].mean()) == pytest.approx(20 * (1 - 0.5 / 4), rel=1e-4)


def test_images_that_are_not_parallel_are_averaged_where_they_looked() -> None:
    poses = parallel_poses()
    moved = poses.to_lps_mm.copy()
    moved[3] = turned(poses.take([3]), 8).to_lps_mm[0]
    bent = SlicePoses(moved, poses.image_shape, poses.thickness_mm, poses.profile)
    A = SliceSampler(bent, plan_grid(bent))
    x = run("interpolate", A, torch.full(A.range, 40.0))
    assert (x - 40).abs().max() < 1e-3


def test_three_orthogonal_stacks_tell_more_than_one(rng: np.random.Generator) -> None:
    A = next(c for c in CASES if c.name == "three-orthogonal-stacks").make("auto")
    truth = torch.from_numpy(smooth_volume(A.grid, rng)).float()
    y = A.forward(truth)
    alone = A.take(np.arange(4))
    inner = (slice(3, -3),) * 3
    errors = [(run("consistent_spline", B, z) - truth)[inner].norm() for B, z in ((A, y), (alone, y[:4]))]
    assert errors[0] < 0.7 * errors[1]
