"""How a long job says where it is, and how it is stopped.

A job calls its `Tick` with the finished share of its own work. A reporter may raise `CancelledError`, which is the
one way to stop a job: there is no flag to forget.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: Called by a method with the finished share of its work, from 0 to 1.
Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """One message of a running job.

    Parameters
    ----------
    stage : str
        ``read``, ``reconstruct``, ``surface``, ``quality`` or ``write``.
    fraction : float
        Finished share of the whole job, 0 to 1, never decreasing.
    elapsed_s, remaining_s : float
        Time since the start, and an estimate of the rest (None at the very start).
    note : str
        Something to tell once, such as how the work is cut to fit into memory; mostly empty.
    """

    stage: str
    fraction: float
    elapsed_s: float
    remaining_s: float | None = None
    note: str = ""


#: Receives the progress of a job; raise `CancelledError` in it to stop the job.
Reporter = Callable[[Progress], None]


def silent(_: float) -> None:
    """Ignore the progress: a `Tick` for callers who do not care."""


@dataclass(slots=True)
class Stages:
    """Turn the ticks of consecutive stages into one rising fraction.

    Parameters
    ----------
    weights : mapping of stage to expected share of the time; the values add up to 1
    report : Reporter, optional
    """

    weights: dict[str, float]
    report: Reporter | None = None
    started_s: float = field(default_factory=time.monotonic)

    def tick(self, stage: str) -> Tick:
        """Return the `Tick` of one stage."""
        return lambda share: self._tell(stage, stage, share)

    def within(self, stage: str) -> Reporter:
        """Return a reporter for a job that is itself one stage of this one; its own stage names are kept."""
        return lambda progress: self._tell(stage, progress.stage, progress.fraction, progress.note)

    def say(self, stage: str, note: str) -> None:
        """Tell something once, at the start of a stage."""
        self._tell(stage, stage, 0.0, note)

    def _tell(self, stage: str, shown: str, share: float, note: str = "") -> None:
        if self.report is None:
            return
        names = list(self.weights)
        before = sum(self.weights[name] for name in names[: names.index(stage)])
        self.report(self._progress(shown, before + self.weights[stage] * min(max(share, 0.0), 1.0), note))

    def _progress(self, stage: str, fraction: float, note: str) -> Progress:
        elapsed = time.monotonic() - self.started_s
        remaining = elapsed * (1 - fraction) / fraction if fraction > 0.02 else None
        return Progress(stage, fraction, elapsed, remaining, note)
