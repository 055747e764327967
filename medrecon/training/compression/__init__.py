"""Ways to make a trained network smaller or faster, one file each.

A file ``name.py`` holds the settings model ``NameConfig`` (a `medrecon.core.settings.Config`) and a function
``name(subject, config)`` that returns a `Made`: something that is judged as the network itself, and what was written.
It raises whatever its libraries raise where it cannot work; `medrecon.training.compression.run` turns that into a row
of the table with its reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medrecon.core import registry
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medrecon.networks.manifest import Manifest

SERVING_ALL = frozenset({"config", "run"})


class FineTune(Protocol):
    """Train a network of given settings further; the task is the recipe's unless another one is named."""

    def __call__(
        self, settings: Config, start: nn.Module | None, steps: int, task: str | None = None, over: dict[str, Any] | None = None
    ) -> nn.Module:
        """Return the trained network, in float32 and evaluation mode."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The network that is to become smaller, and what a variant may ask for.

    Parameters
    ----------
    network : str
        Its name in `medrecon.networks`.
    module : nn.Module
        In float32, on the CPU, in evaluation mode. Never to be changed.
    settings : Config
    manifest : Manifest
    weights : str
        What `medrecon.networks.weights.load` is given for it.
    calls : sequence of tuples of tensors
        What its heart was given on held-out examples: for calibration and export.
    extent : tuple of int
        The largest that its heart met there, (slices, rows, columns) or (rows, columns).
    use : callable
        Runs a network on one example as the recipe's task does, whatever its inputs are.
    finetune : FineTune
    folder : Path
        For what the variant writes.
    """

    network: str
    module: nn.Module
    settings: Config
    manifest: Manifest
    weights: str
    calls: Sequence[tuple[Tensor, ...]]
    extent: tuple[int, ...]
    use: Callable[[nn.Module], object]
    finetune: FineTune
    folder: Path

    def smaller(self, changes: dict[str, Any]) -> Config:
        """Return the network's settings with some of them changed; raise `UsageError` (``CFG-VALUE``)."""
        from medrecon.core.settings import parse

        return parse(type(self.settings), {**self.settings.model_dump(), **changes}, f"network {self.network}")


@dataclass(frozen=True, slots=True)
class Made:
    """A variant: what is judged, what was written, and a few words.

    Parameters
    ----------
    module : nn.Module
        Takes the place of the network in its task.
    heart : callable
        Its arithmetic alone, timed on the subject's calls.
    bytes : int
        What must be kept of it: weights or exported files.
    note : str
    """

    module: nn.Module
    heart: Callable[..., Any]
    bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to compress: its name, settings model and function."""

    name: str
    settings: type[Config]
    make: Callable[[Subject, Any], Made]


def names() -> tuple[str, ...]:
    """Return the names of all variants."""
    return registry.names(sys.modules[__name__])


def get(name: str) -> Variant:
    """Return a variant by name; raise `UsageError` (``ARG-NAME``) where there is none."""
    module = registry.load(sys.modules[__name__], name)
    camel = "".join(word.capitalize() for word in name.split("_"))
    return Variant(name, getattr(module, f"{camel}Config"), getattr(module, name))
