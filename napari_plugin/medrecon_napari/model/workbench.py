"""What lies on the clinician's bench: a study, the chosen series, the settings, the jobs, the results.

The widgets show it and hand in what was pressed; everything that takes time goes to the background and comes back. It
talks to the engine through `medrecon`'s public names and through the command line in child processes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from psygnal import Signal

import medrecon as mr
from medrecon.config import DEFAULT_PRESETS, ReconstructionConfig, load_config
from medrecon.core.errors import MedreconError
from medrecon.core.field_of_view import recommended_grid
from medrecon.core.findings import Verdict
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import Listing, ReadOptions, SeriesInfo
from medrecon.surface.settings import SurfaceConfig
from medrecon_napari.model import words
from medrecon_napari.model.background import Background
from medrecon_napari.model.child import trouble_from
from medrecon_napari.model.choice import Recipe, export_command, methods_for, presets, presets_for, run_command, surface_command
from medrecon_napari.model.estimate import Estimate, Rates, given_s, result_shape, work_of
from medrecon_napari.model.jobs import Job, Jobs
from medrecon_napari.model.previews import Previews, View
from medrecon_napari.model.runs import RunState
from medrecon_napari.model.session import Session
from medrecon_napari.model.steps import Facts, Step, closed_because
from medrecon_napari.model.words import Trouble

#: A second press so soon after the first is a double click, not a wish to cancel.
DOUBLE_CLICK_S = 0.7
_RATES, _LAST_PATH = "seconds per million voxels", "last path"


@dataclass(frozen=True, slots=True)
class Button:
    """What the run button says and does."""

    text: str
    enabled: bool
    does: Literal["run", "cancel", "nothing"]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """Something to tell: ``good``, ``note`` or ``bad``."""

    mood: Literal["good", "note", "bad"]
    text: str
    code: str = ""


class Workbench:
    """The state of one panel.

    Parameters
    ----------
    background : Background
    session : Session
    memory : mutable mapping
        What is remembered from one window to the next: plain data.
    preset, device : str
        With which the panel begins.
    clock : callable
        Monotonic seconds.
    """

    facts_changed: ClassVar[Signal] = Signal()
    listed: ClassVar[Signal] = Signal()
    chosen: ClassVar[Signal] = Signal()
    choice_changed: ClassVar[Signal] = Signal()
    scan_read: ClassVar[Signal] = Signal(object)
    result_ready: ClassVar[Signal] = Signal(int)
    said: ClassVar[Signal] = Signal(Message)

    def __init__(
        self,
        background: Background,
        session: Session,
        memory: MutableMapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.background = background
        self.session = session
        self.memory = memory
        self.jobs = Jobs(session, background)
        self.previews = Previews(background)
        self.rates = Rates({str(k): float(v) for k, v in dict(memory.get(_RATES, {})).items()})
        self.presets = presets()
        usual = DEFAULT_PRESETS["slices"]
        self.preset = usual if usual in self.presets else next(iter(self.presets), usual)
        self.config = self.presets[self.preset] if self.presets else load_config(usual)  # which says why there is none
        self._knows_preferences = False
        self.options = ReadOptions()
        self.path: Path | None = None
        self.listing: Listing | None = None
        self.info: SeriesInfo | None = None
        self.scan: Any = None
        self.records: dict[int, dict[str, Any]] = {}
        self.exported: set[int] = set()
        self._exports: dict[int, int] = {}
        self._clock = clock
        self._pressed_s = -DOUBLE_CLICK_S
        self._looking, self._era = False, 0
        self._reading: SeriesInfo | None = None
        self.jobs.changed.connect(self._job_changed)

    # ---- step 1: load

    def look_at(self, path: Path) -> None:
        """Find the series of a folder, a file or a ZIP, and choose the first usable one."""
        self._era += 1
        era, options = self._era, self.options.model_copy(update={"allow": ()})
        self.options, self.path, self.listing = options, path, None
        self._choose(None)
        self._looking = True
        self.memory[_LAST_PATH] = str(path)
        self.said.emit(Message("note", ""))  # what was said was about something else
        self.facts_changed.emit()
        self.background.call(
            lambda: mr.find(path, options), lambda found: self._found(era, found), lambda error: self._not_found(era, error)
        )

    def choose(self, series: str) -> None:
        """Choose a series by its id, and read it if it can be."""
        found = next((info for info in self.listing or () if info.id == series), None)
        if found is not None and found is not self.info:
            self._choose(found)
            self._read()

    def allow(self, name: str, on: bool) -> None:
        """Take on a named laxness, or take it back."""
        names = tuple(sorted({*self.options.allow, name} if on else {*self.options.allow} - {name}))
        if names != self.options.allow:
            self.options = self.options.model_copy(update={"allow": names})
            self.scan = None
            self.facts_changed.emit()
            self._read()

    @property
    def under_way(self) -> str:
        """What is being looked for or read right now, in words; empty where nothing is."""
        if self._looking:
            return "Looking for series…"
        return f"Reading {words.count(self._reading)}…" if self._reading is not None else ""

    def give_spacing(self, spacing_mm: tuple[float, float, float]) -> None:
        """Give the spacing that the files do not carry, and look again."""
        self.options = self.options.model_copy(update={"spacing_mm": spacing_mm})
        if self.path is not None:
            self.look_at(self.path)

    @property
    def last_path(self) -> str:
        """Where the last study was; empty at the very first time."""
        return str(self.memory.get(_LAST_PATH, ""))

    # ---- step 2: reconstruct

    def use_preset(self, name: str) -> None:
        """Start over from a preset; the device is kept."""
        self.preset = name
        self._use(self.preset_config())

    def prefer(self, preset: str, device: str) -> None:
        """Begin with what the user prefers; not over what was chosen already."""
        if self._knows_preferences or self.config != self.preset_config():
            return
        self._knows_preferences = True
        self.config = self.config.model_copy(update={"device": device})
        if preset in self.fitting_presets():
            self.preset = preset
        self._use(self.preset_config())

    def use_config(self, config: ReconstructionConfig) -> None:
        """Take over settings from the form."""
        if config != self.config:
            self._use(config)

    def fitting_presets(self) -> list[str]:
        """Return the presets for the kind of the chosen series, in the order in which they are shown."""
        kind = "slices" if self.info is None else self.info.kind
        fitting = presets_for(kind, self.presets, "" if self.info is None else self.info.reader)
        return sorted(fitting, key=words.preset_rank)

    def preset_config(self) -> ReconstructionConfig:
        """Return what the chosen preset says, on the chosen device."""
        return self.presets[self.preset].model_copy(update={"device": self.config.device})

    def recipe(self) -> Recipe | None:
        """Return what would be run now; None where nothing can be."""
        if self.path is None or self.info is None or self.why_closed(Step.RECONSTRUCT):
            return None
        return Recipe(self.path, self.info.id, self.preset, self.config, self.options)

    def centre_lps(self) -> tuple[float, float, float] | None:
        """Return the middle of the images that were read, or what X-ray views turn about, in LPS mm; None before they were."""
        if isinstance(self.scan, mr.SliceScan):
            middle = self.scan.poses.corners_lps_mm().mean(axis=(0, 1))
        elif isinstance(self.scan, mr.Volume):
            middle = self.scan.grid.corners_lps_mm().mean(axis=0)
        elif isinstance(self.scan, ProjectionScan):
            middle = self.scan.views.isocentre
        else:
            return None
        x, y, z = (float(v) for v in middle)
        return x, y, z

    def side_view(self) -> View:
        """Return the view from which slices show how thick they are: coronal, or sagittal for coronal slices."""
        if not isinstance(self.scan, mr.SliceScan):
            return "coronal"
        return "sagittal" if int(abs(self.scan.poses.normals[0]).argmax()) == 1 else "coronal"

    def estimate(self) -> Estimate | None:
        """Estimate time and memory of a run; None where nothing can be run."""
        if self.info is None:
            return None
        shape = self._result_shape(self.info)
        if shape is None:
            return None
        slices, rows, columns = self.info.shape
        work, given = work_of(self.config.method, self.config.path), given_s(self.config.settings)
        return self.rates.estimate(work, shape, slices * rows * columns, given)

    def _result_shape(self, info: SeriesInfo) -> tuple[int, int, int] | None:
        """Return about how many voxels a result will have; of projections once their geometry was read."""
        if info.kind != "projections":
            return result_shape(info, self.config.grid.spacing_mm)
        if not isinstance(self.scan, ProjectionScan):
            return None
        return recommended_grid(self.scan.views, self.config.grid.spacing_mm).shape

    def run_button(self) -> Button:
        """Return what the run button says now."""
        job = self.jobs.running("reconstruct")
        if job is not None and job.state is RunState.CANCELLING:
            return Button("Cancelling…", False, "nothing", "The run is being ended.")
        if job is not None:
            return Button("Cancel", True, "cancel", "End the run; nothing half-written is kept.")
        why = self.why_closed(Step.RECONSTRUCT)
        return Button("Run", not why, "run", why or "Reconstruct the volume and its surface.")

    def press_run(self) -> None:
        """Run, or cancel the run, as the button says; the second half of a double click does nothing."""
        now = self._clock()
        if now - self._pressed_s < DOUBLE_CLICK_S:
            return
        self._pressed_s = now
        button, job = self.run_button(), self.jobs.running("reconstruct")
        if button.does == "cancel" and job is not None:
            self.jobs.cancel(job.number)
        elif button.does == "run" and button.enabled:
            self.run()

    def run(self) -> Job | None:
        """Add a run of the current settings; it waits where another one is running."""
        recipe = self.recipe()
        if recipe is None:
            return None
        if not recipe.path.exists():
            self._tell_trouble(Trouble("INP-MISSING", "the folder is not there any more", "Choose it again in step 1."))
            return None
        changed = "" if recipe.config == self.preset_config() else ", changed"
        title = f"{words.preset(self.preset)[0]}{changed} · {words.series_title(self.info) if self.info else ''}"
        return self._add(lambda: self.jobs.add("reconstruct", title, lambda folder: run_command(recipe, folder), recipe))

    def load_settings_of(self, job: Job) -> None:
        """Take over the settings that a job was made with; its series too, if it is in the table."""
        if job.recipe is None:
            return
        self.preset = job.recipe.preset
        if self.path == job.recipe.path:
            self.choose(job.recipe.series)
            for name in {*self.options.allow} ^ {*job.recipe.options.allow}:
                self.allow(name, name in job.recipe.options.allow)
        self._use(job.recipe.config)
        self.said.emit(Message("good", f"The settings of job {job.number} are loaded."))

    # ---- steps 3 and 4: surface, export

    def results(self) -> list[Job]:
        """Return the finished reconstructions whose files are still there, newest last."""
        done = (job for job in self.jobs if job.kind == "reconstruct" and job.state is RunState.FINISHED)
        return [job for job in done if job.result is not None and job.result.is_dir()]

    def make_surface(self, result: Job, settings: SurfaceConfig) -> Job | None:
        """Make a surface of a finished result; it lies with the result afterwards, and is exported with it."""
        folder = result.result
        if folder is None or not (folder / "volume.nii.gz").is_file():
            self._tell_trouble(Trouble("INP-RESULT", "the result is not there any more", "Reconstruct again."))
            return None
        quantity = str(self.records.get(result.number, {}).get("volume", {}).get("quantity", "arbitrary"))
        name = settings.tissue if settings.level is None else f"level-{settings.level:g}".replace("--", "-minus-")
        target = folder / f"surface-{name}.stl"
        command = surface_command(folder / "volume.nii.gz", quantity, settings, target)
        return self._add(lambda: self.jobs.add("surface", f"{name} surface", lambda _: command, result.recipe))

    def export(self, result: Job, out: Path, formats: tuple[str, ...], deidentify: bool, overwrite: bool) -> Job | None:
        """Write a finished result to a folder of the user's."""
        if result.result is None or result.recipe is None or not result.result.is_dir():
            self._tell_trouble(Trouble("INP-RESULT", "the result is not there any more", "Reconstruct again."))
            return None
        command = export_command(result.result, out, formats, result.recipe, deidentify, overwrite)
        job = self._add(lambda: self.jobs.add("export", f"export of job {result.number}", lambda _: command, result.recipe))
        if job is not None:
            self._exports[job.number] = result.number
        return job

    def unexported(self) -> list[Job]:
        """Return the results that would be lost with the window."""
        return [job for job in self.results() if job.number not in self.exported]

    # ---- all steps

    def facts(self) -> Facts:
        """Return what decides which steps are open."""
        info, series = self.info, None if self.listing is None else len(self.listing)
        verdict = None if info is None else words.verdict(info, self.options.allow)
        kind = "slices" if info is None else info.kind
        return Facts(self._looking, series, verdict, kind, info is None or bool(methods_for(kind)), len(self.results()))

    def why_closed(self, step: Step) -> str:
        """Return in words why a step is not open; empty where it is."""
        return closed_because(step, self.facts())

    def close(self) -> None:
        """End all children and remove what was not exported."""
        self._era += 1
        self.jobs.close()
        self.previews.shut()
        self.session.close()

    # ---- what comes back

    def _found(self, era: int, found: Listing) -> None:
        if era != self._era:
            return
        self._looking, self.listing = False, found
        usable = [info for info in found if words.verdict(info) is not Verdict.REFUSED]
        if not found:
            self.said.emit(Message("bad", f"No series was found. {words.skipped(found.skipped)}".strip(), "INP-NONE"))
        self.listed.emit()
        self._choose(next(iter(usable or found), None))
        self._read()

    def _not_found(self, era: int, error: Exception) -> None:
        if era != self._era:
            return
        self._looking, self.listing = False, Listing()
        self.listed.emit()
        self._choose(None)
        self._tell_trouble(_words_of(error))

    def _choose(self, info: SeriesInfo | None) -> None:
        self.info, self.scan, self._reading = info, None, None
        self.previews.close()
        self._fit_preset()
        self.chosen.emit()
        self.facts_changed.emit()

    def _fit_preset(self) -> None:
        """Go over to a preset for the chosen kind of series, where the settings are for another."""
        kind, fitting = "slices" if self.info is None else self.info.kind, self.fitting_presets()
        known = methods_for(kind)
        if self.config.method in known and (self.preset in fitting or not fitting):
            return
        if fitting:
            self.use_preset(fitting[0])
        elif known:  # the methods of its presets are broken, this one is not
            self._use(ReconstructionConfig(method=known[0], device=self.config.device))

    def _read(self) -> None:
        """Read the chosen series, if it is usable."""
        info, path, options = self.info, self.path, self.options
        self._reading = None
        if info is None or path is None or words.verdict(info, options.allow) is Verdict.REFUSED:
            self.previews.close()
            return
        era, self._reading = self._era, info
        self.facts_changed.emit()
        self.previews.open(path, info.id, options)  # it loads its libraries while the images are read here
        self.background.call(
            lambda: mr.read(path, info, options),
            lambda scan: self._scan_came(era, info, scan),
            lambda error: self._scan_failed(era, info, error),
        )

    def _scan_came(self, era: int, info: SeriesInfo, scan: object) -> None:
        if era == self._era and info is self.info:
            self.scan, self._reading = scan, None
            self.scan_read.emit(scan)
            self.facts_changed.emit()

    def _scan_failed(self, era: int, info: SeriesInfo, error: Exception) -> None:
        if era == self._era and info is self.info:
            self._reading = None
            self.previews.close()
            self.facts_changed.emit()
            self._tell_trouble(_words_of(error))

    def _use(self, config: ReconstructionConfig) -> None:
        self.config = config
        self.choice_changed.emit()
        self.facts_changed.emit()

    def _add(self, add: Callable[[], Job]) -> Job | None:
        try:
            return add()
        except MedreconError as error:
            self._tell_trouble(trouble_from(error))
            return None

    def _job_changed(self, number: int) -> None:
        job = self.jobs.get(number)
        if job.state is RunState.FINISHED:
            self._job_done(job)
        elif job.state is RunState.FAILED and job.trouble is not None:
            self._tell_trouble(job.trouble)
        self.facts_changed.emit()

    def _job_done(self, job: Job) -> None:
        if job.kind == "export":
            self.exported.add(self._exports.pop(job.number, 0))
            self.said.emit(Message("good", f"Exported to {job.outputs['run'].parent}" if "run" in job.outputs else "Exported."))
        elif job.result is not None:
            record = job.result / "run.json"
            self.background.call(
                lambda: json.loads(record.read_text(encoding="utf-8")),
                lambda data: self._record_came(job, data),
                lambda error: self._tell_trouble(_words_of(error)),
            )

    def _record_came(self, job: Job, record: dict[str, Any]) -> None:
        self.records[job.number] = record
        shape = record.get("volume", {}).get("shape", (0, 0, 0))
        if job.recipe is not None:
            config = job.recipe.config
            work, took = work_of(config.method, config.path), job.seconds - given_s(config.settings)
            self.rates.learn(work, math.prod(shape), took)
        self.memory[_RATES] = dict(self.rates.measured)
        self.result_ready.emit(job.number)
        self.facts_changed.emit()

    def _tell_trouble(self, trouble: Trouble) -> None:
        self.said.emit(Message("bad", str(trouble), trouble.code))


def _words_of(error: Exception) -> Trouble:
    """Return any error as words; a stranger's message is kept back, since it may quote a header or a path."""
    if isinstance(error, MedreconError):
        return trouble_from(error)
    if isinstance(error, OSError):
        hint = "Check that the folder is still there and may be read."
        return Trouble("FILE-READ", f"the system refused to read ({type(error).__name__})", hint)
    return Trouble("UNEXPECTED", f"something unexpected happened ({type(error).__name__})", "Please report this.")
