"""Which finished result a step works on: the newest one unless the user chose another."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from medrecon_napari.model.jobs import Job
from medrecon_napari.model.workbench import Workbench
from medrecon_napari.panel.hooks import Hooks
from medrecon_napari.panel.look import label


class ResultsBox(QWidget):
    """A list of results to choose from; it takes no room while there is only one.

    Parameters
    ----------
    bench : Workbench
    hooks : Hooks
    tip : str
    """

    changed = Signal()

    def __init__(self, bench: Workbench, hooks: Hooks, tip: str) -> None:
        super().__init__()
        self.bench = bench
        self.box = QComboBox()
        self.box.setToolTip(tip)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(label("Result", "caption"))
        layout.addWidget(self.box)
        self.box.currentIndexChanged.connect(lambda _: self.changed.emit())
        hooks.connect(bench.result_ready, self._came)
        hooks.connect(bench.facts_changed, self.refresh)
        self.refresh()

    def chosen(self) -> Job | None:
        """Return the chosen result, None where there is none, or its files are gone."""
        number = self.box.currentData()
        return next((job for job in self.bench.results() if job.number == number), None)

    def refresh(self) -> None:
        """Show the results that are still there."""
        there = self.bench.results()
        if [job.number for job in there] != [self.box.itemData(k) for k in range(self.box.count())]:
            chosen = self.box.currentData()
            self.box.blockSignals(True)
            self.box.clear()
            for job in there:
                self.box.addItem(f"{job.number}  {job.title}", job.number)
            self.box.setCurrentIndex(max(self.box.findData(chosen), 0) if chosen else self.box.count() - 1)
            self.box.blockSignals(False)
            self.changed.emit()
        self.setVisible(len(there) > 1)

    def _came(self, number: int) -> None:
        self.refresh()
        self.box.setCurrentIndex(self.box.findData(number))
