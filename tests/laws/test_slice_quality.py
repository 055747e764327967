"""What a user gains: a thin brain from thick slices, closer to the truth than by interpolation; and a slip of the poses is seen.

The slices are made here in plain numpy from the sample's 1 mm truth; the operator under test has no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

from medrecon import methods
from medrecon.core.output_grid import plan_grid
from medrecon.core.profile import SliceProfile
from medrecon.core.progress import silent
from medrecon.core.scans import SlicePoses
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.quality.assess import Quality, assess

THICKNESS_MM, STEP_MM = 4.0, 5.0
LEAST_GAIN_DB = 2.0
TRUTH = Path(__file__).resolve().parents[2] / "sample_data" / "mr_brain_thick" / "truth.nii.gz"

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """A thin volume, what a scanner with slices of 4 mm and gaps of 1 mm sees of it, and where the head is."""

    truth: Float
    depths_mm: Float
    images: Float
    head: NDArray[np.bool_]

    def psnr(self, x: Float) -> float:
        """Peak signal to noise ratio inside the head."""
        error = (x - self.truth[: len(x)])[self.head[: len(x)]]
        return float(20 * np.log10(np.percentile(self.truth, 99.9) / np.sqrt(np.mean(error**2))))

    def sampler(self, off_mm: float = 0.0) -> SliceSampler:
        """Return the forward model of the slices, with all of them a way off along their normal, on the true grid."""
        positions = np.stack([np.zeros_like(self.depths_mm), np.zeros_like(self.depths_mm), self.depths_mm], axis=1)
        shape = (self.truth.shape[1], self.truth.shape[2])
        profile = SliceProfile("gaussian")
        poses = [
            SlicePoses.from_parts(positions + np.array([0, 0, off]), (0, 1, 0), (1, 0, 0), (1, 1), shape, THICKNESS_MM, profile)
            for off in (0.0, off_mm)
        ]
        return SliceSampler(poses[1], plan_grid(poses[0], 1.0))


@pytest.fixture(scope="module")
def study() -> Study:
    truth = np.asarray(nibabel.Nifti1Image.from_filename(TRUTH).dataobj, dtype=np.float64).transpose(2, 1, 0)
    planes = np.arange(len(truth))
    depths = np.arange((THICKNESS_MM - 1) / 2, planes[-1] - 1, STEP_MM)
    weights = np.exp(-4 * np.log(2) * ((planes - depths[:, None]) / THICKNESS_MM) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    head = ndimage.gaussian_filter(truth, 2) > 0.08 * np.percentile(truth, 99.9)
    return Study(truth, depths, np.tensordot(weights, truth, axes=1), head)


def rebuilt(study: Study, name: str, off_mm: float = 0.0) -> tuple[Float, Quality]:
    """Reconstruct with default settings; the quality is asked for with the true poses."""
    method, y = methods.get(name), torch.from_numpy(study.images.astype(np.float32))
    x = method.run(study.sampler(off_mm), y, method.settings(), silent)
    return x.numpy().astype(np.float64), assess(study.sampler(), y, x)


def test_consistent_spline_is_two_decibels_closer_to_the_truth_than_interpolation(study: Study) -> None:
    (consistent, good), (plain, fair) = (rebuilt(study, name) for name in ("consistent_spline", "interpolate"))
    targets = np.clip(np.arange(len(plain)), study.depths_mm[0], study.depths_mm[-1])
    scipy = CubicSpline(study.depths_mm, study.images)(targets)
    assert study.psnr(consistent) > max(study.psnr(plain), study.psnr(scipy)) + LEAST_GAIN_DB
    assert good.residual < 1e-3 < fair.residual
    assert "RES-HIGH" not in {finding.code for quality in (good, fair) for finding in quality.findings}


@pytest.mark.parametrize("name", ["consistent_spline", "interpolate"])
def test_slices_half_a_step_off_lose_the_gain_and_are_flagged(study: Study, name: str) -> None:
    off, quality = rebuilt(study, name, off_mm=STEP_MM / 2)
    plain, _ = rebuilt(study, "interpolate")
    assert study.psnr(off) < study.psnr(plain) - 3
    assert "RES-HIGH" in {finding.code for finding in quality.findings}


def test_the_gain_is_gone_where_the_profile_is_taken_for_a_third_of_its_width(study: Study) -> None:
    method, y = methods.get("consistent_spline"), torch.from_numpy(study.images.astype(np.float32))
    right = study.sampler()
    thin = SlicePoses(right.poses.to_lps_mm, right.poses.image_shape, right.poses.thickness_mm / 3, right.poses.profile)
    x = method.run(SliceSampler(thin, right.grid), y, method.settings(), silent).numpy().astype(np.float64)
    assert study.psnr(x) < study.psnr(rebuilt(study, "interpolate")[0]) + LEAST_GAIN_DB
