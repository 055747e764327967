"""The jobs of a session: waiting, running one at a time in each lane, cancelled, over; each the command line in a child.

A job's record never changes in place: `Jobs.changed` tells its number, and `Jobs.get` returns what it is now.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from psygnal import Signal

from medrecon.core.errors import MedreconError
from medrecon_napari.model.background import Background, Quit
from medrecon_napari.model.child import Child, Ended, trouble_from
from medrecon_napari.model.choice import Recipe
from medrecon_napari.model.runs import RunEvent, RunState, after
from medrecon_napari.model.session import Session
from medrecon_napari.model.words import STAGES, Trouble, duration

Kind = Literal["reconstruct", "surface", "export"]

#: Heavy jobs wait for each other; a surface or an export need not wait for a long run.
_LANES: Mapping[Kind, str] = {"reconstruct": "heavy", "surface": "light", "export": "light"}
_TELL_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the command line.

    Parameters
    ----------
    number : int
    kind : str
        ``reconstruct``, ``surface`` or ``export``.
    title : str
    command : tuple of str
        Exactly what is run.
    folder : Path
        Of its own, in the session; an export writes elsewhere.
    recipe : Recipe, optional
        The settings it was made with, to load them again.
    state : RunState
    stage : str
    fraction : float
    remaining_s : float, optional
    seconds : float
        From its start to its end, or to the last progress.
    answer : mapping
        What the child said at its end.
    trouble : Trouble, optional
    log : tuple of str
    """

    number: int
    kind: Kind
    title: str
    command: tuple[str, ...]
    folder: Path
    recipe: Recipe | None = None
    state: RunState = RunState.WAITING
    stage: str = ""
    fraction: float = 0.0
    remaining_s: float | None = None
    seconds: float = 0.0
    answer: Mapping[str, Any] = field(default_factory=dict)
    trouble: Trouble | None = None
    log: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """The command as one types it."""
        return shlex.join(self.command)

    @property
    def outputs(self) -> dict[str, Path]:
        """What was written, by format."""
        return {name: Path(path) for name, path in self.answer.get("outputs", {}).items()}

    @property
    def result(self) -> Path | None:
        """The folder of a finished reconstruction."""
        record = self.outputs.get("run") if self.kind == "reconstruct" else None
        return None if record is None else record.parent

    def in_words(self) -> str:
        """Say where the job is."""
        if self.state is RunState.RUNNING:
            left = "" if self.remaining_s is None else f", about {duration(self.remaining_s)} left"
            return f"{STAGES.get(self.stage, 'Starting')}{left}"
        if self.state is RunState.FAILED and self.trouble is not None:
            return str(self.trouble)
        words = {
            RunState.WAITING: "Waiting its turn",
            RunState.CANCELLING: "Cancelling…",
            RunState.FINISHED: f"Finished in {duration(self.seconds)}",
            RunState.FAILED: "Failed",
            RunState.CANCELLED: "Cancelled; nothing of it was kept",
        }
        return words[self.state]


