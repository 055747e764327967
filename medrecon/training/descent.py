"""One training in one process: its state, its steps, and what happens around each of them.

Nothing here decides where a training lies or whether it may begin; `medrecon.training.engine` does.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from medrecon import networks
from medrecon.core.errors import InputError, MedreconError, UsageError
from medrecon.core.progress import Tick
from medrecon.core.provenance import versions
from medrecon.core.settings import parse
from medrecon.networks import weights
from medrecon.networks.manifest import Manifest, Training
from medrecon.safety.atomic import replacing, sweep
from medrecon.training import checkpoint as checkpoints
from medrecon.training import journal, losses, tasks
from medrecon.training.checkpoint import Checkpoint, Standing, Tensors
from medrecon.training.config import OptimiserConfig, TrainingConfig
from medrecon.training.mixture import Mixture
from medrecon.training.processes import Processes
from medrecon.training.tasks import Batch, Context, Task

CHECKPOINT, JOURNAL, RECIPE, TENSORBOARD = "checkpoint.safetensors", "log.jsonl", "training.yaml", "tensorboard"

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training ended with.

    Parameters
    ----------
    weights : Path
        The safetensors file; its manifest stands beside it.
    step : int
        Steps that were taken.
    metrics : mapping of name to number
        The validation of these weights.
    """

    weights: Path
    step: int
    metrics: dict[str, float]


def rate_share(share: float, config: OptimiserConfig) -> float:
    """Learning rate at a share of the run, over the highest: a straight rise, then half a cosine to the last rate."""
    if share < config.warm_up:
        return share / config.warm_up
    rest = (share - config.warm_up) / max(1 - config.warm_up, 1e-9)
    return config.last_rate + (1 - config.last_rate) * (1 + math.cos(math.pi * min(rest, 1.0))) / 2


