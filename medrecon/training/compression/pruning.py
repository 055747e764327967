"""Structured pruning: whole channels go, the least important first, and training closes the wound.

What is left is an ordinary network of the same kind with smaller settings, so that nothing else needs to know.
Importance is the size of a channel's weights (Li et al. 2017, arXiv:1608.08710).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon import networks
from medrecon.core.errors import UsageError
from medrecon.core.settings import Config
from medrecon.networks.heart import HeartOf
from medrecon.networks.weights import ENDING, save
from medrecon.training.compression import Made, Subject
from medrecon.training.compression._coupling import Place, Unit, units

Shapes = Mapping[str, tuple[int, ...]]


class PruningConfig(Config):
    """Settings of `pruning`."""

    network: dict[str, Any] = Field(description="smaller settings of the network, such as channels: 24")
    steps: int = Field(400, ge=0, description="training steps afterwards")


def pruning(subject: Subject, config: PruningConfig) -> Made:
    """Remove the channels whose weights are smallest, then train on."""
    settings = subject.smaller(config.network)
    cut = pruned(subject, settings)
    module = subject.finetune(settings, cut, config.steps) if config.steps else cut
    path = subject.folder / f"{subject.folder.name}{ENDING}"
    save(path, subject.network, settings, module, subject.manifest)
    return Made(module, HeartOf(module), path.stat().st_size, f"{_changes(config.network)}, {config.steps} steps")


def pruned(subject: Subject, settings: Config) -> nn.Module:
    """Return the network with smaller settings that keeps the most important channels, untrained.

    Raises
    ------
    UsageError
        ``CMP-PRUNE`` where the settings ask for channels to go that cannot be removed.
    """
    with torch.random.fork_rng(devices=[]):
        small = networks.build(subject.network, settings)
    large = dict(subject.module.state_dict())
    shapes = {name: tuple(tensor.shape) for name, tensor in small.state_dict().items()}
    kept = kept_indices(units(subject.module, lambda: subject.use(subject.module)), large, shapes)
    small.load_state_dict({name: _cut(tensor, kept.get(name, {})) for name, tensor in large.items()})
    return small.eval()


def kept_indices(found: Iterable[Unit], large: Mapping[str, Tensor], small: Shapes) -> dict[str, dict[int, list[int]]]:
    """Return which indices stay, for each parameter and axis that shrinks."""
    families: dict[tuple[tuple[str, int, int], ...], list[Unit]] = defaultdict(list)
    for unit in found:
        families[unit.family].append(unit)
    gone: set[Place] = set()
    for family, members in families.items():
        ordered = sorted(members, key=lambda unit: _importance(unit, large), reverse=True)
        gone.update(place for unit in ordered[_left(family, len(members), large, small) :] for place in unit.places)
    chosen = {
        name: {axis: [k for k in range(tensor.shape[axis]) if (name, axis, k) not in gone] for axis in axes}
        for name, tensor in large.items()
        if (axes := _shrinking(tuple(tensor.shape), small.get(name, ())))
    }
    _refuse_mismatch(chosen, small)
    return chosen


def _left(family: tuple[tuple[str, int, int], ...], members: int, large: Mapping[str, Tensor], small: Shapes) -> int:
    """Return how many channels of a kind stay: read off an axis that holds this kind alone."""
    for name, axis, count in family:
        if large[name].shape[axis] == members * count:
            return min(small[name][axis] // count, members)
    return members


def _importance(unit: Unit, large: Mapping[str, Tensor]) -> float:
    return sum(float(large[name].select(axis, index).float().square().sum()) for name, axis, index in unit.places)


def _shrinking(large: tuple[int, ...], small: tuple[int, ...]) -> list[int]:
    if len(large) != len(small) or any(a < b for a, b in zip(large, small, strict=True)):
        raise UsageError("CMP-PRUNE", f"a parameter of shape {large} cannot become {small}", "Make the network smaller only.")
    return [axis for axis, (a, b) in enumerate(zip(large, small, strict=True)) if a != b]


def _refuse_mismatch(chosen: Mapping[str, Mapping[int, list[int]]], small: Shapes) -> None:
    wrong = [name for name, axes in chosen.items() if any(len(kept) != small[name][axis] for axis, kept in axes.items())]
    if wrong:
        raise UsageError(
            "CMP-PRUNE",
            f"the channels of {len(wrong)} parameter(s), such as {wrong[0]}, cannot be removed one by one",
            "Change only widths of the network, or distil into the smaller one.",
        )


def _cut(tensor: Tensor, axes: Mapping[int, list[int]]) -> Tensor:
    for axis, kept in axes.items():
        tensor = tensor.index_select(axis, torch.tensor(kept))
    return tensor


def _changes(network: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in network.items())
