"""Layers of one patient lie upon each other, although the screen turns oblique ones to their nearest axes.

Each oblique layer is turned about its own middle. Two that are turned alike are moved so that one patient point has one
place in the world; two that are not cannot be, and a note says by how many degrees they differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medrecon_napari.viewing.letters import place_of_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_SAME_PLACE_MM = 1e-9
_IMAGES = ("scan", "volume", "result", "coverage", "residual", "uncertainty", "difference")


def lay_upon(viewer: ViewerModel, layer: Layer) -> None:
    """Move a new layer so that it agrees with the first layer of the viewer that is turned like it."""
    place = place_of_layer(layer)
    if place is None or not place.is_one_space or layer.metadata.get("role") not in (*_IMAGES, "surface"):
        return
    others = [one for one in viewer.layers if one is not layer and one.metadata.get("role") in _IMAGES]
    places = [(one, found) for one in others if (found := place_of_layer(one)) is not None and found.is_one_space]
    alike = next((found for _, found in places if place.shares_turn_with(found)), None)
    if alike is not None:
        moved = place.beside(alike).world_from_data[:3, 3] - place.world_from_data[:3, 3]
        if np.abs(moved).max() > _SAME_PLACE_MM:  # a change of place draws everything anew
            layer.translate = layer.translate + moved
        return
    seen = next(((one, found) for one, found in places if one.visible), None)  # who looks at one alone need not know
    if seen is not None:
        other, found = seen
        note = f"turned by {place.turned_against(found):.1f} degrees against {other.name}: the two do not lie upon each other"
        notes = layer.metadata.get("notes", ())
        layer.metadata["notes"] = notes if note in notes else (*notes, note)
