"""Make every variant, judge each as the network itself, and put all of them into one table.

A variant that cannot be made becomes a row with its reason; the others go on.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon import networks
from medrecon.core.errors import CancelledError, InputError, MedreconError, UsageError
from medrecon.core.progress import Tick, silent
from medrecon.core.settings import Config, parse
from medrecon.networks import weights
from medrecon.networks.heart import Heart, HeartOf, Inputs, outputs, recorded
from medrecon.networks.manifest import Manifest
from medrecon.networks.weights import ENDING, LoadedNet
from medrecon.safety.atomic import replacing
from medrecon.safety.text import printable
from medrecon.training import compression
from medrecon.training.compression import Made, Subject
from medrecon.training.compression.config import CompressionConfig, VariantConfig
from medrecon.training.config import TrainingConfig, find_recipe, load_training
from medrecon.training.descent import make_task
from medrecon.training.processes import Processes

TABLE = "table.json"
_SEED = 1_000_003  # of the batch on which the network is watched

_log = logging.getLogger(__name__)


class Row(Config):
    """One variant as measured; times are seconds of one processor, errors relative to the original network."""

    name: str
    kind: str
    bytes: int = 0
    cpu_seconds: float = 0.0
    metrics: dict[str, float] = Field(default_factory=dict)
    lost_db: float | None = None
    apart: float = 0.0
    halves: bool = False
    note: str = ""
    failed: str = ""


class Table(Config):
    """All variants of a network; the first row is the network itself."""

    weights: str
    network: str
    recipe: str
    threads: int
    rows: tuple[Row, ...]


def compress(config: CompressionConfig, out: Path, tick: Tick = silent) -> Table:
    """Make and measure all variants; their files and the table go to `out`.

    Raises
    ------
    WeightsError, UsageError, InputError, CancelledError
        ``OUT-EXISTS`` where the folder holds a table already.
    """
    if (out / TABLE).exists():
        raise UsageError("OUT-EXISTS", "a table stands in the output folder already", "Choose another folder with --out.")
    recipe = load_training(find_recipe(config.recipe), config.assign)
    loaded = weights.load(config.weights)
    if loaded.manifest.network != recipe.network.name:
        fact = f"the weights belong to the network {loaded.manifest.network}, the recipe trains {recipe.network.name}"
        raise InputError("TRN-NETWORK", fact, "Name the recipe that the weights were trained with.")
    bench = _Bench(config, recipe, loaded, out)
    rows = [bench.original()]
    for number, variant in enumerate(config.variants, start=1):
        rows.append(bench.row(variant, _part(tick, number, 1 + len(config.variants))))
    table = Table(
        weights=config.weights,
        network=loaded.manifest.network,
        recipe=config.recipe,
        threads=torch.get_num_threads(),
        rows=tuple(rows),
    )
    with replacing(out / TABLE) as scratch:
        scratch.write_text(json.dumps(table.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    tick(1.0)
    return table


@dataclass(slots=True)
class _Judged:
    """What came out of validating a network: numbers, last answers, and what its heart was given."""

    metrics: dict[str, float] = field(default_factory=dict)
    answers: list[Tensor] = field(default_factory=list)
    calls: list[Inputs] = field(default_factory=list)
    extent: tuple[int, ...] = ()


class _Bench:
    """Where every variant is made and measured under the same conditions."""

    def __init__(self, config: CompressionConfig, recipe: TrainingConfig, loaded: LoadedNet, out: Path) -> None:
        self.config, self.recipe, self.loaded, self.out = config, recipe, loaded, out
        self.task = make_task(recipe.model_copy(update={"batch": 1}), Processes(0, 1, torch.device("cpu")))
        self.settings = _settings(loaded)
        self.judged = _Judged()
        self.seconds, self.bytes = math.inf, 0

    def original(self) -> Row:
        """Measure the network itself, and keep what it was given on the way."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.judged = self._judge(self.loaded.module)
        path = self.out / f"original{ENDING}"
        weights.save(path, self.loaded.manifest.network, self.settings, self.loaded.module, self.loaded.manifest)
        self.seconds, self.bytes = self._seconds(HeartOf(self.loaded.module), self.judged), path.stat().st_size
        return Row(
            name="original", kind="float32", bytes=self.bytes, cpu_seconds=self.seconds, metrics=self.judged.metrics, lost_db=0.0
        )

    def row(self, variant: VariantConfig, tick: Tick) -> Row:
        """Make and measure one variant, or say why there is none."""
        tick(0.0)
        kind = compression.get(variant.kind)
        settings = parse(kind.settings, dict(variant.settings), f"settings of {variant.kind}")
        folder = self.out / variant.label
        folder.mkdir(exist_ok=True)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.recipe.seed)
                return self._measured(variant, kind.make(self._subject(folder, tick), settings))
        except CancelledError:
            raise
        except (
            ImportError,
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            AssertionError,
            MedreconError,
        ) as error:
            reason = printable(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", 300)
            _log.warning("%s of %s failed: %s", variant.label, self.loaded.manifest.network, reason)
            return Row(name=variant.label, kind=variant.kind, failed=reason)

    def _subject(self, folder: Path, tick: Tick) -> Subject:
        manifest = self.loaded.manifest
        return Subject(
            network=manifest.network,
            module=self.loaded.module,
            settings=self.settings,
            manifest=manifest,
            weights=str(self.out / f"original{ENDING}"),
            calls=tuple(self.judged.calls),
            extent=self.judged.extent,
            use=self._use,
            finetune=_FineTuner(self.recipe, folder, manifest, tick),
            folder=folder,
        )

    def _use(self, network: nn.Module) -> object:
        with torch.no_grad():
            return self.task.loss(network, self.task.batch(_SEED, 0))

    def _measured(self, variant: VariantConfig, made: Made) -> Row:
        judged = self._judge(made.module)
        seconds = self._seconds(made.heart, judged)
        before, after = self.judged.metrics.get("psnr_db"), judged.metrics.get("psnr_db")
        lost = None if before is None or after is None else before - after
        halved = made.bytes <= self.bytes / 2 or seconds <= self.seconds / 2
        return Row(
            name=variant.label,
            kind=variant.kind,
            bytes=made.bytes,
            cpu_seconds=seconds,
            metrics=judged.metrics,
            lost_db=lost,
            apart=_apart(self.judged.answers, judged.answers),
            halves=halved and lost is not None and lost <= self.config.most_lost_db,
            note=made.note,
        )

    def _judge(self, network: nn.Module) -> _Judged:
        """Validate a network as its task does, and keep what it answered and what its heart was given meanwhile."""
        judged = _Judged()

        def validate(watched: nn.Module) -> None:
            hook = watched.register_forward_hook(lambda *given: judged.answers.extend(outputs(given[-1])[-1:]))
            try:
                with torch.no_grad():
                    judged.metrics = {name: float(value) for name, value in self.task.validate(watched).items()}
            finally:
                hook.remove()

        judged.calls, judged.extent = recorded(network, validate, self.config.calls)
        return judged

    def _seconds(self, heart: Heart, judged: _Judged) -> float:
        """Return the processor time of the largest call, the shortest of some: a busy machine changes little."""
        inputs = max(judged.calls, key=lambda call: call[0].numel())
        with torch.inference_mode():
            heart(*inputs)
            return min(_once(heart, inputs) for _ in range(self.config.repeats))


class _FineTuner:
    """Trains a variant by the recipe, in the folder of the variant."""

    def __init__(self, recipe: TrainingConfig, folder: Path, manifest: Manifest, tick: Tick) -> None:
        self.recipe, self.folder, self.manifest, self.tick = recipe, folder, manifest, tick

    def __call__(
        self, settings: Config, start: nn.Module | None, steps: int, task: str | None = None, over: dict[str, Any] | None = None
    ) -> nn.Module:
        """Train, and return the network."""
        from medrecon.training.engine import train

        network = {"name": self.recipe.network.name, "settings": settings.model_dump(mode="json"), "start": None}
        if start is not None:
            path = self.folder / f"start{ENDING}"
            weights.save(path, self.recipe.network.name, settings, start, self.manifest)
            network["start"] = str(path)
        changed: dict[str, Any] = {"network": network, "steps": steps, "minutes": None}
        if task is not None:
            changed |= {"task": task, "settings": {"task": self.recipe.task, "settings": self.recipe.settings, **(over or {})}}
        config = parse(TrainingConfig, {**self.recipe.model_dump(mode="json"), **changed}, "training")
        trained = train(config, self.folder / "training", resume=True, tick=self.tick)
        return weights.load(trained.weights).module


def _part(tick: Tick, number: int, parts: int) -> Tick:
    """Return the tick of one of several equal parts of the work."""
    return lambda share: tick((number + share) / parts)


def _settings(loaded: LoadedNet) -> Config:
    return parse(networks.get(loaded.manifest.network).settings, loaded.manifest.config, "network")


def _once(heart: Heart, inputs: Inputs) -> float:
    start = time.process_time()
    heart(*inputs)
    return time.process_time() - start


def _apart(exact: list[Tensor], other: list[Tensor]) -> float:
    """Return the difference of all answers over the size of the first ones, both as root mean squares."""
    missed = sum(float((b.float() - a.float()).square().sum()) for a, b in zip(exact, other, strict=True))
    return math.sqrt(missed / max(sum(float(a.float().square().sum()) for a in exact), 1e-20))
