"""The viewing tools in one dock: what to see, how thick, in which window, and compared with what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from medrecon.core.errors import MedreconError
from medrecon_napari.viewing import attach, compare, corner, letters, maps, rectangles, slab, windows
from medrecon_napari.viewing.banner import Banner
from medrecon_napari.viewing.threeplanes import ThreePlanes
from medrecon_napari.window_level import AUTOMATIC_KEY, HOUNSFIELD_PRESETS, RESET_KEY

if TYPE_CHECKING:
    import napari

_THREE_PLANES = "Three planes"
_THICKEST_MM = 200.0


class ViewingTools(QWidget):
    """Switches and buttons for looking; every one of them does what the function of the same name does.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        attach.attach(napari_viewer)
        self.viewer = napari_viewer
        self.banner = Banner(napari_viewer)
        self.said = QLabel("")
        self.said.setWordWrap(True)
        self.findings = QLabel("")
        self.findings.setWordWrap(True)
        layout = QVBoxLayout(self)
        for part in (
            self.banner,
            self._layout_box(),
            self._window_box(),
            self._slab_box(),
            self._compare_box(),
            self.said,
            self.findings,
        ):
            layout.addWidget(part)
        layout.addStretch(1)
        for signal in (napari_viewer.layers.events.removed, napari_viewer.layers.selection.events.active):
            signal.connect(self.tell_findings)
        self.tell_findings()

    def tell_findings(self, _event: object = None) -> None:
        """Say in words what was found about the leading layer."""
        layer = letters.leading_layer(self.viewer)
        self.findings.setText("" if layer is None else corner.in_full(layer))

    def _layout_box(self) -> QGroupBox:
        self.letters = _switch(
            "Letters R L A P S I",
            True,
            lambda on: letters.show(self.viewer, on),
            "Right, left, front, back, head and feet of the patient at the edges of the picture",
        )
        self.corner = _switch(
            "Corner text", True, lambda on: corner.show(self.viewer, on), "Series, verdict and window; never the patient"
        )
        radiological = attach.is_radiological(self.viewer)
        self.radiological = _switch(
            "Radiological (patient's right on the left)",
            radiological,
            lambda on: attach.set_radiological(self.viewer, on),
            "As if the patient lay before you and you looked from the feet; off: as if you looked from the head",
        )
        self.three_planes = _switch(
            _THREE_PLANES, False, self._show_three_planes, "Axial, coronal and sagittal views that meet in one point"
        )
        self.slices = self._button(
            "Slices as rectangles",
            lambda: rectangles.toggle(self.viewer),
            "Outline where each measured slice stood in the patient; best seen in 3D",
        )
        return _box("Layout", self.letters, self.corner, self.radiological, self.three_planes, self.slices)

    def _window_box(self) -> QGroupBox:
        self.presets = QComboBox()
        for key, window in HOUNSFIELD_PRESETS.items():
            self.presets.addItem(f"{key}  {window.name}  ({window})", key)
        self.presets.addItem(f"{AUTOMATIC_KEY}  automatic", AUTOMATIC_KEY)
        self.presets.addItem(f"{RESET_KEY}  as opened (DICOM)", RESET_KEY)
        self.presets.setCurrentIndex(self.presets.count() - 1)
        self.presets.setToolTip("The number is the key that chooses the window while an image layer is active.")
        self.presets.activated.connect(lambda _: self._try(self._choose_window))
        return _box("Window", self.presets)

    def _slab_box(self) -> QGroupBox:
        self.thickness = QDoubleSpinBox()
        self.thickness.setRange(0.0, _THICKEST_MM)
        self.thickness.setSuffix(" mm")
        self.mode = QComboBox()
        self.mode.addItems(list(slab.MODES))
        self.thickness.setToolTip("How many millimetres are shown at once; 0: a single plane")
        self.mode.setToolTip("What is shown of all the planes in the slab")
        self.thickness.valueChanged.connect(self._set_slab)
        self.mode.currentTextChanged.connect(self._set_slab)
        box = QGroupBox("Thick slab")
        form = QFormLayout(box)
        form.addRow("thickness", self.thickness)
        form.addRow("shows", self.mode)
        return box

    def _compare_box(self) -> QGroupBox:
        self.before_after = self._button(
            "Before / after", lambda: compare.before_after(self.viewer), "Show the measured slices and the result in turn"
        )
        self.difference = self._button(
            "Difference",
            lambda: compare.add_difference(self.viewer),
            "Add a layer of result minus measured slices: blue where the result is lower, red where it is higher",
        )
        self.coverage = self._button(
            "Coverage",
            lambda: maps.toggle(self.viewer, "coverage"),
            "Show or hide what was measured, what lies between slices, and what the scanner never saw",
        )
        self.residual = self._button(
            "Residual",
            lambda: maps.toggle(self.viewer, "residual"),
            "Show or hide how far the result is from agreeing with each measured slice",
        )
        self.uncertainty = self._button(
            "Uncertainty",
            lambda: maps.toggle(self.viewer, "uncertainty"),
            "Show or hide where the method itself is in doubt; learned methods say so, the others do not",
        )
        box = QGroupBox("Compare and trust")
        grid = QGridLayout(box)
        shown = (self.before_after, self.difference, self.coverage, self.residual, self.uncertainty)
        for place, button in enumerate(shown):
            grid.addWidget(button, place // 2, place % 2)
        return box

    def _button(self, text: str, act: Callable[[], object], tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda: self._try(act))
        return button

    def _try(self, act: Callable[[], object]) -> None:
        """Do what a button says; a refusal is said below the buttons, with its way out."""
        try:
            answer = act()
        except MedreconError as error:
            self.said.setText(str(error))
        else:
            self.said.setText(answer if isinstance(answer, str) else "")

    def _choose_window(self) -> str:
        layer = letters.leading_layer(self.viewer)
        if not isinstance(layer, Image):
            return "Select an image layer first."
        return windows.choose(layer, str(self.presets.currentData()))

    def _set_slab(self, *_: object) -> None:
        slab.set_slab(self.viewer, float(np.round(self.thickness.value(), 3)), self.mode.currentText())

    def _show_three_planes(self, shown: bool) -> None:
        docked = self.viewer.window.dock_widgets
        if shown and _THREE_PLANES not in docked:
            planes = ThreePlanes(self.viewer)
            planes.gone.connect(partial(self.three_planes.setChecked, False))
            self.viewer.window.add_dock_widget(planes, name=_THREE_PLANES, area="right")
        elif not shown and _THREE_PLANES in docked:
            self.viewer.window.remove_dock_widget(docked[_THREE_PLANES])


def _switch(text: str, on: bool, act: Callable[[bool], object], tip: str) -> QCheckBox:
    switch = QCheckBox(text)
    switch.setToolTip(tip)
    switch.setChecked(on)
    switch.toggled.connect(act)
    return switch


def _box(title: str, *parts: QWidget) -> QGroupBox:
    box = QGroupBox(title)
    layout = QVBoxLayout(box)
    for part in parts:
        layout.addWidget(part)
    return box
