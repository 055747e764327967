"""Step 1: choose or drop a study, see what is in it, and what stands against using it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QMimeData, Qt
from qtpy.QtGui import QBrush, QColor, QDragEnterEvent, QDragLeaveEvent, QDropEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFrame,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from medrecon.core.codes import EXPLANATIONS
from medrecon.core.findings import Finding, Verdict
from medrecon.core.reading import SeriesInfo
from medrecon_napari.model import words
from medrecon_napari.model.steps import Step
from medrecon_napari.model.workbench import Workbench
from medrecon_napari.panel.hooks import Hooks
from medrecon_napari.panel.look import Role, button, card, label, mark, row, say

_COLUMNS = (
    ("Series", "What kind of images, and what sets this part apart where a series was split"),
    ("Verdict", "Whether it can be reconstructed"),
    ("Images", "How many slices, or views of an X-ray scan"),
    ("Spacing\nmm", "From slice to slice, from row to row, from column to column; of X-ray views the size of a detector pixel"),
    ("Gaps", "What lies between two slices and was not measured"),
)
_VERDICT, _SPACING = 1, 3  # columns
_NARROWEST_PX = 54  # "Volume" can be read
_MOODS: dict[Verdict, Role] = {Verdict.OK: "good", Verdict.WARN: "note", Verdict.REFUSED: "bad"}
_SIGNS = {Verdict.OK: "✓", Verdict.WARN: "!", Verdict.REFUSED: "✕"}
_NEEDS_SPACING = {"IMG-SPACING", "VOL-SPACING", "PRJ-PITCH"}
_MOST_ROWS = 5
_ROW_PX = 30


class LoadStep(QWidget):
    """The content of step 1.

    Parameters
    ----------
    bench : Workbench
    hooks : Hooks
    go_on : callable
        Opens another step.
    """

    def __init__(self, bench: Workbench, hooks: Hooks, go_on: Callable[[Step], None]) -> None:
        super().__init__()
        self.bench = bench
        self.folder_button = button("Choose folder…", "Open a folder with a study, searched with all below it", self._ask_folder)
        self.file_button = button(
            "Choose file…", "Open a DICOM file, a ZIP, or a NIfTI, NRRD or MetaImage volume", self._ask_file
        )
        self.drop_text = label("or drop a folder, a ZIP or a file here", "hint")
        self.drop = card(row(self.folder_button, self.file_button, None), self.drop_text, role="drop")
        self.busy = label("", "hint")  # still: a bar that moves paints the whole window each time, and reading has to wait
        self.table = _table()
        self.table.itemSelectionChanged.connect(self._selected)
        self.skipped = label("", "hint", "Files that belong to no series are never mixed in")
        self.details = _Details(bench)
        self.next_button = button("Continue", "Go on to step 2", lambda: go_on(Step.RECONSTRUCT), "main")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        for part in (self.drop, self.busy, self.table, self.skipped, self.details, self.next_button):
            layout.addWidget(part)
        hooks.connect(bench.listed, self.refresh)
        hooks.connect(bench.facts_changed, self._refresh_state)
        self.refresh()
        self._refresh_state()

    def refresh(self) -> None:
        """Show the series that were found."""
        listing = self.bench.listing or ()
        self.table.blockSignals(True)
        self.table.setRowCount(len(listing))
        for number, info in enumerate(listing):
            self._fill_row(number, info)
        self.table.blockSignals(False)
        rows = min(max(len(listing), 1), _MOST_ROWS)
        self.table.setFixedHeight(rows * _ROW_PX + self.table.horizontalHeader().sizeHint().height() + 4)
        self.table.setVisible(bool(listing))
        skipped = getattr(self.bench.listing, "skipped", ())
        say(self.skipped, words.skipped(skipped))

    def summary(self) -> str:
        """Say in a line what is chosen."""
        info = self.bench.info
        if info is None:
            return ""
        verdict = words.VERDICTS[words.verdict(info, self.bench.options.allow)][0]
        return f"{words.series_title(info)} · {words.count(info)} · {words.spacing(info)} mm · {verdict.lower()}"

    def take_drop(self, data: QMimeData) -> bool:
        """Look at what was dropped; return whether it was anything."""
        path = dropped_path(data)
        if path is None:
            return False
        self.bench.look_at(path)
        return True

    def mark_over(self, on: bool) -> None:
        """Show that something that can be dropped is held over the panel."""
        mark(self.drop, "over", "true" if on else "false")

    def _fill_row(self, number: int, info: SeriesInfo) -> None:
        verdict = words.verdict(info, self.bench.options.allow if info is self.bench.info else ())
        name, meaning = words.VERDICTS[verdict]
        images = words.count(info).removesuffix(" slices")
        in_full = words.spacing(info)
        spacing = "uneven" if "uneven" in in_full else in_full.replace(" ", "")  # the panel is narrow
        cells = (words.series_title(info), f"{_SIGNS[verdict]} {name}", images, spacing, words.gaps(info))
        tips = {_VERDICT: meaning, _SPACING: f"{in_full} mm"}
        for column, text in enumerate(cells):
            item = QTableWidgetItem(text)
            item.setData(Qt.ItemDataRole.UserRole, info.id)
            item.setToolTip(f"{tips.get(column, text)}\n{info.id}")
            self.table.setItem(number, column, item)
        self.table.setRowHeight(number, _ROW_PX)

    def _refresh_state(self) -> None:
        info = self.bench.info
        say(self.busy, self.bench.under_way)
        for number, one in enumerate(self.bench.listing or ()):
            if self.table.item(number, 0) is not None and one is info:
                self._fill_row(number, one)
                if self.table.currentRow() != number or not self.table.selectedItems():
                    self.table.blockSignals(True)
                    self.table.selectRow(number)
                    self.table.blockSignals(False)
        self.details.show_series(info)
        self.next_button.setVisible(info is not None)
        self.next_button.setEnabled(not self.bench.why_closed(Step.RECONSTRUCT))
        self.next_button.setToolTip(self.bench.why_closed(Step.RECONSTRUCT) or "Go on to step 2")

    def paint_verdicts(self, colours: dict[str, str]) -> None:
        """Colour the verdicts for a theme."""
        for number, info in enumerate(self.bench.listing or ()):
            item = self.table.item(number, _VERDICT)
            if item is not None:
                verdict = words.verdict(info, self.bench.options.allow if info is self.bench.info else ())
                item.setForeground(QBrush(QColor(colours[_MOODS[verdict]])))

    def _selected(self) -> None:
        chosen = self.table.selectedItems()
        if chosen:
            self.bench.choose(str(chosen[0].data(Qt.ItemDataRole.UserRole)))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Choose a folder with a study", self._start())
        if path:
            self.bench.look_at(Path(path))

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Choose a file", self._start())
        if path:
            self.bench.look_at(Path(path))

    def _start(self) -> str:
        last = Path(self.bench.last_path) if self.bench.last_path else Path.home()
        return str(last if last.is_dir() else last.parent)


class _Details(QFrame):
    """Why a series has its verdict, and what can be done about it."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self.bench = bench
        self.setProperty("role", "card")
        self._shown: tuple[object, ...] = ()
        self.switches: dict[str, QCheckBox] = {}
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(10, 8, 10, 8)
        self._layout.setSpacing(6)

    def show_series(self, info: SeriesInfo | None) -> None:
        """Show the findings of a series."""
        wanted = () if info is None else (info.id, self.bench.options.allow, id(info))
        self.setVisible(info is not None)
        if info is None or wanted == self._shown:
            self._shown = wanted
            return
        self._shown = wanted
        _empty(self._layout)
        self.switches = {}
        verdict = words.verdict(info, self.bench.options.allow)
        self._layout.addWidget(label(words.VERDICTS[verdict][1], _MOODS[verdict]))
        for finding in sorted(info.findings, key=lambda one: list(_MOODS)[::-1].index(one.verdict)):
            self._layout.addWidget(_finding(finding))
        self._add_ways_out(info)

    def _add_ways_out(self, info: SeriesInfo) -> None:
        for name, meaning in words.allowances(info).items():
            switch = QCheckBox(f"Use it all the same: {meaning}")
            switch.setToolTip("Off by default. The result says that this was allowed, on the screen and in every file.")
            switch.setChecked(name in self.bench.options.allow)
            switch.toggled.connect(lambda on, name=name: self.bench.allow(name, on))
            self.switches[name] = switch
            self._layout.addWidget(_wrapped(switch))
        if _NEEDS_SPACING & {finding.code for finding in info.findings if finding.verdict is Verdict.REFUSED}:
            self._layout.addLayout(self._spacing_row())

    def _spacing_row(self) -> object:
        """Let the user say how far voxels stand apart, where the files do not."""
        boxes = [_millimetres(tip) for tip in ("from slice to slice", "from row to row", "from column to column")]
        use = button("Use", "Look again with this spacing", lambda: self.bench.give_spacing(_three(boxes)))
        return row(label("Spacing\nmm", "hint"), *boxes, use, None)


