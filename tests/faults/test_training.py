"""A training survives being killed, and says what is wrong where it cannot go on."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medrecon.core.errors import CancelledError, InputError, MedreconError, UsageError
from medrecon.networks import build
from medrecon.training import checkpoint as checkpoints
from medrecon.training import journal, losses, tasks
from medrecon.training.config import TrainingConfig
from medrecon.training.descent import CHECKPOINT, JOURNAL, TENSORBOARD, rate_share
from medrecon.training.engine import train
from medrecon.training.mixture import Mixture
from medrecon.training.tasks import Context
from medrecon.training.tasks.flow import Flow
from tests.makers_training import SMALL, small

STEPS = ("steps=10", "checkpoint_every=4", "validate_every=5", "log_every=1", "optimiser.average=0.9")

KILLED = """
import os, signal, sys
from pathlib import Path
from medrecon.training.engine import train
from tests.makers_training import small

def tick(share):
    if share >= 0.7:
        os.kill(os.getpid(), signal.SIGKILL)

train(small("train-flow", *sys.argv[2:]), Path(sys.argv[1]), tick=tick)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads; the killed child has one too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one / "flow.safetensors"), load_file(other / "flow.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def cancelled_at(share: float) -> Any:
    def tick(now: float) -> None:
        if now >= share:
            raise CancelledError("RUN-CANCELLED", "the run was cancelled")

    return tick


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_training_goes_on_to_the_very_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    config, calm, killed = small("train-flow", *STEPS), tmp_path / "calm", tmp_path / "killed"
    train(config, calm)
    command = [sys.executable, "-c", KILLED, str(killed), *STEPS]
    child = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=1000, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    assert not (killed / "flow.safetensors").exists()
    assert checkpoints.read(killed / CHECKPOINT).standing.step == 4
    train(config, killed, resume=True)
    assert same(calm, killed)
    steps = [entry["step"] for entry in journal.entries(killed / JOURNAL) if "loss" in entry]
    assert steps == list(range(1, 11))
    assert not list(killed.glob(".part-*"))


def test_without_what_the_optimiser_remembers_the_weights_are_others(tmp_path: Path) -> None:
    config, calm, robbed = small("train-flow", *STEPS), tmp_path / "calm", tmp_path / "robbed"
    train(config, calm)
    with pytest.raises(CancelledError):
        train(config, robbed, tick=cancelled_at(0.7))
    found = checkpoints.read(robbed / CHECKPOINT)
    found.optimiser = {name: torch.zeros_like(tensor) for name, tensor in found.optimiser.items()}
    checkpoints.write(robbed / CHECKPOINT, found)
    train(config, robbed, resume=True)
    assert not same(calm, robbed)


def test_a_finished_training_that_is_resumed_changes_nothing(tmp_path: Path) -> None:
    config = small("train-flow", "steps=2")
    first = train(config, tmp_path / "out")
    before = first.weights.read_bytes()
    again = train(config, tmp_path / "out", resume=True)
    assert (again.step, again.metrics) == (first.step, first.metrics)
    assert again.weights.read_bytes() == before


def test_a_training_is_neither_overwritten_nor_mixed_with_another(tmp_path: Path) -> None:
    train(small("train-flow", "steps=1"), tmp_path / "out")
    with pytest.raises(UsageError, match=r"OUT-EXISTS.*--resume"):
        train(small("train-flow", "steps=1"), tmp_path / "out")
    with pytest.raises(UsageError, match="TRN-RECIPE"):
        train(small("train-flow", "steps=1", "seed=1"), tmp_path / "out", resume=True)
    train(small("train-flow", "steps=1", "checkpoint_every=7", "tensorboard=false"), tmp_path / "out", resume=True)


def test_two_trainings_do_not_work_in_one_folder(tmp_path: Path) -> None:
    config, out = small("train-flow", "steps=2"), tmp_path / "out"

    def second(_: float) -> None:
        with pytest.raises(UsageError, match="TRN-LOCKED"):
            train(config, out, resume=True)

    train(config, out, tick=second)
    train(config, out, resume=True)


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_checkpoint_that_is_none_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    out, mark = tmp_path / "out", tmp_path / "mark"
    out.mkdir()
    for content in (pickle.dumps(Payload(mark)), b"", b"\xff" * 64):
        (out / CHECKPOINT).write_bytes(content)
        with pytest.raises(InputError, match="TRN-CHECKPOINT"):
            train(small("train-flow", "steps=1"), out, resume=True)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


def test_weights_of_another_network_are_not_started_from(tmp_path: Path) -> None:
    trained = train(small("train-flow", "steps=1"), tmp_path / "a")
    manifest = trained.weights.with_suffix(".json")
    train(small("train-flow", "steps=1", f"network.start={trained.weights}"), tmp_path / "b")
    other = ("task=flow", "network={name: recurrent_inference}", f"network.start={trained.weights}")
    with pytest.raises(InputError, match="TRN-NETWORK"):
        train(small("train-flow", "steps=1", *other), tmp_path / "c")
    manifest.unlink()
    with pytest.raises(MedreconError, match="MDL-MISSING"):
        train(small("train-flow", "steps=1", f"network.start={trained.weights}"), tmp_path / "d")


def test_a_training_that_diverges_stops_before_its_weights_are_spoilt(tmp_path: Path) -> None:
    config = small("train-flow", "steps=20", "checkpoint_every=1", "optimiser.rate=1e30", "optimiser.clip=null")
    with pytest.raises(MedreconError, match=r"TRN-LOSS.*not finite"):
        train(config, tmp_path / "out")
    kept = checkpoints.read(tmp_path / "out" / CHECKPOINT).network
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_a_training_stops_when_it_no_longer_improves_and_keeps_its_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([3.0, 2.0, 2.5, 2.6, 0.1])
    seen: list[dict[str, Tensor]] = []

    def validate(_: Flow, network: torch.nn.Module) -> dict[str, float]:
        seen.append(checkpoints.copied(network))
        return {"missed_px": next(values)}

    monkeypatch.setattr(Flow, "validate", validate)
    trained = train(small("train-flow", "steps=9", "validate_every=1", "stop.patience=2"), tmp_path / "out")
    assert (trained.step, trained.metrics) == (4, {"missed_px": 2.0})
    kept = load_file(trained.weights)
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], seen[3][name]) for name in kept)


