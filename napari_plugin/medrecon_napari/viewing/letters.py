"""R, L, A, P, S, I at the edges of a view: right for every orientation of the data, every order of the axes, and in 3D.

The letters follow from the true place of the layer on top, never from how its slices were called. They are four text
overlays of the viewer's canvas; this is the only module that knows how napari names those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components.overlays import TextOverlay

from medrecon_napari.place import Edges, Place, edges

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_AT = {"left": "middle_left", "right": "middle_right", "top": "top_center", "bottom": "bottom_center"}
_COLOUR = "#ffd24a"
_SIZE_PT = 16
_NONE = Edges("", "", "", "")
_NO_PATIENT = "US-FRAME"  # the finding of scans whose axes are not the patient's


def add(viewer: ViewerModel) -> None:
    """Give a viewer its letters and keep them true; a viewer that has them is left as it is."""
    if is_there(viewer):
        return
    for name, position in _AT.items():
        overlay = TextOverlay(position=position, color=_COLOUR, font_size=_SIZE_PT, box=True, visible=True)
        viewer.canvas.overlays[_key(name)] = overlay

    def update(_event: Any = None) -> None:  # noqa: ANN401 (one of napari's events)
        _write(viewer, shown_edges(viewer))

    dims, camera, layers = viewer.dims.events, viewer.scene.camera.events, viewer.layers
    for signal in (dims.order, dims.ndisplay, dims.point, camera.angles, camera.orientation):
        signal.connect(update)
    for signal in (layers.events.inserted, layers.events.removed, layers.events.reordered, layers.selection.events.active):
        signal.connect(update)
    layers.events.inserted.connect(lambda event: event.value.events.visible.connect(update))
    for layer in layers:
        layer.events.visible.connect(update)
    update()


def is_there(viewer: ViewerModel) -> bool:
    """Whether the viewer has letters, shown or not."""
    return _key("left") in viewer.canvas.overlays


def show(viewer: ViewerModel, shown: bool) -> None:
    """Show or hide the letters."""
    for name in _AT:
        viewer.canvas.overlays[_key(name)].visible = shown


def box(viewer: ViewerModel, on: bool) -> None:
    """Put the letters into boxes, or take them out: napari builds every box anew whenever a layer is added."""
    for name in _AT:
        if is_there(viewer):
            viewer.canvas.overlays[_key(name)].box = on


def read(viewer: ViewerModel) -> Edges:
    """Return the letters that the viewer shows now."""
    return Edges(**{name: viewer.canvas.overlays[_key(name)].text for name in _AT})


def shown_edges(viewer: ViewerModel) -> Edges:
    """Work out the letters of a view from the place of its leading layer; empty where nothing tells its place in the patient."""
    layer = leading_layer(viewer)
    place = None if layer is None or not _is_in_the_patient(layer) else place_of_layer(layer)
    if place is None or viewer.dims.ndim != 3:
        return _NONE
    right, up = _three_dimensional(viewer) if viewer.dims.ndisplay == 3 else _two_dimensional(viewer)
    directions = place.lps_directions(np.asarray(viewer.dims.point))
    return edges(directions @ right, directions @ up)


def leading_layer(viewer: ViewerModel) -> Layer | None:
    """Return the layer that the letters speak of: the active one if it is visible and knows its place, else the topmost."""
    known = [layer for layer in viewer.layers if layer.visible and place_of_layer(layer) is not None]
    active = viewer.layers.selection.active
    return active if active in known else (known[-1] if known else None)


def place_of_layer(layer: Layer) -> Place | None:
    """Return where a layer's data stand, or None where it does not say; its world is what napari says now."""
    if layer.ndim != 3:
        return None
    corners = np.array([layer.data_to_world(point) for point in np.vstack([np.zeros(3), np.eye(3)])])
    world = np.eye(4)
    world[:3, :3] = (corners[1:] - corners[0]).T
    world[:3, 3] = corners[0]
    return Place.of(layer.metadata, world)


def _is_in_the_patient(layer: Layer) -> bool:
    """Whether left and right can be told: frames of a tracker stand in its space, wherever the patient lay."""
    return all(finding.get("code") != _NO_PATIENT for finding in layer.metadata.get("findings", ()))


def _two_dimensional(viewer: ViewerModel) -> tuple[np.ndarray, np.ndarray]:
    """World directions to the right and upwards on the screen."""
    down_axis, right_axis = viewer.dims.order[-2:]
    vertical, horizontal = viewer.scene.camera.orientation2d
    right, up = np.zeros(3), np.zeros(3)
    right[right_axis] = 1.0 if horizontal == "right" else -1.0
    up[down_axis] = 1.0 if vertical == "up" else -1.0
    return right, up


def _three_dimensional(viewer: ViewerModel) -> tuple[np.ndarray, np.ndarray]:
    """World directions to the right and upwards on the screen, of the camera as it looks now."""
    camera, axes = viewer.scene.camera, list(viewer.dims.order)
    into, above = np.asarray(camera.view_direction), np.asarray(camera.up_direction)
    across = np.cross(into, above) * (1.0 if camera.handedness == "right" else -1.0)
    right, up = np.zeros(3), np.zeros(3)
    right[axes], up[axes] = across, above
    return right, up


def _write(viewer: ViewerModel, letters: Edges) -> None:
    for name in _AT:
        viewer.canvas.overlays[_key(name)].text = getattr(letters, name)


def _key(name: str) -> str:
    return f"medrecon_{name}"
