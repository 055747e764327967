"""The one description of a training run: API argument, YAML recipe, ``--set`` flags and what the weights record.

Nothing here loads torch. The settings of the network are checked against its own model when it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from medrecon.config import assigned
from medrecon.core.errors import UsageError
from medrecon.core.provenance import hash_of
from medrecon.core.reading import Positive
from medrecon.core.settings import Config, parse, read_yaml

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NetworkConfig(Config):
    """Which network, and how it is built."""

    name: str = Field(description="name of a file in medrecon/networks")
    settings: Mapping[str, Any] = Field(default_factory=dict, description="checked against the network's own model")
    start: str | None = Field(None, description="weights to start from: a shipped name or a safetensors file; none: random ones")


class SourceConfig(Config):
    """Volumes from disk; what is synthesised from nothing is a setting of the task."""

    loader: str = Field("folder", description="name of a file in medrecon/training/loaders")
    path: Path = Field(description="where the data set lies, in the form in which it is distributed")
    weight: Weight = Field(1.0, description="how often this source is drawn from, against the others")
    held_out: Share = Field(0.1, description="share of the cases that is kept for validation and never trained on")
    coarsest_mm: Positive | None = Field(None, description="volumes with coarser voxels along any axis are left out")
    cached: int = Field(16, ge=0, description="volumes kept in memory; each process has its own")
    allow: tuple[str, ...] = Field((), description="named laxness in reading, as for `medrecon run`")


class AugmentConfig(Config):
    """Random changes of volumes from disk, each drawn anew for every example."""

    rotation_deg: float = Field(10.0, ge=0, le=180, description="largest angle about each axis")
    translation_mm: float = Field(5.0, ge=0, description="largest shift along each axis")
    scaling: float = Field(0.1, ge=0, lt=1, description="largest relative change of size along each axis")
    flips: Share = Field(0.5, description="probability of a flip along each axis")
    elastic_mm: float = Field(2.0, ge=0, description="largest displacement of the elastic deformation")
    elastic_every_mm: Positive = Field(20.0, description="how far the deformation stays alike")
    intensity: float = Field(0.1, ge=0, lt=1, description="largest relative change of contrast, and of brightness in the range")
    gamma: float = Field(0.2, ge=0, lt=1, description="largest change of the exponent of the contrast curve; not for CT")


class LossConfig(Config):
    """Weights of the parts of the supervised loss; 0 leaves a part out."""

    l1: Weight = 1.0
    l2: Weight = 0.0
    gradient: Weight = Field(0.1, description="L1 of the differences between neighbours: edges")
    ssim: Weight = Field(0.0, description="1 - structural similarity in windows of 7 voxels")

    @model_validator(mode="after")
    def check_any(self) -> Self:
        """Refuse a loss without parts."""
        if not any(self.model_dump().values()):
            raise ValueError("every weight of the loss is 0: nothing could be learned")
        return self


class OptimiserConfig(Config):
    """The descent: AdamW with a warm-up and a cosine to the last step."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    rate: Positive = Field(1e-3, description="highest learning rate")
    last_rate: Share = Field(0.01, description="what is left of it at the end, as a share")
    warm_up: Share = Field(0.02, description="share of the run in which the rate rises from 0")
    weight_decay: Weight = 1e-4
    clip: Positive | None = Field(1.0, description="longest gradient; none: not clipped")
    average: Share = Field(
        0.0, description="decay of the running mean of the weights, near 0.999; 0: none, the last weights count"
    )


class StopConfig(Config):
    """When to stop before the last step."""

    metric: str = Field("psnr_db", description="a number that the task's validation returns")
    better: Literal["higher", "lower"] = "higher"
    keep: Literal["best", "last"] = Field("best", description="which weights the run ends with")
    patience: int | None = Field(None, ge=1, description="validations without a better one after which to stop; none: never")


class TrainingConfig(Config):
    """Everything that decides what the weights become."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="name of the weights")
    task: str = Field(description="name of a file in medrecon/training/tasks: what the network is trained to do")
    settings: Mapping[str, Any] = Field(default_factory=dict, description="settings of the task, checked against its own model")
    network: NetworkConfig
    data: tuple[SourceConfig, ...] = Field((), description="volumes from disk; none: only what the task synthesises")
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    stop: StopConfig = StopConfig()
    steps: int = Field(gt=0, description="steps of the optimiser")
    minutes: Positive | None = Field(
        None, description="time after which to stop; the rate falls with whichever is nearer its end"
    )
    batch: int = Field(1, gt=0, description="examples a step in each process")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the network's arithmetic; weights stay float32")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    seed: int = Field(0, ge=0, description="of everything random")
    deterministic: bool = Field(False, description="same bytes from the same machine also on a GPU; slower there")
    workers: int = Field(0, ge=0, description="processes that make examples beside the training; 0: in the training process")
    log_every: int = Field(10, gt=0, description="steps between lines of the log")
    validate_every: int = Field(500, gt=0, description="steps between validations")
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints")
    tensorboard: bool = Field(False, description="write TensorBoard's files too")
    licence: str = Field("Apache-2.0", description="of the weights, for their manifest")

    @model_validator(mode="after")
    def check_task(self) -> Self:
        """Check the task's name and its settings against the task's own model, and fill in its defaults."""
        from medrecon.training import tasks

        try:
            checked = parse(tasks.settings_of(self.task), dict(self.settings), f"settings of {self.task}")
        except UsageError as error:
            raise ValueError(f"{error.fact} {error.hint}".strip()) from error
        object.__setattr__(self, "settings", checked.model_dump(mode="json"))
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the weights, in canonical form: how often a run is written down does not."""
        return hash_of(
            self.model_dump(mode="json", exclude={"device", "workers", "log_every", "checkpoint_every", "tensorboard"})
        )

    def to_yaml(self) -> str:
        """Return the configuration as YAML that `load_training` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_training(file: Path, assignments: tuple[str, ...] = ()) -> TrainingConfig:
    """Read a recipe and lay ``a.b=value`` assignments over it.

    Raises
    ------
    UsageError
        ``CFG-FILE`` or ``CFG-VALUE``, naming the setting.
    """
    data = read_yaml(file)
    if not isinstance(data, dict):
        raise UsageError("CFG-FILE", f"{file.name} holds {type(data).__name__}, not settings with their names")
    for assignment in assignments:
        data = _merged(data, assigned((assignment,)))
    return parse(TrainingConfig, data, "training")


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that ship with the package."""
    files = resources.files("medrecon.configs").iterdir()
    return tuple(sorted(Path(file.name).stem for file in files if Path(file.name).match("train-*.yaml")))


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a recipe: a path, or the name of a shipped one; raise `UsageError` (``ARG-NAME``) for neither."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    if name_or_path not in recipe_names():
        raise UsageError("ARG-NAME", "there is no such recipe", f"Give a YAML file, or one of: {', '.join(recipe_names())}.")
    return Path(str(resources.files("medrecon.configs") / f"{name_or_path}.yaml"))


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, mapping by mapping; another task or network drops the settings of the first."""
    for name in ("task", "name"):
        if name in base and over.get(name, base[name]) != base[name]:
            base = {**base, "settings": {}}
    both = {
        key: _merged(base[key], value) if isinstance(base.get(key), dict) and isinstance(value, dict) else value
        for key, value in over.items()
    }
    return {**base, **both}
