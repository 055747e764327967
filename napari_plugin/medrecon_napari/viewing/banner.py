"""The patient banner: whose pictures these are, in a strip of the window, hidden until asked for.

The identity is never drawn into the canvas, so that a screenshot of the canvas cannot hold it, and it goes into no log,
title or file name. It is read from the header that the active layer came with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QWidget

from medrecon_napari import preferences
from medrecon_napari.viewing import attach
from medrecon_napari.viewing.letters import leading_layer

if TYPE_CHECKING:
    import napari

HIDDEN = "Identity hidden"
UNKNOWN = "No identity in this file"
#: What the banner tells, with the DICOM attributes it comes from.
_IDENTITY = (("", "00100010"), ("ID", "00100020"), ("born", "00100030"), ("sex", "00100040"), ("study", "00080020"))


class Banner(QWidget):
    """Identity of the active layer's patient with a switch to hide it.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        attach.attach(napari_viewer)
        self.viewer = napari_viewer
        self.label = QLabel(HIDDEN)
        self.label.setTextFormat(Qt.TextFormat.PlainText)  # a name is no markup
        self.hide_identity = QCheckBox("Hide identity")
        self.hide_identity.setToolTip("Names, numbers and dates leave the window; screenshots of the canvas never hold them.")
        self.hide_identity.setChecked(preferences.hide_identity())
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 2, 8, 2)
        layout.addWidget(self.label, stretch=1)
        layout.addWidget(self.hide_identity)
        self.hide_identity.toggled.connect(self.tell)
        events = napari_viewer.layers
        for signal in (events.events.inserted, events.events.removed, events.selection.events.active):
            signal.connect(self.tell)
        self.tell()

    def tell(self, _event: Any = None) -> None:  # noqa: ANN401 (napari's event, or Qt's state)
        """Write the identity of the leading layer, or that it is hidden."""
        layer = leading_layer(self.viewer)
        source = None if layer is None else layer.metadata.get("source")
        known = identity(source.header) if source is not None else ""
        self.label.setText(HIDDEN if self.hide_identity.isChecked() else known or UNKNOWN)


def identity(header: Mapping[str, Any]) -> str:
    """Return name, number, birth date, sex and study date of a DICOM JSON header in one line; empty where none is there."""
    parts = []
    for word, tag in _IDENTITY:
        values = header.get(tag, {}).get("Value") or []
        if values:
            parts.append(f"{word} {_text(values[0])}".strip())
    return "  ·  ".join(part for part in parts if part)


def _text(value: object) -> str:
    """Return one value on one line; a DICOM name becomes ``FAMILY, GIVEN``."""
    if isinstance(value, Mapping):
        family_and_given = str(value.get("Alphabetic", "")).split("^")[:2]
        value = ", ".join(part for part in family_and_given if part)
    return "".join(c if c.isprintable() else " " for c in str(value))
