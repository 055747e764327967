"""`torch.export`: the network as a graph of torch's own, for programs that embed torch without this package."""

from __future__ import annotations

import torch

from medrecon.core.settings import Config
from medrecon.training.compression import Made, Subject
from medrecon.training.compression._export import SAME, made_of, program_of


class TorchExportConfig(Config):
    """`torch_export` has no settings."""


def torch_export(subject: Subject, _config: TorchExportConfig) -> Made:
    """Write the network's heart as ``model.pt2``."""
    program = program_of(subject)
    torch.export.save(program, subject.folder / "model.pt2")
    return made_of(subject, program.module(), SAME)
