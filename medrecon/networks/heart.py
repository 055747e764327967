"""The part of a network that is arithmetic on tensors alone, and how another program takes its place.

A network that asks a forward model on its way cannot be exported; its heart can: the method ``step`` where it has one,
otherwise the whole of it. Put back into its network, a heart that another program runs is judged as the network itself.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from medrecon import networks
from medrecon.core.errors import UsageError

#: Tensors in, one tensor or several out.
Heart = Callable[..., Any]
Inputs = tuple[Tensor, ...]


class HeartOf(nn.Module):
    """A network's heart as a module of its own, with the network's weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._name = heart_name(network)

    def forward(self, *inputs: Tensor) -> Any:  # noqa: ANN401 (one tensor or several)
        """Run the heart."""
        return self.network(*inputs) if self._name == "forward" else getattr(self.network, self._name)(*inputs)


class Bundled(nn.Module):
    """A network's heart behind a single tensor: what it takes lies in channels one after another, as does what it answers.

    That is what MONAI's bundles expect of a network. Parameters have the names of the network's own, after ``network.``.
    """

    def __init__(self, name: str, settings: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.network = networks.build(name, settings)
        self.channels = heart_channels(self.network)

    def forward(self, image: Tensor) -> Tensor:
        """Return the answers to (batch, channels, ...), side by side in channels."""
        return torch.cat(outputs(HeartOf(self.network)(*torch.split(image, list(self.channels), dim=1))), dim=1)


def load_bundled(path: str, device: str = "cpu") -> Bundled:
    """Return shipped weights, or a safetensors file's, as a `Bundled` network; raise as `medrecon.networks.weights.load`."""
    from medrecon.networks.weights import load

    loaded = load(path, device)
    bundled = Bundled(loaded.manifest.network, loaded.manifest.config)
    bundled.network = loaded.module
    return bundled.eval()


def heart_channels(network: nn.Module) -> tuple[int, ...]:
    """Return how many channels each input of a network's heart has.

    A network may say so in an attribute ``heart_channels``. Otherwise the first input is what its first convolution
    reads, and the others, states, have the settings' ``channels``.

    Raises
    ------
    UsageError
        ``BND-NETWORK`` where the heart takes something else than tensors.
    """
    given = inspect.signature(getattr(network, heart_name(network))).parameters.values()
    if any(parameter.annotation not in ("Tensor", Tensor) for parameter in given):
        fact = f"the network {type(network).__name__} asks a forward model on its way and is no network of tensors alone"
        raise UsageError("BND-NETWORK", fact, "Use it through medrecon's method of the same name.")
    if (named := getattr(network, "heart_channels", None)) is not None:
        return tuple(named)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    states = [int(network.config.channels) for _ in range(len(given) - 1)]  # type: ignore[union-attr,arg-type]  # our networks' settings
    return first.in_channels, *states


def heart_name(network: nn.Module) -> str:
    """Return the name of the method that is a network's heart."""
    return "step" if callable(getattr(type(network), "step", None)) else "forward"


def transplanted(network: nn.Module, heart: Heart) -> nn.Module:
    """Return a network that shares its weights with `network` and has another heart."""
    other = copy.copy(network)
    object.__setattr__(other, heart_name(network), heart)
    return other


def recorded(network: nn.Module, use: Callable[[nn.Module], object], most: int) -> tuple[list[Inputs], tuple[int, ...]]:
    """Use a network and return what its heart was given, the first `most` times, and the largest extent it met at all."""
    calls: list[Inputs] = []
    largest: tuple[int, ...] = ()

    def recording(*inputs: Tensor) -> Any:  # noqa: ANN401 (one tensor or several)
        nonlocal largest
        extent = tuple(inputs[0].shape[2:])
        largest = tuple(map(max, extent, largest or extent))
        if len(calls) < most:
            calls.append(tuple(tensor.detach().float().contiguous().clone() for tensor in inputs))
        return getattr(network, heart_name(network))(*inputs)

    use(transplanted(network, recording))
    return calls, largest


def fitted(heart: Heart, extent: tuple[int, ...]) -> Heart:
    """Return a heart for inputs up to an extent of one that takes this extent only: the ends are repeated, then cut off."""

    def run(*inputs: Tensor) -> Any:  # noqa: ANN401 (one tensor or several)
        window: tuple[Any, ...] = (..., *(slice(n) for n in inputs[0].shape[2:]))
        answer = heart(*(grown(tensor, extent) for tensor in inputs))
        return answer[window] if isinstance(answer, Tensor) else tuple(part[window] for part in answer)

    return run


def grown(tensor: Tensor, extent: tuple[int, ...]) -> Tensor:
    """Return a tensor whose ends are repeated up to an extent; raise `ValueError` for a larger one."""
    missing = [wanted - given for wanted, given in zip(extent, tensor.shape[2:], strict=True)]
    if min(missing) < 0:
        raise ValueError(f"the network was exported for {extent}, the input has {tuple(tensor.shape[2:])}")
    padding = [number for more in reversed(missing) for number in (0, more)]
    return functional.pad(tensor, padding, mode="replicate") if any(missing) else tensor


def outputs(answer: Any) -> list[Tensor]:  # noqa: ANN401 (one tensor or several)
    """Return the tensors that a heart answered with."""
    return [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]


def farthest(hearts: tuple[Heart, Heart], calls: Sequence[Inputs]) -> float:
    """Return how far two hearts' answers are apart: root mean square over that of the first one's answers, the worst call."""
    with torch.inference_mode():
        return max(_apart(outputs(hearts[0](*inputs)), outputs(hearts[1](*inputs))) for inputs in calls)


def _apart(exact: list[Tensor], other: list[Tensor]) -> float:
    missed = sum(float((b.float() - a.float()).square().sum()) for a, b in zip(exact, other, strict=True))
    whole = sum(float(a.float().square().sum()) for a in exact)
    return math.sqrt(missed / max(whole, 1e-20))
