"""The model of slices against closed forms: ramps, and blobs whose thick slices can be written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medrecon.core.output_grid import plan_grid
from medrecon.core.profile import SliceProfile
from medrecon.core.scans import SlicePoses
from medrecon.operators.slice_sampler import SliceSampler
from tests.makers_slices import Float64, parallel_poses, pixel_centres, tilted_poses, turned, voxel_centres

SIGMA_MM = 3.0
TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))  # from full width at half maximum


def blob(places: Float64, centre: Float64) -> Float64:
    """A round Gaussian of height 1."""
    return np.asarray(np.exp(-((places - centre) ** 2).sum(axis=-1) / (2 * SIGMA_MM**2)))


def sliced_blob(poses: SlicePoses, centre: Float64) -> Float64:
    """What slices with a Gaussian profile see of the blob: along the normal, the variances add up."""
    off = pixel_centres(poses) - centre
    depth = np.einsum("nrci,ni->nrc", off, poses.normals)
    beside = (off**2).sum(axis=-1) - depth**2
    variance = SIGMA_MM**2 + (poses.thickness_mm[:, None, None] * TO_SIGMA) ** 2
    return np.asarray(np.exp(-beside / (2 * SIGMA_MM**2) - depth**2 / (2 * variance)) * SIGMA_MM / np.sqrt(variance))


def error_on_blob(poses: SlicePoses, thickness_factor: float = 1.0, shift_mm: float = 0.0) -> float:
    """Largest error of the model on the blob; the model can be given a wrong thickness or wrong places."""
    centre = poses.corners_lps_mm().reshape(-1, 3).mean(axis=0)
    moved = poses.to_lps_mm.copy()
    moved[:, :3, 3] += shift_mm * poses.normals
    assumed = SlicePoses(moved, poses.image_shape, poses.thickness_mm * thickness_factor, poses.profile)
    grid = plan_grid(poses, 0.5, "patient")
    A = SliceSampler(assumed, grid)
    x = torch.from_numpy(blob(voxel_centres(grid), centre))
    seen = SliceSampler(poses, grid).seen
    inside = seen & (np.abs(pixel_centres(poses) - centre).max(axis=-1) < 6)
    return float(np.abs(A.forward(x).numpy() - sliced_blob(poses, centre))[inside].max())


POSES = {
    "regular": parallel_poses(6, shape=(24, 24)),
    "gap": parallel_poses(5, (0, 0, 5), shape=(24, 24)),
    "overlap": parallel_poses(10, (0, 0, 2), shape=(24, 24)),
    "oblique": turned(parallel_poses(6, shape=(24, 24)), 33),
    "tilted": tilted_poses("gaussian", (24, 24)),
}


@pytest.mark.parametrize("name", POSES)
def test_thick_slices_of_a_gaussian_blob_have_their_closed_form(name: str) -> None:
    assert error_on_blob(POSES[name]) < 1e-2  # linear interpolation misses h^2 / 8 times the curvature, here 0.007


@pytest.mark.parametrize("name", POSES)
def test_the_blob_check_fails_on_a_thickness_or_a_place_that_is_wrong(name: str) -> None:
    assert error_on_blob(POSES[name], thickness_factor=1.25) > 2e-2
    assert error_on_blob(POSES[name], shift_mm=1.0) > 4e-2


@pytest.mark.parametrize("name", POSES)
def test_a_linear_ramp_is_seen_as_its_value_in_the_pixel(name: str) -> None:
    poses = POSES[name]
    grid = plan_grid(poses, 1.0, "patient")
    slope = np.array([0.3, -0.7, 1.1])
    A = SliceSampler(poses, grid)
    y = A.forward(torch.from_numpy(voxel_centres(grid) @ slope)).numpy()
    index = grid.to_index(pixel_centres(poses))
    reach = float(A.geometry.reach_planes.max()) + 2
    inside = ((index > reach) & (index < np.asarray(grid.shape) - 1 - reach)).all(axis=-1)
    assert inside.any()
    assert np.abs(y - pixel_centres(poses) @ slope)[inside].max() < 1e-3


def test_box_slices_that_cover_whole_voxels_are_plain_means_with_the_box_variance() -> None:
    poses = parallel_poses(3, (0, 0, 12), 8, "box")
    A = SliceSampler(poses, plan_grid(poses))
    weights = A.adjoint(torch.eye(3, dtype=torch.float64)[1][:, None, None].expand(A.range).contiguous())[:, 5, 5].numpy()
    weights = weights / weights.sum()
    places = np.arange(len(weights)) - (weights * np.arange(len(weights))).sum()
    assert (weights * places**2).sum() == pytest.approx(8**2 / 12, rel=4e-2)
    assert weights.max() == pytest.approx(1 / 8, rel=1e-2)


@pytest.mark.parametrize(("kind", "variance"), [("box", 1 / 12), ("triangle", 1 / 6), ("gaussian", TO_SIGMA**2)])
def test_the_variance_of_a_profile_has_its_closed_form(kind: str, variance: float) -> None:
    profile = SliceProfile(kind)  # type: ignore[arg-type]  # the test's table holds plain names
    assert profile.variance == pytest.approx(variance, rel=1e-2)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5])
def test_a_row_has_the_variance_of_its_profile_wherever_the_slice_stands(fraction: float) -> None:
    poses = parallel_poses(1, (0, 0, 4), 5)
    grid = plan_grid(parallel_poses(1, (0, 0, 4), 40)).crop((0, 0, 0), (40, 12, 14))
    moved = poses.to_lps_mm.copy()
    moved[:, 2, 3] += fraction
    A = SliceSampler(SlicePoses(moved, poses.image_shape, poses.thickness_mm, poses.profile), grid)
    weights = A.adjoint(torch.ones(A.range, dtype=torch.float64))[:, 4, 4].numpy()
    mean = (weights * np.arange(40)).sum()
    assert (weights * (np.arange(40) - mean) ** 2).sum() == pytest.approx(25 * poses.profile.variance, rel=1e-2)
