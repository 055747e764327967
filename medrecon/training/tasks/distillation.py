"""Learn from a teacher beside the truth: any task, with a share of its loss given to a larger network's answers.

The student is run by its own task; whatever it was given there the teacher is given too, and the answers are compared.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from medrecon.core.settings import Config, parse
from medrecon.networks import weights
from medrecon.training import tasks
from medrecon.training.tasks import Batch, Context, Task


class DistillationConfig(Config):
    """Settings of the task `distillation`."""

    task: str = Field(description="the task that student and teacher share")
    settings: dict[str, Any] = Field(default_factory=dict, description="its settings")
    teacher: str = Field(description="weights of the teacher: a shipped name or a safetensors file")
    share: float = Field(0.5, ge=0, le=1, description="of the loss that compares with the teacher instead of the truth")


class Distillation:
    """Another task, with a teacher."""

    def __init__(self, settings: DistillationConfig, context: Context) -> None:
        self.settings = settings
        self.context = context
        inner = parse(tasks.settings_of(settings.task), settings.settings, f"settings of {settings.task}")
        self.task: Task = tasks.build(settings.task, inner.model_dump(), context)
        self.teacher = weights.load(settings.teacher, context.device).module.requires_grad_(False)

    def batch(self, seed: int, index: int) -> Batch:
        """Return the batch of the task."""
        return self.task.batch(seed, index)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the task's loss, a share of it replaced by the distance from the teacher."""
        distances: list[Tensor] = []

        def compare(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:  # noqa: ANN401 (a hook)
            with torch.no_grad():
                wanted = self.teacher(*args, **kwargs)
            distances.append((_last(answer).float() - _last(wanted).float()).abs().mean())

        hook = network.register_forward_hook(compare, with_kwargs=True)
        try:
            loss = self.task.loss(network, batch)
        finally:
            hook.remove()
        return (1 - self.settings.share) * loss + self.settings.share * torch.stack(distances).mean()

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measure the student as its task does."""
        return self.task.validate(network)

    def describe(self) -> dict[str, Any]:
        """Tell what was trained on."""
        told = self.task.describe()
        return {**told, "training_data": f"{told.get('training_data', '')}; answers of a larger network to them"}


def _last(answer: Any) -> Tensor:  # noqa: ANN401 (a tensor or several)
    """Return the last tensor of an answer: of a recurrent network the last step's."""
    last: Tensor = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)][-1]
    return last
