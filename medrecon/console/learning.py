"""What ``medrecon train`` and ``medrecon evaluate`` do between their flags and the training engine, and what they print."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from medrecon.console import progress as console_progress
from medrecon.console.progress import Style
from medrecon.core.progress import Stages

#: Where trainings go by default, each into a folder of its name.
HOME = Path("trained")


def train(recipe: str, out: Path | None, resume: bool, assignments: tuple[str, ...], style: Style) -> None:
    """Train, show progress, and print where the weights lie; of several processes only the first one speaks."""
    from medrecon.training.config import find_recipe, load_training
    from medrecon.training.engine import train as train_network

    config = load_training(find_recipe(recipe), assignments)
    leads = os.environ.get("RANK", "0") == "0"
    with console_progress.shown(style if leads else Style.NONE) as report:
        trained = train_network(config, out or HOME / config.name, resume, Stages({"train": 1.0}, report).tick("train"))
    if not leads:
        return
    if style is Style.JSON:
        outputs = {"weights": str(trained.weights)}
        console_progress.emit("done", {"steps": trained.step, "metrics": trained.metrics, "outputs": outputs})
    else:
        typer.echo(f"weights: {trained.weights}\nsteps: {trained.step}")
        _show(trained.metrics)


def evaluate(recipe: str, weights: str | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Measure weights and print the numbers."""
    from medrecon.networks.weights import ENDING
    from medrecon.training.config import find_recipe, load_training
    from medrecon.training.engine import evaluate as evaluate_network

    config = load_training(find_recipe(recipe), assignments)
    metrics = evaluate_network(config, weights or HOME / config.name / f"{config.name}{ENDING}")
    if as_json:
        console_progress.write_json(metrics)
    else:
        _show(metrics)


def _show(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        typer.echo(f"{name}: {value:.4g}")
