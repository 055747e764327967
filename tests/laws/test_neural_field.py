"""A field fitted to one scan: its tables, its places, and that it fills in better than filtered backprojection does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from medrecon.core.errors import CancelledError
from medrecon.core.grid import Grid
from medrecon.core.output_grid import plan_grid
from medrecon.core.progress import silent
from medrecon.core.views import Detector, ViewGeometry
from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline
from medrecon.methods.fdk import FdkConfig, fdk
from medrecon.methods.neural_field import NeuralFieldConfig, neural_field, unit_places
from medrecon.networks.hash_grid import HashGrid, HashGridConfig, _entry, _interpolated
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.operators.xray_transform import XRayTransform
from tests.makers_slices import parallel_poses, smooth_volume
from tests.makers_xray import ball, centred_grid

DENSITY = 0.02


def few_views(views: int = 12) -> tuple[XRayTransform, Tensor, Tensor]:
    """A ball seen from a few sides: operator, line integrals in closed form, truth."""
    grid, phantom = centred_grid(20, 4.8), ball(30.0, (6, -4, 2), DENSITY)
    geometry = ViewGeometry.cone(np.arange(views) * 2 * np.pi / views, 600, 900, Detector((24, 30), (7.0, 7.0)))
    y = torch.from_numpy(phantom.project(geometry))
    return XRayTransform(geometry, grid), y, torch.from_numpy(phantom.voxels(grid, 3))


def error(x: Tensor, truth: Tensor) -> float:
    return float((x - truth).norm() / truth.norm())


def test_between_nodes_features_are_linear() -> None:
    rng = np.random.default_rng(0)
    nodes, places = rng.standard_normal((6, 6, 6)), rng.random((50, 3))
    table = torch.from_numpy(nodes.reshape(-1, 1))
    ours = _interpolated(table, 5, torch.from_numpy(places))[:, 0].numpy()
    assert np.abs(ours - map_coordinates(nodes, 5 * places.T, order=1)).max() < 1e-12


def test_the_linearity_check_fails_with_another_number_of_cells() -> None:
    rng = np.random.default_rng(0)
    nodes, places = rng.standard_normal((6, 6, 6)), rng.random((50, 3))
    ours = _interpolated(torch.from_numpy(nodes.reshape(-1, 1)), 4, torch.from_numpy(places))[:, 0].numpy()
    assert np.abs(ours - map_coordinates(nodes, 5 * places.T, order=1)).max() > 0.1


def test_nodes_without_room_share_entries_evenly() -> None:
    node = torch.cartesian_prod(*[torch.arange(32)] * 3)
    counts = torch.bincount(_entry(node, 31, 1024), minlength=1024)
    assert counts.min() > 0
    assert counts.max() < 4 * counts.float().mean()


def test_the_places_of_voxels_keep_their_proportions_and_stay_inside_the_cube() -> None:
    grid = Grid.from_parts((4, 10, 5), (3, 1, 2), (7, 8, 9))
    places = unit_places(grid).reshape(4, 10, 5, 3)
    assert places.min() > 0
    assert places.max() < 1
    world = torch.diff(places, dim=0)[0, 0, 0, 0], torch.diff(places, dim=1)[0, 0, 0, 1], torch.diff(places, dim=2)[0, 0, 0, 2]
    assert [float(step / world[1]) for step in world] == pytest.approx([3, 1, 2], rel=1e-4)


def test_from_few_views_the_field_is_nearer_to_the_truth_than_fdk() -> None:
    A, y, truth = few_views()
    made = neural_field(A, y, NeuralFieldConfig(steps=80, levels=4, table_log2=12), silent)
    assert error(made.x, truth) < 0.7 * error(fdk(A, y, FdkConfig(), silent), truth)
    assert float(made.x.min()) >= 0
    assert [finding.code for finding in made.findings] == ["FIELD-FITTED"]


def test_the_comparison_with_fdk_fails_after_two_steps() -> None:
    A, y, truth = few_views()
    made = neural_field(A, y, NeuralFieldConfig(steps=2, levels=4, table_log2=12), silent)
    assert error(made.x, truth) > 0.7 * error(fdk(A, y, FdkConfig(), silent), truth)


def test_from_slices_the_field_is_as_near_to_the_truth_as_the_spline_within_two_percent_of_the_range() -> None:
    poses = parallel_poses(6, shape=(16, 16))
    A = SliceSampler(poses, plan_grid(poses))
    truth = torch.from_numpy(smooth_volume(A.grid, np.random.default_rng(2))).float()
    y = A.forward(truth)
    config = NeuralFieldConfig(steps=80, levels=4, table_log2=12, nonnegative=False, smooth=0)
    field = neural_field(A, y, config, silent).x
    spline = consistent_spline(A, y, ConsistentSplineConfig(), silent)
    spread = float(truth.max() - truth.min())
    rms = [float((x - truth).square().mean().sqrt()) / spread for x in (field, spline)]
    assert rms[0] < rms[1] + 0.02


def test_the_same_steps_and_seed_give_the_same_volume_and_leave_the_callers_random_numbers_alone() -> None:
    A, y, _ = few_views(4)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    volumes = [neural_field(A, y, NeuralFieldConfig(steps=3, levels=2, seed=seed), silent).x for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(volumes[0], volumes[1])
    assert not torch.equal(volumes[0], volumes[2])


def test_a_field_is_the_same_in_one_piece_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    from medrecon.methods import neural_field as module

    A, y, _ = few_views(4)
    whole = module.neural_field(A, y, NeuralFieldConfig(steps=3, levels=2), silent).x
    monkeypatch.setattr(module, "_AT_ONCE", 999)
    assert error(module.neural_field(A, y, NeuralFieldConfig(steps=3, levels=2), silent).x, whole) < 1e-4


def test_a_job_is_stopped_by_its_tick() -> None:
    def stop(_: float) -> None:
        raise CancelledError("RUN-CANCELLED", "stopped by the test")

    A, y, _ = few_views(4)
    with pytest.raises(CancelledError):
        neural_field(A, y, NeuralFieldConfig(steps=3, levels=2), stop)


def test_the_network_takes_any_number_of_places() -> None:
    field = HashGrid(HashGridConfig(levels=3, table_log2=8))
    assert tuple(field(torch.rand(17, 3)).shape) == (17,)
