"""Files of weights made byte by byte, good ones and bad ones, without the code that judges them."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import date
from pathlib import Path
from typing import Any

from medrecon.networks.manifest import Training

STORY: dict[str, Any] = {"training_data": "random shapes", "trained_on": "CPU, float32", "trained_date": "2026-11-23"}
TRAINING = Training(training_data="random shapes", trained_on="CPU, float32", trained_date=date(2026, 11, 23))


def container(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with this header, an object or raw bytes, and these bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def put(folder: Path, weights: bytes, name: str = "net.safetensors", **manifest: object) -> Path:
    """Write weights and a manifest that names their hash; fields of the manifest can be replaced."""
    path = folder / name
    path.write_bytes(weights)
    fields = {
        **STORY,
        "network": "flow",
        "config": {},
        "sha256": hashlib.sha256(weights).hexdigest(),
        "parameters": 1,
        **manifest,
    }
    path.with_suffix(".json").write_text(json.dumps(fields), encoding="utf-8")
    return path
