"""Turn a recipe into weights: MONAI's supervised trainer, with everything around it that a long run needs.

A step's batch, learning rate and random numbers depend on the seed and the number of the step alone. That is why a run
that was killed and goes on from its checkpoint ends, on a CPU, with the very weights of an undisturbed one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from medrecon.core.errors import UsageError
from medrecon.core.progress import Tick, silent
from medrecon.networks import weights
from medrecon.training.config import TrainingConfig
from medrecon.training.descent import Descent, Trained, another_network, make_task, measured
from medrecon.training.processes import Processes, joined

_LOCK = ".lock"


def train(config: TrainingConfig, out: Path, resume: bool = False, tick: Tick = silent) -> Trained:
    """Train as a recipe says.

    Parameters
    ----------
    config : TrainingConfig
    out : Path
        Folder for weights, manifest, checkpoint, log and recipe.
    resume : bool
        Go on from the checkpoint in `out`, where there is one.
    tick : Tick, optional
        Called with the finished share after every step; may raise `CancelledError`, after which `resume` goes on.

    Raises
    ------
    UsageError
        ``OUT-EXISTS`` where a training stands in `out` already, ``TRN-RECIPE`` where another one is to be resumed,
        ``TRN-LOCKED`` where one is at work there.
    InputError
        ``TRN-DATA``, ``TRN-CHECKPOINT``.
    MedreconError
        ``TRN-LOSS`` where the loss or its gradient is no longer finite.
    """
    with joined(config.device) as processes, repeatable(config, processes), _locked(out, processes):
        run = Descent(config, out, processes, tick)
        run.begin(resume)
        run.descend()
        return run.finish()


def evaluate(config: TrainingConfig, name_or_path: str | Path) -> dict[str, float]:
    """Measure weights on the validation of a recipe's task; raise as `medrecon.networks.weights.load` and `train` do."""
    with joined(config.device) as processes, repeatable(config, processes):
        loaded = weights.load(name_or_path, processes.device)
        if loaded.manifest.network != config.network.name:
            raise another_network(loaded.manifest, config)
        return measured(config, make_task(config, processes), loaded.module, processes)


@contextlib.contextmanager
def repeatable(config: TrainingConfig, processes: Processes) -> Iterator[None]:
    """Run a block seeded and, where the recipe asks for it, with deterministic kernels; give back what was set before."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    with torch.random.fork_rng([processes.device] if processes.device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        try:
            if config.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses
                torch.backends.cudnn.benchmark = False
                torch.use_deterministic_algorithms(True)
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            torch.backends.cudnn.benchmark = before[1]
            if workspace is None:
                os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@contextlib.contextmanager
def _locked(out: Path, processes: Processes) -> Iterator[None]:
    """Hold the output folder in the process that writes; the kernel frees the lock when we are killed."""
    if not processes.leads:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / _LOCK, timeout=0):
            yield
    except Timeout as error:
        hint = "Wait for it, or choose another folder."
        raise UsageError("TRN-LOCKED", "another training works in this output folder", hint) from error
