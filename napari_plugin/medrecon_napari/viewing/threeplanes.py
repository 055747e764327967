"""Axial, coronal and sagittal views beside the main one, meeting in one patient point, each with its letters.

napari has one canvas to a window; the other planes are viewers of their own that share the layers' data. The main view
leads: what it cuts is not shown twice, and in 3D all three planes are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from napari.layers import Image, Labels, Layer, Points, Shapes, Surface
from napari.qt import QtViewer
from qtpy.QtCore import QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import QSplitter, QVBoxLayout, QWidget

from medrecon_napari.viewing import attach, crosshair, letters, probe, windows

if TYPE_CHECKING:
    import napari

#: Attributes that a copy of a layer follows, and that it leads where the user changes them in a side view.
_FOLLOWED: dict[type, tuple[str, ...]] = {
    Image: ("visible", "opacity", "contrast_limits", "colormap", "gamma", "projection_mode", "interpolation2d", "blending"),
    Labels: ("visible", "opacity", "colormap", "contour", "selected_label"),
    Surface: ("visible", "opacity", "colormap"),
    Shapes: ("visible", "opacity"),
    Points: ("visible", "opacity"),
}
_ORDERS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
_LABEL = "medrecon_plane"
_MINIMUM_PX = 260
_WANTED_PX = (420, 900)


class ThreePlanes(QWidget):
    """The planes beside the main view; they exist while the widget is shown, and nothing stays of them after it.

    Parameters
    ----------
    napari_viewer : Viewer
        The window whose layers are shown.
    """

    gone = Signal()

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        attach.attach(napari_viewer)
        self.viewer = napari_viewer
        self.views: dict[int, PlaneView] = {}
        self._is_built = False
        self.crosshair: Layer | None = None
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._splitter = QSplitter(Qt.Orientation.Vertical)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._splitter)
        self.setMinimumWidth(_MINIMUM_PX)

    def showEvent(self, event: Any) -> None:  # noqa: ANN401 (Qt's event)
        """Build the planes."""
        super().showEvent(event)
        if not self._is_built:
            self._build()

    def hideEvent(self, event: Any) -> None:  # noqa: ANN401 (Qt's event)
        """Let go of the window, unless it was only put aside."""
        super().hideEvent(event)
        if not event.spontaneous():
            self._let_go()

    def sizeHint(self) -> QSize:
        """Ask for a third of a usual window."""
        return QSize(*_WANTED_PX)

    def _build(self) -> None:
        self._is_built = True
        dims, layers, camera = self.viewer.dims.events, self.viewer.layers.events, self.viewer.scene.camera.events
        for signal, callback in (
            (dims.point, self._point_moved),
            (dims.order, self._choose_planes),
            (dims.ndisplay, self._choose_planes),
            (layers.inserted, self._place_crosshair),
            (camera.zoom, self._keep_thin),
        ):
            signal.connect(callback)
            self._connections.append((signal, callback))
        self.viewer.mouse_move_callbacks.append(_follow_mouse)
        self._place_crosshair()
        self._choose_planes()

    def _let_go(self) -> None:
        """End following the main view and free the canvases."""
        for signal, callback in self._connections:
            signal.disconnect(callback)
        self._connections.clear()
        if _follow_mouse in self.viewer.mouse_move_callbacks:
            self.viewer.mouse_move_callbacks.remove(_follow_mouse)
        if self.crosshair is not None and self.crosshair in self.viewer.layers:
            self.viewer.layers.remove(self.crosshair)
        self.crosshair = None
        for view in self.views.values():
            view.close()
        self.views.clear()
        self._is_built = False
        self.gone.emit()

    def _point_moved(self, _event: Any = None) -> None:  # noqa: ANN401 (napari's event)
        reference = letters.leading_layer(self.viewer)
        if self.crosshair is not None and self.crosshair in self.viewer.layers and _can_carry(reference):
            crosshair.move(self.viewer, self.crosshair, reference)

    def _choose_planes(self, _event: Any = None) -> None:  # noqa: ANN401
        """Show the planes that the main view does not show; one that was never needed is made now."""
        hidden = self.viewer.dims.order[0] if self.viewer.dims.ndisplay == 2 else None
        for axis in range(3):
            if axis != hidden and axis not in self.views:
                self.views[axis] = PlaneView(axis, self.viewer)
                self._splitter.insertWidget(sorted(self.views).index(axis), self.views[axis].canvas)
            if axis in self.views:
                self.views[axis].canvas.setVisible(axis != hidden)
        self._point_moved()
        QTimer.singleShot(0, self._fit)  # once the canvases have their new size

    def _fit(self) -> None:
        """Show the whole picture in every plane."""
        for view in self.views.values():
            view.model.reset_view()

    def _place_crosshair(self, _event: Any = None) -> None:  # noqa: ANN401
        """Draw the crosshair once there is something to lie on; a user who removes it is obeyed."""
        reference = letters.leading_layer(self.viewer)
        if self.crosshair is None and not crosshair.is_there(self.viewer) and _can_carry(reference):
            self.crosshair = crosshair.show(self.viewer, reference)

    def _keep_thin(self, _event: Any = None) -> None:  # noqa: ANN401
        if self.crosshair is not None:
            crosshair.keep_thin(self.viewer, self.crosshair)


class PlaneView:
    """One plane of the main viewer's layers, in a canvas of its own.

    Parameters
    ----------
    axis : int
        The world axis that is cut along: 0 axial, 1 coronal, 2 sagittal.
    main : ViewerModel
        The viewer that leads.
    """

    def __init__(self, axis: int, main: ViewerModel) -> None:
        self.axis, self.main = axis, main
        self.model = ViewerModel(title=crosshair.PLANES[axis])
        self.canvas = QtViewer(self.model)
        self.canvas.setAcceptDrops(False)
        self.canvas.setMinimumSize(_MINIMUM_PX // 2, _MINIMUM_PX // 2)
        self.copies: dict[Layer, Layer] = {}
        self.crosshair: Layer | None = None
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        letters.add(self.model)
        self.model.canvas.overlays[_LABEL] = TextOverlay(
            text=crosshair.PLANES[axis], position="top_left", color=crosshair.PLANE_COLOURS[axis], font_size=11, visible=True
        )
        for layer in main.layers:
            self._add(layer)
        self._follow_point()
        self._listen()

    def close(self) -> None:
        """End following the main view and free the canvas."""
        for signal, callback in self._connections:
            signal.disconnect(callback)
        self._connections.clear()
        self.copies.clear()
        self.canvas.close()
        self.canvas.deleteLater()

    def _listen(self) -> None:
        main, model = self.main, self.model
        self._connect(main.layers.events.inserted, lambda event: self._add(event.value))
        self._connect(main.layers.events.removed, lambda event: self._remove(event.value))
        self._connect(main.dims.events.point, self._follow_point)
        self._connect(model.dims.events.point, self._lead_point)
        self._connect(main.dims.events.margin_left, self._follow_slab)
        self._connect(main.scene.camera.events.orientation, self._follow_orientation)
        self._connect(model.scene.camera.events.zoom, self._keep_thin)
        self._connect(model.cursor.events.position, self._tell_position)
        model.mouse_move_callbacks.append(_follow_mouse)
        self._follow_orientation()

    def _add(self, layer: Layer) -> None:
        """Show a copy of a new layer that shares its data."""
        followed = _FOLLOWED.get(type(layer))
        if followed is None or layer.ndim != 3 or layer in self.copies:
            return
        data, arguments, kind = layer.as_layer_data_tuple()
        copy = Layer.create(data, arguments, kind)
        windows.bind_keys(copy)
        self.copies[layer] = copy
        self.model.layers.append(copy)
        for attribute in followed:
            self._tie(layer, copy, attribute)
            self._tie(copy, layer, attribute)
        if isinstance(layer, Labels | Shapes | Points):
            self._connect(
                layer.events.data if isinstance(layer, Shapes | Points) else layer.events.paint, lambda _: _take(layer, copy)
            )
        self._connect(layer.events.translate, lambda _: setattr(copy, "translate", layer.translate))
        self._settle(first=len(self.copies) == 1)

    def _settle(self, first: bool) -> None:
        """Cut along this view's axis, show the whole picture the first time, and keep the crosshair on top."""
        if self.model.dims.ndim == 3:
            self.model.dims.order = _ORDERS[self.axis]
            self._follow_point()
        if first:
            self.model.reset_view()
        self._place_crosshair()

    def _remove(self, layer: Layer) -> None:
        copy = self.copies.pop(layer, None)
        if copy is not None and copy in self.model.layers:
            self.model.layers.remove(copy)

    def _tie(self, source: Layer, target: Layer, attribute: str) -> None:
        """Let one layer's attribute follow another's."""

        def follow(_event: Any) -> None:  # noqa: ANN401 (napari's event)
            wanted = getattr(source, attribute)
            if not np.array_equal(getattr(target, attribute), wanted):
                setattr(target, attribute, wanted)

        self._connect(getattr(source.events, attribute), follow)

    def _follow_point(self, _event: Any = None) -> None:  # noqa: ANN401
        if self.model.dims.ndim == self.main.dims.ndim and self.model.dims.point != self.main.dims.point:
            self.model.dims.point = self.main.dims.point
        self._move_crosshair()

    def _lead_point(self, _event: Any = None) -> None:  # noqa: ANN401
        if self.model.dims.ndim == self.main.dims.ndim and self.model.dims.point != self.main.dims.point:
            self.main.dims.point = self.model.dims.point

    def _follow_slab(self, _event: Any = None) -> None:  # noqa: ANN401
        if self.model.dims.ndim == self.main.dims.ndim:
            self.model.dims.thickness = self.main.dims.thickness

    def _follow_orientation(self, _event: Any = None) -> None:  # noqa: ANN401
        self.model.scene.camera.orientation = self.main.scene.camera.orientation

    def _tell_position(self, _event: Any = None) -> None:  # noqa: ANN401
        layer = letters.leading_layer(self.main)
        if layer is not None and self.model.mouse_over_canvas:
            where, value = probe.at(layer, self.model.cursor.position)
            self.main.status = f"{layer.name}: {where}: {value}"

    def _place_crosshair(self) -> None:
        reference = letters.leading_layer(self.model)
        if not crosshair.is_there(self.model) and _can_carry(reference):
            self.crosshair = crosshair.show(self.model, reference)
        elif self.crosshair is not None:
            self.model.layers.move(self.model.layers.index(self.crosshair), len(self.model.layers))

    def _move_crosshair(self) -> None:
        reference = letters.leading_layer(self.model)
        if self.crosshair is not None and _can_carry(reference):
            crosshair.move(self.model, self.crosshair, reference)

    def _keep_thin(self, _event: Any = None) -> None:  # noqa: ANN401
        if self.crosshair is not None:
            crosshair.keep_thin(self.model, self.crosshair)

    def _connect(self, signal: Any, callback: Callable[..., None]) -> None:  # noqa: ANN401 (napari's signals are of two kinds)
        signal.connect(callback)
        self._connections.append((signal, callback))


def _can_carry(layer: Layer | None) -> bool:
    """Whether a crosshair can lie on a layer: an image in one space."""
    if not isinstance(layer, Image):
        return False
    place = letters.place_of_layer(layer)
    return place is not None and place.is_one_space


def _take(layer: Layer, copy: Layer) -> None:
    """Give a copy what was drawn or painted."""
    if isinstance(layer, Labels):
        copy.refresh()
    else:
        copy.data = layer.data


def _follow_mouse(viewer: ViewerModel, event: Any) -> None:  # noqa: ANN401 (napari's mouse event)
    """Move all planes to the point under the mouse while Shift is held, as in 3D Slicer."""
    if "Shift" in event.modifiers and viewer.dims.ndisplay == 2:
        viewer.dims.point = tuple(float(v) for v in event.position)
