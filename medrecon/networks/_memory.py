"""What a network takes of a device's memory, measured on a small window before a large one is tried."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medrecon.safety.limits import free_memory_bytes

_WORKSPACE = 1.5  # what convolutions take beside their tensors


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network takes for a voxel of its window, in bytes, and how many channels it answers with."""

    per_voxel: float
    outputs: int

    @classmethod
    def measured(cls, network: nn.Module, window: Tensor) -> Cost:
        """Run a network on a window (1, channels, slices, rows, columns) and watch its tensors."""
        watch = Alive()
        with torch.inference_mode(), watch:
            outputs = network(window).shape[1]
        return cls(watch.most / math.prod(window.shape[-3:]), outputs)

    def window_bytes(self, window: tuple[int, int, int]) -> float:
        """Estimate what a window takes."""
        return _WORKSPACE * self.per_voxel * math.prod(window)


class Alive(TorchDispatchMode):
    """Watch which tensors are alive, and remember the most bytes that they took together."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 (torch's signature)
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._notice(leaf.untyped_storage())
        return made

    def _notice(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell a lack of memory from other failures; on a CPU torch says it in words only."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in words or "not enough memory" in words


def free_bytes(device: str) -> int:
    """Return how many bytes a device could give now."""
    if not device.startswith("cuda"):
        return free_memory_bytes()
    held_in_vain = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held_in_vain


def give_back(device: str) -> None:
    """Hand back what torch keeps of a GPU's memory for later."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
