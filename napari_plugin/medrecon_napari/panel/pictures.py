"""Small pictures of one plane side by side: as it was measured, where it was, and as it would be reconstructed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRect, QSize
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

_HEIGHT_PX = 168
_GAP_PX = 8


class Pair(QWidget):
    """Draws two grey pictures in one window of values, scaled in millimetres."""

    def __init__(self) -> None:
        super().__init__()
        self._pictures: list[tuple[QImage, float]] = []
        self._frames: list[NDArray[np.uint8]] = []
        self.setFixedHeight(_HEIGHT_PX)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("Left: the measured slices as they are. Right: what the run would give with these settings.")
        self.setAccessibleName("Measured and reconstructed plane")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to see."""
        return not self._pictures

    def show_pictures(
        self, pictures: Sequence[NDArray[np.float32]], mm: tuple[float, float], limits: tuple[float, float]
    ) -> None:
        """Show one or two pictures (rows, columns).

        Parameters
        ----------
        mm : (row, column)
            Size of a pixel.
        limits : (black, white)
        """
        self._frames = [_grey(picture, limits) for picture in pictures]  # an image only borrows its pixels
        self._pictures = [(_image(frame), mm[0] * frame.shape[0] / (mm[1] * frame.shape[1])) for frame in self._frames]
        self.update()

    def clear(self) -> None:
        """Show nothing."""
        self._pictures, self._frames = [], []
        self.update()

    def sizeHint(self) -> QSize:
        """Two pictures side by side."""
        return QSize(2 * _HEIGHT_PX + _GAP_PX, _HEIGHT_PX)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002 (Qt's signature)
        """Draw the pictures, each in the middle of its part."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        parts = len(self._pictures) or 2
        width = (self.width() - (parts - 1) * _GAP_PX) // parts
        for number, part in enumerate(QRect(k * (width + _GAP_PX), 0, width, self.height()) for k in range(parts)):
            painter.fillRect(part, QColor("black"))
            if number < len(self._pictures):
                image, ratio = self._pictures[number]
                painter.drawImage(_fitted(part, ratio), image)
        painter.end()


def _fitted(half: QRect, ratio: float) -> QRect:
    """Return the largest box of a height-to-width ratio in the middle of another."""
    width = min(half.width(), round(half.height() / ratio))
    height = min(half.height(), round(width * ratio))
    box = QRect(0, 0, max(width, 1), max(height, 1))
    box.moveCenter(half.center())
    return box


def _grey(picture: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = limits
    grey = np.clip((picture - low) * (255.0 / max(high - low, 1e-6)), 0, 255)
    return np.ascontiguousarray(grey.astype(np.uint8))


def _image(frame: NDArray[np.uint8]) -> QImage:
    rows, columns = frame.shape
    return QImage(frame.data, columns, rows, columns, QImage.Format.Format_Grayscale8)
