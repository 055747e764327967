"""In which arithmetic a network runs on a device: bfloat16 with channels last where that is faster and agrees.

Whether it is faster is measured on a tiny problem, once in a process. Whether a network's answer stays the same is asked
of each network when it is loaded, with an example of its own. Weights on disk are never touched.
"""

from __future__ import annotations

import copy
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)

Wanted = Literal["auto", "float32", "bfloat16"]

#: Runs a network on an example in the given type and returns its answer.
Trial = Callable[[nn.Module, torch.dtype], Tensor]

_LEAST_GAIN = 1.3  # below, the choice would depend on what else the machine does
_CHANNELS, _SIDE, _REPEATS = 32, 24, 3
_TOLERANCE = 0.02  # bfloat16 keeps 8 bits: one rounding is 0.4 %, and roundings of many layers average out


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Type of the numbers, and why it was chosen."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """``float32`` or ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    def applied(self, module: nn.Module) -> nn.Module:
        """Return a copy of a network in this arithmetic, its 3D weights laid out with channels last where that is faster."""
        lowered = copy.deepcopy(module).to(self.dtype)
        if self.dtype is torch.bfloat16:
            for layer in lowered.modules():
                if isinstance(layer, nn.Conv3d):
                    layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in torch's types
        return lowered


FLOAT32 = Arithmetic(torch.float32, "asked for")


class Lowered(nn.Module):
    """A network in another arithmetic behind a float32 face: float32 in, float32 out."""

    def __init__(self, module: nn.Module, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.module = module
        self.arithmetic = arithmetic

    def forward(self, *inputs: Tensor) -> Tensor:
        """Run the network on float32 inputs and return a float32 answer."""
        answer: Tensor = self.module(*(tensor.to(self.arithmetic.dtype) for tensor in inputs))
        return answer.float()


@dataclass(frozen=True, slots=True)
class Settled:
    """A network in the arithmetic that it will run in, and one line about it for the record."""

    module: nn.Module
    arithmetic: Arithmetic
    note: str


def settle(module: nn.Module, trial: Trial, device: str, wanted: Wanted = "auto", tolerance: float = _TOLERANCE) -> Settled:
    """Choose the arithmetic for a network, and check it against float32 on an example.

    Parameters
    ----------
    module : nn.Module
        In float32, on `device`. It is not changed.
    trial : callable
        ``trial(network, dtype)`` runs a network on a small example and returns its answer; the example should look like
        real input, and the network should answer something else than zero.
    device : str
    wanted : {"auto", "float32", "bfloat16"}
        A type that was asked for is not checked for speed; that it agrees is checked always.
    tolerance : float
        Largest root mean square difference from float32, relative to the root mean square of the answer's spread.
    """
    arithmetic = fastest(device) if wanted == "auto" else Arithmetic(getattr(torch, wanted), "asked for")
    if arithmetic.dtype is torch.float32:
        return Settled(module, arithmetic, f"float32: {arithmetic.reason}")
    lowered = arithmetic.applied(module)
    apart = _apart(trial, module, lowered, arithmetic.dtype)
    if not apart <= tolerance:  # also where it is not a number
        note = f"float32: in {arithmetic.name} the network's answer was {apart:.2%} off, {tolerance:.2%} are allowed"
        return Settled(module, Arithmetic(torch.float32, note), note)
    return Settled(lowered, arithmetic, f"{arithmetic.name}: {arithmetic.reason}; {apart:.2%} from float32")


def lowered(module: nn.Module, example: Tensor, device: str, wanted: Wanted = "auto") -> tuple[nn.Module, str]:
    """Return a network of one tensor in the arithmetic that suits the device, float32 outside, and a note about it."""

    def trial(network: nn.Module, dtype: torch.dtype) -> Tensor:
        answer: Tensor = network(example.to(device, dtype))
        return answer

    settled = settle(module, trial, device, wanted)
    face = settled.module if settled.arithmetic.dtype is torch.float32 else Lowered(settled.module, settled.arithmetic)
    return face.eval(), settled.note


@functools.cache
def fastest(device: str) -> Arithmetic:
    """Return the faster arithmetic on a device, measured once in a process on a tiny 3D convolution.

    On a CPU the time of the process is taken and not that of the clock, so that a busy machine changes nothing.
    """
    kind = torch.device(device).type
    if not _has_bfloat16(kind):
        return Arithmetic(torch.float32, f"this {kind} has no bfloat16")
    full, half = _seconds(FLOAT32, device), _seconds(Arithmetic(torch.bfloat16, ""), device)
    gain = full / max(half, 1e-9)
    words = f"bfloat16 is {gain:.1f} times as fast as float32 on this {kind}"
    choice = Arithmetic(torch.bfloat16, words) if gain >= _LEAST_GAIN else Arithmetic(torch.float32, words)
    _log.info("networks run in %s: %s", choice.name, words)
    return choice


def _has_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _seconds(arithmetic: Arithmetic, device: str) -> float:
    """Return the shortest time of a few runs of a convolution."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        layer = arithmetic.applied(nn.Conv3d(_CHANNELS, _CHANNELS, 3, padding=1)).to(device)
        block = torch.zeros(1, _CHANNELS, _SIDE, _SIDE, _SIDE, dtype=arithmetic.dtype, device=device)
        layer(block)
        return min(_seconds_once(layer, block) for _ in range(_REPEATS))


def _seconds_once(layer: nn.Module, block: Tensor) -> float:
    if block.is_cuda:
        torch.cuda.synchronize(block.device)
        start = time.perf_counter()
        layer(block)
        torch.cuda.synchronize(block.device)
        return time.perf_counter() - start
    start = time.process_time()
    layer(block)
    return time.process_time() - start


def _apart(trial: Trial, module: nn.Module, lowered: nn.Module, dtype: torch.dtype) -> float:
    """Return how far two networks' answers to an example are apart, relative to the spread of the first one's."""
    with torch.inference_mode():
        exact, other = trial(module, torch.float32).float(), trial(lowered, dtype).float()
        scale = (exact - exact.mean()).square().mean().sqrt()
        return float((other - exact).square().mean().sqrt() / scale.clamp_min(1e-12))
