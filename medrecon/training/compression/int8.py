"""Weights and arithmetic in 8 bits: NNCF calibrates on held-out examples, OpenVINO runs it.

The one route found that has 3D convolutions in 8 bits on a CPU: torchao and ONNX Runtime's dynamic quantisation have none.
"""

from __future__ import annotations

import warnings

from medrecon.core.settings import Config
from medrecon.networks.heart import HeartOf, farthest, heart_name, transplanted
from medrecon.training.compression import Made, Subject
from medrecon.training.compression._export import size_of
from medrecon.training.compression.openvino import compiled, converted, unreported


class Int8Config(Config):
    """`int8` has no settings."""


def int8(subject: Subject, _config: Int8Config) -> Made:
    """Quantise the network's heart after training."""
    model = converted(subject)
    with unreported(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNCF's own
        import nncf

        examples = nncf.Dataset([[tensor.numpy() for tensor in inputs] for inputs in subject.calls])
        quantised = nncf.quantize(model, examples, subset_size=len(subject.calls))
    heart = compiled(quantised, subject.folder)
    apart = farthest((HeartOf(subject.module), heart), subject.calls)
    words = f"{heart_name(subject.module)} calibrated on {len(subject.calls)} examples, {apart:.1%} off"
    return Made(transplanted(subject.module, heart), heart, size_of(subject.folder), words)