def dropped_path(data: QMimeData) -> Path | None:
    """Return the path that is dropped, None where it is none; of several files, the folder they share."""
    paths = [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()]
    if len(paths) > 1 and len({path.parent for path in paths}) == 1 and all(path.is_file() for path in paths):
        return paths[0].parent
    return paths[0] if paths else None


class Droppable(QWidget):
    """A widget onto which a study can be dropped, wherever it is hit."""

    load: LoadStep

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take what has a path."""
        if dropped_path(event.mimeData()) is not None:
            event.acceptProposedAction()
            self.load.mark_over(on=True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        """Forget it."""
        self.load.mark_over(on=False)
        super().dragLeaveEvent(event)

    def dropEvent(self, event: QDropEvent) -> None:
        """Look at it."""
        self.load.mark_over(on=False)
        if self.load.take_drop(event.mimeData()):
            event.acceptProposedAction()


def _table() -> QTableWidget:
    table = QTableWidget(0, len(_COLUMNS))
    table.setHorizontalHeaderLabels([name for name, _ in _COLUMNS])
    for column, (_, tip) in enumerate(_COLUMNS):
        table.horizontalHeaderItem(column).setToolTip(tip)
    table.verticalHeader().hide()
    table.setShowGrid(False)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    header = table.horizontalHeader()
    header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    header.setHighlightSections(False)
    header.setMinimumSectionSize(_NARROWEST_PX)
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    table.setAccessibleName("Series found")
    return table


def _finding(finding: Finding) -> QWidget:
    text = f"• {words.sentence(finding)}"
    if finding.verdict is Verdict.REFUSED and finding.hint:
        text = f"{text}\n   {words.on_screen(finding.hint)}"
    return label(text, _MOODS[finding.verdict] if finding.verdict is Verdict.REFUSED else "text", _tip(finding))


def _tip(finding: Finding) -> str:
    return f"{finding.code}: {EXPLANATIONS.get(finding.code, '')}"


def _wrapped(switch: QCheckBox) -> QWidget:
    """Let the text of a check box use several lines, which Qt's own does not."""
    text = label(switch.text())
    text.setBuddy(switch)
    switch.setAccessibleName(switch.text())
    switch.setText("")
    holder = QWidget()
    layout = row(switch, text)
    layout.setStretch(1, 1)
    layout.setAlignment(switch, Qt.AlignmentFlag.AlignTop)
    holder.setLayout(layout)
    return holder


def _millimetres(tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0.01, 100.0)
    box.setDecimals(3)
    box.setValue(1.0)
    box.setToolTip(f"Distance {tip} in mm")
    return box


def _three(boxes: list[QDoubleSpinBox]) -> tuple[float, float, float]:
    first, second, third = (float(box.value()) for box in boxes)
    return first, second, third


def _empty(layout: QVBoxLayout) -> None:
    """Remove everything from a layout."""
    while layout.count():
        item = layout.takeAt(0)
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
        elif item.layout() is not None:
            _empty(item.layout())