def test_a_training_ends_with_its_time(tmp_path: Path) -> None:
    trained = train(small("train-flow", "steps=100000", "minutes=0.002"), tmp_path / "out")
    assert trained.step < 100000
    assert trained.weights.exists()


def test_reduced_precision_leaves_the_weights_in_full(tmp_path: Path) -> None:
    trained = train(small("train-flow", "steps=2", "precision=bfloat16"), tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(trained.weights).values()} == {torch.float32}
    assert "bfloat16" in json.loads(trained.weights.with_suffix(".json").read_text())["trained_on"]


def test_settings_of_torch_are_given_back(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    train(small("train-flow", "steps=1", "deterministic=true"), tmp_path / "out")
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_examples_made_beside_the_training_are_the_same(tmp_path: Path) -> None:
    for workers in (0, 1):
        train(small("train-flow", "steps=3", f"workers={workers}"), tmp_path / str(workers))
    assert same(tmp_path / "0", tmp_path / "1")


def test_tensorboard_finds_the_loss_of_every_step(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError)
    train(small("train-flow", "steps=3", "log_every=1", "tensorboard=true"), tmp_path / "out")
    events = accumulator.EventAccumulator(str(tmp_path / "out" / TENSORBOARD))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("validation/missed_px")] == [3]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_descend_the_mean_of_their_gradients(tmp_path: Path) -> None:
    more = ("steps=2", "optimiser={name: sgd, rate: 0.1, average: 0}")
    sets = [part for assignment in (*SMALL["train-flow"], "device=cpu", *more) for part in ("--set", assignment)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "medrecon"]
    command = [*launch, "train", "train-flow", "--out", str(tmp_path / "out"), *sets]
    child = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=1000, check=False
    )
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stdout.count("weights:") == 1
    together = load_file(tmp_path / "out" / "flow.safetensors")
    alone = by_hand(small("train-flow", *more), processes=2)
    assert all(torch.allclose(together[name], alone[name], atol=1e-6) for name in together)
    one = by_hand(small("train-flow", *more), processes=1)
    assert not all(torch.allclose(together[name], one[name], atol=1e-6) for name in together)


def by_hand(config: TrainingConfig, processes: int) -> dict[str, Tensor]:
    """Descend without the engine: the mean loss of as many batches a step as there are processes."""
    torch.manual_seed(config.seed)
    network = build(config.network.name, dict(config.network.settings))
    task = tasks.build(config.task, dict(config.settings), Context(config.batch, losses.supervised(config.loss), Mixture()))
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, weight_decay=config.optimiser.weight_decay)
    for step in range(config.steps):
        optimiser.param_groups[0]["lr"] = 0.1 * rate_share((step + 0.5) / config.steps, config.optimiser)
        optimiser.zero_grad()
        batches = [task.batch(config.seed, step * processes + number) for number in range(processes)]
        torch.stack([task.loss(network, batch) for batch in batches]).mean().backward()  # type: ignore[no-untyped-call]  # torch
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return dict(network.state_dict())
