"""The states of a job, and which event leads from one to another: one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RunState(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in {RunState.FINISHED, RunState.FAILED, RunState.CANCELLED}


class RunEvent(StrEnum):
    """What happens to a job."""

    START = "start"
    CANCEL = "cancel"
    DONE = "done"
    BROKE = "broke"


#: Every change there is. A job that was done before its cancellation reached it is finished: nothing is thrown away.
CHANGES: Mapping[tuple[RunState, RunEvent], RunState] = {
    (RunState.WAITING, RunEvent.START): RunState.RUNNING,
    (RunState.WAITING, RunEvent.CANCEL): RunState.CANCELLED,
    (RunState.WAITING, RunEvent.BROKE): RunState.FAILED,
    (RunState.RUNNING, RunEvent.CANCEL): RunState.CANCELLING,
    (RunState.RUNNING, RunEvent.DONE): RunState.FINISHED,
    (RunState.RUNNING, RunEvent.BROKE): RunState.FAILED,
    (RunState.CANCELLING, RunEvent.DONE): RunState.FINISHED,
    (RunState.CANCELLING, RunEvent.BROKE): RunState.CANCELLED,
}


def after(state: RunState, event: RunEvent) -> RunState:
    """Return the state that follows; an event that means nothing in a state changes nothing."""
    return CHANGES.get((state, event), state)
