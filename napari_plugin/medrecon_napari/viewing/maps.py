"""Overlays that say how far to trust a result: coverage, residual, uncertainty; each shown or hidden at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medrecon.core.errors import UsageError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_WAYS_OUT = {"uncertainty": "Only learned methods say how uncertain they are: reconstruct with one of them."}
_USUAL_WAY_OUT = "Reconstruct with the format `maps`, and open the result folder."


def of(viewer: ViewerModel, role: str) -> list[Layer]:
    """Return the layers of one kind of overlay."""
    return [layer for layer in viewer.layers if layer.metadata.get("role") == role]


def toggle(viewer: ViewerModel, role: str) -> bool:
    """Show the overlays of a kind where they were hidden, or hide them; return whether they are shown now.

    Raises
    ------
    UsageError
        ``NAP-LAYER`` where there is none.
    """
    layers = of(viewer, role)
    if not layers:
        raise UsageError("NAP-LAYER", f"no {role} layer is there", _WAYS_OUT.get(role, _USUAL_WAY_OUT))
    shown = not layers[0].visible
    for layer in layers:
        layer.visible = shown
    return shown
