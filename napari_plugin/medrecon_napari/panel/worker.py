"""Work beside the window, on threads: what the model's `Background` is where there is a window.

Jobs are relayed by napari's own generator workers, which stand in its list of tasks and can be aborted there. They do not
show in its activity bar, whose every change paints the whole window before anything else may happen. Short work and the
previews' ear have threads of their own: napari's pool has only as many as there are processors, and a window on two of
them must not wait for a run to end before it can list a folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from qtpy.QtCore import QObject, Qt, Signal

from medrecon.core.errors import CancelledError
from medrecon_napari.model.background import Quit

T = TypeVar("T")
E = TypeVar("E")

_JOIN_S = 2.0


class Threads(QObject):
    """Runs work on threads and calls back in the thread that the object lives in."""

    _came = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._came.connect(_call_it, Qt.ConnectionType.QueuedConnection)
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def call(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Run a function on a thread, then `done` or `failed` here."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 (handed on to where it is told)
                self._hand_over(partial(failed, error))
            else:
                self._hand_over(partial(done, result))

        self._start(run, "medrecon work")

    def listen(
        self,
        work: Callable[[], Generator[E, None, T]],
        each: Callable[[E], None],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> Quit:
        """Run a generator on a thread of its own, outside of napari's pool."""
        stopped = threading.Event()

        def run() -> None:
            generator = work()
            try:
                while not stopped.is_set():
                    event = next(generator)
                    self._hand_over(partial(each, event))
            except StopIteration as end:
                self._hand_over(partial(done, end.value))
            except Exception as error:  # noqa: BLE001 (handed on to where it is told)
                self._hand_over(partial(failed, error))

        self._start(run, "medrecon listener")
        return stopped.set

    def follow(
        self,
        work: Callable[[], Generator[E, None, T]],
        each: Callable[[E], None],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
        name: str,
    ) -> Quit:
        """Run a generator: the previews' on a thread of its own, a job's as a worker of napari's."""
        if name == "preview":
            return self.listen(work, each, done, failed)
        return _napari_worker(work, each, done, failed, name)

    def close(self) -> None:
        """Call nothing back any more, and wait for the threads."""
        self._closed = True
        for thread in tuple(self._threads):
            thread.join(_JOIN_S)

    def _start(self, run: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=self._counted, args=(run,), name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _counted(self, run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            self._threads.discard(threading.current_thread())

    def _hand_over(self, call: Callable[[], object]) -> None:
        if self._closed:
            return
        try:
            self._came.emit(lambda: None if self._closed else call())
        except RuntimeError:  # the window went away in this very moment
            self._closed = True


def _call_it(call: Callable[[], None]) -> None:
    call()


def _napari_worker(
    work: Callable[[], Generator[E, None, T]],
    each: Callable[[E], None],
    done: Callable[[T], None],
    failed: Callable[[Exception], None],
    name: str,
) -> Quit:
    """Follow a generator with a worker of napari's, which can be aborted from its list of tasks."""
    from napari.qt.threading import create_worker

    def guarded() -> Generator[E, None, T | _Failed]:
        try:
            return (yield from work())
        except Exception as error:  # noqa: BLE001 (told by us in words, not by napari as a traceback)
            return _Failed(error)

    guarded.__qualname__ = guarded.__name__ = name  # what napari's own question on closing calls it
    worker: Any = create_worker(guarded, _start_thread=False)

    def over(result: T | _Failed) -> None:
        if isinstance(result, _Failed):
            failed(result.error)
        else:
            done(result)

    worker.yielded.connect(each)
    worker.returned.connect(over)
    worker.aborted.connect(lambda: failed(CancelledError("RUN-CANCELLED", "the job was ended in napari's list of tasks")))
    worker.start()
    return worker.quit  # type: ignore[no-any-return]  # superqt carries no types


@dataclass(frozen=True, slots=True)
class _Failed:
    """Brings an error out of a worker without napari taking it for its own."""

    error: Exception
