"""Load beforehand, on a thread, what would else be loaded while somebody waits for a picture.

napari compiles the colours of label layers with numba at the first one, which stops the window for seconds; a run takes
longer than that, so it is done while the first one is going. Nothing of it is kept but what the libraries cache.
"""

from __future__ import annotations

import importlib
import threading

import numpy as np

from medrecon_napari import colours

_ONE_AT_A_TIME = threading.Lock()


def for_scans() -> None:
    """Load what finding, reading and showing a scan needs, and what turning the camera does."""
    for name in ("medrecon.readers.dicom", "nibabel", "scipy.spatial.transform"):
        importlib.import_module(name)
    units()


def units() -> None:
    """Let napari build its table of units: a layer made meanwhile in another thread would find it half built."""
    from napari.layers import Image

    with _ONE_AT_A_TIME:
        Image(np.zeros((1, 1, 1), dtype=np.float32), units=("mm",) * 3)


def for_results() -> None:
    """Load what volumes, coverage maps and surfaces of a result need."""
    from napari.layers import Labels

    for name in ("nibabel", "trimesh"):
        importlib.import_module(name)
    tiny = np.zeros((2, 2, 2), dtype=np.uint8)
    Labels(tiny, colormap=dict(colours.COVERAGE_COLOURS)).colormap.map(tiny[0])
