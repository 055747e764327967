"""Residual, metrics and their verdict: numbers that can be computed by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from medrecon.core.errors import UsageError
from medrecon.core.findings import Verdict
from medrecon.core.output_grid import plan_grid
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.quality.assess import SLICES_BOUND, assess
from medrecon.quality.metrics import psnr, ssim
from medrecon.quality.residual import residual
from tests.makers_slices import padding_mask, parallel_poses


def sampler(masked: bool = False, step_mm: float = 4.0) -> SliceSampler:
    poses = parallel_poses(step_lps_mm=(0, 0, step_mm))
    return SliceSampler(poses, plan_grid(poses), padding_mask() if masked else None)


@pytest.mark.parametrize("masked", [False, True])
def test_the_residual_of_a_constant_that_is_ten_percent_off_is_ten_percent(masked: bool) -> None:
    A = sampler(masked)
    y = torch.full(A.range, 50.0)
    y[~torch.from_numpy(A.seen)] = -1500.0
    left = residual(A, y, torch.full(A.domain, 55.0))
    assert left.relative == pytest.approx(0.1, rel=1e-5)
    assert left.rms == pytest.approx(5.0, rel=1e-5)
    assert np.allclose(left.map[A.seen], 5.0, atol=1e-4)
    assert (left.map[~A.seen] == 0).all()


def test_the_residual_check_fails_where_padding_counts() -> None:
    A = sampler(masked=True)
    y = torch.full(A.range, 50.0)
    y[~torch.from_numpy(A.seen)] = -1500.0
    unmasked = SliceSampler(A.poses, A.grid)
    assert residual(unmasked, y, torch.full(A.domain, 55.0)).relative > 0.5


def test_images_and_volume_are_not_changed() -> None:
    A = sampler(masked=True)
    y, x = torch.full(A.range, 50.0), torch.full(A.domain, 55.0)
    assess(A, y, x)
    assert (y == 50).all()
    assert (x == 55).all()


@pytest.mark.parametrize(("factor", "verdict"), [(1 + 0.9 * SLICES_BOUND, Verdict.OK), (1 + 1.1 * SLICES_BOUND, Verdict.WARN)])
def test_a_residual_beyond_the_bound_is_warned_of_with_its_number(factor: float, verdict: Verdict) -> None:
    A = sampler()
    quality = assess(A, torch.full(A.range, 50.0), torch.full(A.domain, 50.0 * factor))
    assert quality.verdict is verdict
    assert [f.code for f in quality.findings] == (["RES-HIGH"] if verdict is Verdict.WARN else [])


def test_voxels_in_gaps_are_warned_of_with_their_share() -> None:
    A = sampler(step_mm=5.0)
    quality = assess(A, torch.full(A.range, 50.0), torch.full(A.domain, 50.0))
    assert [f.code for f in quality.findings] == ["COV-INFERRED"]
    assert quality.interpolated_share == pytest.approx(5 / 29)
    assert quality.measured_share + quality.interpolated_share + quality.unseen_share == pytest.approx(1)


def depth_findings(step_mm: float, spacing_mm: float | None) -> list[str]:
    poses = parallel_poses(step_lps_mm=(0, 0, step_mm), thickness_mm=step_mm)  # of 1 mm pixels
    A = SliceSampler(poses, plan_grid(poses, spacing_mm))
    quality = assess(A, torch.full(A.range, 50.0), torch.full(A.domain, 50.0))
    return [finding.fact for finding in quality.findings if finding.code == "GRID-DEPTH"]


def test_slices_thinner_than_pixels_are_said_to_lose_detail_at_the_default_spacing_only() -> None:
    (fact,) = depth_findings(0.5, None)
    assert "slices of 0.5 mm every 0.5 mm were made into voxels of 1 mm" in fact
    assert not depth_findings(0.5, 0.5)
    assert not depth_findings(0.95, None)
    assert not depth_findings(4.0, None)


def test_the_numbers_are_plain_json_even_for_a_volume_that_is_not_finite() -> None:
    A = sampler()
    for x in (torch.full(A.domain, 50.0), torch.full(A.domain, math.nan)):
        quality = assess(A, torch.full(A.range, 50.0), x)
        assert json.loads(json.dumps(quality.as_json(), allow_nan=False))["measured_share"] == 1.0
    assert quality.verdict is Verdict.WARN


def test_a_black_scan_has_a_residual_of_zero_or_infinity() -> None:
    A = sampler()
    black = torch.zeros(A.range)
    assert residual(A, black, torch.zeros(A.domain)).relative == 0
    assert residual(A, black, torch.ones(A.domain)).relative == math.inf


def test_psnr_and_ssim_are_those_of_scikit_image(rng: np.random.Generator) -> None:
    truth = rng.uniform(0, 100, (9, 10, 11))
    x = truth + rng.normal(0, 3, truth.shape)
    assert psnr(x, truth, 100.0) == pytest.approx(peak_signal_noise_ratio(truth, x, data_range=100.0))
    _, full = structural_similarity(truth, x, win_size=7, data_range=100.0, full=True)
    assert ssim(x, truth, 100.0) == pytest.approx(float(full.mean()))


def test_psnr_looks_only_where_the_mask_says(rng: np.random.Generator) -> None:
    truth = rng.uniform(0, 100, (8, 8, 8))
    mask = np.zeros(truth.shape, dtype=np.bool_)
    mask[:4] = True
    x = truth + np.where(mask, 10.0, 99.0)
    assert psnr(x, truth, 100.0, mask) == pytest.approx(20.0)
    assert psnr(x, truth, 100.0) < 10.0
    assert psnr(truth, truth, 100.0) == math.inf


CUBE = np.zeros((8, 8, 8))


@pytest.mark.parametrize(
    ("x", "truth", "data_range", "mask"),
    [
        pytest.param(CUBE, CUBE[:7], 1.0, None, id="shape"),
        pytest.param(CUBE, CUBE, 1.0, CUBE > 0, id="empty mask"),
        pytest.param(CUBE, CUBE, 0.0, None, id="range"),
        pytest.param(CUBE, CUBE, math.nan, None, id="range not a number"),
    ],
)
def test_volumes_that_cannot_be_compared_are_refused(
    x: NDArray[np.float64], truth: NDArray[np.float64], data_range: float, mask: NDArray[np.bool_] | None
) -> None:
    for metric in (psnr, ssim):
        with pytest.raises(UsageError, match="MET-INPUT"):
            metric(x, truth, data_range, mask)


def test_a_volume_smaller_than_the_window_has_no_ssim() -> None:
    with pytest.raises(UsageError, match="MET-INPUT"):
        ssim(CUBE[:6], CUBE[:6], 1.0)
