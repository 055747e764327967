"""All jobs of the window, the newest first: where each is, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtGui import QFontDatabase, QGuiApplication
from qtpy.QtWidgets import QDialog, QFrame, QPlainTextEdit, QVBoxLayout, QWidget

from medrecon_napari.model.jobs import Job
from medrecon_napari.model.runs import RunState
from medrecon_napari.model.workbench import Workbench
from medrecon_napari.panel.hooks import Hooks
from medrecon_napari.panel.look import Role, button, card, label, progress_bar, row, say, show_share

_SIGNS: dict[RunState, tuple[str, Role]] = {
    RunState.WAITING: ("…", "hint"),
    RunState.RUNNING: ("▶", "text"),
    RunState.CANCELLING: ("■", "note"),
    RunState.FINISHED: ("✓", "good"),
    RunState.FAILED: ("✕", "bad"),
    RunState.CANCELLED: ("■", "hint"),
}


class JobTable(QWidget):
    """A card for each job.

    Parameters
    ----------
    bench : Workbench
    hooks : Hooks
    show : callable
        Called with a finished reconstruction that the user wants to see again.
    """

    def __init__(self, bench: Workbench, hooks: Hooks, show: Callable[[Job], None]) -> None:
        super().__init__()
        self.bench, self._show = bench, show
        self.cards: dict[int, JobCard] = {}
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(6)
        self._title = label("Jobs", "heading", "Runs, surfaces and exports of this window")
        self._layout.addWidget(self._title)
        hooks.connect(bench.jobs.changed, self._changed)
        self._title.hide()
        for job in bench.jobs:
            self._changed(job.number)

    def _changed(self, number: int) -> None:
        job = self.bench.jobs.get(number)
        if number not in self.cards:
            self.cards[number] = JobCard(self.bench, number, self._show)
            self._layout.insertWidget(1, self.cards[number])
            self._title.show()
        self.cards[number].show_job(job)


class JobCard(QFrame):
    """One job."""

    def __init__(self, bench: Workbench, number: int, show: Callable[[Job], None]) -> None:
        super().__init__()
        self.bench, self.number = bench, number
        self._sign = label("", "text")
        self._name = label("", "text")
        self._words = label("", "hint")
        self.progress = progress_bar()
        self.cancel = button("Cancel", "End this job; nothing half-written is kept", lambda: bench.jobs.cancel(number), "link")
        self.show_again = button("Show", "Show the result in the viewer", lambda: show(bench.jobs.get(number)), "link")
        self.settings = button(
            "Load settings",
            "Take these settings over into step 2",
            lambda: bench.load_settings_of(bench.jobs.get(number)),
            "link",
        )
        self.copy = button("Copy command", "Copy the command line, exactly as it was run", self._copy, "link")
        self.log = button("Log", "What the job said, and its command line", self._show_log, "link")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        top = row(self._sign, self._name, spacing=6)
        top.setStretch(1, 1)
        links = row(self.cancel, self.show_again, self.settings, self.copy, self.log, None, spacing=10)
        layout.addWidget(card(top, self._words, self.progress, links, role="job", spacing=4))

    def show_job(self, job: Job) -> None:
        """Show where the job is."""
        sign, role = _SIGNS[job.state]
        say(self._sign, sign, role)
        say(self._name, f"{job.number}  {job.title}")
        say(self._words, job.in_words(), "bad" if job.state is RunState.FAILED else "hint")
        busy = job.state in {RunState.RUNNING, RunState.CANCELLING}
        self.progress.setVisible(busy)
        show_share(self.progress, job.fraction)
        self.cancel.setVisible(not job.state.is_over)
        self.cancel.setEnabled(job.state is not RunState.CANCELLING)
        self.show_again.setVisible(job.state is RunState.FINISHED and job.kind == "reconstruct")
        self.settings.setVisible(job.kind == "reconstruct")
        self.log.setVisible(job.state.is_over)

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.bench.jobs.get(self.number).command_line)

    def _show_log(self) -> None:
        LogDialog(self.bench.jobs.get(self.number), self).open()


class LogDialog(QDialog):
    """What a job said."""

    def __init__(self, job: Job, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Job {job.number}: {job.title}")
        self.resize(720, 360)
        self.text = QPlainTextEdit(log_text(job))
        self.text.setReadOnly(True)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        layout.addLayout(row(None, button("Close", "Close the log", self.accept)))


def log_text(job: Job) -> str:
    """Return the command, how the job ended, and the lines that it left."""
    code = "" if job.trouble is None else f" ({job.trouble.code})"
    lines = job.log or ("(it said nothing)",)
    return "\n".join([job.command_line, "", f"{job.in_words()}{code}", "", *lines])