class _Examples(Dataset[Batch]):
    """Batches by number; torch's loader makes them in this process or beside it."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task, self._seed = task, seed

    def __getitem__(self, index: int) -> Batch:
        return self._task.batch(self._seed, index)


class _Step(nn.Module):
    """From a batch to the loss: what several processes share the gradient of."""

    def __init__(self, network: nn.Module, task: Task, precision: str) -> None:
        super().__init__()
        self.network = network
        self._task, self._reduced = task, precision == "bfloat16"

    def forward(self, batch: Batch) -> Tensor:
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._reduced):
            return self._task.loss(self.network, batch).float()


@dataclass(slots=True)
class _Clock:
    """Time spent on this training, over all of its runs."""

    before_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.monotonic() - self.started_s


class Descent:
    """One training in one process."""

    def __init__(self, config: TrainingConfig, out: Path, processes: Processes, tick: Tick) -> None:
        self.config, self.out, self.processes, self.tick = config, out, processes, tick
        self.task = make_task(config, processes)
        self.network = _network(config).to(processes.device)
        self.average = _averaging(self.network, config.optimiser.average)
        self.optimiser = _optimiser(self.network, config.optimiser)
        self.standing = Standing(digest=config.digest)
        self.best: Tensors = {}
        self.clock = _Clock()
        self.losses: list[Tensor] = []
        self.gradient = 0.0
        self.writer: Any = None

    def begin(self, resume: bool) -> None:
        """Take up the checkpoint, or lay out the folder."""
        there = self.out / CHECKPOINT
        if not resume and (there.exists() or self._weights_path.exists()):
            hint = "Go on with --resume, or choose another folder with --out."
            raise UsageError("OUT-EXISTS", "a training stands in the output folder already", hint)
        if there.exists():
            self._take_up(checkpoints.read(there))
        if self.processes.leads:
            self.out.mkdir(parents=True, exist_ok=True)
            sweep(self.out)
            with replacing(self.out / RECIPE) as scratch:
                scratch.write_text(self.config.to_yaml(), encoding="utf-8")
            journal.cut(self.out / JOURNAL, self.standing.step)

    def descend(self) -> None:
        """Take the steps that are left."""
        if self.standing.finished or self._is_over():
            return
        trainer = self._trainer()
        trainer.load_state_dict({"iteration": self.standing.step, "max_epochs": 1, "epoch_length": self.config.steps})
        trainer.run()

    def finish(self) -> Trained:
        """Validate the last weights, and write the ones that count."""
        path = self._weights_path
        if not self.processes.leads:
            return Trained(path, self.standing.step, self.standing.metrics)
        if not self.standing.finished:
            self._validate()
            self.standing = self.standing.model_copy(update={"finished": True})
            self._write_checkpoint()
        if self.writer is not None:
            self.writer.close()
        if self.best:
            checkpoints.restore(self.network, self.best)
        elif self.average is not None:
            self.network.load_state_dict(self.average.module.state_dict())
        settings = parse(networks.get(self.config.network.name).settings, dict(self.config.network.settings), "network")
        weights.save(path, self.config.network.name, settings, self.network, self._story())
        return Trained(path, self.standing.step, self.standing.metrics)

    @property
    def _weights_path(self) -> Path:
        return self.out / f"{self.config.name}{weights.ENDING}"

    @property
    def _counting(self) -> nn.Module:
        """The weights that count: their running mean, where one is kept."""
        return self.network if self.average is None else self.average.module

    def _take_up(self, found: Checkpoint) -> None:
        if found.standing.digest != self.config.digest:
            hint = "Resume with the recipe in training.yaml beside the checkpoint, or train into another folder."
            raise UsageError("TRN-RECIPE", "the checkpoint was made by another recipe", hint)
        checkpoints.restore(self.network, found.network)
        checkpoints.restore_optimiser(self.optimiser, found.optimiser)
        if self.average is not None:
            checkpoints.restore(self.average, found.average)
        self.standing, self.best = found.standing, found.best
        self.clock = _Clock(found.standing.elapsed_s)

    def _trainer(self) -> Any:  # noqa: ANN401 (MONAI carries no types)
        """MONAI's trainer over our step, with what happens around each of them in its order."""
        Events, SupervisedTrainer, IterationEvents = _engines()
        step = _Step(self.network, self.task, self.config.precision)
        trainer = SupervisedTrainer(
            device=self.processes.device,
            max_epochs=1,
            epoch_length=self.config.steps,
            train_data_loader=self._loader(),
            network=self.processes.shared(step),
            optimizer=self.optimiser,
            loss_function=lambda loss, _: loss,
            prepare_batch=lambda batch, device, non_blocking: (_moved(batch, device, non_blocking), None),
            decollate=False,
            optim_set_to_none=True,
        )
        trainer.logger = _log
        self._set_rate(self._share())
        trainer.add_event_handler(Events.ITERATION_STARTED, self._seed_step)
        trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, self._judge)
        trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)
        if self.config.tensorboard and self.processes.leads:
            self.writer = _tensorboard(trainer, self.out / TENSORBOARD, self.config.log_every)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        return trainer

    def _loader(self) -> DataLoader[Batch]:
        numbers = range(
            self.standing.step * self.processes.count + self.processes.rank,
            self.config.steps * self.processes.count,
            self.processes.count,
        )
        return DataLoader(
            _Examples(self.task, self.config.seed),
            batch_size=None,
            sampler=numbers,
            num_workers=self.config.workers,
            collate_fn=_as_it_is,
            pin_memory=False,
        )

    def _seed_step(self, engine: Any) -> None:  # noqa: ANN401 (MONAI carries no types)
        """Let dropout and the like depend on the number of the step alone."""
        index = (engine.state.iteration - 1) * self.processes.count + self.processes.rank
        torch.manual_seed(tasks.generator(self.config.seed, index).initial_seed())

    def _judge(self, engine: Any) -> None:  # noqa: ANN401 (MONAI carries no types)
        """Stop where the loss is not finite: its gradient would spoil the weights, or worse."""
        self._refuse("loss", float(engine.state.output["loss"].detach()), engine.state.iteration)

    def _clip(self, engine: Any) -> None:  # noqa: ANN401 (MONAI carries no types)
        """Shorten a long gradient; stop where it is not finite, before it reaches the weights."""
        longest = self.config.optimiser.clip or math.inf
        self.gradient = float(nn.utils.clip_grad_norm_(self.network.parameters(), longest))
        self._refuse("gradient", self.gradient, engine.state.iteration)

    def _refuse(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise MedreconError(
                "TRN-LOSS",
                f"at step {step} the {what} is not finite; the checkpoint before it is good",
                "Lower optimiser.rate or optimiser.clip, or train in float32.",
            )

    def _after_step(self, engine: Any) -> None:  # noqa: ANN401 (MONAI carries no types)
        """Do what is due after a step, and end the run where it is time."""
        step = int(engine.state.iteration)
        self.standing = self.standing.model_copy(update={"step": step})
        if self.average is not None:
            self.average.update_parameters(self.network)
        if self.processes.leads:
            self._write_down(engine.state.output["loss"].detach())
        share, ends = self.processes.agreed((self._share(), float(self._is_over())))
        self._set_rate(share)
        self.tick(share)
        if ends:
            engine.terminate()

    def _write_down(self, loss: Tensor) -> None:
        step, config = self.standing.step, self.config
        self.losses.append(loss)
        if step % config.log_every == 0:
            mean = float(torch.stack(self.losses).mean())
            self.losses.clear()
            self._note({"loss": mean, "gradient": self.gradient, "rate": self.optimiser.param_groups[0]["lr"]})
        if step % config.validate_every == 0:
            self._validate()
        if step % config.checkpoint_every == 0:
            self._write_checkpoint()

    def _validate(self) -> None:
        """Measure the weights that count, and keep them where they are the best so far."""
        if self.standing.validated == self.standing.step:
            return
        metrics = measured(self.config, self.task, self._counting, self.processes)
        self._note({"validation": metrics})
        for name, number in metrics.items() if self.writer is not None else ():
            self.writer.add_scalar(f"validation/{name}", number, self.standing.step)
        value = metrics.get(self.config.stop.metric, math.nan)
        better, keeps_best = self._is_better(value), self.config.stop.keep == "best"
        change: dict[str, Any] = {"validated": self.standing.step, "waited": 0 if better else self.standing.waited + 1}
        if better:
            change |= {"best": value, "best_step": self.standing.step}
            self.best = checkpoints.copied(self._counting) if keeps_best else {}
        if better or not (keeps_best and self.best):
            change["metrics"] = metrics
        self.standing = self.standing.model_copy(update=change)

    def _is_better(self, value: float) -> bool:
        best = self.standing.best
        if best is None or not math.isfinite(value):
            return best is None and math.isfinite(value)
        return value > best if self.config.stop.better == "higher" else value < best

    def _write_checkpoint(self) -> None:
        self.standing = self.standing.model_copy(update={"elapsed_s": self.clock.elapsed_s})
        found = Checkpoint(
            self.standing,
            checkpoints.copied(self.network),
            checkpoints.optimiser_tensors(self.optimiser),
            {} if self.average is None else checkpoints.copied(self.average),
            self.best,
        )
        checkpoints.write(self.out / CHECKPOINT, found)

    def _note(self, values: dict[str, Any]) -> None:
        journal.append(self.out / JOURNAL, {"step": self.standing.step, "seconds": round(self.clock.elapsed_s, 3), **values})

    def _share(self) -> float:
        """How much of the run is over: of its steps, or of its time where that is nearer its end."""
        by_steps = self.standing.step / self.config.steps
        limit = self.config.minutes
        return min(1.0, by_steps if limit is None else max(by_steps, self.clock.elapsed_s / (60 * limit)))

    def _is_over(self) -> bool:
        patience = self.config.stop.patience
        return self._share() >= 1 or (patience is not None and self.standing.waited >= patience)

    def _set_rate(self, share: float) -> None:
        """Set the rate of the next step, which is that at its middle."""
        middle = share + 0.5 / self.config.steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.optimiser.rate * rate_share(middle, self.config.optimiser)

    def _story(self) -> Training:
        """Tell for the manifest how these weights came about."""
        where = torch.cuda.get_device_name(self.processes.device) if self.processes.device.type == "cuda" else "CPU"
        told = {
            "training_data": "not described by its task",
            **self.task.describe(),
            "title": self.config.name,
            "metrics": self.standing.metrics,
            "licence": self.config.licence,
            "trained_on": f"{where}, {self.config.precision}"
            + (f", {self.processes.count} processes" if self.processes.count > 1 else ""),
            "trained_date": datetime.now(UTC).date(),
            "training_seconds": self.clock.elapsed_s,
            "seed": self.config.seed,
            "versions": versions(),
            "notes": (f"{self.standing.step} steps, best at {self.standing.best_step}", f"recipe {self.config.digest}"),
        }
        return parse(Training, told, "manifest")


def make_task(config: TrainingConfig, processes: Processes) -> Task:
    """Build the recipe's task, with its volumes from disk and its loss."""
    context = Context(
        batch=config.batch,
        loss=losses.supervised(config.loss),
        volumes=Mixture(config.data, config.augment),
        device=str(processes.device),
    )
    return tasks.build(config.task, dict(config.settings), context)


def _network(config: TrainingConfig) -> nn.Module:
    """Build the recipe's network, with the weights that it starts from."""
    network = networks.build(config.network.name, dict(config.network.settings))
    if config.network.start is not None:
        loaded = weights.load(config.network.start)
        if loaded.manifest.network != config.network.name:
            raise another_network(loaded.manifest, config)
        checkpoints.restore(network, dict(loaded.module.state_dict()))
    return network


def another_network(found: Manifest, config: TrainingConfig) -> InputError:
    """Say that weights are for another network than the recipe's."""
    return InputError(
        "TRN-NETWORK",
        f"the weights belong to the network {found.network}, the recipe trains {config.network.name}",
        "Take weights of the same network, or another recipe.",
    )


def measured(config: TrainingConfig, task: Task, network: nn.Module, processes: Processes) -> dict[str, float]:
    """Validate without gradients, in evaluation mode, in the recipe's precision."""
    was_training = network.training
    network.eval()
    torch.manual_seed(config.seed)
    with torch.no_grad(), torch.autocast(processes.device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
        metrics = {name: float(value) for name, value in task.validate(network).items()}
    network.train(was_training)
    return metrics


def _optimiser(network: nn.Module, config: OptimiserConfig) -> Optimizer:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.rate, momentum=0.9, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.rate, weight_decay=config.weight_decay)


def _averaging(network: nn.Module, decay: float) -> AveragedModel | None:
    if decay == 0:
        return None
    mean = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return AveragedModel(network, multi_avg_fn=mean, use_buffers=True)


def _moved(value: Any, device: torch.device, non_blocking: bool) -> Any:  # noqa: ANN401 (whatever a task puts into a batch)
    """Bring the tensors of a batch to the device; leave the rest as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, dict):
        return {name: _moved(item, device, non_blocking) for name, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, device, non_blocking) for item in value]
    return value


def _engines() -> Any:  # noqa: ANN401 (neither library carries types)
    """Return Ignite's events, MONAI's trainer and its events; they come with the extra `train`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # theirs, of what torch is about to leave out
            from ignite.engine import Events
            from monai.engines.trainer import SupervisedTrainer
            from monai.engines.utils import IterationEvents
    except ImportError as error:
        raise UsageError("TRN-EXTRA", "training needs pytorch-ignite", "pip install 'medrecon[train]'") from error
    return Events, SupervisedTrainer, IterationEvents


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 (torch's loader knows no types of examples)
    return batch


def _tensorboard(trainer: Any, folder: Path, every: int) -> Any:  # noqa: ANN401 (MONAI carries no types)
    """Let a trainer write its loss for TensorBoard; return the writer."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # theirs
            from monai.handlers.tensorboard_handlers import TensorBoardStatsHandler
            from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TRN-EXTRA", "TensorBoard was asked for and is not here", "pip install 'medrecon[train]'") from error

    writer = SummaryWriter(log_dir=str(folder))
    handler = TensorBoardStatsHandler(
        summary_writer=writer, iteration_log=every, epoch_log=False, output_transform=lambda o: o["loss"], tag_name="loss"
    )
    handler.attach(trainer)
    return writer
