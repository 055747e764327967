"""Measuring in a real window: press a tool, draw, read the table, save it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import napari
import numpy as np
import pytest
from medrecon_napari.layers import surface_layer, volume_layer
from medrecon_napari.measure.widget import MeasureTools
from medrecon_napari.results import place_of
from napari.layers import Image, Layer
from numpy.typing import NDArray

import medrecon as mr
from medrecon.core.volume import Quantity
from tests.makers_plugin import a_surface, a_volume

pytestmark = pytest.mark.gui
SHAPE, SPACING = (6, 40, 50), (5.0, 1.0, 1.0)
TURN = np.linalg.qr(np.array([[0.1, 0.2, 1], [0.1, 1, -0.2], [1, -0.1, 0.1]]))[0]


@pytest.fixture
def tools(window: napari.Viewer) -> Iterator[MeasureTools]:
    """The measuring dock over an oblique volume of 7 HU with a plane of 40 HU."""
    values = np.full(SHAPE, 7.0)
    values[2] = 40.0
    volume = a_volume(values, mr.Grid.from_parts(SHAPE, SPACING, (3.0, 4.0, 5.0), TURN), Quantity.HOUNSFIELD)
    window.add_layer(Layer.create(*volume_layer(volume, {"role": "volume"}, "head")))
    tools = MeasureTools(window)
    window.window.add_dock_widget(tools, name="Measure")
    yield tools
    tools.clear_all()


def image_of(window: napari.Viewer) -> Image:
    return next(layer for layer in window.layers if layer.name == "head")


def drawn(window: napari.Viewer, index: list[list[float]]) -> NDArray[np.float64]:
    """Points of the image's raster as vertices of the drawing."""
    drawing = next(layer for layer in window.layers if layer.name == "measurements")
    image = image_of(window)
    return np.array([drawing.world_to_data(image.data_to_world(one)) for one in index])


def bright_plane(image: Image) -> int:
    return int(np.flatnonzero(image.data[:, 20, 20] == 40.0)[0])


def test_what_is_drawn_is_measured_at_once_and_written_beside_the_drawing(window: napari.Viewer, tools: MeasureTools) -> None:
    image = image_of(window)
    plane = bright_plane(image)
    steps = [one.step for one in window.dims.range]
    tools.tools["Distance"].click()
    drawing = window.layers.selection.active
    assert drawing.mode == "add_line"
    assert [one.step for one in window.dims.range] == steps
    drawing.add_lines(drawn(window, [[plane, 10, 10], [plane, 10, 40]]))
    drawing.add_paths([drawn(window, [[plane, 10, 10], [plane, 20, 10], [plane, 20, 30]])])
    drawing.add_ellipses(drawn(window, [[plane, 5, 5], [plane, 5, 25], [plane, 25, 25], [plane, 25, 5]]))
    assert [row.kind for row in tools.rows] == ["distance", "angle", "region"]
    assert [row.value for row in tools.rows] == pytest.approx([30.0, 90.0, 40.0])
    assert [row.unit for row in tools.rows] == ["mm", "°", "HU"]
    assert tools.rows[2].more["area_mm2"] == pytest.approx(np.pi * 100.0)
    assert list(drawing.features["label"]) == ["30.0 mm", "90.0 °", "40.0 HU"]
    assert tools.table.rowCount() == 3
    assert tools.table.item(0, 1).text() == "30"


def test_a_distance_across_slices_counts_their_spacing(window: napari.Viewer, tools: MeasureTools) -> None:
    tools.tools["Distance"].click()
    window.layers.selection.active.add_lines(drawn(window, [[0, 10, 10], [3, 10, 10]]))
    assert tools.rows[0].value == pytest.approx(15.0)


def test_a_drawing_that_is_removed_leaves_the_table(window: napari.Viewer, tools: MeasureTools) -> None:
    tools.tools["Distance"].click()
    drawing = window.layers.selection.active
    drawing.add_lines(drawn(window, [[0, 10, 10], [0, 10, 20]]))
    drawing.selected_data = {0}
    drawing.remove_selected()
    assert tools.rows == []
    assert tools.table.rowCount() == 0


def test_labels_are_measured_in_the_image(window: napari.Viewer, tools: MeasureTools) -> None:
    image = image_of(window)
    mask = np.zeros(image.data.shape, dtype=np.uint8)
    mask[bright_plane(image), 5:15, 5:25] = 3
    labels = window.add_labels(mask, scale=image.scale, translate=image.translate)
    window.layers.selection.active = labels
    tools.labels.click()
    [row] = tools.rows
    assert row.kind == "label 3"
    assert row.value == pytest.approx(40.0)
    assert row.more["volume_ml"] == pytest.approx(200 * 5.0 / 1000)
    labels.translate = labels.translate + 1
    tools.labels.click()
    assert tools.said.text().startswith("NAP-REGION")


def test_two_surfaces_lie_as_far_apart_as_they_were_made(window: napari.Viewer, tools: MeasureTools) -> None:
    tools.surfaces.click()
    assert "0 surfaces" in tools.said.text()
    frame = place_of(volume_layer(a_volume(np.zeros((2, 2, 2)), mr.Grid.from_parts((2, 2, 2), (1, 1, 1), (0, 0, 0))), {}, "v"))
    for depth in (0.0, 4.0):
        square = np.array([[-9.0, -9, depth], [9, -9, depth], [9, 9, depth], [-9, 9, depth]])
        window.add_layer(
            Layer.create(
                *surface_layer(a_surface(square, [[0, 1, 2], [0, 2, 3]]), frame.world_from_lps(), {}, f"plate {depth:g}")
            )
        )
    tools.surfaces.click()
    assert tools.rows[0].value == pytest.approx(4.0, abs=1e-4)


def test_the_table_is_saved_and_cleared(window: napari.Viewer, tools: MeasureTools, tmp_path: Path) -> None:
    tools.tools["Distance"].click()
    window.layers.selection.active.add_lines(drawn(window, [[0, 10, 10], [0, 13, 14]]))
    assert tools.save_to(tmp_path / "m.csv") == "Saved 1 rows."
    with (tmp_path / "m.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert (row["kind"], row["value"], row["unit"], row["layer"]) == ("distance", "5", "mm", "head")
    tools.clear.click()
    assert tools.table.rowCount() == 0
    assert [layer.name for layer in window.layers] == ["head"]


def test_without_a_medical_image_the_tools_say_what_is_missing(window: napari.Viewer) -> None:
    tools = MeasureTools(window)
    window.add_image(np.zeros((3, 4, 5)))
    tools.tools["Distance"].click()
    assert tools.said.text().startswith("NAP-LAYER")
    tools.deleteLater()
