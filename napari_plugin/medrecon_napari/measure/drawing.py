"""What is drawn in a shapes layer, measured: lines, angles, outlines, in patient millimetres.

Shapes are drawn in napari's world; the image under them knows where that is in the patient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon.core.errors import UsageError
from medrecon_napari.colours import UNITS
from medrecon_napari.measure import geometry
from medrecon_napari.measure.region import in_mask, in_outline
from medrecon_napari.measure.table import Row, label_row, region_row
from medrecon_napari.place import Float64, Place
from medrecon_napari.viewing.letters import place_of_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Shapes

ROLE = "measurements"
_COLOUR = "#00d000"
_PIXELS_WIDE = 2.5
_TEXT_PT = 14
_MOST_LABELS = 100


def drawing_layer(viewer: ViewerModel, image: Image) -> Shapes:
    """Return the viewer's layer for measurements; where there is none yet, add it."""
    for layer in viewer.layers:
        if layer.metadata.get("role") == ROLE:
            return layer
    coarse = float(np.abs(image.scale).max())  # so that the sliders keep the steps of the image
    width = _PIXELS_WIDE / max(float(viewer.scene.camera.zoom), 1e-6) / coarse
    arguments: dict[str, Any] = {
        "ndim": 3,
        "name": ROLE,
        "scale": (coarse,) * 3,
        "units": image.units,
        "edge_color": _COLOUR,
        "face_color": "transparent",
        "edge_width": width,
        "features": {"label": np.empty(0, dtype=object)},
        "text": {"string": "{label}", "size": _TEXT_PT, "color": _COLOUR, "anchor": "upper_left"},
        "metadata": {"role": ROLE},
    }
    added: Shapes = viewer.add_shapes(**arguments)
    added.current_edge_width = width
    return added


def rows_of_drawing(drawing: Shapes, image: Image) -> list[Row]:
    """Measure everything that is drawn, in the order in which it was drawn.

    Raises
    ------
    UsageError
        ``NAP-PLACE`` where the image does not know its place.
    """
    place = _place_of(image)
    return [
        row_of_shape(kind, place.lps_of_world(_world(drawing, vertices)), image, place)
        for kind, vertices in zip(drawing.shape_type, drawing.data, strict=True)
    ]


def row_of_shape(kind: str, points_lps_mm: Float64, image: Image, place: Place) -> Row:
    """Measure one shape: a line is a distance, a path of three points an angle, what encloses an area a region."""
    points = points_lps_mm.tolist()
    if kind == "line":
        return Row("distance", image.name, geometry.length_mm(points), "mm", points_lps_mm=points)
    if kind == "path" and len(points) == 3:
        return Row("angle", image.name, geometry.angle_deg(points), "°", points_lps_mm=points)
    if kind == "path":
        return Row("path", image.name, geometry.length_mm(points), "mm", points_lps_mm=points)
    outline = geometry.ellipse(points) if kind == "ellipse" else points_lps_mm
    unit = UNITS.get(image.metadata.get("quantity", ""), "")
    try:
        statistics = in_outline(image.data, place, outline, image.metadata.get("seen"))
    except UsageError:
        return Row("region", image.name, float("nan"), unit, {"area_mm2": geometry.area_mm2(outline)}, points)
    return region_row(image.name, statistics, unit, points)


def rows_of_labels(labels: Labels, image: Image) -> list[Row]:
    """Measure the image in every label of a labels layer on the same raster.

    Raises
    ------
    UsageError
        ``NAP-REGION`` where the two are not on one raster, or there are more labels than a table can show.
    """
    place, data = _place_of(image), np.asarray(labels.data)
    found = [int(label) for label in np.unique(data) if label != 0]
    same_raster = data.shape == image.data.shape and np.allclose(_scale_and_offset(labels), _scale_and_offset(image), atol=1e-6)
    if not same_raster or len(found) > _MOST_LABELS:
        raise UsageError(
            "NAP-REGION",
            f"{labels.name} holds {len(found)} labels and is {'' if same_raster else 'not '}on the raster of {image.name}",
            f"Paint at most {_MOST_LABELS} labels in a layer that was made from the image.",
        )
    unit = UNITS.get(image.metadata.get("quantity", ""), "")
    seen = image.metadata.get("seen")
    return [label_row(image.name, label, in_mask(image.data, place, data == label, seen), unit) for label in found]


def write_labels(drawing: Shapes, rows: list[Row]) -> None:
    """Write each measurement beside its drawing."""
    if len(rows) == len(drawing.data):
        drawing.features = {"label": np.array([row.label for row in rows], dtype=object)}


def _place_of(layer: Layer) -> Place:
    place = place_of_layer(layer)
    if place is None:
        raise UsageError(
            "NAP-PLACE", "the layer does not say where it stands in the patient", "Measure in a layer that medrecon opened."
        )
    return place


def _world(drawing: Shapes, vertices: Float64) -> Float64:
    points: Float64 = np.stack([np.asarray(drawing.data_to_world(vertex), dtype=np.float64)[-3:] for vertex in vertices])
    return points


def _scale_and_offset(layer: Layer) -> Float64:
    return np.concatenate([layer.scale, layer.translate])
