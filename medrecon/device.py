"""Where to compute: the user's choice, or the best that this machine has, with the reason in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from medrecon.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Device:
    """A torch device name and why it was chosen."""

    name: str
    reason: str


def choose(wanted: str) -> Device:
    """Turn ``auto``, ``cpu`` or ``cuda:N`` into a device; raise `UsageError` (``DEV-NONE``) for a GPU that is not there."""
    import torch

    count = torch.cuda.device_count()
    if wanted == "auto":
        return Device("cuda:0", "a CUDA device was found") if count else Device("cpu", "no CUDA device was found")
    if wanted == "cpu":
        return Device("cpu", "asked for")
    number = int(wanted.partition(":")[2] or 0)
    if number >= count:
        raise UsageError(
            "DEV-NONE", f"{wanted} was asked for, this machine has {count} CUDA device(s)", "Use --device auto or cpu."
        )
    return Device(f"cuda:{number}", "asked for")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch seeded, and give the caller's random state back afterwards."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
