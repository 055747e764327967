"""The arithmetic of a network is the faster one only where it was measured and agrees with float32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from medrecon.networks import precision
from medrecon.networks.precision import FLOAT32, Arithmetic, Lowered, fastest, lowered, settle

HALF = Arithmetic(torch.bfloat16, "set by the test")


@pytest.fixture
def half_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "fastest", lambda _: HALF)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Measure anew in this test, and leave nothing measured under its conditions behind."""
    fastest.cache_clear()
    yield
    fastest.cache_clear()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv3d(8, 1, 3, padding=1))


def example() -> Tensor:
    return torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))


class Cancelling(nn.Module):
    """Subtracts two numbers that bfloat16 cannot tell apart: 8 bits of a value beside 1000."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(1000.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.offset) - self.offset


@pytest.mark.usefixtures("half_is_faster")
def test_a_network_that_agrees_runs_in_bfloat16_and_answers_in_float32() -> None:
    face, note = lowered(network(), example(), "cpu")
    with torch.inference_mode():
        answer, exact = face(example()), network()(example())
    assert isinstance(face, Lowered)
    assert answer.dtype is torch.float32
    assert 0 < (answer - exact).abs().max() < 0.02 * exact.abs().max()
    assert note.startswith("bfloat16")


@pytest.mark.usefixtures("half_is_faster")
def test_a_network_that_does_not_agree_stays_in_float32_and_says_why() -> None:
    face, note = lowered(Cancelling(), example(), "cpu")
    with torch.inference_mode():
        torch.testing.assert_close(face(example()), example(), atol=1e-3, rtol=0)
    assert note.startswith("float32")
    assert "off" in note


@pytest.mark.usefixtures("half_is_faster")
def test_float32_that_was_asked_for_is_the_network_itself() -> None:
    module = network()
    face, _ = lowered(module, example(), "cpu", "float32")
    assert face is module


def test_bfloat16_that_was_asked_for_must_agree_all_the_same() -> None:
    trial = lambda module, dtype: module(example().to(dtype))  # noqa: E731
    assert settle(network(), trial, "cpu", "bfloat16").arithmetic.dtype is torch.bfloat16
    assert settle(Cancelling(), trial, "cpu", "bfloat16").arithmetic.dtype is torch.float32


def test_the_network_that_came_in_is_not_changed() -> None:
    module = network()
    before = [parameter.clone() for parameter in module.parameters()]
    HALF.applied(module)
    for parameter, old in zip(module.parameters(), before, strict=True):
        assert parameter.dtype is torch.float32
        assert torch.equal(parameter, old)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("gain", "chosen"), [(4.0, torch.bfloat16), (1.1, torch.float32), (0.2, torch.float32)])
def test_what_is_not_clearly_faster_is_not_chosen(monkeypatch: pytest.MonkeyPatch, gain: float, chosen: torch.dtype) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16", lambda _: True)
    monkeypatch.setattr(precision, "_seconds", lambda arithmetic, _: gain if arithmetic is FLOAT32 else 1.0)
    assert fastest("cpu").dtype is chosen


@pytest.mark.usefixtures("fresh")
def test_a_processor_without_bfloat16_is_not_even_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16", lambda _: False)
    monkeypatch.setattr(precision, "_seconds", lambda *_: pytest.fail("measured"))
    assert fastest("cpu").dtype is torch.float32


@pytest.mark.usefixtures("fresh")
def test_the_measurement_is_made_once_and_leaves_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = fastest("cpu")
    assert torch.equal(torch.rand(2), expected)
    assert fastest("cpu") is first
    assert first.reason
