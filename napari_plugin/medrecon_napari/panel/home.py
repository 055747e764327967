"""Where a window's work lives: longer than the panel, never longer than the window.

Closing the panel's dock loses nothing, since runs go on and results stay; closing the window asks while something would
be lost, ends every child process, waits for the threads and clears the session's folder. When napari quits without
closing its windows one by one, the application's own signal does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox

from medrecon_napari.model import session as sessions
from medrecon_napari.model.session import Session
from medrecon_napari.model.workbench import Workbench
from medrecon_napari.panel.memory import beside_napari
from medrecon_napari.panel.worker import Threads

if TYPE_CHECKING:
    import napari

_AGAIN_MS = 50
#: Asks the user whether to close although something would be lost.
Ask = Callable[[QMainWindow, str], bool]


class Home(QObject):
    """The bench of one viewer, its threads, and the guard at its door.

    Parameters
    ----------
    viewer : Viewer
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(QApplication.instance())
        self.viewer = viewer
        self.threads = Threads(self)
        self.bench = Workbench(self.threads, Session(), beside_napari())
        self.ask: Ask = ask_user
        self.is_closed = False
        self._window: QMainWindow | None = None
        QApplication.instance().aboutToQuit.connect(self.close)
        self.threads.call(sessions.sweep, lambda _: None, lambda _: None)

    def guard(self, window: QObject) -> None:
        """Be asked before a window closes."""
        if isinstance(window, QMainWindow) and window is not self._window:
            self._window = window
            window.installEventFilter(self)

    def paint(self, on: bool) -> None:
        """Let the middle of the window be painted, or put it off."""
        middle = None if self._window is None else self._window.centralWidget()
        if middle is not None:
            middle.setUpdatesEnabled(on)

    def would_be_lost(self) -> str:
        """Say in words what closing would end or lose; nothing where it would not."""
        running, kept = self.bench.jobs.unfinished(), self.bench.unexported()
        lines = []
        if running:
            lines.append(f"{_count(len(running), 'job')} still running. Closing ends {'it' if len(running) == 1 else 'them'}.")
        if kept:
            lines.append(f"{_count(len(kept), 'result')} not exported. Closing deletes {'it' if len(kept) == 1 else 'them'}.")
        return "\n".join(lines)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask before the window closes, and clear up when it does."""
        if event.type() != QEvent.Type.Close or watched is not self._window or self.is_closed or self._window is None:
            return False
        middle = self._window.centralWidget()
        by_a_program = middle is None or not middle.isVisible()  # napari takes the viewer out first when a program closes it
        lost = self.would_be_lost()
        if lost and not by_a_program and not self.ask(self._window, lost):
            event.ignore()
            return True
        window, asked_by_user = self._window, bool(event.spontaneous())
        self.close()
        if not asked_by_user:
            return False
        event.ignore()  # the workers' last signals come first, or napari would ask a second time
        QTimer.singleShot(_AGAIN_MS, window.close)
        return True

    def close(self) -> None:
        """End everything; may be called more than once."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._window is not None:
            self.paint(True)  # no turn that was waiting comes any more
            self._window.removeEventFilter(self)
        self.bench.close()
        self.threads.close()
        QApplication.instance().aboutToQuit.disconnect(self.close)
        self.deleteLater()


def home_of(viewer: napari.Viewer) -> Home:
    """Return the home of a viewer's work; made at the first call. Qt's own tree of objects remembers it."""
    homes = (home for home in QApplication.instance().children() if isinstance(home, Home) and not home.is_closed)
    return next((home for home in homes if home.viewer is viewer), None) or Home(viewer)


def ask_user(window: QMainWindow, lost: str) -> bool:
    """Ask whether to close; return whether to do it."""
    box = QMessageBox(QMessageBox.Icon.Question, "medrecon", lost, parent=window)
    close = box.addButton("Close all the same", QMessageBox.ButtonRole.DestructiveRole)
    stay = box.addButton("Stay", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(stay)
    box.setEscapeButton(stay)
    box.exec()
    return box.clickedButton() is close


def _count(number: int, what: str) -> str:
    return f"{number} {what} is" if number == 1 else f"{number} {what}s are"
