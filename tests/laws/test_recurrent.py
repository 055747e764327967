"""The recurrent network sees the volume only from the slices; what it sees there must be what the volume does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date

import numpy as np
import pytest
import torch

from medrecon.core.profile import SliceProfile
from medrecon.core.progress import silent
from medrecon.methods import _learned_slices as learned
from medrecon.methods._slice_pairs import SlicePair, Slicing, frame_of
from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline
from medrecon.networks.manifest import Manifest
from medrecon.networks.recurrent_inference import RecurrentInference, RecurrentInferenceConfig, _view
from medrecon.training.synthesis import random_volume

FUNCTIONS = 8


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    """As the pipeline calls methods."""
    with torch.no_grad():
        yield


def slicing(step_mm: float = 4.0, thickness_mm: float = 3.0) -> Slicing:
    return Slicing(1.0, thickness_mm, step_mm, 1.0, 8, SliceProfile("gaussian"))


def pair(step_mm: float = 4.0) -> SlicePair:
    cut = slicing(step_mm)
    return SlicePair.of(random_volume(np.random.default_rng(3), (cut.planes, 12, 10), 1.0), cut, FUNCTIONS)


def network(seed: int = 0) -> RecurrentInference:
    """A small network whose last layer does something."""
    torch.manual_seed(seed)
    made = RecurrentInference(RecurrentInferenceConfig(channels=8, steps=2, blocks=1))
    torch.nn.init.normal_(made.change.weight, std=0.1)
    return made.eval()


def restorer(net: RecurrentInference) -> learned.Restorer:
    nothing = {"training_data": "nothing", "trained_on": "a test", "trained_date": date(2026, 1, 1)}
    file = {"network": "recurrent_inference", "config": {}, "sha256": "0" * 64, "parameters": 0}
    return learned.Restorer(net.eval(), Manifest.model_validate(nothing | file), "cpu")


def test_what_is_seen_from_the_slices_is_what_the_painted_volume_shows() -> None:
    one = pair()
    strokes = torch.randn(FUNCTIONS, 8, 12, 10, generator=torch.Generator().manual_seed(0))
    volume, images = one.frame.painted(one.classical, strokes), one.seen[0]
    around = (one.frame.looks @ volume.flatten(1)).reshape(8, FUNCTIONS, 12, 10) - images[:, None]
    missed = one.frame.weights @ volume.flatten(1) - images.flatten(1)
    energy = one.frame.weights.square().sum(dim=1).mean()
    wrong = (one.frame.looks @ (one.frame.weights.T @ missed / energy)).reshape(8, FUNCTIONS, 12, 10)
    expected = torch.cat([around.transpose(0, 1), wrong.transpose(0, 1)])
    assert torch.allclose(_view(one.frame, one.seen, strokes), expected, atol=1e-4)
    assert not torch.allclose(_view(one.frame, one.seen, 0 * strokes), expected, atol=1e-2), "the check can fail"


def test_the_weights_of_the_frame_are_those_of_the_forward_model() -> None:
    A = slicing().sampler(5, 4)
    frame, order = frame_of(A, FUNCTIONS)
    x = torch.rand(A.domain, generator=torch.Generator().manual_seed(1))
    assert order.tolist() == list(range(8))
    assert torch.allclose((frame.weights @ x.flatten(1)).reshape(A.range), A.forward(x), atol=1e-5)


def test_strokes_of_the_lowest_function_paint_a_step_and_every_plane_is_painted_by_its_nearest_slice() -> None:
    frame = frame_of(slicing().sampler(1, 1), FUNCTIONS)[0]
    strokes = torch.zeros(FUNCTIONS, 8, 1, 1)
    strokes[0, :, 0, 0] = torch.arange(8.0)
    painted = frame.painted(torch.zeros(frame.weights.shape[1], 1, 1), strokes)[:, 0, 0]
    planes = np.arange(len(painted))
    nearest = np.abs(planes[:, None] - (1.0 + 4.0 * np.arange(8))).argmin(axis=1)
    assert painted.tolist() == nearest.tolist()


def test_a_network_that_was_not_trained_changes_nothing() -> None:
    one = pair()
    strokes = RecurrentInference(RecurrentInferenceConfig(channels=8))(one.seen[None], [one.frame])
    assert len(strokes) == 3
    assert all(float(step.abs().max()) == 0 for step in strokes)


def test_the_same_weights_serve_another_thickness_and_answer_otherwise() -> None:
    net, near, far = network(), pair(3.0), pair(5.0)
    together = net(torch.stack([near.seen, far.seen]), [near.frame, far.frame])[-1]
    alone = [net(one.seen[None], [one.frame])[-1][0] for one in (near, far)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)
    other = net(near.seen[None], [far.frame])[-1][0]
    assert float((other - alone[0]).abs().max()) > 1e-4, "the forward model must matter"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_restored_volume_stands_in_the_axes_of_the_scan(axis: int) -> None:
    """A network of zeros returns the classical volume, whichever axis the slices lie across."""
    from medrecon.core.grid import Grid
    from medrecon.operators.slice_sampler import SliceSampler
    from medrecon.simulate import plan_slices

    shape = [20, 18, 16]
    shape[axis] = 30
    grid = Grid.from_parts((shape[0], shape[1], shape[2]), (1.0, 1.0, 1.0), (0, 0, 0))
    A = SliceSampler(plan_slices(grid, 3.0, 1.0, SliceProfile("gaussian"), axis), grid)
    y = A.forward(random_volume(np.random.default_rng(0), grid.shape, 1.0))
    classical = consistent_spline(A, y, ConsistentSplineConfig(), silent)
    assert learned.unlearned(A) is None
    zeros = restorer(RecurrentInference(RecurrentInferenceConfig(channels=8)))
    assert torch.allclose(zeros.volume(A, y, classical, silent), classical, atol=1e-5)
    changed = restorer(network()).volume(A, y, classical, silent)
    assert changed.shape == classical.shape
    assert float((changed - classical).abs().max()) > 1e-3


def test_a_network_that_only_adds_noise_gets_no_share() -> None:
    cut = slicing()
    A = cut.sampler(40, 40)
    x = random_volume(np.random.default_rng(5), A.domain, 1.0)
    own = learned.OwnDirections.of(A, x, seed=0)
    assert own is not None
    assert restorer(network()).share(own) < 0.1


def test_tuning_on_the_scan_itself_earns_a_share() -> None:
    cut = slicing()
    A = cut.sampler(48, 48)
    x = random_volume(np.random.default_rng(5), A.domain, 1.0)
    own = learned.OwnDirections.of(A, x, seed=0)
    torch.manual_seed(0)
    fresh = RecurrentInference(RecurrentInferenceConfig(channels=8, steps=2, blocks=1))
    untuned = restorer(fresh)
    assert untuned.share(own) == 0
    tuned = untuned.tuned(own, seconds=2.0)
    assert tuned.tuned_steps >= 1
    assert math.isfinite(tuned.share(own))
    assert all(float(weight.abs().max()) == 0 for name, weight in fresh.named_parameters() if name.startswith("change"))
