"""Run a network over a volume of any size in bounded memory.

MONAI's sliding window does the cutting and blending. Around it: windows overlap by the network's halo, within which an
answer counts for nothing if another window knows better; memory is estimated before the start; progress and cancel go
through the predictor; when memory runs out, windows get smaller, then the CPU takes over, and the record says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medrecon.core.errors import MemoryBudgetError
from medrecon.core.progress import Tick, silent
from medrecon.core.settings import Config
from medrecon.networks._memory import Cost, free_bytes, give_back, is_out_of_memory

Triple = tuple[int, int, int]
Side = Annotated[int, Field(ge=1, le=4096)]
Halo = Annotated[int, Field(ge=0, le=512)]

_MEMORY_SHARE = 0.6  # of what is free: other programs live here too
_PROBE = (32, 32, 32)
_HALO_WEIGHT = 1e-6  # against at least 1e-2 outside the halo
_FLOOR_WEIGHT = 1e-2


class TilingConfig(Config):
    """How a volume is cut into windows; sizes are (slices, rows, columns) in voxels."""

    window: tuple[Side, Side, Side] = Field((96, 96, 96), description="largest window, halo included")
    halo: tuple[Halo, Halo, Halo] = Field((8, 8, 8), description="how far from a window's edge its answer may be wrong")
    least: tuple[Side, Side, Side] = Field((32, 32, 32), description="smallest window when memory is short, halo not included")
    overlap: float = Field(0.125, ge=0, le=0.5, description="share of a window, without its halo, that is blended with the next")
    multiple: int = Field(1, ge=1, le=128, description="windows begin and end at multiples of this: a network's smallest scale")
    cpu: bool = Field(True, description="go on with the CPU where a GPU's memory does not suffice")


@dataclass(frozen=True, slots=True)
class Tiled:
    """The answer over the whole volume, the windows it was made in, and what had to be changed on the way."""

    volume: Tensor
    window: Triple
    windows: int
    device: str
    notes: tuple[str, ...] = ()


def predict(network: nn.Module, volume: Tensor, config: TilingConfig, device: str = "cpu", tick: Tick = silent) -> Tiled:
    """Run a network window by window.

    Parameters
    ----------
    network : nn.Module
        Maps (1, channels, slices, rows, columns) to (1, any channels, slices, rows, columns); it is moved to `device`.
    volume : (1, channels, slices, rows, columns) float32 Tensor on the CPU
        Stays there, as does the answer; one window at a time is on the device.
    config : TilingConfig
    device : str
    tick : Tick
        Called before and after every window; it may raise to cancel.

    Raises
    ------
    MemoryBudgetError
        ``MEM-BUDGET`` where even the smallest windows do not fit.
    """
    plan = _Plan.fitting(network.to(device), volume, config, device)
    rising = _rising(tick)
    while (answer := _attempt(network.to(plan.device), volume, plan, rising)) is None:
        plan = plan.smaller(config)
        give_back(device)
    return Tiled(answer, plan.window, plan.count(volume), plan.device, plan.notes)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Windows of one size on one device."""

    window: Triple
    halo: Triple
    overlap: float
    multiple: int
    device: str
    notes: tuple[str, ...] = ()

    @classmethod
    def fitting(cls, network: nn.Module, volume: Tensor, config: TilingConfig, device: str) -> _Plan:
        """Choose the largest windows whose estimated memory is there."""
        plan = cls(_window(config.window, volume, config), config.halo, config.overlap, config.multiple, device)
        probe = _triple(max(sides) for sides in zip(_PROBE, config.least, strict=True))
        cost = Cost.measured(network, _corner(volume, _window(probe, volume, config)).to(device))
        while cost.window_bytes(plan.window) > _MEMORY_SHARE * free_bytes(plan.device):
            plan = plan.smaller(config)
        plan.refuse_volume(volume, cost)
        return plan

    def smaller(self, config: TilingConfig) -> _Plan:
        """Return the next smaller windows, or those of the CPU after the smallest, or refuse."""
        least = (_up(inner + 2 * halo, self.multiple) for inner, halo in zip(config.least, self.halo, strict=True))
        window = _triple(
            min(side, max(_up(side // 2, self.multiple), floor)) for side, floor in zip(self.window, least, strict=True)
        )
        if window != self.window:
            note = f"windows of {_times(window)} instead of {_times(self.window)} voxels: memory ran short on {self.device}"
            return replace(self, window=window).noting(note)
        if config.cpu and self.device != "cpu":
            return replace(self, device="cpu").noting(f"on the CPU instead of {self.device}, whose memory was too small")
        raise MemoryBudgetError(
            "MEM-BUDGET",
            f"a window of {_times(self.window)} voxels does not fit into the memory of {self.device}",
            "Close other programs, choose a coarser grid, or take a classical method.",
        )

    def refuse_volume(self, volume: Tensor, cost: Cost) -> None:
        """Refuse a volume whose padded copy, answer and weights do not fit beside one window."""
        voxels = math.prod(n + more for n, more in zip(volume.shape[-3:], self.padding(volume), strict=True))
        needed = 4 * voxels * (volume.shape[1] + 2 * cost.outputs + 1)
        needed += int(cost.window_bytes(self.window)) if self.device == "cpu" else 0
        free = free_bytes("cpu")
        if needed > free:
            fact = f"the network needs {needed} bytes for this volume, {free} are free"
            raise MemoryBudgetError("MEM-BUDGET", fact, "Choose a coarser grid, or a machine with more memory.")

    def noting(self, *notes: str) -> _Plan:
        """Return the same plan with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    @property
    def step(self) -> Triple:
        """How far apart windows begin: every voxel but those at the volume's ends lies outside the halo of one window."""
        return _triple(self._step(side, halo) for side, halo in zip(self.window, self.halo, strict=True))

    def _step(self, side: int, halo: int) -> int:
        inner = (side - 2 * halo) * (1 - self.overlap)
        return max(int(inner) // self.multiple * self.multiple, self.multiple)

    def padding(self, volume: Tensor) -> Triple:
        """How many voxels are repeated behind the volume, so that all windows begin at multiples of the step."""
        sides = zip(volume.shape[-3:], self.window, self.step, strict=True)
        return _triple(max(w, w + _up(n - w, s)) - n for n, w, s in sides)

    def count(self, volume: Tensor) -> int:
        """How many windows there are."""
        sides = zip(volume.shape[-3:], self.padding(volume), self.window, self.step, strict=True)
        return math.prod((n + more - w) // s + 1 for n, more, w, s in sides)


def _attempt(network: nn.Module, volume: Tensor, plan: _Plan, tick: Tick) -> Tensor | None:
    """Run a plan; None where memory ran out. What the failed run held is let go with this function's frame."""
    try:
        return _run(network, volume, plan, tick)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return None


def _run(network: nn.Module, volume: Tensor, plan: _Plan, tick: Tick) -> Tensor:
    from monai.inferers import sliding_window_inference

    more, size = plan.padding(volume), volume.shape[-3:]
    padded = _corner(volume, _triple(n + m for n, m in zip(size, more, strict=True))) if any(more) else volume
    total, done = plan.count(volume), itertools.count(1)

    def predictor(window: Tensor) -> Tensor:
        answer: Tensor = network(window)
        tick(next(done) / total)
        return answer

    tick(0.0)
    with torch.inference_mode():
        blended: Tensor = sliding_window_inference(
            padded,
            plan.window,
            sw_batch_size=1,
            predictor=predictor,
            overlap=[max(0.0, 1 - (s + 0.5) / w) for s, w in zip(plan.step, plan.window, strict=True)],  # MONAI rounds down
            roi_weight_map=_weights(plan).to(plan.device),
            sw_device=plan.device,
            device="cpu",
        )
    return blended[..., : size[0], : size[1], : size[2]].clone()


def _weights(plan: _Plan) -> Tensor:
    """Gaussian weights of a window's voxels; next to nothing in the halo, which only the volume's ends must use."""
    weights = torch.ones(())
    for side, halo in zip(plan.window, plan.halo, strict=True):
        inner = max(side - 2 * halo, 1)
        away = (torch.arange(side) - (side - 1) / 2).abs()
        along = torch.exp(-0.5 * (away / (0.25 * inner)) ** 2).clamp_min(_FLOOR_WEIGHT)
        weights = weights[..., None] * torch.where(away <= inner / 2, along, _HALO_WEIGHT * torch.ones(()))
    return weights


def _window(wanted: Triple, volume: Tensor, config: TilingConfig) -> Triple:
    """Return the wanted window, no larger than the volume needs and large enough for its halo."""
    sides = zip(wanted, volume.shape[-3:], config.halo, strict=True)
    return _triple(min(_up(max(w, 2 * h + 1), config.multiple), _up(n, config.multiple)) for w, n, h in sides)


def _corner(volume: Tensor, side: Triple) -> Tensor:
    """Return the first voxels of a volume, the last ones repeated where it is smaller."""
    missing = [max(s - n, 0) for s, n in zip(side, volume.shape[-3:], strict=True)]
    corner = volume[..., : side[0], : side[1], : side[2]]
    return functional.pad(corner, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")


def _rising(tick: Tick) -> Tick:
    """Report a share of the work that never falls, also where a second attempt begins anew."""
    reached = 0.0

    def rising(share: float) -> None:
        nonlocal reached
        reached = max(reached, share)
        tick(reached)

    return rising


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _triple(values: Iterable[int]) -> Triple:
    first, second, third = values
    return first, second, third


def _times(window: Triple) -> str:
    return " x ".join(map(str, window))
