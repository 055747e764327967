"""Where the voxels of a result stand: nothing scanned is left out, nothing beyond it is invented."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medrecon.core.errors import GeometryError, UsageError
from medrecon.core.grid import Grid
from medrecon.core.output_grid import grid_bytes, plan_grid
from medrecon.core.scans import SlicePoses
from tests.makers_slices import Float64, parallel_poses, pixel_centres, tilted_poses, turned, uneven_poses


def test_the_number_of_planes_follows_the_formula_for_two_hundred_random_series(rng: np.random.Generator) -> None:
    for _ in range(200):
        count = int(rng.integers(1, 40))
        step, thickness, voxel = rng.uniform(0.5, 8), rng.uniform(0.5, 9), rng.uniform(0.3, 4)
        poses = parallel_poses(count, (0, 0, step), thickness)
        grid = plan_grid(poses, (voxel, 1.0, 1.0))
        length = (count - 1) * step + thickness
        assert grid.shape[0] == max(1, math.floor(length / voxel + 0.5))
        assert grid.origin_lps_mm[2] == pytest.approx(5 - thickness / 2 + voxel / 2)


def planes_outside(grid: Grid, low_mm: float, high_mm: float) -> int:
    """How many planes have their centre beyond the scanned slab."""
    z = grid.to_lps(np.stack([np.arange(grid.shape[0]), *np.zeros((2, grid.shape[0]))], axis=1))[:, 2]
    return int(((z < low_mm - 1e-6) | (z > high_mm + 1e-6)).sum())


@pytest.mark.parametrize("voxel", [0.4, 0.7, 1.0, 1.9])
def test_no_plane_lies_beyond_the_slices_and_every_slice_lies_in_the_grid(voxel: float) -> None:
    poses = uneven_poses()
    grid = plan_grid(poses, voxel)
    assert planes_outside(grid, -2.0, 23.08 + 3.5) == 0
    assert (np.abs(grid.to_index(pixel_centres(poses))[..., 0] - (grid.shape[0] - 1) / 2) <= grid.shape[0] / 2).all()


def test_the_check_for_invented_planes_fails_on_a_grid_with_one_plane_more() -> None:
    grid = plan_grid(uneven_poses(), 1.0)
    assert planes_outside(grid.crop((0, 0, 0), (grid.shape[0] + 1, 12, 14)), -2.0, 23.08 + 3.5) == 1


def off_centre(poses: SlicePoses, grid: Grid) -> float:
    """How far the first image's pixel centres lie from the nearest voxel rows and columns, in voxels."""
    index: Float64 = grid.to_index(pixel_centres(poses)[0])[..., 1:]
    return float(np.abs(index - np.round(index)).max())


@pytest.mark.parametrize(
    "poses", [parallel_poses(), tilted_poses(), turned(tilted_poses(), 40)], ids=["plain", "tilted", "oblique"]
)
def test_voxel_centres_are_pixel_centres_at_the_pixel_spacing(poses: SlicePoses) -> None:
    assert off_centre(poses, plan_grid(poses)) < 1e-6


def test_the_check_of_centres_fails_half_a_voxel_off() -> None:
    grid = plan_grid(parallel_poses())
    affine = grid.to_lps_mm.copy()
    affine[:3, 3] += affine[:3, 1] / 2
    assert off_centre(parallel_poses(), Grid(grid.shape, affine)) == pytest.approx(0.5)


@pytest.mark.parametrize("axes", ["scanner", "patient"])
def test_the_grid_of_a_tilted_oblique_series_is_orthogonal_and_holds_every_pixel(axes: str) -> None:
    poses = turned(tilted_poses(), 40)
    grid = plan_grid(poses, 0.8, axes)  # type: ignore[arg-type]  # a plain name from the table above
    index = grid.to_index(pixel_centres(poses))
    assert not grid.is_sheared
    assert (index >= -0.5).all()
    assert (index <= np.asarray(grid.shape) - 0.5).all()


def test_patient_axes_run_to_head_back_and_left() -> None:
    grid = plan_grid(turned(parallel_poses(), 40), axes="patient")
    assert np.array_equal(grid.directions, np.eye(3)[:, ::-1])


def test_the_default_is_isotropic_with_the_finest_pixel_spacing() -> None:
    assert plan_grid(parallel_poses(pixel_mm=(0.8, 0.6))).spacing_mm == pytest.approx((0.6, 0.6, 0.6))


def test_a_region_keeps_exactly_the_voxels_whose_centres_lie_in_it() -> None:
    poses = parallel_poses()
    whole, part = (plan_grid(poses, region_lps_mm=region) for region in (None, ((5.5, 0.0, 8.0), (9.0, 3.2, 14.4))))
    centres = whole.to_lps(np.stack(np.meshgrid(*map(np.arange, whole.shape), indexing="ij"), axis=-1))
    wanted = ((centres >= [5.5, 0.0, 8.0]) & (centres <= [9.0, 3.2, 14.4])).all(axis=-1)
    assert math.prod(part.shape) == np.count_nonzero(wanted)
    assert np.allclose(part.origin_lps_mm, centres[wanted][0])


def test_a_region_beside_the_scan_is_refused() -> None:
    with pytest.raises(GeometryError, match="GRID-REGION"):
        plan_grid(parallel_poses(), region_lps_mm=((500, 500, 500), (600, 600, 600)))


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), float("inf"), (1.0, 0.0, 1.0)])
def test_a_spacing_that_is_not_positive_is_refused(spacing: float | tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="GRID-SPACING"):
        plan_grid(parallel_poses(), spacing)


def test_the_memory_of_a_grid_is_four_bytes_a_voxel() -> None:
    assert grid_bytes(Grid.from_parts((10, 20, 30), 1.0, (0, 0, 0))) == 24_000
