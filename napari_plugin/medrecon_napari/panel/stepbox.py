"""A numbered step: its header is always there, its content only while it is open, and a closed one says why."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout, QWidget

from medrecon_napari.model.steps import Step
from medrecon_napari.panel.look import label, mark, say


class StepBox(QFrame):
    """One step of the panel.

    Parameters
    ----------
    step : Step
    title : str
    content : QWidget
    opened : callable
        Called when the user wants to open the step.
    """

    def __init__(self, step: Step, title: str, content: QWidget, opened: Callable[[Step], None]) -> None:
        super().__init__()
        self.step, self.content, self._opened = step, content, opened
        self.reason = ""
        self.setProperty("role", "step")
        self._number = label(str(int(step)), "number")
        self._title = label(title, "heading")
        self._summary = label("", "hint")
        self._header = self._make_header(title)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 10, 12, 10)
        layout.setSpacing(10)
        layout.addWidget(self._header)
        layout.addWidget(content)
        say(self._summary, "")
        self.show_content(False)

    @property
    def is_open(self) -> bool:
        """Whether the content is shown."""
        return bool(self.property("opened"))

    @property
    def summary(self) -> str:
        """What stands under the title."""
        return str(self._summary.text())

    def show_content(self, on: bool) -> None:
        """Show or hide the content."""
        self.setProperty("opened", on)
        self.content.setVisible(on)
        self._paint()

    def set_reason(self, why_closed: str, summary: str) -> None:
        """Say why the step cannot be opened, or what was done in it."""
        self.reason = why_closed
        say(self._summary, why_closed or summary)
        self._header.setToolTip(why_closed or f"Step {int(self.step)}: press to open.")
        self._header.setCursor(Qt.CursorShape.ArrowCursor if why_closed else Qt.CursorShape.PointingHandCursor)
        self._header.setFocusPolicy(Qt.FocusPolicy.NoFocus if why_closed else Qt.FocusPolicy.TabFocus)
        self._paint()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Open the step when its header is clicked, or Enter or Space is pressed on it."""
        if watched is self._header and not self.reason:
            key = event.type() == QEvent.Type.KeyPress and event.key() in {
                Qt.Key.Key_Return,
                Qt.Key.Key_Enter,
                Qt.Key.Key_Space,
            }
            if event.type() == QEvent.Type.MouseButtonRelease or key:
                self._opened(self.step)
                return True
        return bool(super().eventFilter(watched, event))

    def _make_header(self, title: str) -> QWidget:
        header = QWidget()
        header.setProperty("role", "plain")
        header.setAccessibleName(f"Step {int(self.step)}: {title}")
        texts = QVBoxLayout()
        texts.setSpacing(1)
        texts.addWidget(self._title)
        texts.addWidget(self._summary)
        layout = QHBoxLayout(header)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(12)
        layout.addWidget(self._number, 0, Qt.AlignmentFlag.AlignTop)
        layout.addLayout(texts, 1)
        header.installEventFilter(self)
        return header

    def _paint(self) -> None:
        mark(self._number, "state", "closed" if self.reason else "open" if self.is_open else "ready")
        self._title.setEnabled(not self.reason)
