"""Every shipped recipe trains, its weights load and are measured; a recipe's mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from medrecon.cli import app
from medrecon.config import preset_names
from medrecon.core.errors import UsageError
from medrecon.networks import weights
from medrecon.training import loaders, tasks
from medrecon.training.config import TrainingConfig, find_recipe, load_training, recipe_names
from medrecon.training.descent import JOURNAL, RECIPE, make_task
from medrecon.training.engine import evaluate, train
from medrecon.training.journal import entries
from medrecon.training.processes import Processes
from tests.makers_dicom import make_series
from tests.makers_training import SMALL, small


def own_data(recipe: str, folder: Path) -> tuple[str, ...]:
    """For recipes that read volumes: two patients' DICOM series."""
    if recipe != "train-from-dicom":
        return ()
    for patient in range(2):
        noise = np.random.default_rng(patient).normal(size=(20, 24, 24)) * 300
        make_series(folder / f"p{patient}", shape=(20, 24, 24), spacing_mm=(1.0, 1.0, 1.0), pixels=noise, study=patient)
    return (f"data=[{{loader: folder, path: {folder}}}]", "settings.from_disk=1.0")


def test_every_recipe_has_a_small_form_that_is_tested() -> None:
    assert set(recipe_names()) <= set(SMALL)
    assert not set(recipe_names()) & set(preset_names())


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_trains_weights_that_load_and_can_be_measured(recipe: str, tmp_path: Path) -> None:
    config = small(recipe, "steps=2", "log_every=1", "precision=float32", *own_data(recipe, tmp_path / "data"))
    trained = train(config, tmp_path / "out")
    loaded = weights.load(trained.weights)
    assert loaded.manifest.network == config.network.name
    assert loaded.manifest.metrics == trained.metrics
    assert config.stop.metric in trained.metrics
    losses = [entry["loss"] for entry in entries(tmp_path / "out" / JOURNAL) if "loss" in entry]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    measured = evaluate(config, trained.weights)
    assert measured == pytest.approx(trained.metrics, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_batch_follows_from_its_numbers_alone(recipe: str, tmp_path: Path) -> None:
    config = small(recipe, *own_data(recipe, tmp_path))
    again, first = (described(config, 5, 3) for _ in range(2))
    assert first == again
    assert described(config, 6, 3) != first


def described(config: TrainingConfig, seed: int, index: int) -> str:
    return repr(plain(make_task(config, Processes(0, 1, torch.device("cpu"))).batch(seed, index)))


def plain(value: object) -> object:
    """Turn a batch into something that can be compared: tensors into their sums, objects into their fields."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), float(value.double().sum()), float(value.double().square().sum())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    fields = getattr(value, "__dataclass_fields__", None)
    return {name: plain(getattr(value, name)) for name in fields} if fields else type(value).__name__


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_survives_its_own_yaml(recipe: str, tmp_path: Path) -> None:
    config = load_training(find_recipe(recipe))
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_training(tmp_path / "again.yaml") == config
    assert load_training(tmp_path / "again.yaml").digest == config.digest


def test_how_often_a_run_is_written_down_does_not_change_what_it_is() -> None:
    base = small()
    assert small("train-flow", "log_every=7", "checkpoint_every=9", "workers=2", "tensorboard=true").digest == base.digest
    assert small("train-flow", "seed=1").digest != base.digest


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("step=5", "did you mean 'steps'"),
        ("steps=0", "steps"),
        ("task=flwo", "'flow'"),
        ("settings.pixel=64", "did you mean 'pixels'"),
        ("loss={l1: 0, gradient: 0}", "every weight of the loss is 0"),
        ("name=../escape", "name"),
        ("precision=float8", "precision"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"CFG-VALUE.*{message}"):
        small("train-flow", assignment)


def test_a_network_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ARG-NAME.*flow"):
        train(small("train-flow", "network.name=flwo"), tmp_path / "out")


def test_another_task_or_network_drops_the_settings_of_the_first() -> None:
    config = small("train-flow", "task=planes", "network.name=wdsr")
    assert config.settings == tasks.settings_of("planes")().model_dump(mode="json")
    assert config.network.settings == {}


def test_an_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"ARG-NAME.*train-flow"):
        find_recipe("train-flwo")


def test_the_command_line_trains_resumes_and_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sets = [part for assignment in (*SMALL["train-flow"], "device=cpu", "steps=2") for part in ("--set", assignment)]
    made = CliRunner().invoke(app, ["train", "train-flow", *sets, "--progress", "json"])
    assert made.exit_code == 0, made.output
    done = json.loads(made.stdout.splitlines()[-1])
    assert done["steps"] == 2
    assert done["outputs"]["weights"] == "trained/flow/flow.safetensors"
    again = CliRunner().invoke(app, ["train", f"trained/flow/{RECIPE}", "--resume", "--progress", "none"])
    assert again.exit_code == 0
    measured = CliRunner().invoke(app, ["evaluate", "train-flow", *sets, "--json"])
    assert json.loads(measured.stdout) == pytest.approx(done["metrics"], rel=1e-4)


def test_loaders_and_tasks_are_named_as_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    missing = [name for name in (*loaders.names(), *tasks.names(), *recipe_names()) if f"`{name}`" not in page]
    assert missing == []
