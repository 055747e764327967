"""Thick slabs: the mean or the brightest of all planes within a thickness in mm, in every view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from napari.layers import Image

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: What a slab shows, by the name that users see, and what napari calls it.
MODES: Mapping[str, str] = {"mean": "mean", "MIP (brightest)": "max", "MinIP (darkest)": "min"}
#: Maps of doubt show the worst in the slab: the mean of "measured" and "not seen" is neither.
_MAPS = ("coverage", "uncertainty")
_WORST = "max"


def set_slab(viewer: ViewerModel, thickness_mm: float, mode: str) -> None:
    """Show slabs of a thickness; 0 mm is one plane, whatever the mode."""
    for layer in viewer.layers:
        if isinstance(layer, Image) and "role" in layer.metadata:
            layer.projection_mode = _WORST if layer.metadata["role"] in _MAPS else MODES[mode]
    viewer.dims.thickness = (float(thickness_mm),) * viewer.dims.ndim
