"""Distillation: a smaller student learns from the truth and from the large network's answers.

Hinton et al. 2015, arXiv:1503.02531. The student starts from the large network's most important channels where those
can be taken over, and from random weights otherwise.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from medrecon.core.errors import UsageError
from medrecon.core.settings import Config
from medrecon.networks.heart import HeartOf
from medrecon.networks.weights import ENDING, save
from medrecon.training.compression import Made, Subject
from medrecon.training.compression.pruning import pruned


class DistillationConfig(Config):
    """Settings of `distillation`."""

    network: dict[str, Any] = Field(description="settings of the student, such as channels: 20")
    steps: int = Field(1000, ge=1, description="training steps")
    share: float = Field(0.5, ge=0, le=1, description="of the loss that compares with the teacher instead of the truth")


def distillation(subject: Subject, config: DistillationConfig) -> Made:
    """Train a smaller student on the truth and on the network's answers."""
    settings = subject.smaller(config.network)
    try:
        start = pruned(subject, settings)
        origin = "from the teacher's channels"
    except UsageError:
        start, origin = None, "from random weights"
    over = {"teacher": subject.weights, "share": config.share}
    module = subject.finetune(settings, start, config.steps, "distillation", over)
    path = subject.folder / f"{subject.folder.name}{ENDING}"
    save(path, subject.network, settings, module, subject.manifest)
    return Made(module, HeartOf(module), path.stat().st_size, f"student {origin}, {config.steps} steps")
