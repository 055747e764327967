"""What the method `refine` must do: gain on its start, keep lesions, invent none, and answer to the projections."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrecon.core.errors import WeightsError
from medrecon.core.findings import Verdict
from medrecon.core.progress import silent
from medrecon.methods.refine import RefineConfig, corrected, evidence, refine
from medrecon.methods.tv import TvConfig, tv
from medrecon.networks.residual_unet import ResidualUnetConfig
from medrecon.operators.xray_transform import XRayTransform
from medrecon.quality.metrics import psnr
from medrecon.simulate_projections import ScannerConfig
from medrecon.training.projection_phantoms import Float32, draw, lesion
from tests.makers_learned_projections import WATER, measured, put_network

SHAPE, SPACING_MM = (32, 128, 128), 1.6
LESION_MM, ELSEWHERE_MM, RADIUS_MM, CONTRAST_HU = (0.0, 12.0, -14.0), (0.0, -14.0, 16.0), 9.0, 60.0
SCANNER = ScannerConfig(views=50, photons=1e5, water_per_mm=WATER)


def phantom() -> Float32:
    """A head with an even brain where the lesion will be; no training draws from this generator."""
    hounsfield = draw("head", SHAPE, SPACING_MM, np.random.default_rng((2026, 11, 23)))
    for place in (LESION_MM, ELSEWHERE_MM):
        hounsfield[lesion(SHAPE, SPACING_MM, place, 18.0, 1.0) > 0] = 35.0
    return hounsfield


@functools.cache
def scan(with_lesion: bool) -> tuple[XRayTransform, Tensor, Float32]:
    added = lesion(SHAPE, SPACING_MM, LESION_MM, RADIUS_MM, CONTRAST_HU) if with_lesion else 0
    return measured(phantom() + np.float32(added), SPACING_MM, SCANNER)


@functools.cache
def refined(with_lesion: bool) -> Float32:
    A, y, _ = scan(with_lesion)
    made: Float32 = refine(A, y, RefineConfig(mirrors=2), silent).x.numpy()
    return made


def contrast_hu(volume: Float32, place: tuple[float, float, float]) -> float:
    """Mean of the inner ball over that of the shell around it, in Hounsfield units."""
    shape, spacing = volume.shape, 2 * SPACING_MM
    ball = lesion((shape[0], shape[1], shape[2]), spacing, place, 0.6 * RADIUS_MM, 1.0) > 0.99
    far = lesion((shape[0], shape[1], shape[2]), spacing, place, 16.0, 1.0) > 0.99
    near = lesion((shape[0], shape[1], shape[2]), spacing, place, 1.3 * RADIUS_MM, 1.0) > 0.01
    return float(volume[ball].mean() - volume[far & ~near].mean()) / WATER * 1000


def test_the_shipped_network_gains_on_total_variation_on_a_phantom_it_has_not_seen() -> None:
    A, y, truth = scan(with_lesion=True)
    before = psnr(tv(A, y, TvConfig(), silent).numpy(), truth, float(truth.max()))
    assert psnr(refined(with_lesion=True), truth, float(truth.max())) > before + 0.5


def test_a_network_without_training_gains_nothing(tmp_path: Path) -> None:
    A, y, _ = scan(with_lesion=True)
    config = RefineConfig(weights=str(put_network(tmp_path / "none.safetensors", 0.0)), iterations=2, mirrors=1)
    assert torch.equal(refine(A, y, config, silent).x, tv(A, y, TvConfig(iterations=2), silent))


class Echo(nn.Module):
    """Answers with the evidence that it is shown, five times what the projections say is missing."""

    config = ResidualUnetConfig(widths=(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 2:3]


def test_every_pass_sees_what_the_projections_miss_of_the_volume_so_far() -> None:
    A, y, _ = scan(with_lesion=False)
    start = tv(A, y, TvConfig(iterations=2), silent)
    config = RefineConfig(passes=2, mirrors=1, share=0.5, precision="float32", nonnegative=False)
    found, _ = corrected(A, y, start, Echo(), config, silent)
    missing = evidence(A, y, start)
    assert float(missing.abs().max()) < 0.8 * WATER  # or the network would see less than all of it
    once = start + 0.25 * missing  # a half of five times it in tenths of water
    twice = once + 0.25 * evidence(A, y, once)
    assert float((found - twice).norm()) < 1e-4 * float((twice - start).norm())
    assert float((start + 0.5 * missing - twice).norm()) > 0.1 * float((twice - start).norm())  # not the same evidence again


def test_a_faint_lesion_keeps_four_fifths_of_its_contrast() -> None:
    found = contrast_hu(refined(with_lesion=True), LESION_MM)
    assert found > 0.8 * contrast_hu(scan(with_lesion=True)[2], LESION_MM)
    assert contrast_hu(scan(with_lesion=True)[2], LESION_MM) == pytest.approx(CONTRAST_HU, rel=0.1)  # the check sees lesions


def test_no_lesion_appears_where_none_was() -> None:
    assert abs(contrast_hu(refined(with_lesion=False), LESION_MM)) < 0.2 * CONTRAST_HU
    assert abs(contrast_hu(refined(with_lesion=True), ELSEWHERE_MM)) < 0.2 * CONTRAST_HU


def test_what_the_projections_contradict_is_taken_back(tmp_path: Path) -> None:
    A, y, _ = scan(with_lesion=False)
    weights = str(put_network(tmp_path / "fog.safetensors", 2.0))
    start = tv(A, y, TvConfig(iterations=2), silent)
    made = refine(A, y, RefineConfig(weights=weights, iterations=2, mirrors=1, slack=1.1, consistency=30), silent)
    left, before = (float((y - A.forward(x)).norm()) for x in (made.x, start))
    assert left < 1.1 * before + 1e-6
    assert not made.findings


def test_what_cannot_be_taken_back_is_warned_of(tmp_path: Path) -> None:
    A, y, _ = scan(with_lesion=False)
    weights = str(put_network(tmp_path / "fog.safetensors", 2.0))
    made = refine(A, y, RefineConfig(weights=weights, iterations=2, mirrors=1, consistency=0), silent)
    assert [(finding.code, finding.verdict) for finding in made.findings] == [("MDL-CONTRADICTED", Verdict.WARN)]


def test_a_start_that_the_network_does_not_know_is_warned_of(tmp_path: Path) -> None:
    A, y, _ = scan(with_lesion=False)
    weights = str(put_network(tmp_path / "none.safetensors", 0.0))
    made = refine(A, y, RefineConfig(start="sirt", weights=weights, iterations=1, mirrors=1), silent)
    assert [finding.code for finding in made.findings] == ["MDL-RANGE"]


def test_mirror_images_that_agree_leave_no_doubt(tmp_path: Path) -> None:
    A, y, _ = scan(with_lesion=False)
    weights = str(put_network(tmp_path / "none.safetensors", 0.5))
    made = refine(A, y, RefineConfig(weights=weights, iterations=1, mirrors=4), silent)
    assert made.uncertainty is not None
    assert float(made.uncertainty.max()) < 1e-6


def test_missing_weights_are_told_before_the_long_start() -> None:
    A, y, _ = scan(with_lesion=False)
    told: list[float] = []
    with pytest.raises(WeightsError, match="MDL-MISSING"):
        refine(A, y, RefineConfig(weights="nowhere"), told.append)
    assert told == []
