"""How often each value occurs, with the level that a surface is drawn at as a line that can be dragged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

_HEIGHT_PX = 84
_KEY_SHARE = 0.01  # of the range, for each press of an arrow key


class Histogram(QWidget):
    """Draws a histogram and a level.

    Parameters
    ----------
    moved : callable
        Called with the level while it is dragged.
    """

    def __init__(self, moved: Callable[[float], None]) -> None:
        super().__init__()
        self._moved = moved
        self._counts: NDArray[np.float64] = np.zeros(0)
        self._low, self._high = 0.0, 1.0
        self.level: float | None = None
        self.colours = {"bars": "#888888", "line": "#5b8def", "inside": "#5b8def"}
        self.setFixedHeight(_HEIGHT_PX)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setToolTip("How often each value occurs. Drag the line, or use the arrow keys: what lies right of it is enclosed.")
        self.setAccessibleName("Histogram and level")

    def show_values(self, counts: NDArray[np.float64], low: float, high: float) -> None:
        """Show counts of evenly spaced values between two ends."""
        self._counts, self._low, self._high = counts, low, max(high, low + 1e-6)
        self.update()

    def show_level(self, level: float | None) -> None:
        """Show where a surface would be drawn; nobody is told."""
        self.level = level
        self.update()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to see."""
        return not self._counts.size

    def sizeHint(self) -> QSize:
        """Wide and low."""
        return QSize(300, _HEIGHT_PX)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002 (Qt's signature)
        """Draw the counts, those inside the level in colour, and the level."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        split = self._x(self.level) if self.level is not None else float(self.width())
        for left, right, colour in ((0.0, split, "bars"), (split, float(self.width()), "inside")):
            painter.setClipRect(int(left), 0, int(np.ceil(right - left)), self.height())
            painter.setBrush(QColor(self.colours[colour]))
            painter.drawPolygon(self._outline())
        painter.setClipping(False)
        if self.level is not None:
            painter.fillRect(int(split) - 1, 0, 2, self.height(), QColor(self.colours["line"]))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take the level to where was pressed."""
        self._drag(event.position().x())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag the level."""
        self._drag(event.position().x())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move the level by a hundredth of the range."""
        step = {Qt.Key.Key_Left: -_KEY_SHARE, Qt.Key.Key_Right: _KEY_SHARE}.get(event.key())
        if step is None or self.level is None:
            super().keyPressEvent(event)
            return
        self._tell(self.level + step * (self._high - self._low))

    def _drag(self, x: float) -> None:
        if not self.is_empty:
            self._tell(self._low + np.clip(x / max(self.width(), 1), 0.0, 1.0) * (self._high - self._low))

    def _tell(self, level: float) -> None:
        self.show_level(float(np.clip(level, self._low, self._high)))
        if self.level is not None:
            self._moved(self.level)

    def _x(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return float(np.clip(share, 0.0, 1.0) * self.width())

    def _outline(self) -> QPolygonF:
        """Return the counts as a shape; their square root, so that small tissues are seen beside air."""
        if self.is_empty:
            return QPolygonF()
        heights = np.sqrt(self._counts / max(self._counts.max(), 1.0)) * (self.height() - 4)
        xs = np.linspace(0, self.width(), len(heights))
        points = [QPointF(0, self.height()), *map(QPointF, xs, self.height() - heights), QPointF(self.width(), self.height())]
        return QPolygonF(points)


def counted(voxels: NDArray[np.float32], bins: int = 160) -> tuple[NDArray[np.float64], float, float]:
    """Return counts of the values of a volume between the first and last thousandth, and these two ends."""
    step = max(1, int(np.ceil((voxels.size / 2e6) ** (1 / 3))))
    sample = voxels[::step, ::step, ::step]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return np.zeros(0), 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, (0.1, 99.9)))
    counts, _ = np.histogram(sample, bins=bins, range=(low, max(high, low + 1e-6)))
    counts = counts.astype(np.float64)
    return np.minimum(counts, np.sort(counts)[-2] * 2 if bins > 1 else counts), low, high  # air must not flatten the rest
