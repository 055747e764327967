"""Load beforehand, on a thread, what would else be loaded while somebody waits for a picture."""

from __future__ import annotations

import contextlib
import importlib
import threading

import numpy as np

from medrecon import readers
from medrecon.core.errors import MedreconError

_ONE_AT_A_TIME = threading.Lock()


def for_scans() -> None:
    """Load what finding, reading and showing a scan needs, and what turning the camera does."""
    for name in ("medrecon.readers.dicom.series", "medrecon.readers.dicom.slices", "nibabel", "scipy.spatial.transform"):
        importlib.import_module(name)
    for name in readers.names():
        with contextlib.suppress(MedreconError):  # told when somebody wants to read with it
            readers.get(name)
    units()


def units() -> None:
    """Let napari build its table of units: a layer made meanwhile in another thread would find it half built."""
    from napari.layers import Image

    with _ONE_AT_A_TIME:
        Image(np.zeros((1, 1, 1), dtype=np.float32), units=("mm",) * 3)


def for_results() -> None:
    """Load what volumes and surfaces of a result need."""
    for name in ("nibabel", "trimesh"):
        importlib.import_module(name)
