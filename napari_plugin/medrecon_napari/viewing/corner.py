"""Text in the corners of a view: what is shown, which slice, which window, and what the colours of an overlay mean.

Nothing here can identify a patient: text in the canvas ends up in screenshots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari.components.overlays import TextOverlay
from napari.layers import Image, Layer

from medrecon_napari.colours import COVERAGE_LEGEND, UNITS
from medrecon_napari.model.words import VERDICTS
from medrecon_napari.viewing.letters import leading_layer
from medrecon_napari.viewing.windows import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

_WHAT, _WINDOW, _LEGEND = "medrecon_what", "medrecon_window", "medrecon_legend"
_AT = {_WHAT: "top_left", _WINDOW: "bottom_left", _LEGEND: "top_right"}
_COLOUR = "#d8dee9"
_SIZE_PT = 8
_LONGEST_LINE = 28  # so that it ends before the letter in the middle, also in a window of 1280 pixels
RESEARCH = "research use only"
#: Verdicts in the panel's words.
_WORDS = {str(verdict): name.lower() for verdict, (name, _) in VERDICTS.items()}


def add(viewer: ViewerModel) -> None:
    """Give a viewer its corner text and keep it true; a viewer that has it is left as it is."""
    if _WHAT in viewer.canvas.overlays:
        return
    for name, position in _AT.items():
        viewer.canvas.overlays[name] = TextOverlay(position=position, color=_COLOUR, font_size=_SIZE_PT, visible=True)

    def update(_event: Any = None) -> None:  # noqa: ANN401 (one of napari's events)
        for name, text in texts(viewer).items():
            viewer.canvas.overlays[name].text = text
            viewer.canvas.overlays[name].visible = bool(text)

    layers = viewer.layers
    for signal in (viewer.dims.events.point, viewer.dims.events.order, viewer.dims.events.ndisplay):
        signal.connect(update)
    for signal in (layers.events.inserted, layers.events.removed, layers.selection.events.active):
        signal.connect(update)
    layers.events.inserted.connect(lambda event: _follow(event.value, update))
    for layer in layers:
        _follow(layer, update)
    update()


def show(viewer: ViewerModel, shown: bool) -> None:
    """Show or hide the corner text."""
    for name in _AT:
        viewer.canvas.overlays[name].visible = shown and bool(viewer.canvas.overlays[name].text)


def texts(viewer: ViewerModel) -> dict[str, str]:
    """Return the text of each corner, empty where there is nothing to say."""
    layer = leading_layer(viewer)
    has_window = isinstance(layer, Image) and "window" in layer.metadata
    return {
        _WHAT: "" if layer is None else what(layer),
        _WINDOW: f"{current(layer)}\n{RESEARCH}" if has_window else ("" if layer is None else RESEARCH),
        _LEGEND: "\n\n".join(filter(None, (legend(one) for one in viewer.layers if one.visible))),
    }


def legend(layer: Layer) -> str:
    """Say what the colours of an overlay mean; nothing for other layers."""
    role = layer.metadata.get("role")
    if role == "uncertainty":
        unit = UNITS.get(layer.metadata.get("quantity", ""), "")
        return f"Uncertainty\nclear: 0\nred: {layer.contrast_limits[1]:.3g} {unit}".rstrip() + " and more"
    return COVERAGE_LEGEND if role == "coverage" else ""


def what(layer: Layer) -> str:
    """Say in a few lines what a layer is, its verdict with the codes of its findings, and what the screen cannot show."""
    verdict = _WORDS.get(str(layer.metadata.get("verdict", "")), "")
    codes = ", ".join(str(finding.get("code")) for finding in _findings(layer))
    said = f"verdict: {verdict}" + (f" ({codes})" if codes else "")
    texts = [layer.name, *([said] if verdict else []), *(f"Note: {note}" for note in layer.metadata.get("notes", ()))]
    return "\n".join(line for text in texts for line in _wrapped(text))


def in_full(layer: Layer) -> str:
    """Say every finding about a layer in words, with its numbers and the way out."""
    lines = (f"{one.get('code')}: {one.get('fact')} {one.get('hint', '')}".rstrip() for one in _findings(layer))
    return "\n".join(lines)


def _findings(layer: Layer) -> list[Mapping[str, Any]]:
    return [one for one in layer.metadata.get("findings", ()) if one.get("verdict") != "ok"]


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, _LONGEST_LINE, break_on_hyphens=False)


def _follow(layer: Layer, update: Callable[..., None]) -> None:
    layer.events.visible.connect(update)
    layer.events.name.connect(update)
    if isinstance(layer, Image):
        layer.events.contrast_limits.connect(update)
