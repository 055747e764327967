"""Step 3: which tissue, where its surface is drawn, how smooth and how fine; and what the surface measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QSpinBox, QVBoxLayout, QWidget

import medrecon as mr
from medrecon.core.errors import UsageError
from medrecon.core.reading import ReadOptions
from medrecon.core.settings import parse
from medrecon.core.volume import Quantity
from medrecon.surface.settings import SurfaceConfig
from medrecon.surface.tissues import HOUNSFIELD_PRESETS
from medrecon_napari.model.jobs import Job
from medrecon_napari.model.runs import RunState
from medrecon_napari.model.workbench import Workbench
from medrecon_napari.panel.histogram import Histogram, counted
from medrecon_napari.panel.hooks import Hooks
from medrecon_napari.panel.look import button, card, label, progress_bar, row, say, show_share
from medrecon_napari.panel.results_box import ResultsBox

_BY_LEVEL = "level"
_SMOOTHNESS = (("None", 0), ("Light", 10), ("Medium", 20), ("Strong", 60))
_MOST_TRIANGLES = 5_000_000
_MEDIUM = 2
_NOTHING: tuple[Any, float, float] = (np.zeros(0), 0.0, 1.0)


class SurfaceStep(QWidget):
    """The content of step 3.

    Parameters
    ----------
    bench : Workbench
    hooks : Hooks
    """

    def __init__(self, bench: Workbench, hooks: Hooks) -> None:
        super().__init__()
        self.bench = bench
        self.results = ResultsBox(bench, hooks, "Which result the surface is made of")
        self.tissue = QComboBox()
        self.tissue.setToolTip("What the surface encloses")
        self.level = QDoubleSpinBox()
        self.level.setRange(-1e6, 1e6)
        self.level.setDecimals(1)
        self.level.setToolTip("Every value from this one up is enclosed; the line in the histogram")
        self.histogram = Histogram(self._level_dragged)
        self.smoothness = QComboBox()
        for name, steps in _SMOOTHNESS:
            self.smoothness.addItem(name, steps)
        self.smoothness.setCurrentIndex(_MEDIUM)
        self.smoothness.setToolTip("Evens out the steps between slices; keeps the volume")
        self.decimate = QCheckBox("Reduce to")
        self.decimate.setChecked(True)
        self.decimate.setToolTip("Merge triangles where that moves the surface least, so that other programs can handle it")
        self.triangles = QSpinBox()
        self.triangles.setRange(100, _MOST_TRIANGLES)
        self.triangles.setSingleStep(50_000)
        self.triangles.setValue(200_000)
        self.triangles.setGroupSeparatorShown(True)
        self.triangles.setSuffix(" triangles")
        self.triangles.setToolTip("About how many triangles are left")
        self.largest = QCheckBox("Keep the largest piece only")
        self.largest.setChecked(True)
        self.largest.setToolTip("Leaves out specks, the table and inner cavities; of lungs both are kept")
        self.make_button = button("Make surface", "Extract, smooth, reduce and measure the surface", self.make, "main")
        self.progress = progress_bar()
        self.state = label("", "hint")
        self.measures = label("", "text", "In the patient's space; the volume only where the surface is closed")
        self._shown_result = 0
        self._lay_out()
        self._connect(hooks)
        self.refresh()

    def make(self) -> None:
        """Make the surface that the settings describe."""
        result = self.results.chosen()
        try:
            settings = self.settings()
        except UsageError as error:
            say(self.state, f"{error.fact} {error.hint}".strip(), "bad")
            return
        if result is not None and self.bench.jobs.running("surface") is None:
            self.bench.make_surface(result, settings)

    def settings(self) -> SurfaceConfig:
        """Return the settings as chosen."""
        by_level = self.tissue.currentData() == _BY_LEVEL
        data = {
            "tissue": "auto" if by_level else self.tissue.currentData(),
            "level": self.level.value() if by_level else None,
            "smoothing_iterations": self.smoothness.currentData(),
            "target_triangles": self.triangles.value() if self.decimate.isChecked() else None,
            "largest_component": self.largest.isChecked(),
        }
        return parse(SurfaceConfig, data, "surface")

    def summary(self) -> str:
        """Say in a line what the last surface measures."""
        return str(self.measures.text()).partition("\n")[0]

    def refresh(self) -> None:
        """Show the chosen result and the running job."""
        result, job = self.results.chosen(), self.bench.jobs.running("surface")
        if result is not None and result.number != self._shown_result and result.number in self.bench.records:
            self._show_result(result)
        self.make_button.setEnabled(result is not None and job is None)
        self.make_button.setText("Making the surface…" if job is not None else "Make surface")
        self.progress.setVisible(job is not None)
        say(self.state, "" if job is None else job.in_words(), "hint")
        if job is not None:
            show_share(self.progress, job.fraction)
        by_level = self.tissue.currentData() == _BY_LEVEL
        self.level.setEnabled(by_level)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        what = card(
            label("What", "caption"), row(self.tissue, label("from", "hint"), self.level, None), self.histogram, role="card"
        )
        how = card(
            label("How", "caption"),
            row(label("Smoothing"), self.smoothness, None),
            row(self.decimate, self.triangles, None),
            self.largest,
        )
        for part in (self.results, what, how, self.make_button, self.progress, self.state, self.measures):
            layout.addWidget(part)

    def _connect(self, hooks: Hooks) -> None:
        self.results.changed.connect(self.refresh)
        self.tissue.currentIndexChanged.connect(lambda _: self._tissue_chosen())
        self.level.valueChanged.connect(lambda value: self.histogram.show_level(float(value)))
        self.decimate.toggled.connect(self.triangles.setEnabled)
        hooks.connect(self.bench.jobs.changed, self._job_changed)
        hooks.connect(self.bench.facts_changed, self.refresh)

    def _show_result(self, result: Job) -> None:
        """Offer the tissues that the result's values can tell apart, and count its values."""
        self._shown_result = result.number
        quantity = str(self.bench.records[result.number].get("volume", {}).get("quantity", ""))
        self.tissue.blockSignals(True)
        self.tissue.clear()
        for name in HOUNSFIELD_PRESETS if quantity == Quantity.HOUNSFIELD else ("foreground",):
            self.tissue.addItem(name.replace("-", " ").capitalize(), name)
        self.tissue.addItem("Level…", _BY_LEVEL)
        self.tissue.blockSignals(False)
        self._count(result, quantity)
        self._tissue_chosen()

    def _count(self, result: Job, quantity: str) -> None:
        folder = result.result
        if folder is None:
            return
        self.bench.background.call(
            lambda: _histogram_of(folder / "volume.nii.gz", quantity),
            lambda found: self._counted(result.number, found),
            lambda _: self.histogram.show_values(*_NOTHING),
        )

    def _counted(self, number: int, found: tuple[Any, float, float]) -> None:
        if number == self._shown_result:
            self.histogram.show_values(*found)
            self._tissue_chosen()

    def _tissue_chosen(self) -> None:
        name = self.tissue.currentData()
        tissue = HOUNSFIELD_PRESETS.get(name)
        if tissue is not None and tissue.low is not None:
            self.level.setValue(tissue.low)
        self.histogram.show_level(None if name == "foreground" or (tissue and tissue.low is None) else self.level.value())
        self.refresh()

    def _level_dragged(self, level: float) -> None:
        self.tissue.setCurrentIndex(self.tissue.findData(_BY_LEVEL))
        self.level.setValue(level)

    def _job_changed(self, number: int) -> None:
        job = self.bench.jobs.get(number)
        if job.kind == "surface" and job.state is RunState.FINISHED:
            say(self.measures, in_words(job.answer.get("surface", {})), "good")
        self.refresh()


def in_words(measures: dict[str, Any]) -> str:
    """Say what a surface measures."""
    if not measures:
        return ""
    closed = bool(measures.get("watertight"))
    volume = measures.get("volume_ml")
    size = "" if volume is None else f" · {volume:,.1f} mL"
    first = f"{measures.get('triangle_count', 0):,} triangles{size} · {'watertight ✓' if closed else 'not watertight'}"
    smoothing, decimation = (measures.get(f"volume_change_by_{step}_percent") for step in ("smoothing", "decimation"))
    if smoothing is None or decimation is None:
        return first
    changes = (f"{round(change, 2) + 0.0:+.2f} %" for change in (smoothing, decimation))  # no minus before a zero
    return f"{first}\nThe volume changed by {' in smoothing and '.join(changes)} in reducing."


def _histogram_of(path: Path, quantity: str) -> tuple[Any, float, float]:
    found = mr.read(path, options=ReadOptions(quantity=Quantity(quantity) if quantity else None))
    return counted(found.voxels) if isinstance(found, mr.Volume) else _NOTHING
