"""Weights and arithmetic in 8 bits: NNCF calibrates on held-out examples, OpenVINO runs it.

The one route found that has 3D convolutions in 8 bits on a CPU: torchao and ONNX Runtime's dynamic quantisation have none.
"""

from __future__ import annotations

import warnings

from medrecon.core.settings import Config
from medrecon.networks.heart import grown
from medrecon.training.compression import Made, Subject
from medrecon.training.compression._export import EIGHT_BITS, made_of
from medrecon.training.compression.openvino import compiled, converted, unreported


class Int8Config(Config):
    """`int8` has no settings."""


def int8(subject: Subject, _config: Int8Config) -> Made:
    """Quantise the network's heart after training."""
    model = converted(subject)
    with unreported(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNCF's own
        import nncf

        examples = nncf.Dataset([[grown(tensor, subject.extent).numpy() for tensor in inputs] for inputs in subject.calls])
        quantised = nncf.quantize(model, examples, subset_size=len(subject.calls))
    return made_of(subject, compiled(quantised, subject.folder), EIGHT_BITS)
