"""The measuring dock: choose a tool, draw, read the number beside the drawing and in the table, save the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Surface
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from medrecon.core.errors import MedreconError, UsageError
from medrecon_napari.measure import drawing, table
from medrecon_napari.measure.surfaces import surface_distance
from medrecon_napari.viewing import attach
from medrecon_napari.viewing.letters import place_of_layer
from medrecon_napari.writing import as_surface

if TYPE_CHECKING:
    import napari

#: Tool of the panel, what napari calls it, and how it is used.
_TOOLS = (
    ("Distance", "add_line", "Press at one end, release at the other."),
    ("Angle", "add_path", "Click three points, the corner second; double-click ends."),
    ("Ellipse", "add_ellipse", "Drag from corner to corner."),
    ("Outline", "add_polygon", "Click around the region; double-click ends."),
)
_SHOWN = ("kind", "value", "unit", "sd", "area_mm2", "volume_ml", "voxels", "layer")


class MeasureTools(QWidget):
    """Tools, table and export.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        attach.attach(napari_viewer)
        self.viewer = napari_viewer
        self.rows: list[table.Row] = []
        self._fixed: list[table.Row] = []
        self._drawing: Any = None
        self._image: Any = None
        self.said = QLabel("Choose a tool and draw; everything is in patient millimetres.")
        self.said.setWordWrap(True)
        self.table = _table()
        layout = QVBoxLayout(self)
        for part in (self._tools_box(), self._more_box(), self.said, self.table, self._export_row()):
            layout.addWidget(part)

    def _tools_box(self) -> QGroupBox:
        box = QGroupBox("Draw")
        grid = QGridLayout(box)
        self.tools: dict[str, QPushButton] = {}
        for place, (name, mode, how) in enumerate(_TOOLS):
            button = self._button(name, partial(self.begin, mode, how))
            button.setToolTip(how)
            self.tools[name] = button
            grid.addWidget(button, place // 2, place % 2)
        return box

    def _more_box(self) -> QGroupBox:
        box = QGroupBox("From layers")
        layout = QHBoxLayout(box)
        self.labels = self._button("Labels of the image", self.measure_labels)
        self.surfaces = self._button("Two surfaces", self.measure_surfaces)
        self.labels.setToolTip("Mean, SD and volume of the image in every label; select the labels layer.")
        self.surfaces.setToolTip("Distance between the two selected surface layers.")
        for button in (self.labels, self.surfaces):
            layout.addWidget(button)
        return box

    def _export_row(self) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        self.copy = self._button("Copy", self.copy_table)
        self.save = self._button("Save CSV…", self.ask_and_save)
        self.clear = self._button("Clear", self.clear_all)
        for button in (self.copy, self.save, self.clear):
            layout.addWidget(button)
        return row

    def begin(self, mode: str, how: str) -> str:
        """Make the layer for drawings ready for a tool and return how to use it."""
        image = self._active_image()
        layer = drawing.drawing_layer(self.viewer, image)
        if layer is not self._drawing:
            layer.events.data.connect(self.update_rows)
            self._drawing = layer
        self._image = image
        self.viewer.layers.selection.active = layer
        layer.mode = mode
        return how

    def update_rows(self, _event: Any = None) -> None:  # noqa: ANN401 (napari's event)
        """Measure again what is drawn, and show it."""
        drawn: list[table.Row] = []
        if self._drawing is not None and self._drawing in self.viewer.layers and self._image is not None:
            drawn = drawing.rows_of_drawing(self._drawing, self._image)
            drawing.write_labels(self._drawing, drawn)
        self.rows = drawn + self._fixed
        _fill(self.table, self.rows)

    def measure_labels(self) -> str:
        """Measure the image in the labels of the selected labels layer."""
        chosen = [layer for layer in self.viewer.layers.selection if isinstance(layer, Labels)]
        chosen = chosen or [layer for layer in self.viewer.layers if isinstance(layer, Labels)]
        if not chosen:
            raise UsageError("NAP-LAYER", "there is no labels layer", "Add one with the labels button and paint the region.")
        self._fixed += drawing.rows_of_labels(chosen[-1], self._active_image())
        self.update_rows()
        return f"Measured in the labels of {chosen[-1].name}."

    def measure_surfaces(self) -> str:
        """Measure the distance between the selected surfaces, or the only two there are."""
        chosen = [layer for layer in self.viewer.layers.selection if isinstance(layer, Surface)]
        chosen = chosen if len(chosen) == 2 else [layer for layer in self.viewer.layers if isinstance(layer, Surface)]
        if len(chosen) != 2:
            raise UsageError(
                "NAP-LAYER", f"{len(chosen)} surfaces are there to choose from", "Select exactly two surface layers."
            )
        one, other = (as_surface(layer.data, {"metadata": layer.metadata}) for layer in chosen)
        self._fixed.append(table.surface_row(" / ".join(layer.name for layer in chosen), surface_distance(one, other)))
        self.update_rows()
        return "Mean of the distances both ways; the maximum is the Hausdorff distance."

    def copy_table(self) -> str:
        """Put the table on the clipboard as CSV."""
        QApplication.clipboard().setText(table.as_csv(self.rows))
        return f"{len(self.rows)} rows are on the clipboard."

    def ask_and_save(self) -> str:
        """Ask for a file and save the table there."""
        path, _ = QFileDialog.getSaveFileName(self, "Save measurements", "measurements.csv", "CSV (*.csv)")
        return self.save_to(Path(path)) if path else ""

    def save_to(self, path: Path) -> str:
        """Save the table as CSV."""
        table.save_csv(self.rows, path)
        return f"Saved {len(self.rows)} rows."

    def clear_all(self) -> str:
        """Remove all measurements and their drawings."""
        self._fixed.clear()
        if self._drawing is not None and self._drawing in self.viewer.layers:
            self.viewer.layers.remove(self._drawing)
        self._drawing = None
        self.update_rows()
        return ""

    def _active_image(self) -> Image:
        """Return the image to measure in: the active one, the one measured last, else the topmost visible one.

        Raises
        ------
        UsageError
            ``NAP-LAYER`` where there is none that knows its place.
        """
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image) and place_of_layer(layer) is not None]
        wanted = (self.viewer.layers.selection.active, self._image, *(layer for layer in reversed(images) if layer.visible))
        for layer in wanted:
            if layer in images:
                return layer
        raise UsageError("NAP-LAYER", "there is no image that knows its place in the patient", "Open a scan or a result first.")

    def _button(self, text: str, act: Callable[[], str]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: self._try(act))
        return button

    def _try(self, act: Callable[[], str]) -> None:
        """Do what a button says, and say how it went."""
        try:
            self.said.setText(act())
        except MedreconError as error:
            self.said.setText(str(error))


def _table() -> QTableWidget:
    shown = QTableWidget(0, len(_SHOWN))
    shown.setHorizontalHeaderLabels([name.replace("_mm2", " mm²").replace("_ml", " mL") for name in _SHOWN])
    shown.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    shown.setMinimumHeight(160)
    return shown


def _short(cell: str) -> str:
    """Return a number with four digits, which is more than a drawing can carry; the file keeps six."""
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell


def _fill(shown: QTableWidget, rows: list[table.Row]) -> None:
    shown.setRowCount(len(rows))
    for number, row in enumerate(rows):
        cells = row.cells()
        for column, name in enumerate(_SHOWN):
            shown.setItem(number, column, QTableWidgetItem(_short(cells[name])))
    shown.resizeColumnsToContents()
