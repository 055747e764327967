"""What `medrecon compress` is told: which weights, by which recipe they are trained and judged, which variants.

Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from medrecon.config import assigned
from medrecon.core.errors import UsageError
from medrecon.core.settings import Config, parse, read_yaml


class VariantConfig(Config):
    """One row of the table."""

    kind: str = Field(description="name of a file in medrecon/training/compression")
    name: str = Field("", pattern=r"^[a-z0-9_-]{0,60}$", description="of its folder; none: the kind")
    settings: Mapping[str, Any] = Field(default_factory=dict, description="checked against the kind's own model")

    @property
    def label(self) -> str:
        """Name in the table and of the folder."""
        return self.name or self.kind


class CompressionConfig(Config):
    """Settings of a compression."""

    weights: str = Field(description="a shipped name or a safetensors file")
    recipe: str = Field(description="training recipe, a YAML file or a shipped name: its task trains and judges the variants")
    assign: tuple[str, ...] = Field((), description="settings laid over the recipe, such as settings.held_out=4")
    variants: tuple[VariantConfig, ...] = Field(min_length=1)
    calls: int = Field(8, ge=1, le=1000, description="examples of the network's input kept for calibration, export and timing")
    repeats: int = Field(3, ge=1, le=100, description="timings, of which the shortest counts")
    most_lost_db: float = Field(0.2, ge=0, description="what half the size or time may cost")


def load_compression(name_or_path: str, assignments: tuple[str, ...] = ()) -> CompressionConfig:
    """Read a configuration from a file or by its shipped name; raise `UsageError` (``ARG-NAME``, ``CFG-FILE``, ``CFG-VALUE``)."""
    path = Path(name_or_path)
    if not path.is_file() and name_or_path in shipped_names():
        path = Path(str(resources.files("medrecon.configs") / f"{name_or_path}.yaml"))
    if not path.is_file():
        hint = f"Give a YAML file, or one of: {', '.join(shipped_names())}."
        raise UsageError("ARG-NAME", "there is no such configuration of a compression", hint)
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UsageError("CFG-FILE", f"{path.name} holds {type(data).__name__}, not settings with their names")
    return parse(CompressionConfig, {**data, **assigned(assignments)}, "compression")


def shipped_names() -> tuple[str, ...]:
    """Return the names of the configurations that come with the package."""
    files = resources.files("medrecon.configs").iterdir()
    return tuple(sorted(Path(file.name).stem for file in files if Path(file.name).match("compress-*.yaml")))
