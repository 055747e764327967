"""ONNX: the network as a graph that most runtimes read; judged here by ONNX Runtime on the CPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from medrecon.core.settings import Config
from medrecon.networks.heart import Heart
from medrecon.training.compression import Made, Subject
from medrecon.training.compression._export import SAME, heart_from, made_of, program_of


class OnnxConfig(Config):
    """`onnx` has no settings."""


def onnx(subject: Subject, _config: OnnxConfig) -> Made:
    """Write the network's heart as ``model.onnx`` and run it with ONNX Runtime."""
    path = subject.folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of what torch is about to leave out
        written: Any = torch.onnx.export(program_of(subject), (), dynamo=True, verbose=False)
        written.save(path)
    return made_of(subject, _session(path), SAME)


def _session(path: Path) -> Heart:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    return heart_from(lambda arrays: session.run(None, dict(zip(names, arrays, strict=True))))
