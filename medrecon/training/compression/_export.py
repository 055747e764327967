"""The heart of a network as a graph that other programs read, and those programs as hearts again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medrecon.core.errors import UsageError
from medrecon.networks.heart import Heart, HeartOf, Inputs, farthest, heart_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Sequence[NDArray[np.float32]]

_TOLERANCE = 1e-3  # of float32 arithmetic in another order, relative to the answer


def program_of(network: nn.Module, example: Inputs) -> torch.export.ExportedProgram:
    """Return a network's heart as a graph for inputs of the example's size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what it is about to leave out
        return torch.export.export(HeartOf(network).eval(), example)


def check(network: nn.Module, heart: Heart, calls: Sequence[Inputs], tolerance: float = _TOLERANCE) -> str:
    """Compare an exported heart with the network's own; return the difference in words.

    Raises
    ------
    UsageError
        ``CMP-EXPORT`` where they are farther apart than arithmetic in another order explains.
    """
    apart = farthest((HeartOf(network), heart), calls)
    if not apart <= tolerance:
        fact = f"the exported network's answer is {apart:.2%} off, {tolerance:.2%} are allowed"
        raise UsageError("CMP-EXPORT", fact, "Do not use the exported file; another version of the exporter may do better.")
    return f"{heart_name(network)} at {_sizes(calls[0])}, {apart:.1e} off"


def heart_from(run: Callable[[Arrays], Arrays]) -> Heart:
    """Return a heart that another program runs on float32 arrays."""

    def heart(*inputs: Tensor) -> Any:  # noqa: ANN401 (one tensor or several)
        arrays = [tensor.detach().float().contiguous().numpy() for tensor in inputs]
        answers = tuple(torch.from_numpy(array).to(inputs[0].dtype) for array in run(arrays))
        return answers[0] if len(answers) == 1 else answers

    return heart


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sizes(inputs: Inputs) -> str:
    return "x".join(map(str, inputs[0].shape[2:]))
