"""A child process: started, listened to line by line, and ended within a moment, with whatever it was doing.

The child hangs on its stdin: when we close it, or are killed, it stops by itself. Cancelling asks politely first, so
that the child can clear what it was writing, and insists a second later.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import psutil

from medrecon.console.leash import VARIABLE
from medrecon.core.errors import MedreconError, OutputError
from medrecon_napari.model.words import Trouble, trouble_of

PATIENCE_S = 1.0  # between asking a child to end and making it
_MOST_LOG_LINES = 400
#: Threads that wait for their turn must sleep, not spin: the window and other programs need the processor too.
_CALM = {"OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Parameters
    ----------
    code : int
        Exit code; negative where a signal ended it.
    answer : mapping
        Its last line with the event ``done``; empty without one.
    trouble : Trouble, optional
        What went wrong, in words; None where nothing did.
    """

    code: int
    answer: dict[str, Any] = field(default_factory=dict)
    trouble: Trouble | None = None

    @property
    def is_done(self) -> bool:
        """Whether the child did all that it was asked to."""
        return self.code == 0


class Child:
    """One run of the command line.

    Parameters
    ----------
    command : sequence of str
    leashed : bool
        Whether the child watches stdin only to notice our end; a child that reads requests there sees that by itself.

    Raises
    ------
    OutputError
        ``RUN-FAILED`` where the system cannot start it.
    """

    def __init__(self, command: Sequence[str], leashed: bool = True) -> None:
        environment = os.environ | _CALM | ({VARIABLE: "1"} if leashed else {})
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=environment,
            )
        except OSError as error:
            raise OutputError(
                "RUN-FAILED", f"the child process could not be started ({type(error).__name__})", "Free memory and try again."
            ) from error
        _step_back(self._process.pid)
        self.log: deque[str] = deque(maxlen=_MOST_LOG_LINES)
        self._drain = threading.Thread(target=self._keep_log, name="medrecon log", daemon=True)
        self._drain.start()
        self._insist: threading.Timer | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the child is still there."""
        return self._process.poll() is None

    def follow(self) -> Generator[dict[str, Any], None, Ended]:
        """Yield every line that the child prints as JSON, and return how it ended. To be run in a thread."""
        answer: dict[str, Any] = {}
        for line in _pipe(self._process.stdout):
            event = _event(line)
            if event is None:
                self.log.append(line.rstrip())
            elif event["event"] == "done":
                answer = event
            else:
                yield event
        return self._ended(answer)

    def send(self, line: str) -> bool:
        """Write a line to the child; return whether it could be."""
        try:
            _pipe(self._process.stdin).write(line + "\n")
            _pipe(self._process.stdin).flush()
        except (OSError, ValueError):  # it has ended, or is being ended
            return False
        return True

    def stop(self) -> None:
        """Ask the child to end, and see to it that it does; returns at once."""
        if self.is_alive and self._insist is None:
            self._process.terminate()
            self._insist = threading.Timer(PATIENCE_S, self._kill)
            self._insist.daemon = True
            self._insist.start()

    def wait_stopped(self) -> None:
        """End the child and return when it is gone: for the end of the window, where nobody is left to wait."""
        self.stop()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._close()

    def _kill(self) -> None:
        if self.is_alive:
            self._process.kill()

    def _keep_log(self) -> None:
        for line in _pipe(self._process.stderr):
            self.log.append(line.rstrip())

    def _ended(self, answer: dict[str, Any]) -> Ended:
        code = self._process.wait()
        self._drain.join(PATIENCE_S)
        self._close()
        return Ended(code, answer, None if code == 0 else trouble_of(code, list(self.log)))

    def _close(self) -> None:
        if self._insist is not None:
            self._insist.cancel()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            try:
                _pipe(pipe).close()
            except OSError:  # what was still in the pipe finds no reader; nobody misses it
                continue


def python(*arguments: str) -> tuple[str, ...]:
    """Return the command that runs medrecon with these arguments in a Python of its own."""
    return (sys.executable, "-m", "medrecon", *arguments)


def trouble_from(error: MedreconError) -> Trouble:
    """Return one of our errors as words for the panel."""
    return Trouble(error.code, error.fact, error.hint)


def signal_name(code: int) -> str:
    """Name the signal behind a negative exit code."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return str(-code)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise ValueError("the child has no such pipe")
    return pipe


def _event(line: str) -> dict[str, Any] | None:
    """Return a line as an event, None where it is none."""
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) and "event" in data else None


def _step_back(pid: int) -> None:
    """Let the window have the processor first."""
    try:
        process = psutil.Process(pid)
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5)
    except psutil.Error:
        return
