"""OpenVINO: for processors without an accelerator; weights are kept in 16 bits."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from medrecon.core.settings import Config
from medrecon.networks.heart import Heart
from medrecon.training.compression import Made, Subject
from medrecon.training.compression._export import SIXTEEN_BITS, heart_from, made_of, program_of


class OpenvinoConfig(Config):
    """`openvino` has no settings."""


def openvino(subject: Subject, _config: OpenvinoConfig) -> Made:
    """Write the network's heart as ``model.xml`` and run it with OpenVINO."""
    return made_of(subject, compiled(converted(subject), subject.folder), SIXTEEN_BITS)


def converted(subject: Subject) -> Any:  # noqa: ANN401 (OpenVINO's model)
    """Return the network's heart as an OpenVINO model."""
    with unreported(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, on the way through its exporter
        import openvino as ov

        return ov.convert_model(program_of(subject))


@contextlib.contextmanager
def unreported() -> Iterator[None]:
    """Keep OpenVINO and NNCF from sending usage statistics, which they do unasked but in continuous integration."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def compiled(model: Any, folder: Path) -> Heart:  # noqa: ANN401 (OpenVINO's model)
    """Write a model to a folder and compile for this CPU what was written."""
    import openvino as ov

    path = folder / "model.xml"
    ov.save_model(model, path, compress_to_fp16=True)
    ready = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
    return heart_from(lambda arrays: list(ready(list(arrays)).values()))
