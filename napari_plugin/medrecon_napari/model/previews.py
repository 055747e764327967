"""Previews of one plane: a warm child process that is asked again whenever settings or the plane change.

The child is started when a series is chosen, so that torch is loaded by the time the first preview is wanted; what is
wished meanwhile, it does first. Only the newest wish is answered. A child that died is replaced at the next wish, once for
each wish.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from medrecon.config import ReconstructionConfig
from medrecon.core.errors import MedreconError
from medrecon.core.reading import ReadOptions
from medrecon_napari.model.background import Background
from medrecon_napari.model.child import Child, Ended, trouble_from
from medrecon_napari.model.choice import preview_command
from medrecon_napari.model.words import Trouble

View = Literal["axial", "coronal", "sagittal"]


@dataclass(frozen=True, slots=True)
class Wish:
    """A plane to be shown under some settings."""

    config: ReconstructionConfig
    view: View
    point_lps_mm: tuple[float, float, float]

    def as_request(self, number: int) -> str:
        """Return the line to send."""
        config = self.config.model_dump(mode="json") | {"surfaces": []}
        return json.dumps({"id": number, "config": config, "view": self.view, "point_lps_mm": self.point_lps_mm})


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A preview that came back.

    Parameters
    ----------
    plane : (slices, rows, columns) float32
        One voxel thick along one axis: as it would be reconstructed.
    measured : (slices, rows, columns) float32, optional
        The same plane as it was measured; None of projections, which stand in no plane.
    to_lps_mm : (4, 4) float64
        Index into both to LPS mm.
    quantity : str
    view : str
    result_shape : (slices, rows, columns)
        Of the whole result.
    result_spacing_mm : (slice, row, column)
    device, reason : str
        Where it was computed and why there.
    seconds : float
    coarser : int
    draft : bool
    """

    plane: NDArray[np.float32]
    measured: NDArray[np.float32] | None
    to_lps_mm: NDArray[np.float64]
    quantity: str
    view: View
    result_shape: tuple[int, int, int]
    result_spacing_mm: tuple[float, float, float]
    device: str
    reason: str
    seconds: float
    coarser: int
    draft: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """The child has loaded everything: where it computes and why there."""

    device: str
    reason: str


