"""Windows on the number keys of image layers, and back to the one that the DICOM header asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from medrecon_napari.window_level import AUTOMATIC_KEY, HOUNSFIELD_PRESETS, RESET_KEY, Window, automatic

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer


def bind_keys(layer: Layer) -> None:
    """Put the windows on the number keys of one image layer; layers of other plugins keep theirs."""
    if "window" not in layer.metadata:
        return
    for key in (*HOUNSFIELD_PRESETS, AUTOMATIC_KEY, RESET_KEY):
        layer.bind_key(key, _chooser(key), overwrite=True)


def choose(layer: Image, key: str) -> str:
    """Show a layer in the window of a key and return what to say about it."""
    window = window_of_key(layer, key)
    if window is None:
        return "This window is in Hounsfield units, which this layer does not hold. 8: automatic, 9: reset."
    set_window(layer, window)
    return f"{window.name}: {window}"


def window_of_key(layer: Image, key: str) -> Window | None:
    """Return the window of a key for a layer, None where it makes no sense there."""
    if key == RESET_KEY:
        opened: Window = layer.metadata["window"]
        return opened
    if key == AUTOMATIC_KEY:
        return automatic(layer.data)
    return HOUNSFIELD_PRESETS[key] if layer.metadata.get("quantity") == "hounsfield" else None


def set_window(layer: Image, window: Window) -> None:
    """Show a layer in a window; the slider's range grows where the window needs it."""
    low, high = window.limits
    lowest, highest = layer.contrast_limits_range
    layer.contrast_limits_range = (min(low, lowest), max(high, highest))
    layer.contrast_limits = (low, high)


def take_over(viewer: ViewerModel, layer: Layer) -> None:
    """Open a result in the window of the slices it was made from, so that before and after can be compared."""
    if layer.metadata.get("role") != "result":
        return
    for other in viewer.layers:
        if other.metadata.get("role") == "scan" and other.metadata.get("series") == layer.metadata.get("series"):
            set_window(layer, current(other))
            layer.metadata["window"] = current(other)


def current(layer: Image) -> Window:
    """Return the window in which a layer is shown now."""
    return Window.between("", *(float(v) for v in layer.contrast_limits))


def _chooser(key: str) -> Callable[[Image], None]:
    def chosen(layer: Image) -> None:
        from napari.utils.notifications import show_info

        said = choose(layer, key)
        if window_of_key(layer, key) is None:
            show_info(said)

    return chosen
