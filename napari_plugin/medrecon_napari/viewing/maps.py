"""Overlays that say how far to trust a result: coverage, residual, difference; each shown or hidden at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medrecon.core.errors import UsageError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

ROLES = ("coverage", "residual", "difference", "uncertainty")


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
        raise UsageError(
            "NAP-LAYER", f"no {role} layer is there", "Reconstruct with the format `maps`, and open the result folder."
        )
    shown = not layers[0].visible
    for layer in layers:
        layer.visible = shown
    return shown
