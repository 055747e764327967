"""What a network is trained to do, one file each.

A task file ``name.py`` holds the settings model ``NameConfig`` (a `medrecon.core.settings.Config`) and the class
``Name(settings, context)``, a `Task`: it makes batches of examples, computes the loss of a network on a batch, and
measures a network on examples that are never trained on. The engine does the rest: devices, precision, steps,
checkpoints, logs, several processes.

A batch is drawn from nothing but its two numbers, so that a run that was killed draws the same batches when it goes on,
and that processes can share the work: never from a global random state, a clock or an iterator. ::

    class Shapes:
        def __init__(self, settings: ShapesConfig, context: Context) -> None: ...

        def batch(self, seed: int, index: int) -> Batch:
            random = generator(seed, index)          # torch.Generator of these two numbers
            truth = ...                              # context.batch examples, on the CPU
            return {"measured": ..., "truth": truth}

        def loss(self, network: nn.Module, batch: Batch) -> Tensor:
            return self.context.loss(network(batch["measured"]), batch["truth"])

        def validate(self, network: nn.Module) -> dict[str, float]:
            return {"psnr_db": ...}

        def describe(self) -> dict[str, Any]:
            return {"training_data": "random shapes", "spacing_mm": (0.5, 1.5)}

In mixed precision the engine runs ``loss`` and ``validate`` under autocast. `context.loss` computes in float32 by itself;
a task that applies A within does so in a block ``torch.autocast(device, enabled=False)``. Torch may be imported at the
head of a task file; this file loads none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from medrecon.core import registry
from medrecon.core.settings import Config

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medrecon.training.mixture import Mixture

#: One training step's examples: tensors (the engine moves them to the device) and whatever else the task needs.
Batch = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Context:
    """What the engine gives to a task beside its own settings.

    Parameters
    ----------
    batch : int
        Examples in a batch.
    loss : function of (output, target) to a scalar
        The supervised loss of the recipe, for tensors (batch, channel, slice, row, column) or without the slices, with
        values of about 0 to 1.
    volumes : Mixture
        Volumes from disk; ``len(volumes) == 0`` where the recipe names no source.
    device : str
        Where the network is, for validation.
    """

    batch: int
    loss: Callable[[Tensor, Tensor], Tensor]
    volumes: Mixture
    device: str = "cpu"


class Task(Protocol):
    """What a network is trained to do."""

    def batch(self, seed: int, index: int) -> Batch:
        """Make the batch of these two numbers, on the CPU; the same numbers give the same batch."""

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Run the network on a batch and return the scalar to descend; tensors of the batch are on the network's device."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measure the network on examples that are never trained on; called without gradients, in evaluation mode."""

    def describe(self) -> dict[str, Any]:
        """Tell what was trained on and within which range: fields of `medrecon.networks.manifest.Training`."""


def names() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return registry.names(sys.modules[__name__])


def settings_of(name: str) -> type[Config]:
    """Return the settings model of a task; raise `UsageError` (``ARG-NAME``) where there is none of that name."""
    model: type[Config] = getattr(registry.load(sys.modules[__name__], name), f"{_camel(name)}Config")
    return model


def build(name: str, settings: dict[str, Any], context: Context) -> Task:
    """Build a task from checked settings; raise `UsageError` (``ARG-NAME``) where there is none of that name."""
    module = registry.load(sys.modules[__name__], name)
    task: Task = getattr(module, _camel(name))(settings_of(name).model_validate(settings), context)
    return task


def generator(seed: int, index: int) -> torch.Generator:
    """Return a CPU generator that depends on these two numbers alone, unlike that of any neighbour."""
    import numpy as np
    import torch

    (state,) = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
