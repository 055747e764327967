"""Channels that are removed together are the right ones: the small network answers as the large one with them silenced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medrecon import networks
from medrecon.core.errors import UsageError
from medrecon.training.compression._coupling import Unit, units
from medrecon.training.compression.pruning import _cut, kept_indices

Run = Callable[[nn.Module], Tensor]


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unrolled(network: nn.Module) -> Tensor:
    """The recurrent network's own step, three times, from a state of zeros, as its forward does."""
    look: Any = network.look
    step: Any = network.step
    seen = noise(1, look.in_channels, 5, 6)
    state = seen.new_zeros(1, look.out_channels, 5, 6)
    changes = []
    for _ in range(3):
        change, state = step(seen, state)
        changes.append(change)
    return torch.stack(changes)


CASES: dict[str, tuple[dict[str, object], dict[str, object], Run]] = {
    "recurrent_inference": ({"channels": 8}, {"channels": 5}, unrolled),
    "residual_unet": ({"widths": (8, 12, 16)}, {"widths": (5, 12, 7)}, lambda network: network(noise(1, 4, 8, 8, 8))),
    "flow": (
        {"levels": 2, "channels": 8},
        {"levels": 2, "channels": 6},
        lambda net: net(noise(1, 1, 16, 16), noise(1, 1, 16, 16, seed=2)),
    ),
}


def pair(name: str) -> tuple[nn.Module, nn.Module, Run]:
    large, small, run = CASES[name]
    torch.manual_seed(0)
    both = networks.build(name, large), networks.build(name, small)
    for parameter in both[0].parameters():
        nn.init.normal_(parameter, std=0.3)
    return *both, run


def kept(large: nn.Module, small: nn.Module, found: list[Unit]) -> dict[str, dict[int, list[int]]]:
    shapes = {key: tuple(value.shape) for key, value in small.state_dict().items()}
    return kept_indices(found, large.state_dict(), shapes)


def silence(network: nn.Module, chosen: dict[str, dict[int, list[int]]]) -> None:
    """Set to zero every weight that makes or reads a channel which is not kept."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            for axis, indices in chosen.get(name, {}).items():
                gone = torch.tensor(sorted(set(range(parameter.shape[axis])) - set(indices)))
                parameter.index_fill_(axis, gone, 0.0)


def disagreement(name: str, spoil: Callable[[dict[str, dict[int, list[int]]]], None] = lambda _: None) -> float:
    large, small, run = pair(name)
    chosen = kept(large, small, units(large, lambda: run(large)))
    spoil(chosen)
    small.load_state_dict({key: _cut(tensor, chosen.get(key, {})) for key, tensor in large.state_dict().items()})
    silence(large, chosen)
    with torch.no_grad():
        exact, cut = run(large), run(small)
    return float((exact - cut).abs().max() / exact.abs().max())


@pytest.mark.parametrize("name", ["recurrent_inference", "residual_unet"])
def test_a_pruned_network_answers_as_the_large_one_with_the_same_channels_silenced(name: str) -> None:
    assert disagreement(name) < 1e-5


def test_the_check_sees_a_channel_that_is_made_in_one_place_and_read_in_another() -> None:
    def shift(chosen: dict[str, dict[int, list[int]]]) -> None:
        width = len(chosen["look.bias"][0])
        chosen["look.weight"][0] = list(range(width))
        chosen["look.bias"][0] = list(range(1, width + 1))

    assert disagreement("recurrent_inference", shift) > 1e-3


def test_a_network_that_averages_over_channels_can_be_made_smaller_too() -> None:
    large, small, run = pair("flow")
    chosen = kept(large, small, units(large, lambda: run(large)))
    small.load_state_dict({key: _cut(tensor, chosen.get(key, {})) for key, tensor in large.state_dict().items()})
    assert run(small).isfinite().all()


def test_the_channels_with_the_smallest_weights_go() -> None:
    large, small, run = pair("residual_unet")
    found = units(large, lambda: run(large))
    weak = next(unit for unit in found if any(place[:2] == ("last.weight", 1) for place in unit.places))
    with torch.no_grad():
        for name, axis, index in weak.places:
            dict(large.named_parameters())[name].select(axis, index).mul_(1e-3)
    (gone,) = {index for name, axis, index in weak.places if (name, axis) == ("last.weight", 1)}
    assert gone not in kept(large, small, found)["last.weight"][1]


class Shuffled(nn.Module):
    """Mixes its channels in a way that the watch does not know."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv3d(1, width, 1), nn.Conv3d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.first(x).flip(1))
        return answer


def test_channels_that_pass_through_something_unknown_are_not_removed() -> None:
    large, small = Shuffled(4), Shuffled(2)
    with pytest.raises(UsageError, match="CMP-PRUNE"):
        kept(large, small, units(large, lambda: large(noise(1, 1, 2, 2, 2))))


def test_a_network_cannot_be_pruned_into_a_larger_one() -> None:
    large, small, run = pair("residual_unet")
    with pytest.raises(UsageError, match="CMP-PRUNE"):
        kept(small, large, units(small, lambda: run(small)))
