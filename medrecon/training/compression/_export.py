"""The heart of a network as a graph that other programs read, and those programs as hearts again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medrecon.core.errors import UsageError
from medrecon.networks.heart import Heart, HeartOf, Inputs, farthest, fitted, grown, heart_name, transplanted
from medrecon.training.compression import Made, Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Sequence[NDArray[np.float32]]

#: Of float32 arithmetic in another order; where weights are kept in 16 bits; in 8 bits: relative to the answer.
SAME, SIXTEEN_BITS, EIGHT_BITS = 1e-3, 0.02, 0.5


def example_of(subject: Subject) -> Inputs:
    """Return an input of the network's heart with the extent that is exported."""
    return tuple(grown(tensor, subject.extent) for tensor in subject.calls[0])


def program_of(subject: Subject) -> torch.export.ExportedProgram:
    """Return a network's heart as a graph for inputs of the largest extent that its task has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what it is about to leave out
        return torch.export.export(HeartOf(subject.module).eval(), example_of(subject))


def made_of(subject: Subject, heart: Heart, tolerance: float) -> Made:
    """Put an exported heart into its network, once it has been compared with the network's own.

    Raises
    ------
    UsageError
        ``CMP-EXPORT`` where they are farther apart than arithmetic in another order, or in fewer bits, explains.
    """
    apart = farthest((HeartOf(subject.module), heart), [example_of(subject)])
    if not apart <= tolerance:
        fact = f"the exported network's answer is {apart:.2%} off, {tolerance:.2%} are allowed"
        raise UsageError("CMP-EXPORT", fact, "Do not use the exported file; another version of the exporter may do better.")
    size = sum(path.stat().st_size for path in subject.folder.rglob("*") if path.is_file())
    fits = fitted(heart, subject.extent)
    words = f"{heart_name(subject.module)} for {'x'.join(map(str, subject.extent))}, {apart:.1e} off"
    return Made(transplanted(subject.module, fits), fits, size, words)


def heart_from(run: Callable[[Arrays], Arrays]) -> Heart:
    """Return a heart that another program runs on float32 arrays."""

    def heart(*inputs: Tensor) -> Any:  # noqa: ANN401 (one tensor or several)
        arrays = [tensor.detach().float().contiguous().numpy() for tensor in inputs]
        answers = tuple(torch.from_numpy(array).to(inputs[0].dtype) for array in run(arrays))
        return answers[0] if len(answers) == 1 else answers

    return heart