class Jobs:
    """All jobs of a session.

    Parameters
    ----------
    session : Session
    background : Background
    """

    changed: ClassVar[Signal] = Signal(int)

    def __init__(self, session: Session, background: Background) -> None:
        self._session = session
        self._background = background
        self._jobs: dict[int, Job] = {}
        self._children: dict[int, Child] = {}
        self._quits: dict[int, Quit] = {}
        self._closing = False

    def __iter__(self) -> Any:  # noqa: ANN401 (an iterator of jobs)
        return iter(tuple(self._jobs.values()))

    def get(self, number: int) -> Job:
        """Return a job as it is now."""
        return self._jobs[number]

    def add(self, kind: Kind, title: str, command: Callable[[Path], tuple[str, ...]], recipe: Recipe | None = None) -> Job:
        """Add a job, and start it unless one is running in its lane.

        Parameters
        ----------
        command : callable
            Makes the command from the job's own folder.

        Raises
        ------
        OutputError
            Where there is no room for its folder.
        """
        folder = self._session.new_job(kind)
        number = len(self._jobs) + 1
        self._jobs[number] = Job(number, kind, title, command(folder), folder, recipe)
        self.changed.emit(number)
        self._start_waiting()
        return self.get(number)

    def cancel(self, number: int) -> None:
        """Cancel a job that is waiting or running; returns at once."""
        self._happen(number, RunEvent.CANCEL)
        child = self._children.get(number)
        if child is not None and self.get(number).state is RunState.CANCELLING:
            child.stop()

    def running(self, kind: Kind | None = None) -> Job | None:
        """Return the running job of a kind, None where there is none."""
        busy = {RunState.RUNNING, RunState.CANCELLING}
        return next((job for job in self if job.state in busy and kind in {None, job.kind}), None)

    def unfinished(self) -> list[Job]:
        """Return the jobs that are waiting or running."""
        return [job for job in self if not job.state.is_over]

    def close(self) -> None:
        """End every child and return when they are gone; afterwards nothing starts any more."""
        self._closing = True
        for job in self.unfinished():
            self._jobs[job.number] = replace(job, state=after(job.state, RunEvent.CANCEL))
        children = list(self._children.values())
        for child in children:
            child.stop()
        for quit_ in self._quits.values():
            quit_()
        for child in children:
            child.wait_stopped()

    def _start_waiting(self) -> None:
        busy = {_LANES[job.kind] for job in self if job.state in {RunState.RUNNING, RunState.CANCELLING}}
        for job in self:
            if job.state is RunState.WAITING and _LANES[job.kind] not in busy and not self._closing:
                busy.add(_LANES[job.kind])
                self._start(job)

    def _start(self, job: Job) -> None:
        self._happen(job.number, RunEvent.START)
        number = job.number
        self._quits[number] = self._background.follow(
            lambda: self._work(number),
            lambda event: self._progress(number, event),
            lambda ended: self._end(number, ended),
            lambda error: self._break(number, error),
            job.title,
        )

    def _work(self, number: int) -> Generator[dict[str, Any], None, Ended]:
        """Run the child; in another thread than everything else here."""
        job = self._jobs[number]
        child = Child(job.command)
        self._children[number] = child
        if self._closing or self.get(number).state is RunState.CANCELLING:  # it was cancelled while it was being started
            child.stop()
        ended = yield from _thinned(child)
        if not ended.is_done:
            self._session.clear(job.folder)
        return replace(ended, answer=ended.answer | {"log": tuple(child.log)})

    def _progress(self, number: int, event: Mapping[str, Any]) -> None:
        job = self.get(number)
        if job.state.is_over or event.get("event") != "progress":
            return
        self._jobs[number] = replace(
            job,
            stage=str(event.get("stage", "")),
            fraction=max(job.fraction, float(event.get("fraction", 0.0))),
            remaining_s=event.get("remaining_s"),
            seconds=float(event.get("elapsed_s", job.seconds)),
        )
        self.changed.emit(number)

    def _end(self, number: int, ended: Ended) -> None:
        answer = dict(ended.answer)
        log = tuple(answer.pop("log", ()))
        fraction = 1.0 if ended.is_done else self.get(number).fraction
        self._jobs[number] = replace(self.get(number), answer=answer, trouble=ended.trouble, log=log, fraction=fraction)
        self._over(number, RunEvent.DONE if ended.is_done else RunEvent.BROKE)

    def _break(self, number: int, error: Exception) -> None:
        """End a job that could not be started, or that the window stopped following."""
        child = self._children.get(number)
        if child is not None:
            child.stop()
        broke_off = Trouble("UNEXPECTED", f"the job broke off ({type(error).__name__})")
        trouble = trouble_from(error) if isinstance(error, MedreconError) else broke_off
        self._jobs[number] = replace(self.get(number), trouble=trouble)
        self._over(number, RunEvent.BROKE)

    def _over(self, number: int, event: RunEvent) -> None:
        self._children.pop(number, None)
        self._quits.pop(number, None)
        self._happen(number, event)
        self._start_waiting()

    def _happen(self, number: int, event: RunEvent) -> None:
        job = self.get(number)
        state = after(job.state, event)
        if state is not job.state:
            self._jobs[number] = replace(job, state=state)
            self.changed.emit(number)


def _thinned(child: Child) -> Generator[dict[str, Any], None, Ended]:
    """Follow a child, but pass on no more than a window can show: every new stage, and else ten lines a second."""
    lines, stage, told_s = child.follow(), "", 0.0
    while True:
        try:
            event = next(lines)
        except StopIteration as end:
            ended: Ended = end.value
            return ended
        if event.get("stage") != stage or time.monotonic() - told_s >= _TELL_EVERY_S:
            stage, told_s = str(event.get("stage")), time.monotonic()
            yield event
