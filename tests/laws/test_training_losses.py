"""Losses against closed forms and the properties for which they were chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from medrecon.networks.flow import warp
from medrecon.operators.linear import LinearOperator
from medrecon.training import losses
from medrecon.training.config import LossConfig, OptimiserConfig
from medrecon.training.descent import rate_share
from medrecon.training.mixture import Mixture
from medrecon.training.tasks import Context, generator
from medrecon.training.tasks.flow import Flow, FlowConfig


def images(seed: int = 0, shape: tuple[int, ...] = (2, 1, 24, 20)) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_weighted_loss_is_the_sum_of_its_parts() -> None:
    x, truth = torch.zeros(1, 1, 8, 8, 8), torch.full((1, 1, 8, 8, 8), 0.5)
    assert float(losses.supervised(LossConfig(l1=2.0, l2=4.0, gradient=1.0))(x, truth)) == pytest.approx(2 * 0.5 + 4 * 0.25)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8, 8)
    assert float(losses.supervised(LossConfig(l1=0.0, gradient=3.0))(x, ramp)) == pytest.approx(3 * 1 / 3)


def test_the_loss_is_computed_in_full_precision_under_autocast() -> None:
    x, truth = torch.zeros(1, 1, 8, 8, 8), torch.full((1, 1, 8, 8, 8), 1 / 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(losses.supervised(LossConfig())(x.bfloat16(), truth)) == pytest.approx(1 / 3, rel=1e-6)


def test_structural_dissimilarity_agrees_with_scikit_image() -> None:
    x, y = images(0, (1, 1, 48, 48)), images(1, (1, 1, 48, 48)) * 0.3 + images(0, (1, 1, 48, 48)) * 0.7
    _, theirs = structural_similarity(
        x[0, 0].numpy(), y[0, 0].numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5, truncate=2.0, full=True,
        use_sample_covariance=False,
    )  # fmt: skip
    assert float(losses.structural_dissimilarity(x, y)) == pytest.approx(1 - theirs[3:-3, 3:-3].mean(), abs=2e-3)
    assert float(losses.structural_dissimilarity(x, x)) == pytest.approx(0.0, abs=1e-6)


def test_the_split_loss_of_an_identity_is_the_variance_of_the_noise() -> None:
    noise = torch.randn(4, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.2
    clean = images(0, (8, 1, 32, 32))
    identity = float(losses.split_difference(lambda x: x, clean + noise))
    assert identity == pytest.approx(0.04 * (1 + 1 / 3), rel=0.05)
    perfect = float(losses.split_difference(lambda _: clean, clean + noise))
    assert perfect == pytest.approx(0.04, rel=0.05)


class Halving(LinearOperator):
    domain = (4, 4)
    range = (4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x / 2

    def adjoint(self, y: Tensor) -> Tensor:
        return y / 2


def test_the_data_misfit_is_zero_where_the_volume_explains_the_data_and_descends_elsewhere() -> None:
    truth = images(0, (4, 4))
    assert float(losses.data_misfit(Halving(), truth, truth / 2)) == pytest.approx(0.0, abs=1e-12)
    x = torch.zeros(4, 4, requires_grad=True)
    loss = losses.data_misfit(Halving(), x, truth / 2)
    assert loss.item() == pytest.approx(1.0)
    (slope,) = torch.autograd.grad(loss, x)
    assert float((slope * truth).sum()) < 0


def test_census_does_not_see_brightness_and_contrast_and_sees_a_shift() -> None:
    image = nn.functional.avg_pool2d(images(3, (1, 1, 40, 40)), 3, stride=1)
    same = float(losses.census_difference(image, image))
    brighter = float(losses.census_difference(image, 0.9 * image + 0.05))
    shifted = float(losses.census_difference(image, image.roll(2, dims=-1)))
    assert same == pytest.approx(0.0, abs=1e-6)
    assert brighter < 0.1 * shifted


def test_charbonnier_is_the_absolute_value_but_near_zero() -> None:
    assert float(losses.charbonnier(torch.full((1, 1, 4, 4), -0.5))) == pytest.approx(0.5, abs=2e-3)
    where = torch.zeros(1, 1, 4, 4)
    where[..., 0] = 1
    mixed = torch.zeros(1, 1, 4, 4)
    mixed[..., 0] = 1.0
    assert float(losses.charbonnier(mixed, where)) == pytest.approx(1.0, abs=2e-3)


def test_a_flow_may_break_at_an_edge_of_the_image_and_not_elsewhere() -> None:
    flow = torch.zeros(1, 2, 16, 16)
    flow[..., 8:] = 1.0
    edge = torch.zeros(1, 1, 16, 16)
    edge[..., 8:] = 1.0
    flat = torch.zeros(1, 1, 16, 16)
    assert float(losses.edge_aware_roughness(flow, edge)) < 0.01 * float(losses.edge_aware_roughness(flow, flat)) + 1e-3
    assert float(losses.edge_aware_roughness(torch.ones(1, 2, 16, 16), flat)) == pytest.approx(0.0, abs=1e-6)


def test_the_photometric_loss_is_least_at_the_true_shift() -> None:
    image = nn.functional.avg_pool2d(images(5, (1, 1, 44, 44)), 5, stride=1)
    second = image.roll(3, dims=-1)
    found = {}
    for shift in range(-1, 6):
        flow = torch.zeros(1, 2, 40, 40)
        flow[:, 1] = shift
        found[shift] = float(losses.census_difference(image, warp(second, flow)))
    assert min(found, key=found.__getitem__) == 3


def test_the_rate_rises_falls_like_a_cosine_and_ends_where_asked() -> None:
    config = OptimiserConfig(warm_up=0.1, last_rate=0.05)
    assert rate_share(0.05, config) == pytest.approx(0.5)
    assert rate_share(0.1, config) == pytest.approx(1.0)
    assert rate_share(0.55, config) == pytest.approx(0.05 + 0.95 * (1 + math.cos(math.pi / 2)) / 2)
    assert rate_share(1.0, config) == pytest.approx(0.05)
    assert rate_share(1.2, config) == pytest.approx(0.05)


def test_the_flow_task_prefers_the_true_motion_that_it_is_never_told() -> None:
    task = Flow(FlowConfig(pixels=64, motion=6.0), Context(1, losses.supervised(LossConfig()), Mixture()))
    for number in range(4):
        first, second, bend = (part[None] for part in task._bent(generator(7, number)))

        def loss(share: float, pair: tuple[Tensor, Tensor] = (first, second), bend: Tensor = bend) -> float:
            network = iter([share * bend, -share * bend])  # forth, and about that much back
            return float(task.loss(Given(network), {"first": pair[0], "second": pair[1]}))

        assert loss(1.0) < loss(0.5) < loss(0.0) < loss(-1.0)


class Given(nn.Module):
    """Answers with what it was given, in turn."""

    def __init__(self, answers: Iterator[Tensor]) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, *_: Tensor) -> Tensor:
        return next(self.answers)