class Previews:
    """Asks for previews and hands back pictures.

    Parameters
    ----------
    background : Background
    """

    ready: ClassVar[Signal] = Signal(Ready)
    shown: ClassVar[Signal] = Signal(Picture)
    failed: ClassVar[Signal] = Signal(Trouble)

    def __init__(self, background: Background) -> None:
        self._background = background
        self._command: tuple[str, str, ReadOptions] | None = None
        self._child: Child | None = None
        self._scratch: Path | None = None
        self._wish: Wish | None = None
        self._number = 0
        self._era = 0
        self.is_ready = False

    @property
    def is_busy(self) -> bool:
        """Whether a wish is not answered yet."""
        return self._wish is not None

    @property
    def pid(self) -> int | None:
        """Process id of the child; None without one."""
        return None if self._child is None else self._child.pid

    def open(self, path: Path, series: str, options: ReadOptions) -> None:
        """Start the child for a series; nothing happens where it is there for the same one."""
        wanted = (str(path), series, options)
        if wanted == self._command and self._child is not None:
            return
        self.close()
        self._command = wanted
        self._start()

    def ask(self, wish: Wish) -> None:
        """Wish for a plane; an older wish that was not answered is forgotten."""
        self._wish = wish
        if self._child is None:
            self._start()
        self._send()

    def close(self) -> None:
        """End the child, without waiting for it."""
        self._era += 1
        self.is_ready, self._wish, self._command = False, None, None
        if self._child is not None:
            self._child.stop()
        self._child = None
        self._clear()

    def shut(self) -> None:
        """End the child and return when it is gone."""
        child = self._child
        self.close()
        if child is not None:
            child.wait_stopped()

    def _start(self) -> None:
        if self._command is None:
            return
        path, series, options = self._command
        self._era += 1
        era = self._era
        try:
            self._scratch = Path(tempfile.mkdtemp(prefix="medrecon-preview-"))
            child = Child(preview_command(Path(path), series, options, self._scratch), leashed=False)
        except (OSError, MedreconError) as error:
            self._clear()
            self._tell(_trouble(error))
            return
        self._child = child
        self._background.follow(
            lambda: _answers(child),
            lambda answer: self._answered(era, answer),
            lambda ended: self._ended(era, ended),
            lambda error: self._lost(era, error),
            "preview",
        )

    def _send(self) -> None:
        if self._wish is not None and self._child is not None:
            self._number += 1
            self._child.send(self._wish.as_request(self._number))

    def _answered(self, era: int, answer: Ready | tuple[int | None, Picture | Trouble]) -> None:
        if era != self._era:
            return
        if isinstance(answer, Ready):
            self.is_ready = True
            self.ready.emit(answer)
            return
        number, what = answer
        if number != self._number or self._wish is None:  # an older wish
            return
        self._wish = None
        if isinstance(what, Picture):
            self.shown.emit(what)
        else:
            self.failed.emit(what)

    def _ended(self, era: int, ended: Ended) -> None:
        """Tell that the child is gone although nobody asked it to go."""
        if era != self._era:
            return
        self._child, self.is_ready = None, False
        self._clear()
        self._tell(ended.trouble or Trouble("RUN-FAILED", "the preview ended by itself", "Change a setting to start it again."))

    def _lost(self, era: int, error: Exception) -> None:
        """Give up a child that nobody listens to any more; the next wish starts another."""
        if era != self._era:
            return
        if self._child is not None:
            self._child.stop()
        self._child, self.is_ready = None, False
        self._clear()
        self._tell(_trouble(error))

    def _tell(self, trouble: Trouble) -> None:
        self._wish = None
        self.failed.emit(trouble)

    def _clear(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch = None


def _answers(child: Child) -> Generator[Ready | tuple[int | None, Picture | Trouble], None, Ended]:
    """Yield what the child answers, its arrays loaded. To be run in a thread."""
    lines = child.follow()
    while True:
        try:
            event = next(lines)
        except StopIteration as end:
            ended: Ended = end.value
            return ended
        if event["event"] == "ready":
            yield Ready(str(event["device"]), str(event["reason"]))
        elif event["event"] == "failed":
            yield event["id"], Trouble(str(event["code"]), str(event["fact"]), str(event["hint"]))
        elif event["event"] == "preview":
            yield event["id"], _picture(event)


def _picture(event: Mapping[str, Any]) -> Picture | Trouble:
    try:
        plane = _taken(Path(event["plane"]))
        measured = None if event["measured"] is None else _taken(Path(event["measured"]))
    except (OSError, ValueError):  # its folder was cleared meanwhile
        return Trouble(
            "RUN-FAILED", "the preview's picture was gone before it could be shown", "Change a setting to see another."
        )
    slices, rows, columns = event["result"]["shape"]
    step, row, column = event["result"]["spacing_mm"]
    return Picture(
        plane,
        measured,
        np.asarray(event["to_lps_mm"], dtype=np.float64),
        str(event["quantity"]),
        event["view"],
        (slices, rows, columns),
        (step, row, column),
        str(event["device"]),
        str(event["reason"]),
        float(event["seconds"]),
        int(event["coarser"]),
        bool(event["draft"]),
    )


def _taken(path: Path) -> NDArray[np.float32]:
    """Load an array and remove its file."""
    array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    path.unlink()
    return array


def _trouble(error: Exception) -> Trouble:
    if isinstance(error, MedreconError):
        return trouble_from(error)
    return Trouble("RUN-FAILED", f"the preview could not be started ({type(error).__name__})", "Free some space and try again.")
