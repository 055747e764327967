"""What the unrolled method must do: begin at its start, learn through the forward model, and say when it has no weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medrecon import networks
from medrecon.core.errors import WeightsError
from medrecon.core.progress import silent
from medrecon.methods._iterations import start_from
from medrecon.methods.primal_dual import PrimalDualConfig, primal_dual
from medrecon.networks import primal_dual as unrolled
from medrecon.networks import weights
from medrecon.networks.manifest import Training
from medrecon.operators.xray_transform import XRayTransform
from medrecon.simulate_projections import ScannerConfig
from medrecon.training.projection_phantoms import draw
from tests.makers_learned_projections import measured

SMALL = unrolled.PrimalDualConfig(steps=2, memory=2, width=4)


@pytest.fixture(scope="module")
def scan() -> tuple[XRayTransform, Tensor]:
    hounsfield = draw("shapes", (12, 40, 40), 4.0, np.random.default_rng(1))
    A, y, _ = measured(hounsfield, 4.0, ScannerConfig(views=24, photons=1e5))
    return A, y


def put(path: Path, network: torch.nn.Module) -> str:
    told = Training.model_validate({"training_data": "none", "trained_on": "nothing", "trained_date": "2026-11-23"})
    weights.save(path, "primal_dual", SMALL, network, told)
    return str(path)


def test_without_training_the_start_comes_back(scan: tuple[XRayTransform, Tensor], tmp_path: Path) -> None:
    name = put(tmp_path / "fresh.safetensors", networks.build("primal_dual", SMALL))
    made = primal_dual(*scan, PrimalDualConfig(weights=name), silent)
    start = start_from(*scan, "fdk", nonnegative=True)
    torch.testing.assert_close(made.x, start, rtol=1e-5, atol=1e-8)


def test_other_weights_change_the_start(scan: tuple[XRayTransform, Tensor], tmp_path: Path) -> None:
    network = networks.build("primal_dual", SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05)
    made = primal_dual(*scan, PrimalDualConfig(weights=put(tmp_path / "other.safetensors", network)), silent)
    assert not torch.allclose(made.x, start_from(*scan, "fdk", nonnegative=True), rtol=1e-2)
    assert [finding.code for finding in made.findings] == ["MDL-CONTRADICTED"]


def test_a_few_steps_of_training_through_the_forward_model_lower_the_loss(scan: tuple[XRayTransform, Tensor]) -> None:
    A, y = scan
    torch.manual_seed(0)
    network = networks.build("primal_dual", SMALL)
    truth = start_from(A, y, "fdk", nonnegative=True) * 40 + 0.1
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        loss = (network(A, y * 50, truth - 0.1, 10.0) - truth).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_missing_weights_come_with_the_way_to_train_them(scan: tuple[XRayTransform, Tensor]) -> None:
    with pytest.raises(WeightsError) as told:
        primal_dual(*scan, PrimalDualConfig(), silent)
    assert told.value.code == "MDL-MISSING"
    assert "train-primal-dual" in told.value.hint
