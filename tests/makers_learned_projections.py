"""Small simulated scans for the learned methods: phantoms that no training draws, and networks that do as they are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrecon import networks
from medrecon.core.grid import Grid
from medrecon.core.volume import Quantity, Volume
from medrecon.networks import weights
from medrecon.networks.manifest import Training
from medrecon.networks.residual_unet import ResidualUnetConfig
from medrecon.operators.xray_transform import XRayTransform
from medrecon.simulate_projections import ScannerConfig, simulate_projections
from medrecon.training.projection_phantoms import Float32

WATER = 0.02


def measured(hounsfield: Float32, spacing_mm: float, scanner: ScannerConfig) -> tuple[XRayTransform, Tensor, Float32]:
    """Scan voxels and reconstruct on voxels twice as large: operator, line integrals, and the truth in 1/mm."""
    size = np.array(hounsfield.shape)
    fine = Volume(hounsfield, _about_the_origin(hounsfield.shape, spacing_mm), Quantity.HOUNSFIELD)
    scan = simulate_projections(fine, scanner)
    a, b, c = size // 2
    truth = WATER * (1 + hounsfield / 1000).clip(0).reshape(a, 2, b, 2, c, 2).mean(axis=(1, 3, 5))
    return XRayTransform(scan.views, _about_the_origin((a, b, c), 2 * spacing_mm)), torch.tensor(scan.pixels), truth


def put_network(path: Path, bias: float, **settings: object) -> Path:
    """Write a U-Net that adds one value to every voxel, in tenths of water."""
    config = ResidualUnetConfig.model_validate({"widths": (4, 8), "units": 1} | settings)
    network = networks.build("residual_unet", config)
    with torch.no_grad():
        network.last.bias.fill_(bias)  # type: ignore[union-attr, operator]  # a convolution
    told = Training.model_validate({"training_data": "none", "trained_on": "nothing", "trained_date": "2026-11-23"})
    weights.save(path, "residual_unet", config, network, told)
    return path


def _about_the_origin(shape: tuple[int, ...], spacing_mm: float) -> Grid:
    slices, rows, columns = shape
    return Grid.from_parts(
        (slices, rows, columns), (spacing_mm,) * 3, [-(n - 1) / 2 * spacing_mm for n in (columns, rows, slices)]
    )
