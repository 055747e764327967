"""Weights in bfloat16: half the bytes, and the faster arithmetic where a processor has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medrecon.core.settings import Config
from medrecon.networks.heart import HeartOf, transplanted
from medrecon.networks.precision import Arithmetic
from medrecon.networks.weights import ENDING, save
from medrecon.training.compression import Made, Subject


class Bfloat16Config(Config):
    """`bfloat16` has no settings."""


def bfloat16(subject: Subject, _config: Bfloat16Config) -> Made:
    """Keep weights in bfloat16 and compute in it."""
    lowered = Arithmetic(torch.bfloat16, "").applied(subject.module)
    inner = HeartOf(lowered)

    def heart(*inputs: Tensor) -> Any:  # noqa: ANN401 (one tensor or several)
        return inner(*(tensor.to(torch.bfloat16) for tensor in inputs))

    path = subject.folder / f"{subject.folder.name}{ENDING}"
    save(path, subject.network, subject.settings, lowered, subject.manifest)
    return Made(transplanted(subject.module, heart), heart, path.stat().st_size, "weights and arithmetic")
