"""The crosshair: three lines through one patient point, along the axes of the layer that it lies on.

It is a layer of vectors, since napari offers plugins no lines of their own. One coarse scale for all its axes keeps the
lines equally thin and the steps of the sliders as they were; lines end at the outermost voxel centres, so that the
sliders do not grow either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from medrecon_napari.place import Float64, Place
from medrecon_napari.viewing.letters import place_of_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

ROLE = "crosshair"
#: The planes by the world axis that they are cut along, with the colours that 3D Slicer gives them.
PLANES = ("axial", "coronal", "sagittal")
PLANE_COLOURS = ("#f34a33", "#6eb04b", "#edd54c")
_PIXELS_WIDE = 1.6


def lines(world_point: ArrayLike, place: Place, shape: tuple[int, ...]) -> Float64:
    """Return start and way (3, 2, 3), in the world, of the lines through a point along the axes of a raster.

    Parameters
    ----------
    place : Place
        Of the raster; its axes are those of the world, in any order.
    shape : three sizes of the raster
    """
    point = np.asarray(world_point, dtype=np.float64)
    ends = place.world_from_data[:3, :3] @ np.array([np.zeros(3), np.asarray(shape) - 1.0]).T + place.world_from_data[:3, 3:]
    low, high = ends.min(axis=1), ends.max(axis=1)
    drawn = np.zeros((3, 2, 3))
    drawn[:, 0] = np.clip(point, low, high)
    axes = np.arange(3)
    drawn[axes, 0, axes], drawn[axes, 1, axes] = low, high - low
    return drawn


def colours(sliced_axis: int) -> list[str]:
    """Return the colour of each line in a view: that of the plane of which the line is the trace."""
    return [PLANE_COLOURS[sliced_axis if line == sliced_axis else 3 - sliced_axis - line] for line in range(3)]


def is_there(viewer: ViewerModel) -> bool:
    """Whether a viewer has a crosshair."""
    return any(layer.metadata.get("role") == ROLE for layer in viewer.layers)


def show(viewer: ViewerModel, reference: Layer) -> Layer:
    """Add a crosshair on the raster of a layer and return its layer; nothing else is selected by it."""
    active, coarse = viewer.layers.selection.active, float(np.abs(reference.scale).max())
    arguments: dict[str, Any] = {
        "data": _lines_of(viewer, reference) / coarse,
        "scale": (coarse,) * 3,
        "units": reference.units,
        "name": ROLE,
        "edge_color": colours(viewer.dims.order[0]),
        "edge_width": _width(viewer, coarse),
        "vector_style": "line",
        "metadata": {"role": ROLE},
    }
    layer = viewer.add_vectors(**arguments)
    viewer.layers.selection.active = active
    return layer


def move(viewer: ViewerModel, layer: Layer, reference: Layer) -> None:
    """Put a crosshair where the viewer's planes meet."""
    layer.data = _lines_of(viewer, reference) / layer.scale[0]
    layer.edge_color = colours(viewer.dims.order[0])


def keep_thin(viewer: ViewerModel, layer: Layer) -> None:
    """Give the lines the same width in pixels at any zoom."""
    layer.edge_width = _width(viewer, float(layer.scale[0]))


def _lines_of(viewer: ViewerModel, reference: Layer) -> Float64:
    place = place_of_layer(reference)
    if place is None:
        raise ValueError("a crosshair lies on a layer that knows its place")
    return lines(viewer.dims.point, place, reference.data.shape)


def _width(viewer: ViewerModel, scale: float) -> float:
    return _PIXELS_WIDE / max(float(viewer.scene.camera.zoom), 1e-6) / scale
