"""The panel itself: four numbered steps one below the other, messages above them, the jobs below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from medrecon.core.findings import Verdict
from medrecon_napari import preferences
from medrecon_napari.layers import LayerData, scan_layers, surface_layer
from medrecon_napari.model import words
from medrecon_napari.model.jobs import Job
from medrecon_napari.model.runs import RunState
from medrecon_napari.model.steps import Step
from medrecon_napari.model.workbench import Message
from medrecon_napari.panel import warm
from medrecon_napari.panel.export_step import ExportStep
from medrecon_napari.panel.home import home_of
from medrecon_napari.panel.hooks import Hooks
from medrecon_napari.panel.job_table import JobTable
from medrecon_napari.panel.load_step import Droppable, LoadStep
from medrecon_napari.panel.look import button, card, label, moods_of, row, say, style_sheet
from medrecon_napari.panel.reconstruct_step import ReconstructStep
from medrecon_napari.panel.screen import Screen, as_layers
from medrecon_napari.panel.stepbox import StepBox
from medrecon_napari.panel.surface_step import SurfaceStep
from medrecon_napari.place import Place
from medrecon_napari.results import read_mesh, result_layers
from medrecon_napari.viewing.attach import attach
from medrecon_napari.viewing.letters import place_of_layer

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

_WIDTH_PX = 400
_PAINTED_MS = 300
_TITLES = {Step.LOAD: "Load", Step.RECONSTRUCT: "Reconstruct", Step.SURFACE: "Surface", Step.EXPORT: "Export"}


class ReconstructionPanel(Droppable):
    """From a folder of images to a volume, a surface and files.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer, self.home, self.hooks = napari_viewer, home_of(napari_viewer), Hooks()
        self.bench, self.screen = self.home.bench, Screen(napari_viewer, self.home)
        self.load = LoadStep(self.bench, self.hooks, self.open_step)
        self.reconstruct = ReconstructStep(self.bench, self.hooks, self.screen)
        self.surface = SurfaceStep(self.bench, self.hooks)
        self.export = ExportStep(self.bench, self.hooks)
        contents: dict[Step, QWidget] = {
            Step.LOAD: self.load,
            Step.RECONSTRUCT: self.reconstruct,
            Step.SURFACE: self.surface,
            Step.EXPORT: self.export,
        }
        self.steps = {step: StepBox(step, _TITLES[step], content, self.open_step) for step, content in contents.items()}
        self.jobs = JobTable(self.bench, self.hooks, self.show_result)
        self.message = label("", "text")
        self.code = label("", "hint")
        self._message_card = card(row(self.message, button("Hide", "Hide the message", self.hide_message, "link")), self.code)
        self._is_warm = False
        self.setAcceptDrops(True)
        self.setMinimumWidth(_WIDTH_PX)
        self._contents = self._lay_out()
        self._connect()
        self.open_step(Step.LOAD)
        self.refresh()

    def open_step(self, step: Step) -> None:
        """Open a step and close the others; a step that cannot be opened stays closed."""
        if self.bench.why_closed(step):
            return
        for one, box in self.steps.items():
            box.show_content(one is step)
        self._refresh_headers()
        if step is Step.RECONSTRUCT:
            self.reconstruct.preview.look_from_the_side()
        self.reconstruct.preview.refresh()

    def open(self) -> Step:
        """Return the step that is open."""
        return next(step for step, box in self.steps.items() if box.is_open)

    def refresh(self) -> None:
        """Show which steps are open, and what was done in each."""
        self._refresh_headers()
        if self.steps[self.open()].reason:
            self.open_step(Step.LOAD)
        self.load.paint_verdicts(moods_of(self.viewer.theme))

    def _refresh_headers(self) -> None:
        for step, box in self.steps.items():
            summary = getattr(box.content, "summary", str)()
            box.set_reason(self.bench.why_closed(step), "" if box.is_open else summary)

    def hide_message(self) -> None:
        """Hide the message."""
        self._message_card.hide()

    def show_result(self, job: Job) -> None:
        """Add the layers of a finished reconstruction."""
        folder = job.result
        if folder is None:
            return
        self.bench.background.call(
            lambda: as_layers([_numbered(data, job.number) for data in result_layers(folder)]),
            lambda layers: self._add_result(layers, job.number),
            self._failed,
        )

    # ---- what happens

    def event(self, event: QEvent) -> bool:
        """Let the bench go when the dock is closed; its runs go on, and a new panel finds them."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.let_go()
        return bool(super().event(event))

    def let_go(self) -> None:
        """Disconnect from the bench and the viewer."""
        self.hooks.release()
        self.screen.drop_preview()
        if not self.home.is_closed:
            self.bench.previews.close()

    def showEvent(self, event: QShowEvent) -> None:
        """Guard the window that the panel is in, and give the viewer its letters once the panel is seen."""
        super().showEvent(event)
        window = self.window()
        self.home.guard(window.parent() if window.parent() is not None else window)
        if self.layout() is None:
            self._fill()
            QTimer.singleShot(_PAINTED_MS, self._seen)

    def _fill(self) -> None:
        """Take in what the panel shows: only here, since Qt styles all of it anew whenever a dock is moved into its window."""
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._contents)
        self._restyle()

    def _seen(self) -> None:
        """Do what can wait until the panel has been painted."""
        if self.home.is_closed:
            return
        self.bench.prefer(preferences.preset(), preferences.device())
        self.bench.background.call(warm.for_scans, lambda _: self._attach(), lambda _: self._attach())

    def _attach(self) -> None:
        if not self.home.is_closed:
            attach(self.viewer)

    def _lay_out(self) -> QScrollArea:
        self.setObjectName("panel")
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(8)
        layout.addWidget(label("From slices to a volume", "title"))
        layout.addWidget(label("Research use only. Not for diagnosis.", "hint"))
        layout.addWidget(self._message_card)
        for box in self.steps.values():
            layout.addWidget(box)
        layout.addWidget(self.jobs)
        layout.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        self._message_card.hide()
        return scroll

    def _connect(self) -> None:
        hooks, bench = self.hooks, self.bench
        hooks.connect(bench.facts_changed, self.refresh)
        hooks.connect(bench.choice_changed, self.refresh)
        hooks.connect(bench.chosen, self._series_chosen)
        hooks.connect(bench.scan_read, self._scan_came)
        hooks.connect(bench.result_ready, self._result_came)
        hooks.connect(bench.jobs.changed, self._job_changed)
        hooks.connect(bench.said, self._say)
        hooks.connect(self.viewer.events.theme, self._restyle)

    def _restyle(self) -> None:
        self.setStyleSheet(style_sheet(self.viewer.theme))
        moods = moods_of(self.viewer.theme)
        self.surface.histogram.colours = {"bars": moods["muted"], "line": moods["accent"], "inside": moods["accent"]}
        self.load.paint_verdicts(moods)

    def _say(self, message: Message) -> None:
        say(self.message, message.text, message.mood)
        say(self.code, message.code if message.mood == "bad" else "")
        self._message_card.setVisible(bool(message.text))

    def _failed(self, error: Exception) -> None:
        self._say(Message("bad", f"The result could not be shown ({type(error).__name__}).", getattr(error, "code", "")))

    def _series_chosen(self) -> None:
        """Hide the pictures of other series where the chosen one has none to show: they would be taken for its own."""
        info = self.bench.info
        if info is not None and words.verdict(info, self.bench.options.allow) is Verdict.REFUSED:
            self.screen.hide_others(info.id)

    def _scan_came(self, scan: Any) -> None:  # noqa: ANN401 (whatever `medrecon.read` returns)
        """Show the images of the chosen series, and go on to step 2."""
        info, path = self.bench.info, self.bench.path
        if info is None:
            return
        self.bench.background.call(
            lambda: as_layers(scan_layers(scan, str(path))), lambda layers: self._add_scan(layers, info.id), self._failed
        )
        self.hide_message()

    def _add_scan(self, layers: list[Layer], series: str) -> None:
        self.screen.hide_others(series)
        if not self.screen.show_again(series, layers):
            self.screen.add(layers, self._scan_shown)

    def _scan_shown(self) -> None:
        self.viewer.reset_view()
        self.reconstruct.preview.refresh()

    def _result_came(self, number: int) -> None:
        self.show_result(self.bench.jobs.get(number))

    def _add_result(self, layers: list[Layer], number: int) -> None:
        self.screen.hide_what_has_no_place()
        self.reconstruct.preview.rest()
        self.screen.add(layers, instead_of_preview=True)
        done = self.bench.jobs.get(number).in_words()
        self._say(Message("good", f"{done}. The volume is in the viewer; steps 3 and 4 make a surface of it and export it."))

    def _job_changed(self, number: int) -> None:
        job = self.bench.jobs.get(number)
        if job.kind == "surface" and job.state is RunState.FINISHED:
            self._show_surface(job)
        elif job.kind == "reconstruct" and job.state is RunState.RUNNING and not self._is_warm:
            self._is_warm = True
            self.bench.background.call(warm.for_results, lambda _: None, lambda _: None)

    def _show_surface(self, job: Job) -> None:
        """Show a new surface upon its result; where that was removed from the viewer, everything of it."""
        path = job.outputs.get("surface")
        if path is None:
            return
        result: Any = next((one for one in self.viewer.layers if one.metadata.get("path") == str(path.parent)), None)
        place = None if result is None else place_of_layer(result)
        if place is None or not place.is_one_space:
            owner = next((one for one in self.bench.results() if one.result == path.parent), None)
            if owner is not None:
                self.show_result(owner)
            return
        measures, common = dict(job.answer.get("surface", {})), dict(result.metadata)
        self.bench.background.call(
            lambda: as_layers([_surface(path, measures, place, common)]),
            lambda layers: self._add_surface(layers[0], path),
            self._failed,
        )

    def _add_surface(self, layer: Layer, path: Path) -> None:
        for old in [one for one in self.viewer.layers if one.metadata.get("path") == str(path)]:
            self.viewer.layers.remove(old)
        self.screen.add([layer])


def _numbered(layer: LayerData, number: int) -> LayerData:
    """Name a result's layer after its job, since two runs of one series differ in nothing else."""
    data, arguments, kind = layer
    metadata = {**arguments["metadata"], "job": number}
    return data, {**arguments, "name": f"{number}  {arguments['name']}", "metadata": metadata}, kind


def _surface(path: Path, measures: dict[str, Any], place: Place, common: dict[str, Any]) -> LayerData:
    name = str(measures.get("name", path.stem.removeprefix("surface-")))
    kept = {key: common.get(key, "") for key in ("series", "modality", "verdict")}
    surface = read_mesh(path, name, measures)
    return surface_layer(
        surface,
        place.world_from_lps(),
        {**kept, "path": str(path)},
        f"{common.get('job', '')}  {name} · {kept['series']}".strip(),
    )
