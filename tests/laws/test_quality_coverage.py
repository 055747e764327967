"""The coverage map against closed forms, and against the column sums of the forward model."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medrecon.core.grid import Grid
from medrecon.core.output_grid import plan_grid
from medrecon.core.scans import SlicePoses
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.quality.coverage import INTERPOLATED, MEASURED, UNSEEN, coverage
from tests.makers_slices import Case, padding_mask, parallel_poses, sampler_cases, tilted_poses, turned, voxel_centres

CASES = sampler_cases()


def levels(poses: SlicePoses, spacing_mm: float = 1.0, measured: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    return coverage(SliceSampler(poses, plan_grid(poses, spacing_mm), measured))


def test_a_gap_of_one_mm_between_slices_of_four_mm_is_one_interpolated_plane() -> None:
    column = levels(parallel_poses(4, (0, 0, 5), 4))[:, 5, 5]
    assert column.tolist() == ([MEASURED] * 4 + [INTERPOLATED]) * 3 + [MEASURED] * 4


def test_slices_that_touch_or_overlap_leave_nothing_to_interpolate() -> None:
    for step in (2.0, 4.0):
        assert (levels(parallel_poses(6, (0, 0, step), 4)) == MEASURED).all()


def test_a_missing_slice_is_a_hole_of_its_thickness() -> None:
    column = levels(parallel_poses(6).take([0, 1, 3, 4]))[:, 5, 5]
    assert column.tolist() == [MEASURED] * 8 + [INTERPOLATED] * 4 + [MEASURED] * 8


def test_a_slice_thinner_than_a_voxel_counts_as_one_voxel() -> None:
    assert (levels(parallel_poses(8, (0, 0, 1), 0.3), 1.0) == MEASURED).all()


def test_columns_of_padding_are_not_seen() -> None:
    mask = padding_mask()
    level = levels(parallel_poses(), measured=mask)
    assert (level[:, ~mask.any(axis=0)] == UNSEEN).all()
    assert (level[:, mask.all(axis=0)] == MEASURED).all()


def test_a_single_padding_pixel_is_bridged_by_its_neighbours_and_said_so() -> None:
    column = levels(parallel_poses(), measured=padding_mask())[:, 5, 5]
    assert column.tolist() == [MEASURED] * 4 + [INTERPOLATED] * 4 + [MEASURED] * 16


def by_definition(poses: SlicePoses, grid: Grid) -> NDArray[np.uint8]:
    """Judge each voxel of a parallel stack by inverse poses alone: near a slice, between its neighbours, or neither."""
    local = np.einsum("nij,...j->n...i", np.linalg.inv(poses.to_lps_mm), np.insert(voxel_centres(grid), 3, 1.0, axis=-1))
    depth, row, column = local[..., 0], local[..., 1], local[..., 2]
    rows, columns = poses.image_shape
    hits = (row >= -0.5) & (row <= rows - 0.5) & (column >= -0.5) & (column <= columns - 0.5)
    cell = np.abs(poses.normals[0] @ grid.to_lps_mm[:3, :3]).max()
    half = np.maximum(poses.thickness_mm, cell)[:, None, None, None] / 2
    measured = ((np.abs(depth) <= half) & hits).any(axis=0)
    behind, before = np.where(depth >= 0, depth, np.inf), np.where(depth <= 0, -depth, np.inf)
    neighbours = [(way.argmin(axis=0), np.isfinite(way.min(axis=0))) for way in (behind, before)]
    foot = [np.take_along_axis(hits, k[None], axis=0)[0] & there for k, there in neighbours]
    within = (depth >= -half).any(axis=0) & (depth <= half).any(axis=0)
    return np.where(measured, MEASURED, np.where(within & (foot[0] | foot[1]), INTERPOLATED, UNSEEN)).astype(np.uint8)


POSED = {
    "tilted": tilted_poses(),
    "oblique": turned(parallel_poses(), 25),
    "oblique tilted": turned(tilted_poses(), 40),
    "oblique gaps": turned(parallel_poses(4, (0, 0, 6), 3), 33),
}


@pytest.mark.parametrize("poses", POSED.values(), ids=list(POSED))
def test_every_voxel_is_judged_as_defined_at_any_pose(poses: SlicePoses) -> None:
    A = SliceSampler(poses, plan_grid(poses, 1.0, "patient"))
    level, wanted = coverage(A), by_definition(poses, A.grid)
    assert (wanted == UNSEEN).any()
    assert (wanted == MEASURED).any()
    assert np.array_equal(level, wanted)


def test_the_judgement_by_definition_fails_for_slices_half_a_millimetre_off() -> None:
    poses = POSED["oblique gaps"]
    moved = poses.to_lps_mm.copy()
    moved[:, :3, 3] += 0.5 * poses.normals
    off = SlicePoses(moved, poses.image_shape, poses.thickness_mm, poses.profile)
    A = SliceSampler(off, plan_grid(poses, 1.0, "patient"))
    assert not np.array_equal(coverage(A), by_definition(poses, A.grid))


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "region-of-interest"], ids=str)  # where slices may be cut
def test_a_voxel_that_no_pixel_weighs_is_never_called_measured(case: Case) -> None:
    A = case.make("auto")
    weights = A.weights_per_voxel().numpy()
    assert not ((coverage(A) == MEASURED) & (weights == 0)).any()


def test_for_box_slices_the_unmeasured_voxels_are_those_with_zero_column_sums() -> None:
    poses = parallel_poses(5, (0, 0, 6), 4, "box")
    A = SliceSampler(poses, plan_grid(poses))
    assert np.array_equal(coverage(A) != MEASURED, A.weights_per_voxel().numpy() == 0)


def test_the_comparison_with_column_sums_fails_for_a_thickness_that_is_wrong() -> None:
    poses = parallel_poses(5, (0, 0, 6), 4, "box")
    thicker = SliceSampler(parallel_poses(5, (0, 0, 6), 6, "box"), plan_grid(poses))
    assert not np.array_equal(
        coverage(SliceSampler(poses, plan_grid(poses))) != MEASURED, thicker.weights_per_voxel().numpy() == 0
    )


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name.startswith(("regular", "gap", "uneven", "tilted", "three"))], ids=str
)
def test_coverage_does_not_depend_on_the_path(case: Case) -> None:
    assert np.array_equal(coverage(case.make("separable")), coverage(case.make("general")))


def test_images_that_are_not_parallel_have_no_between() -> None:
    poses = parallel_poses(2, (0, 0, 12), 2)
    moved = poses.to_lps_mm.copy()
    moved[1] = turned(poses.take([1]), 3).to_lps_mm[0]
    bent = SlicePoses(moved, poses.image_shape, poses.thickness_mm, poses.profile)
    level = coverage(SliceSampler(bent, plan_grid(poses, 1.0)))
    assert not (level == INTERPOLATED).any()
    assert (level == MEASURED).any()


def test_the_map_is_made_of_bytes_on_the_grid_of_the_volume() -> None:
    A = CASES[0].make("auto")
    assert coverage(A).dtype == np.uint8
    assert coverage(A).shape == A.domain
