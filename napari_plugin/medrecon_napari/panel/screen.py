"""The panel's view of the viewer: which plane is being looked at, the layers it adds, and where they lie.

Layers that the user removes or renames are nobody's loss: everything is found again by what its metadata say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

import medrecon as mr
from medrecon.core.volume import Quantity
from medrecon_napari.layers import LayerData, volume_layer
from medrecon_napari.model.previews import Picture, View
from medrecon_napari.panel import warm
from medrecon_napari.place import Place
from medrecon_napari.viewing import align, letters
from medrecon_napari.viewing.letters import place_of_layer
from medrecon_napari.window_level import Window

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

    from medrecon_napari.panel.home import Home

#: The world axis that is not drawn in each view; napari's world is head-feet, front-back, right-left.
_ORDERS: dict[View, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
PREVIEW = "preview"
_BREATH_MS = 15  # for the window to paint and to listen, between one layer and the next


class Screen:
    """What the panel does with the viewer.

    Parameters
    ----------
    viewer : Viewer
    home : Home
        Knows the widget that holds the canvas, and whether it is still there.
    """

    def __init__(self, viewer: napari.Viewer, home: Home) -> None:
        self.viewer, self._home = viewer, home
        self._waiting: deque[Iterator[Callable[[], object]]] = deque()
        self._is_busy = False

    def add(self, layers: Sequence[Layer], done: Callable[[], None] = lambda: None, *, instead_of_preview: bool = False) -> None:
        """Add layers one by one: hidden, then painted, then shown, each with time for the window in between.

        napari makes the controls of a layer, its place in the scene and the programs that draw it in one go each; what lies
        between these is all that can be spread.
        """
        turns: list[Callable[[], object]] = [partial(letters.box, self.viewer, False)]
        turns += [self._drop_unseen, partial(self._home.paint, True)] if instead_of_preview else []
        for layer in layers:
            turns += [partial(self._add_unseen, layer), partial(self._home.paint, True)]
            if layer.visible:
                turns.append(partial(setattr, layer, "visible", True))
        self.take_turns(iter([*turns, self._select_picture, partial(letters.box, self.viewer, True), done]))

    def take_turns(self, turns: Iterator[Callable[[], object]]) -> None:
        """Do things in as many turns of the event loop, after what is waiting, for as long as the window is there."""
        self._waiting.append(turns)
        self._go_on()

    def _go_on(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            QTimer.singleShot(_BREATH_MS, self._take_turn)

    def _take_turn(self) -> None:
        self._is_busy = False
        if self._home.is_closed:
            return
        turn = _first(self._waiting)
        if turn is not None:
            self._go_on()  # first: where this turn fails, the window must be painted again
            turn()

    def _drop_unseen(self) -> None:
        """Remove the preview without painting what was under it yet."""
        self._home.paint(False)
        self.drop_preview()

    def _add_unseen(self, layer: Layer) -> None:
        """Add a layer without showing or painting it yet."""
        layer.visible = False
        self._home.paint(False)
        self.add_one(layer)

    def add_one(self, layer: Layer) -> Layer:
        """Add one layer under the preview."""
        align.lay_upon(self.viewer, layer)  # before it is there, for then nothing has to be drawn anew
        made = self.viewer.add_layer(layer)
        preview = self.preview()
        if preview is not None and made is not preview:
            self.viewer.layers.move(self.viewer.layers.index(preview), len(self.viewer.layers))
        return made

    def _select_picture(self) -> None:
        """Make the newest picture the active layer: the keys for windows and the corner text are about it."""
        pictures = [one for one in self.viewer.layers if one.metadata.get("role") in {"scan", "volume", "result"} and one.visible]
        if pictures:
            self.viewer.layers.selection.active = pictures[-1]

    def hide_others(self, series: str) -> None:
        """Hide the pictures of other series, so that the new one is seen."""
        for layer in self.viewer.layers:
            if layer.metadata.get("role") in {"scan", "volume", "result"} and layer.metadata.get("series") != series:
                layer.visible = False

    def hide_what_has_no_place(self) -> None:
        """Hide detector images, and frames shown one after another: nothing can be laid upon them."""
        for layer in self.viewer.layers:
            place = place_of_layer(layer)
            if layer.metadata.get("role") == "scan" and (place is None or not place.is_one_space):
                layer.visible = False

    def scan(self, series: str) -> Layer | None:
        """Return the layer of a series' images, None where it was removed."""
        return next(iter(self._scans(series)), None)

    def show_again(self, series: str, layers: Sequence[Layer]) -> bool:
        """Show the images of a series that are there already; return whether they are those of these layers.

        Those of another folder or of other files are removed: a series that was copied and cut goes by the same name.
        """
        there = self._scans(series)
        same = sorted(map(_whose, there)) == sorted(map(_whose, layers))
        for layer in there:
            if same:
                layer.visible = True
            else:
                self.viewer.layers.remove(layer)
        return same

    def _scans(self, series: str) -> list[Layer]:
        ours = (one for one in self.viewer.layers if one.metadata.get("series") == series)
        return [one for one in ours if one.metadata.get("role") in {"scan", "volume"}]

    def preview(self) -> Layer | None:
        """Return the preview's layer, None where there is none."""
        return next((one for one in self.viewer.layers if one.metadata.get("role") == PREVIEW), None)

    def look(self, view: View) -> None:
        """Turn the viewer to a view."""
        if self.viewer.dims.ndim == len(_ORDERS[view]) and tuple(self.viewer.dims.order) != _ORDERS[view]:
            self.viewer.dims.order = _ORDERS[view]
            if self.viewer.dims.ndisplay == 2:
                self.viewer.reset_view()

    def view(self) -> View | None:
        """Return the view that the viewer shows, None where it shows something else."""
        if self.viewer.dims.ndim != 3:
            return None
        hidden = self.viewer.dims.order[0]
        return next(view for view, order in _ORDERS.items() if order[0] == hidden)

    def point_lps(self, series: str) -> tuple[float, float, float] | None:
        """Return the point of the patient that the viewer's sliders stand at; None without the series' images."""
        layer = self.scan(series)
        place = None if layer is None else place_of_layer(layer)
        if place is None or not place.is_one_space or self.viewer.dims.ndim != 3:
            return None
        x, y, z = (float(v) for v in place.lps_of_world(np.asarray(self.viewer.dims.point, dtype=np.float64)))
        return x, y, z

    def limits(self, series: str) -> tuple[float, float] | None:
        """Return the values that are shown black and white in the series' images."""
        layer: Any = self.scan(series)
        return None if layer is None else (float(layer.contrast_limits[0]), float(layer.contrast_limits[1]))

    def show_preview(self, picture: Picture, series: str) -> None:
        """Lay a preview upon the series' images, in the same window of values."""
        limits, reference = self.limits(series), self.scan(series)
        data, arguments, kind = preview_layer(picture, None if limits is None else Window.between("as the scan", *limits))
        place = None if reference is None else place_of_layer(reference)
        if place is not None and place.is_one_space:
            arguments = _laid_upon(arguments, place)
        there: Any = self.preview()
        if there is None:
            active = self.viewer.layers.selection.active
            self.add_one(*as_layers([(data, arguments, kind)]))
            self.viewer.layers.selection.active = active or reference
            return
        there.data = data
        there.metadata = arguments["metadata"]
        for name in ("scale", "translate"):
            if not np.array_equal(getattr(there, name), arguments[name]):  # each change draws everything anew
                setattr(there, name, arguments[name])

    def drop_preview(self) -> None:
        """Remove the preview."""
        layer = self.preview()
        if layer is not None:
            self.viewer.layers.remove(layer)


