"""Load beforehand, on a thread, what napari would load in the window's own thread when a result is shown.

napari compiles the colours of label layers with numba at the first one, which stops the window for seconds; a run takes
longer than that, so it is done while the first one is going. Nothing of it is kept but what the libraries cache.
"""

from __future__ import annotations

import importlib

import numpy as np

from medrecon_napari import colours


def for_letters() -> None:
    """Load what turning the camera needs."""
    importlib.import_module("scipy.spatial.transform")


def for_results() -> None:
    """Load what volumes, coverage maps and surfaces of a result need."""
    from napari.layers import Labels

    for name in ("nibabel", "trimesh"):
        importlib.import_module(name)
    tiny = np.zeros((2, 2, 2), dtype=np.uint8)
    Labels(tiny, colormap=dict(colours.COVERAGE_COLOURS)).colormap.map(tiny[0])
