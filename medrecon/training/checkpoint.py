"""Where a training stands, in one file that is whole or not there: tensors as safetensors, numbers as JSON in its header.

Nothing is unpickled. With the batches drawn from the number of the step, this is all that a killed run needs to go on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from medrecon.core.errors import InputError
from medrecon.core.settings import Config
from medrecon.safety.atomic import replacing

_KEY = "medrecon"
Tensors = dict[str, Tensor]


class Standing(Config):
    """Numbers of a training that has come so far."""

    digest: str
    step: int = Field(0, ge=0)
    elapsed_s: float = Field(0.0, ge=0)
    best: float | None = None
    best_step: int = Field(0, ge=0)
    waited: int = Field(0, ge=0, description="validations since the best one")
    validated: int = Field(-1, ge=-1, description="step of the last validation")
    metrics: dict[str, float] = Field(default_factory=dict, description="of the weights that the run would end with")
    finished: bool = False


@dataclass(slots=True)
class Checkpoint:
    """A training that can go on: its numbers, and its tensors by part."""

    standing: Standing
    network: Tensors
    optimiser: Tensors
    average: Tensors = field(default_factory=dict)
    best: Tensors = field(default_factory=dict)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint over the older one; raise `OutputError` where it cannot be written whole."""
    parts = {
        "network": checkpoint.network,
        "optimiser": checkpoint.optimiser,
        "average": checkpoint.average,
        "best": checkpoint.best,
    }
    tensors = {f"{part}/{name}": tensor for part, group in parts.items() for name, tensor in group.items()}
    with replacing(path) as scratch:
        safetensors.torch.save_file(tensors, scratch, metadata={_KEY: checkpoint.standing.model_dump_json()})


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; raise `InputError` (``TRN-CHECKPOINT``) where the file is none."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            standing = Standing.model_validate(json.loads((file.metadata() or {})[_KEY]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, ValidationError) as error:
        hint = "Start again without --resume, into another folder."
        raise InputError("TRN-CHECKPOINT", f"the checkpoint cannot be used ({type(error).__name__})", hint) from error
    return Checkpoint(standing, *(_part(tensors, name) for name in ("network", "optimiser", "average", "best")))


def copied(module: nn.Module) -> Tensors:
    """Return copies of a module's weights on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in module.state_dict().items()}


def optimiser_tensors(optimiser: Optimizer) -> Tensors:
    """Return copies of what an optimiser remembers, one tensor a parameter and name; its settings are the recipe's."""
    state: Mapping[int, Mapping[str, Any]] = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": value.detach().to("cpu", copy=True).contiguous()
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: Optimizer, tensors: Tensors) -> None:
    """Give an optimiser back what `optimiser_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def restore(module: nn.Module, tensors: Tensors) -> None:
    """Give a module its weights; raise `InputError` (``TRN-CHECKPOINT``) where they are another network's."""
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in tensors.items()}:
        hint = "Start again without --resume, into another folder."
        raise InputError("TRN-CHECKPOINT", "the checkpoint holds the weights of another network", hint)
    with torch.no_grad():
        module.load_state_dict(tensors)


def _part(tensors: Tensors, part: str) -> Tensors:
    return {name.removeprefix(f"{part}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}
