"""Several processes on one training: what ``torchrun`` says about them, and how they agree.

Without ``torchrun`` there is one process and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medrecon import device as devices


@dataclass(frozen=True, slots=True)
class Processes:
    """One of the processes that train together: the one in which this is.

    Parameters
    ----------
    rank, count : int
        Number of this process, from 0, and how many there are.
    device : torch.device
    """

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def shared(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are the mean over all processes."""
        if self.count == 1:
            return module
        return DistributedDataParallel(module)  # without device_ids it leaves the batch as it is: the engine has moved it

    def agreed(self, numbers: tuple[float, ...]) -> tuple[float, ...]:
        """Return the leader's numbers in every process."""
        if self.count == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.broadcast(tensor, src=0)
        return tuple(tensor.tolist())


@contextlib.contextmanager
def joined(wanted_device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, for a block; one process without it."""
    count = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
    if count == 1:
        yield Processes(0, 1, torch.device(devices.choose(wanted_device).name))
        return
    on_gpu = torch.cuda.is_available() and wanted_device != "cpu"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()
