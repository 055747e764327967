"""Connections that a closed panel lets go of: the bench outlives its widgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Hooks:
    """Remembers what was connected, so that it can be disconnected all at once."""

    def __init__(self) -> None:
        self._connected: list[tuple[Any, Callable[..., object]]] = []

    def connect(self, signal: Any, slot: Callable[..., object]) -> None:  # noqa: ANN401 (psygnal's or napari's)
        """Connect a slot to a signal."""
        signal.connect(slot)
        self._connected.append((signal, slot))

    def release(self) -> None:
        """Disconnect everything."""
        while self._connected:
            signal, slot = self._connected.pop()
            signal.disconnect(slot)