def _first(waiting: deque[Iterator[Callable[[], object]]]) -> Callable[[], object] | None:
    """Take the first turn of those who wait, None where nobody has one left."""
    while waiting:
        turn = next(waiting[0], None)
        if turn is not None:
            return turn
        waiting.popleft()
    return None


def _whose(layer: Layer) -> tuple[str, tuple[int, ...]]:
    """Return where a layer's images were read from, and how many there are of which size."""
    return str(layer.metadata.get("path", "")), tuple(layer.data.shape)


def as_layers(layers: Sequence[LayerData]) -> list[Layer]:
    """Make napari's layers, which may be done on a thread; only adding them to the viewer may not."""
    from napari.layers import Layer

    warm.units()
    return [Layer.create(*layer) for layer in layers]


def preview_layer(picture: Picture, window: Window | None) -> LayerData:
    """Return the layer of a preview: one plane, named so that nobody takes it for a result."""
    return volume_layer(_volume(picture, picture.plane), {"role": PREVIEW}, "preview, not a result", window)


def flat(picture: Picture) -> tuple[list[NDArray[np.float32]], tuple[float, float]]:
    """Return the measured plane, if there is one, and the reconstructed one, (rows, columns) as on the screen; a pixel's mm."""
    planes = [values for values in (picture.measured, picture.plane) if values is not None]
    shown = [_volume(picture, values).to_napari() for values in planes]
    data, arguments, _ = shown[-1]
    thin = data.shape.index(1)
    row, column = (float(size) for axis, size in enumerate(arguments["scale"]) if axis != thin)
    return [np.squeeze(one, thin) for one, _, _ in shown], (row, column)


def _laid_upon(arguments: dict[str, Any], place: Place) -> dict[str, Any]:
    """Move a layer's arguments so that it shows one patient point where another layer does."""
    world = np.diag([*arguments["scale"], 1.0])
    world[:3, 3] = arguments["translate"]
    mine = Place(np.asarray(arguments["metadata"]["to_lps_mm"], dtype=np.float64), world)
    return {**arguments, "translate": mine.beside(place).world_from_data[:3, 3]}


def _volume(picture: Picture, values: NDArray[np.float32]) -> mr.Volume:
    slices, rows, columns = values.shape
    return mr.Volume(values, mr.Grid((slices, rows, columns), picture.to_lps_mm), Quantity(picture.quantity))
