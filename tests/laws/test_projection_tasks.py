"""What the tasks on simulated projections must do: batches by number, truth that was scanned, validation of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medrecon import networks
from medrecon.training.config import AugmentConfig
from medrecon.training.mixture import Mixture
from medrecon.training.tasks import Context
from medrecon.training.tasks.projections import FIRST_HELD_OUT, Projections, ProjectionsConfig, scan_phantom
from medrecon.training.tasks.unrolled import Unrolled, UnrolledConfig
from tests.makers_learned_projections import put_network

TINY = {"scans": 2, "held_out": 1, "batches_per_scan": 1, "rows": (24, 24), "slices": (8, 8), "views": (12, 16)}


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(2, torch.nn.functional.l1_loss, Mixture((), AugmentConfig()))


@pytest.fixture(scope="module")
def patches(context: Context) -> Projections:
    return Projections(ProjectionsConfig.model_validate(TINY | {"patch": (8, 16, 16), "tv_iterations": 2}), context)


@pytest.fixture(scope="module")
def scans(context: Context) -> Unrolled:
    return Unrolled(UnrolledConfig.model_validate(TINY), context)


def test_a_batch_depends_on_its_two_numbers_alone(patches: Projections, context: Context) -> None:
    again = Projections(patches.settings, context).batch(3, 1)
    patches.batch(3, 0)
    batch = patches.batch(3, 1)
    assert {name: tuple(part.shape) for name, part in batch.items()} == {
        "inputs": (2, 4, 8, 16, 16), "start": (2, 1, 8, 16, 16), "truth": (2, 1, 8, 16, 16),
    }  # fmt: skip
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["truth"], patches.batch(3, 2)["truth"])


def corrected(folder: Path, context: Context, share: float) -> Projections:
    """Examples of which a share starts from volumes that a network made brighter by 7.5 waters once, and by 15 after it."""
    corrector = str(put_network(folder / "brighter.safetensors", 100.0))
    settings = {"patch": (8, 16, 16), "tv_iterations": 2, "fdk_share": 0.0, "corrector": corrector, "corrected_share": share}
    return Projections(ProjectionsConfig.model_validate(TINY | settings), context)


def test_what_the_corrector_made_in_each_pass_is_a_start_too(context: Context, tmp_path: Path) -> None:
    example = corrected(tmp_path, context, 1.0).example(3, 0)
    once, twice = (example.starts[f"pass {number}"] - example.starts["tv"] for number in (1, 2))
    torch.testing.assert_close(once, torch.full_like(once, 7.5))
    torch.testing.assert_close(twice, torch.full_like(twice, 15.0))
    assert all(torch.equal(example.inputs[name][0], start) for name, start in example.starts.items())


@pytest.mark.parametrize(("share", "brighter"), [(1.0, True), (0.0, False)])
def test_the_share_of_corrected_starts_is_kept(context: Context, tmp_path: Path, share: float, brighter: bool) -> None:
    batch = corrected(tmp_path, context, share).batch(3, 0)
    assert bool((batch["start"] > 7).all()) is brighter


def test_the_first_channel_of_an_example_is_its_start(patches: Projections) -> None:
    batch = patches.batch(3, 0)
    assert torch.equal(batch["inputs"][:, :1], batch["start"])


def test_an_untrained_network_is_worth_its_start(patches: Projections, scans: Unrolled) -> None:
    unet = networks.build("residual_unet", {"widths": (4, 8), "units": 1})
    unrolled = networks.build("primal_dual", {"steps": 1, "memory": 1, "width": 4})
    with torch.no_grad():
        assert patches.validate(unet)["gain_db"] == pytest.approx(0, abs=1e-5)
        assert scans.validate(unrolled)["gain_db"] == pytest.approx(0, abs=1e-5)
        unet.last.bias.fill_(1.0)  # type: ignore[union-attr, operator]  # a convolution
        assert patches.validate(unet)["gain_db"] < -0.1


@pytest.mark.parametrize("within", [False, True], ids=["goes-on", "ends-within"])
def test_what_was_scanned_is_the_truth(scans: Unrolled, within: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not within:
        monkeypatch.setattr("medrecon.training.tasks.projections.ended", lambda body, _: body)
    for seed in range(3):
        scanned = scan_phantom(scans.settings, np.random.default_rng(seed), [])
        shown = scanned.A.forward(scanned.truth * scans.settings.water_per_mm)
        missed = (scanned.y - shown).norm() / scanned.y.norm()
        turned = (scanned.y - shown.flip(-1)).norm() / scanned.y.norm()
        assert missed < (0.25 if within else 0.1)  # voxels twice as large cannot express an end within a slice
        assert turned > missed


def test_validation_looks_at_scans_that_are_never_trained_on(patches: Projections) -> None:
    with torch.no_grad():
        patches.validate(networks.build("residual_unet", {"widths": (4, 8), "units": 1}))
    assert patches.settings.scans < FIRST_HELD_OUT
    assert not torch.equal(patches.example(0, 0).truth, patches.example(0, FIRST_HELD_OUT).truth)


def test_a_batch_of_whole_scans_lowers_its_loss_by_training(scans: Unrolled) -> None:
    torch.manual_seed(0)
    network = networks.build("primal_dual", {"steps": 1, "memory": 1, "width": 8})
    optimiser, batch = torch.optim.Adam(network.parameters(), 3e-3), scans.batch(0, 0)
    losses = []
    for _ in range(10):
        loss = scans.loss(network, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
