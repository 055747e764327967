"""Files of weights made byte by byte, good ones and bad ones, without the code that judges them."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import date
from pathlib import Path
from typing import Any

import torch

from medrecon import networks
from medrecon.networks import weights
from medrecon.networks.manifest import Training

STORY: dict[str, Any] = {"training_data": "random shapes", "trained_on": "CPU, float32", "trained_date": "2026-11-23"}
TRAINING = Training(training_data="random shapes", trained_on="CPU, float32", trained_date=date(2026, 11, 23))


def container(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with this header, an object or raw bytes, and these bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def put(folder: Path, content: bytes, name: str = "net.safetensors", **manifest: object) -> Path:
    """Write weights and a manifest that names their hash; fields of the manifest can be replaced."""
    path = folder / name
    path.write_bytes(content)
    fields = {
        **STORY,
        "network": "flow",
        "config": {},
        "sha256": hashlib.sha256(content).hexdigest(),
        "parameters": 1,
        **manifest,
    }
    path.with_suffix(".json").write_text(json.dumps(fields), encoding="utf-8")
    return path


def save_random(path: Path, network: str, settings: dict[str, Any]) -> None:
    """Write weights that were never trained, and answer something else than zero."""
    config = networks.get(network).settings.model_validate(settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = networks.build(network, config)
        for parameter in module.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    weights.save(path, network, config, module, TRAINING)
