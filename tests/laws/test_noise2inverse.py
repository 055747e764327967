"""What `noise2inverse` must do: take noise out of a low-dose scan, with nothing but the scan."""

from __future__ import annotations

import functools

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medrecon.core.progress import silent
from medrecon.methods.fdk import FdkConfig, fdk
from medrecon.methods.noise2inverse import Noise2inverseConfig, noise2inverse
from medrecon.operators.xray_transform import XRayTransform
from medrecon.quality.metrics import psnr
from medrecon.simulate_projections import ScannerConfig
from medrecon.training.projection_phantoms import Float32, draw
from tests.makers_learned_projections import measured

FEW = Noise2inverseConfig(steps=60, seconds=None, patch=(4, 24), batch=4, width=8)


@functools.cache
def low_dose() -> tuple[XRayTransform, Tensor, Float32]:
    """A soft phantom behind which a pixel counts a few hundred photons."""
    hounsfield = ndimage.gaussian_filter(draw("shapes", (16, 80, 80), 2.0, np.random.default_rng(3)), 2.0)
    return measured(hounsfield, 2.0, ScannerConfig(geometry="parallel", views=160, arc_deg=180, photons=500, water_per_mm=0.02))


def decibel(x: Tensor) -> float:
    """PSNR without the end slices, which a detector row shares with the air beyond."""
    truth = low_dose()[2]
    return psnr(x.numpy()[1:-1], truth[1:-1], float(truth.max()))


def test_a_low_dose_scan_gains_on_filtered_back_projection() -> None:
    A, y, _ = low_dose()
    plain = decibel(fdk(A, y, FdkConfig(), silent).clamp(min=0))
    made = noise2inverse(A, y, FEW, silent)
    assert decibel(made.x) > plain + 1.0
    assert made.uncertainty is not None
    assert float(made.uncertainty.mean()) > 0


def test_a_single_step_of_training_gains_nothing_yet() -> None:
    A, y, _ = low_dose()
    plain = decibel(fdk(A, y, FdkConfig(), silent).clamp(min=0))
    assert decibel(noise2inverse(A, y, FEW.model_copy(update={"steps": 1}), silent).x) < plain + 0.5


def test_the_same_seed_gives_the_same_volume_and_leaves_random_numbers_alone() -> None:
    A, y, _ = low_dose()
    config = FEW.model_copy(update={"steps": 2})
    torch.manual_seed(7)
    first = noise2inverse(A, y, config, silent).x
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(first, noise2inverse(A, y, config, silent).x)
    assert not torch.equal(first, noise2inverse(A, y, config.model_copy(update={"seed": 1}), silent).x)
