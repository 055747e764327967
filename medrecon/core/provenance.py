"""What travels with every result: from what, with which settings and versions, on which machine, how long.

Everything here may be shown and stored: hashes and our own short names, never text from a header, never a path.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

RESEARCH_LABEL = "Research use only. Not a medical device. Not for diagnosis."

#: Distributions whose versions can change a result.
_VERSIONED = ("medrecon", "numpy", "scipy", "torch", "pydicom", "SimpleITK", "nibabel", "vtk", "scikit-image", "monai")


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a result came about.

    Parameters
    ----------
    series_id, reader, modality : str
        What went in.
    input_hash : str
        SHA-256 over the hashes of all input files, in the order of the listing; of the pixels for data from memory.
    input_file_count : int
    config : mapping
        The whole configuration as understood, plain data.
    config_hash : str
    method, citation : str
    device : str
        ``cpu`` or ``cuda:0``, and the reason where it was chosen for the user.
    threads, seed : int
    allowed : tuple of str
        Named laxness under which the scan was read.
    versions : mapping of distribution to version
    started_utc : str
        ISO 8601.
    seconds : mapping of stage to seconds
    calibration : mapping
        How attenuation became Hounsfield units; empty where nothing was converted.
    plan : mapping
        How projections were cut to fit into memory, and what that takes; empty for slices.
    """

    series_id: str
    reader: str
    modality: str
    input_hash: str
    input_file_count: int
    config: Mapping[str, Any]
    config_hash: str
    method: str
    citation: str
    device: str
    threads: int
    seed: int
    allowed: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    started_utc: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    label: str = RESEARCH_LABEL

    def as_json(self) -> dict[str, Any]:
        """Return plain data, the same in ``run.json`` and the report."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {name: dict(v) if isinstance(v, Mapping) else list(v) if isinstance(v, tuple) else v for name, v in plain.items()}


def versions() -> dict[str, str]:
    """Versions of Python and of what can change a result, read from package metadata without importing anything."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hash_of(data: object) -> str:
    """SHA-256 of plain data in canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
