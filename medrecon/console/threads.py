"""How many threads the arithmetic libraries use and how they wait, settled before these are loaded.

What the user or a batch has set stays. The number is left to the libraries, which know the processors that this process
may use; they do not know the share of time that a container is granted, so that is told them. A thread that waits for the
others sleeps instead of spinning: with another program on the same cores, two spinning threads were measured to need four
times the processor time and more than twice as long. Nothing depends on the load of the moment, so that runs stay repeatable.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

_NUMBER, _WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
_GRANTED = Path("/sys/fs/cgroup/cpu.max")  # of Linux containers: microseconds in a period, and the period


def settle(environment: MutableMapping[str, str], granted: Path = _GRANTED) -> None:
    """Complete the environment of this process, and with it that of its children."""
    environment.setdefault(_WAITING, "PASSIVE")
    most = _granted_processors(granted)
    if _NUMBER not in environment and most is not None and most < _processors():
        environment[_NUMBER] = str(most)


def _granted_processors(file: Path) -> int | None:
    """Return how many processors a container's share of time amounts to, None where it is not limited."""
    try:
        share, period = (int(word) for word in file.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no such file, or the word max
        return None
    return max(1, math.ceil(share / period)) if period > 0 else None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
