"""The source slices as rectangles in 3D: where the scanner looked, and how the slices lie in the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon.core.errors import UsageError
from medrecon_napari.place import Float64
from medrecon_napari.viewing.letters import leading_layer, place_of_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

#: The way round a rectangle, by the order in which the engine gives the corners of an image.
_AROUND = (0, 1, 3, 2)
_COLOUR = "#4ac0ff"
ROLE = "rectangles"
_WIDTH_MM = 0.9


def toggle(viewer: ViewerModel) -> None:
    """Draw the rectangles of the active series, or remove them.

    Raises
    ------
    UsageError
        ``NAP-LAYER`` where no layer of the viewer knows its slices.
    """
    drawn = [layer for layer in viewer.layers if layer.metadata.get("role") == ROLE]
    for layer in drawn:
        viewer.layers.remove(layer)
    if not drawn:
        active = viewer.layers.selection.active
        viewer.add_vectors(**vectors_of(_layer_with_slices(viewer)))
        viewer.layers.selection.active = active


def outlines(corners: Float64) -> Float64:
    """Return the four edges of every rectangle as start and way, (4 n, 2, 3), from corners (n, 4, 3)."""
    ring = corners[:, _AROUND, :]
    ways = np.roll(ring, -1, axis=1) - ring
    edges: Float64 = np.stack([ring, ways], axis=2).reshape(-1, 2, 3)
    return edges


def vectors_of(layer: Layer) -> dict[str, Any]:
    """Return the arguments of a vectors layer that outlines the slices of an image layer."""
    place = place_of_layer(layer)
    if place is None:
        raise _no_slices()
    coarse = float(np.abs(layer.scale).max())  # so that the sliders keep the steps of the image
    corners = place.world_of_lps(layer.metadata["slice_corners_lps_mm"]) / coarse
    return {
        "data": outlines(corners),
        "scale": (coarse,) * 3,
        "name": f"slices of {layer.name}",
        "edge_color": _COLOUR,
        "edge_width": _WIDTH_MM / coarse,
        "vector_style": "line",
        "opacity": 0.8,
        "units": ("mm", "mm", "mm"),
        "metadata": {"role": ROLE, "series": layer.metadata.get("series", "")},
    }


def _layer_with_slices(viewer: ViewerModel) -> Layer:
    """Return the leading layer if it knows its slices, else the first one that does."""
    candidates = [leading_layer(viewer), *viewer.layers]
    for layer in candidates:
        if layer is not None and "slice_corners_lps_mm" in layer.metadata and "to_lps_mm" in layer.metadata:
            return layer
    raise _no_slices()


def _no_slices() -> UsageError:
    return UsageError(
        "NAP-LAYER",
        "no layer knows where its slices stood in one space",
        "Open the DICOM series that was scanned, beside the result.",
    )
