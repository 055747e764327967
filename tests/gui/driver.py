"""Hands and eyes on the panel of a real window: drop, click, wait, read; and a pulse that notices when the window stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from medrecon_napari.model.steps import Step
from medrecon_napari.model.workbench import DOUBLE_CLICK_S
from qtpy.QtCore import QEventLoop, QMimeData, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMessageBox, QWidget

_LEFT = Qt.MouseButton.LeftButton
_BEAT_MS = 10
_LAYOUT_MS = 30
#: What takes longer never happens: a machine that is ten times slower than usual gets there.
PATIENCE_S = 240.0


def wait(milliseconds: int) -> None:
    """Let the window work for a while, and sleep while it has nothing to do; vispy's `qWait` spins."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


class Driver:
    """One panel and what a person does with it.

    Parameters
    ----------
    panel : ReconstructionPanel
    """

    def __init__(self, panel: Any) -> None:
        self.panel = panel
        self.viewer, self.bench = panel.viewer, panel.bench

    def until(self, happened: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> float:
        """Let the window work until something happened; return how long that took."""
        started = time.monotonic()
        while not happened():
            wait(10)
            if time.monotonic() - started > seconds:
                raise AssertionError(f"not within {seconds:g} s: {what}; the panel says: {self.message() or 'nothing'}")
        return time.monotonic() - started

    def drop(self, path: Path) -> None:
        """Drop a path on the panel, as a file manager does."""
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        place, action = QPointF(self.panel.rect().center()), Qt.DropAction.CopyAction
        for event in (
            QDragEnterEvent(place.toPoint(), action, data, _LEFT, Qt.KeyboardModifier.NoModifier),
            QDropEvent(place, action, data, _LEFT, Qt.KeyboardModifier.NoModifier),
        ):
            QApplication.sendEvent(self.panel, event)

    def load(self, path: Path) -> None:
        """Drop a study and wait until its images are in the viewer."""
        self.drop(path)
        self.until(self.scan_is_shown, "images in the viewer")

    def scan_is_shown(self) -> bool:
        """Whether the images of the chosen series can be seen in the viewer."""
        info = self.bench.info
        layer = None if info is None else self.panel.screen.scan(info.id)
        return layer is not None and bool(layer.visible)

    def click(self, widget: QWidget) -> None:
        """Press and release the mouse on something that can be seen and pressed."""
        wait(_LAYOUT_MS)
        assert widget.isVisible(), f"{widget.accessibleName()} cannot be seen"
        assert widget.isEnabled(), f"{widget.accessibleName()} cannot be pressed: {widget.toolTip()}"
        QTest.mouseClick(widget, _LEFT)

    def open_step(self, step: Step) -> None:
        """Click on the header of a step."""
        self.click(self.panel.steps[step]._header)
        assert self.panel.open() is step

    def run(self) -> None:
        """Open step 2 and press its large button, once a press is not taken for the second half of an earlier one."""
        if self.panel.open() is not Step.RECONSTRUCT:
            self.open_step(Step.RECONSTRUCT)
        self.until(lambda: time.monotonic() - self.bench._pressed_s > DOUBLE_CLICK_S, "time to press again")
        self.click(self.panel.reconstruct.run_button)

    def run_text(self) -> str:
        """Return what stands on the large button."""
        return str(self.panel.reconstruct.run_button.text())

    def message(self) -> str:
        """Return the message above the steps and its code, nothing where none is shown."""
        if not self.panel.message.isVisible():
            return ""
        return f"{self.panel.message.text()} {self.panel.code.text()}".strip()

    def layers(self, role: str) -> list[Any]:
        """Return the layers that play a role."""
        return [layer for layer in self.viewer.layers if layer.metadata.get("role") == role]

    def child(self, *words: str) -> psutil.Process | None:
        """Return the child process whose command line has all these words."""
        for process in psutil.Process().children():
            try:
                if set(words) <= set(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    return process
            except psutil.NoSuchProcess:
                continue
        return None


class Pulse:
    """A timer of 10 ms in the window's thread: how long the window ever stood still, and how much of that it was computing.

    On a machine with more to do than processors every program stands still on the clock, whatever it does. What its thread
    computed in between does not depend on the others.
    """

    def __init__(self) -> None:
        self._beats: list[tuple[float, float]] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(_BEAT_MS)
        self._timer.timeout.connect(self._beat)

    def __enter__(self) -> Pulse:
        """Begin to beat."""
        self._beat()
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._timer.stop()
        self._beat()

    def longest_s(self) -> tuple[float, float]:
        """Return the longest gap between two beats on the clock, and the most that the thread computed in any."""
        gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self._beats, self._beats[1:], strict=False)]
        return max(wall for wall, _ in gaps), max(computed for _, computed in gaps)

    def _beat(self) -> None:
        self._beats.append((time.perf_counter(), time.thread_time()))


def answer_question(text: str, seen: list[str]) -> None:
    """Press a button of the question that is about to be asked, and keep what was asked."""

    def press() -> None:
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(20, press)
            return
        seen.append(box.text())
        QTest.mouseClick(next(button for button in box.buttons() if button.text().replace("&", "") == text), _LEFT)

    QTimer.singleShot(0, press)
