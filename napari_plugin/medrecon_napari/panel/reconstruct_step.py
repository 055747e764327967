"""Step 2: a preset, or every setting; what it will cost; a plane of it right away; and the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QSignalBlocker, QTimer
from qtpy.QtWidgets import QButtonGroup, QCheckBox, QComboBox, QGridLayout, QPushButton, QVBoxLayout, QWidget

from medrecon import methods
from medrecon.config import ReconstructionConfig
from medrecon.core.errors import UsageError
from medrecon.core.settings import parse
from medrecon.safety.limits import free_memory_bytes
from medrecon_napari.model import words
from medrecon_napari.model.choice import broken_methods, methods_for
from medrecon_napari.model.form import fields
from medrecon_napari.model.previews import Picture, Ready, View, Wish
from medrecon_napari.model.steps import Step
from medrecon_napari.model.words import Trouble
from medrecon_napari.model.workbench import Workbench
from medrecon_napari.panel.hooks import Hooks
from medrecon_napari.panel.look import button, card, label, mark, progress_bar, row, say, show_share
from medrecon_napari.panel.pictures import Pair
from medrecon_napari.panel.screen import Screen, flat
from medrecon_napari.panel.settings_form import SettingsForm
from medrecon_napari.window_level import usual

_DEBOUNCE_MS = 150
_SAME_PLANE_MM = 0.2
_BELOW_PRESETS = 2  # place in the layout
#: Settings of a run that the form shows; the method has its own row, surfaces are step 3.
_SHOWN = ("grid", "device", "path", "seed")
_SHOWN_FOR_PROJECTIONS = ("projections", "hounsfield")


class ReconstructStep(QWidget):
    """The content of step 2.

    Parameters
    ----------
    bench : Workbench
    hooks : Hooks
    screen : Screen
    """

    def __init__(self, bench: Workbench, hooks: Hooks, screen: Screen) -> None:
        super().__init__()
        self.bench, self._hooks = bench, hooks
        self.presets = _Presets(bench, hooks)
        self.advanced_switch = button("Show all settings", "Every setting of the method and of the output", self._toggle_advanced)
        self.advanced_switch.setProperty("role", "link")
        self.reset = button("Reset", "Go back to what the preset says", lambda: bench.use_preset(bench.preset), "link")
        self._advanced: _Advanced | None = None
        self.cost = label("", "hint", "Estimated before the run, from its size and from earlier runs on this machine")
        self.preview = PreviewBox(bench, hooks, screen)
        self.run_button = button("Run", "Reconstruct the volume and its surface", bench.press_run, "main")
        self.queue_button = button(
            "Run another after it", "Add a run of the settings above; it starts when this one is over", bench.run
        )
        self.progress = progress_bar()
        self.stage = label("", "hint")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        layout.addWidget(self.presets)
        layout.addLayout(row(self.advanced_switch, self.reset, None))
        for part in (self.preview, self.cost, self.run_button, self.progress, self.stage, self.queue_button):
            layout.addWidget(part)
        hooks.connect(bench.facts_changed, self.refresh)
        hooks.connect(bench.jobs.changed, self.refresh)
        hooks.connect(bench.previews.ready, self._device_known)
        self._device = ""
        self.refresh()

    @property
    def advanced(self) -> _Advanced:
        """Every setting; the form is made when it is first wanted."""
        if self._advanced is None:
            self._advanced = _Advanced(self.bench, self._hooks)
            self._advanced.hide()
            self.layout().insertWidget(_BELOW_PRESETS, self._advanced)
        return self._advanced

    def refresh(self) -> None:
        """Show what can be done now and what it will cost."""
        pressed = self.bench.run_button()
        self.run_button.setText(pressed.text)
        self.run_button.setEnabled(pressed.enabled)
        self.run_button.setToolTip(pressed.why)
        mark(self.run_button, "does", pressed.does)
        job = self.bench.jobs.running("reconstruct")
        self.progress.setVisible(job is not None)
        self.queue_button.setVisible(job is not None and not self.bench.why_closed(Step.RECONSTRUCT))
        say(self.stage, "" if job is None else job.in_words())
        if job is not None:
            show_share(self.progress, job.fraction)
        say(self.cost, self._cost())
        self.reset.setEnabled(self.bench.config != self.bench.preset_config())

    def summary(self) -> str:
        """Say in a line what is chosen, or where the run is."""
        job = self.bench.jobs.running("reconstruct")
        return self.presets.name() if job is None else job.in_words()

    def _cost(self) -> str:
        estimate = self.bench.estimate()
        if estimate is None:
            return ""
        source = "as runs took here" if estimate.from_here else "a first guess"
        memory = f"{words.gigabytes(estimate.memory_bytes)} of {words.gigabytes(free_memory_bytes())} free memory"
        lines = (
            f"About {words.duration(estimate.seconds)}, {source}",
            f"{words.times(estimate.shape)} voxels, {memory}",
            self._device,
        )
        return "\n".join(filter(None, lines))

    def _device_known(self, ready: Ready) -> None:
        name = "Processor (CPU)" if ready.device == "cpu" else f"Graphics card ({ready.device})"
        self._device = f"{name}: {ready.reason}"
        self.refresh()

    def _toggle_advanced(self) -> None:
        shown = not self.advanced.isVisibleTo(self)
        self.advanced.setVisible(shown)
        self.advanced_switch.setText("Hide all settings" if shown else "Show all settings")


class _Presets(QWidget):
    """One large button for each preset."""

    def __init__(self, bench: Workbench, hooks: Hooks) -> None:
        super().__init__()
        self.bench = bench
        self.buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        self.setProperty("role", "plain")
        self._grid = QGridLayout()
        self._grid.setSpacing(8)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(6)
        outer.addLayout(self._grid)
        self.meaning = label("", "hint")
        for name in sorted(bench.presets, key=words.preset_rank):
            title, meaning = words.preset(name)
            made = button(title, meaning, lambda name=name: bench.use_preset(name), "choice")  # type: ignore[misc]  # a bound name
            made.setCheckable(True)
            self._group.addButton(made)
            self.buttons[name] = made
        outer.addWidget(self.meaning)
        self.broken = label("", "bad", "Everything else works without it")
        outer.addWidget(self.broken)
        say(self.broken, "\n".join(f"Not available: {why} {why.code}" for why in broken_methods().values()))
        hooks.connect(bench.choice_changed, self.refresh)
        hooks.connect(bench.chosen, self._offer)
        self._offer()
        self.refresh()

    def _offer(self) -> None:
        """Offer the presets that fit the chosen kind of series, two in a row."""
        fitting = self.bench.fitting_presets()
        for name, made in self.buttons.items():
            self._grid.removeWidget(made)
            made.setVisible(name in fitting)
        for place, name in enumerate(fitting):
            self._grid.addWidget(self.buttons[name], place // 2, place % 2)

    def refresh(self) -> None:
        """Show which preset is chosen, and whether it was changed."""
        changed = self.bench.config != self.bench.preset_config()
        for name, made in self.buttons.items():
            title = words.preset(name)[0]
            made.setText(f"{title} (changed)" if changed and name == self.bench.preset else title)
            made.setChecked(name == self.bench.preset)
        say(self.meaning, words.preset(self.bench.preset)[1])

    def name(self) -> str:
        """Return the title of the chosen preset."""
        return str(self.buttons[self.bench.preset].text())


class _Advanced(QWidget):
    """Every setting, made from the models of the configuration and of the method."""

    def __init__(self, bench: Workbench, hooks: Hooks) -> None:
        super().__init__()
        self.bench = bench
        self.method = QComboBox()
        self.method.setToolTip("How the volume is computed from the images")
        self.method.activated.connect(lambda _: self._edited())
        self.problem = label("", "bad")
        self._rest, self._projections = (
            SettingsForm([f for f in fields(ReconstructionConfig.model_json_schema()) if f.path[0] in shown], self._edited)
            for shown in (_SHOWN, _SHOWN_FOR_PROJECTIONS)
        )
        self._projections_card = card(label("Detector and Hounsfield units", "caption"), self._projections)
        self._settings: SettingsForm | None = None
        self._shown_method = ""
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(8)
        self._layout.addWidget(card(label("Method", "caption"), self.method))
        self._layout.addWidget(self._projections_card)
        self._layout.addWidget(card(label("Output and machine", "caption"), self._rest))
        self._layout.addWidget(self.problem)
        say(self.problem, "")
        hooks.connect(bench.choice_changed, self.refresh)
        hooks.connect(bench.chosen, self._refresh_methods)
        self._refresh_methods()
        self.refresh()

    def row(self, *path: str) -> QWidget:
        """Return the row of a setting, such as ``grid``, ``spacing_mm`` or ``settings``, ``order``."""
        if path[0] == "settings" and self._settings is not None:
            return self._settings.rows[path[1:]]
        return (self._projections if path[0] in _SHOWN_FOR_PROJECTIONS else self._rest).rows[path]

    def refresh(self) -> None:
        """Show the settings as they are."""
        config = self.bench.config
        if config.method != self._shown_method:
            self._show_method(config.method)
        self.method.setCurrentIndex(self.method.findData(config.method))
        self.method.setToolTip(methods.get(config.method).summary)
        data = config.model_dump(mode="json")
        self._rest.show_values(data)
        self._projections.show_values(data)
        if self._settings is not None:
            self._settings.show_values(data["settings"])
        say(self.problem, "")

    def _refresh_methods(self) -> None:
        kind = "slices" if self.bench.info is None else self.bench.info.kind
        self.method.clear()
        for name in methods_for(kind):
            self.method.addItem(_title(name), name)
        self._add_broken()
        self.method.setCurrentIndex(self.method.findData(self.bench.config.method))
        self._projections_card.setVisible(kind == "projections")

    def _add_broken(self) -> None:
        """Show methods whose files are broken, not to be chosen: whoever looks for one reads why it is not there."""
        for name, why in broken_methods().items():
            self.method.addItem(f"{_title(name)}: not available", name)
            item = self.method.model().item(self.method.count() - 1)
            item.setEnabled(False)
            item.setToolTip(f"{why} {why.code}")

    def _show_method(self, name: str) -> None:
        if self._settings is not None:
            self._layout.removeWidget(self._settings)
            self._settings.deleteLater()
        self._shown_method = name
        self._settings = SettingsForm(list(fields(methods.get(name).settings.model_json_schema())), self._edited)
        self._layout.insertWidget(1, self._settings)

    def _edited(self) -> None:
        try:
            config = self._config()
        except UsageError as error:
            say(self.problem, f"{error.fact} {error.hint}".strip())
            return
        say(self.problem, "")
        self.bench.use_config(config)

    def _config(self) -> ReconstructionConfig:
        """Read the form; a new method begins with its own defaults."""
        data = self.bench.config.model_dump(mode="json") | self._rest.values() | self._projections.values()
        name = self.method.currentData() or self.bench.config.method
        settings: Mapping[str, Any] = {}
        if name == self.bench.config.method and self._settings is not None:
            settings = self._settings.values()
        return parse(ReconstructionConfig, data | {"method": name, "settings": dict(settings)}, "settings")


def _title(method: str) -> str:
    return method.replace("_", " ").capitalize()


class PreviewBox(QWidget):
    """One plane as it was measured and as it would be reconstructed, renewed whenever something changes."""

    def __init__(self, bench: Workbench, hooks: Hooks, screen: Screen) -> None:
        super().__init__()
        self.bench, self.screen = bench, screen
        self.switch = QCheckBox("Live preview")
        self.switch.setChecked(True)
        self.switch.setToolTip("Reconstruct the plane that the viewer shows, and renew it whenever a setting changes")
        self.view = QComboBox()
        for view in ("axial", "coronal", "sagittal"):
            self.view.addItem(view.capitalize(), view)
        self.view.setToolTip("Which way to look; thick slices show their steps from the side")
        self.in_viewer = QCheckBox("Show in viewer")
        self.in_viewer.setChecked(True)
        self.in_viewer.setToolTip("Lay the preview over the images in the viewer")
        self.pair = Pair()
        self.captions = QWidget()
        self.captions.setProperty("role", "plain")
        self._measured = label("Measured", "caption")
        self.captions.setLayout(row(self._measured, label("Reconstructed", "caption")))
        self.state = label("", "hint")
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DEBOUNCE_MS)
        self._timer.timeout.connect(self._ask)
        self._asked: Wish | None = None
        self._turned: set[str] = set()
        self.picture: Picture | None = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(row(self.switch, None, self.view, self.in_viewer))
        for part in (self.captions, self.pair, self.state):
            layout.addWidget(part)
        self._connect(hooks)

    def refresh(self) -> None:
        """Ask for a preview soon, if one is wanted and can be seen."""
        on = self.switch.isChecked() and self.bench.info is not None and self.isVisible()
        for part in (self._measured, self.in_viewer):  # X-ray views stand in no plane, and nothing lies upon them
            part.setVisible(not self._is_of_projections)
        for part in (self.captions, self.pair):
            part.setVisible(self.switch.isChecked())
        if on:
            self._timer.start()

    def rest(self) -> None:
        """Wish for no more planes; the picture is left to whoever shows the result in its place."""
        with QSignalBlocker(self.switch):
            self.switch.setChecked(False)
        self._asked = None
        say(self.state, "")
        self.refresh()

    def look(self, view: View) -> None:
        """Turn the viewer and the preview to a view."""
        self.view.setCurrentIndex(self.view.findData(view))
        self._view_chosen()

    @property
    def _is_of_projections(self) -> bool:
        return self.bench.info is not None and self.bench.info.kind == "projections"

    def look_from_the_side(self) -> None:
        """Turn to where thick slices show their steps, once for each series; the user may turn back."""
        info = self.bench.info
        if info is None or self._is_of_projections or info.id in self._turned:
            return
        if self.screen.scan(info.id) is not None:
            self._turned.add(info.id)
            self.look(self.bench.side_view())

    def _connect(self, hooks: Hooks) -> None:
        bench, viewer = self.bench, self.screen.viewer
        self.switch.toggled.connect(self._switched)
        self.in_viewer.toggled.connect(self._show_in_viewer)
        self.view.activated.connect(lambda _: self._view_chosen())
        hooks.connect(bench.choice_changed, self.refresh)
        hooks.connect(bench.chosen, self._start_over)
        hooks.connect(bench.scan_read, self.refresh)
        hooks.connect(bench.previews.ready, self.refresh)
        hooks.connect(bench.previews.shown, self._show)
        hooks.connect(bench.previews.failed, self._fail)
        hooks.connect(viewer.dims.events.point, self._plane_moved)
        hooks.connect(viewer.dims.events.order, self._plane_moved)

    def _ask(self) -> None:
        wish = self._wish()
        if wish is None or not self.isVisible() or _same(wish, self._asked):
            return
        self._asked = wish
        say(self.state, "Previewing…" if self.bench.previews.is_ready else "Warming up the preview…", "hint")
        self.bench.previews.ask(wish)

    def _wish(self) -> Wish | None:
        info = self.bench.info
        if info is None or self.bench.recipe() is None or not self.switch.isChecked():
            return None
        point = (None if self._is_of_projections else self.screen.point_lps(info.id)) or self.bench.centre_lps()
        return None if point is None else Wish(self.bench.config, self.view.currentData(), point)

    def _show(self, picture: Picture) -> None:
        info = self.bench.info
        if info is None or not self.switch.isChecked():
            return
        self.picture = picture
        pictures, mm = flat(picture)
        limits = None if self._is_of_projections else self.screen.limits(info.id)
        self.pair.show_pictures(pictures, mm, limits or usual(pictures[0], picture.quantity, {}).limits)
        if self.in_viewer.isChecked() and not self._is_of_projections:
            self.screen.show_preview(picture, info.id)
        say(self.state, _in_words(picture), "hint")

    def _fail(self, trouble: Trouble) -> None:
        self._asked = None
        say(self.state, f"No preview: {trouble} {trouble.code}", "note")

    def _start_over(self) -> None:
        self._asked = self.picture = None
        self.pair.clear()
        self.screen.drop_preview()
        say(self.state, "")
        self.refresh()

    def _switched(self, on: bool) -> None:
        if not on:
            self._asked = None
            self.screen.drop_preview()
            say(self.state, "")
        self.refresh()

    def _show_in_viewer(self, on: bool) -> None:
        info = self.bench.info
        if on and self.picture is not None and info is not None and not self._is_of_projections:
            self.screen.show_preview(self.picture, info.id)
        elif not on:
            self.screen.drop_preview()

    def _view_chosen(self) -> None:
        if not self._is_of_projections:
            self.screen.look(self.view.currentData())
        self.refresh()

    def _plane_moved(self) -> None:
        view = None if self._is_of_projections else self.screen.view()
        if view is not None and view != self.view.currentData():
            self.view.setCurrentIndex(self.view.findData(view))
        self.refresh()


def _same(one: Wish, other: Wish | None) -> bool:
    """Whether two wishes would show the same; adding a layer moves the viewer's sliders a little."""
    if other is None or one.config != other.config or one.view != other.view:
        return False
    return max(abs(a - b) for a, b in zip(one.point_lps_mm, other.point_lps_mm, strict=True)) < _SAME_PLANE_MM


def _in_words(picture: Picture) -> str:
    remarks = [f"Previewed in {picture.seconds:.1f} s"]
    if picture.coarser > 1:
        remarks.append(f"shown {picture.coarser} times coarser than the run will be")
    if picture.draft:
        remarks.append("a draft: the run will be sharper")
    return " · ".join(remarks)
