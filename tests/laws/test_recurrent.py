"""The recurrent network sees planes only from the slices; what it sees there must be what the planes do."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medrecon.core.errors import UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.output_grid import plan_grid
from medrecon.core.profile import SliceProfile
from medrecon.core.progress import silent
from medrecon.methods import Reconstructed
from medrecon.methods._coarse_rows import CoarseRows, RegularDepth
from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline
from medrecon.methods.recurrent import RecurrentConfig, recurrent
from medrecon.networks.manifest import Training
from medrecon.networks.recurrent_inference import RecurrentInference, RecurrentInferenceConfig, SliceFrame
from medrecon.networks.wdsr import Wdsr, WdsrConfig
from medrecon.networks.weights import save
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.quality.metrics import psnr
from medrecon.training.scanners import Slicing
from medrecon.training.synthesis import random_volume
from tests.makers_slices import parallel_poses, uneven_poses

FUNCTIONS, EPS, COLUMNS = 8, 0.01, 5
STORY = Training(training_data="none", trained_on="a test", trained_date=date(2026, 1, 1))


def slicing(step_mm: float = 4.0, thickness_mm: float = 3.0) -> Slicing:
    return Slicing(1.0, thickness_mm, step_mm, 1.0, 8, SliceProfile("gaussian"))


def framed(step_mm: float = 4.0) -> tuple[CoarseRows, SliceFrame]:
    depth = RegularDepth.of(slicing(step_mm).sampler(1, 1), EPS)
    assert isinstance(depth, RegularDepth)
    rows = depth.whole()
    return rows, rows.frame(FUNCTIONS, depth.step, depth.thickness)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(std: float = 0.1) -> RecurrentInference:
    """A small network whose last layer does something."""
    torch.manual_seed(0)
    made = RecurrentInference(RecurrentInferenceConfig(channels=8, steps=2, blocks=1))
    torch.nn.init.normal_(made.change.weight, std=std)
    return made.eval()


def scan(count: int = 10) -> tuple[SliceSampler, Tensor, Tensor]:
    poses = parallel_poses(count, (0, 0, 4.0), 4.0, shape=(40, 44))
    A = SliceSampler(poses, plan_grid(poses))
    truth = random_volume(np.random.default_rng(5), A.domain, 1.0)
    return A, A.forward(truth), truth


def restored(settings: dict[str, object]) -> Reconstructed:
    A, y, _ = scan()
    return recurrent(A, y, RecurrentConfig.model_validate(settings), silent)


def number(finding: Finding, name: str) -> float:
    return float(str(finding.numbers[name]))


def test_what_is_seen_from_the_slices_is_what_the_painted_plane_shows() -> None:
    rows, frame = framed()
    images, strokes = random(2, 8, COLUMNS), random(2, FUNCTIONS, 8, COLUMNS, seed=1)
    plane = frame.start @ images + rows.detail(strokes)
    around = (frame.looks @ plane).reshape(2, 8, FUNCTIONS, COLUMNS) - images[:, :, None]
    missed = (frame.weights @ plane - images) / frame.weights.square().sum(dim=1).mean()
    wrong = (frame.looks @ (frame.weights.T @ missed)).reshape(2, 8, FUNCTIONS, COLUMNS)
    expected = torch.cat([around, wrong], dim=2).transpose(1, 2)
    assert torch.allclose(frame.views(images, frame.seen(images), strokes), expected, atol=1e-4)
    assert not torch.allclose(frame.views(images, frame.seen(images), 0 * strokes), expected, atol=1e-2), "the check can fail"


def test_the_weights_of_the_frame_are_those_of_the_forward_model() -> None:
    A = slicing().sampler(1, COLUMNS)
    x = torch.rand(A.domain, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(framed()[1].weights @ x[:, 0], A.forward(x)[:, 0], atol=1e-5)


def test_strokes_of_the_lowest_function_paint_steps_and_every_row_is_painted_by_its_nearest_slice() -> None:
    rows, frame = framed()
    strokes = torch.zeros(8, FUNCTIONS)
    strokes[:, 0] = torch.arange(8.0)
    assert (frame.paints @ strokes.flatten()).tolist() == rows.nearest.tolist()


def test_a_network_that_was_not_trained_changes_nothing() -> None:
    with torch.no_grad():
        strokes = RecurrentInference(RecurrentInferenceConfig(channels=8))(random(1, 8, COLUMNS), framed()[1])
    assert len(strokes) == 2
    assert all(float(step.abs().max()) == 0 for step in strokes)


def test_the_same_weights_serve_another_thickness_and_answer_otherwise() -> None:
    images, net = random(1, 8, COLUMNS), network()
    with torch.no_grad():
        near, far = (net(images, framed(step)[1])[-1] for step in (3.0, 5.0))
    assert float((near - far).abs().max()) > 1e-3, "the forward model must matter"


def test_every_step_asks_the_forward_model_again() -> None:
    images, frame, net = random(1, 8, COLUMNS), framed()[1], network()
    with torch.no_grad():
        first, second = net(images, frame)
    assert float((second - first).abs().max()) > 1e-3


def test_the_shipped_weights_win_on_a_volume_they_have_not_seen() -> None:
    A, y, truth = scan()
    classical = consistent_spline(A, y, ConsistentSplineConfig(), silent)
    made = restored({})
    peak = float(truth.max())
    assert psnr(made.x.numpy(), truth.numpy(), peak) > psnr(classical.numpy(), truth.numpy(), peak) + 0.2
    assert made.uncertainty is not None
    assert [finding.code for finding in made.findings] == ["NET-SHARE"]


def test_a_network_that_only_adds_noise_gets_no_share(tmp_path: Path) -> None:
    noisy = network(std=1.0)
    save(tmp_path / "noisy.safetensors", "recurrent_inference", noisy.config, noisy, STORY)
    told = restored({"weights": str(tmp_path / "noisy.safetensors")}).findings[-1]
    assert told.code == "NET-SHARE"
    assert number(told, "network_share") < 0.1


def test_no_trust_leaves_the_classical_volume() -> None:
    A, y, _ = scan()
    classical = consistent_spline(A, y, ConsistentSplineConfig(), silent)
    assert torch.allclose(restored({"trust": 0.0}).x, classical, atol=0.02 * float(classical.std()))
    assert not torch.allclose(restored({}).x, classical, atol=0.02 * float(classical.std())), "the check can fail"


def test_tuning_on_the_scan_does_no_harm_on_images_held_back() -> None:
    before, after = (number(restored({"fine_tune_s": seconds}).findings[-1], "held_back_gain_db") for seconds in (0.0, 1.0))
    assert math.isfinite(after)
    assert after >= before


def test_slices_it_has_not_learned_get_the_classical_volume_or_are_refused() -> None:
    poses = uneven_poses()
    A = SliceSampler(poses, plan_grid(poses))
    y = torch.from_numpy(np.random.default_rng(0).random(A.range)).float()
    made = recurrent(A, y, RecurrentConfig(), silent)
    assert torch.equal(made.x, consistent_spline(A, y, ConsistentSplineConfig(), silent))
    assert [(finding.code, finding.verdict) for finding in made.findings] == [("NET-FALLBACK", Verdict.OK)]
    with pytest.raises(UsageError) as caught:
        recurrent(A, y, RecurrentConfig(fallback=False), silent)
    assert caught.value.code == "NET-STACKS"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    config = WdsrConfig(channels=4, blocks=1, basis=4)
    save(tmp_path / "other.safetensors", "wdsr", config, Wdsr(config), STORY)
    with pytest.raises(UsageError) as caught:
        restored({"weights": str(tmp_path / "other.safetensors")})
    assert caught.value.code == "NET-KIND"
