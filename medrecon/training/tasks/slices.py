"""Fill the space between thick slices: random volumes cut by a random scanner, and the volumes.

Every example has its own thickness, gap, profile, voxel size and noise; weights trained on it serve all of them, because
the network is given the forward model and not told what to expect.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon.methods._slice_pairs import SlicePair
from medrecon.training.scanners import HELD_OUT, ScannerConfig, Subjects, torch_generator
from medrecon.training.tasks import Batch, Context

_LATER = 2.0  # how much more the volume after a step counts than the one before
_EASY = 0.005  # loss of an example below which it counts less


class SlicesConfig(ScannerConfig):
    """Settings of the task `slices`."""

    slices: Annotated[int, Field(ge=4, le=64, description="in an example")] = 14
    functions: Annotated[int, Field(ge=2, le=32, description="of the depth, as the network has them")] = 8
    pixels: Annotated[int, Field(ge=8, le=512, description="rows and columns of an example")] = 24


class Slices:
    """Volumes drawn from nothing or from disk, cut into thick slices."""

    def __init__(self, settings: SlicesConfig, context: Context) -> None:
        self.settings = settings
        self.context = context
        self._subjects = Subjects(settings, context.volumes)
        self._held_out: list[SlicePair] = []

    def batch(self, seed: int, index: int) -> Batch:
        """Return pairs of a volume and its slices."""
        return {"pairs": [self._pair((seed, index, number)) for number in range(self.context.batch)]}

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Compare the volumes after every step with the truth; what the classical volume misses more counts no more for it."""
        device = next(network.parameters()).device
        pairs: list[SlicePair] = [pair.to(device) for pair in batch["pairs"]]
        made: list[Tensor] = network(torch.stack([pair.seen for pair in pairs]), [pair.frame for pair in pairs])
        losses = []
        with torch.autocast(device.type, enabled=False):
            for number, pair in enumerate(pairs):
                weight = 1 / (self._missed(pair, torch.zeros_like(made[0][number])) + _EASY) / len(pairs)
                losses += [
                    weight * _LATER ** (step + 1 - len(made)) * self._missed(pair, strokes[number])
                    for step, strokes in enumerate(made)
                ]
        return torch.stack(losses).sum()

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the PSNR over held-out examples, and what it gains on `consistent_spline`."""
        if not self._held_out:
            self._held_out = [self._pair((HELD_OUT, number)) for number in range(self.settings.held_out)]
        device = next(network.parameters()).device
        after, before, residual = [], [], []
        for pair in (pair.to(device) for pair in self._held_out):
            strokes = network(pair.seen[None], [pair.frame])[-1][0]
            missed = pair.missed(strokes)
            after.append(float(missed.square().mean()))
            residual.append(float((pair.frame.weights @ missed.flatten(1)).square().mean()))
            before.append(float(pair.missed(torch.zeros_like(strokes)).square().mean()))
        gain = 10 * np.log10(np.array(before) / np.array(after))
        return {
            "psnr_db": -10 * math.log10(np.mean(after)),
            "gain_db": float(gain.mean()),
            "least_gain_db": float(gain.min()),
            "rmse": math.sqrt(np.mean(after)),
            "residual": math.sqrt(np.mean(residual)),  # of slices without noise, before the correction that makes it smallest
        }

    def describe(self) -> dict[str, Any]:
        """Tell what was trained on."""
        return self._subjects.describe()

    def _missed(self, pair: SlicePair, strokes: Tensor) -> Tensor:
        volume = pair.frame.painted(pair.classical, strokes.float())
        return self.context.loss(volume[None, None], pair.truth[None, None])

    def _pair(self, numbers: tuple[int, ...]) -> SlicePair:
        rng = np.random.default_rng(numbers)
        slicing, noise = self.settings.slicing(rng, self.settings.slices), self.settings.noise_of(rng)
        volume = self._subjects.draw(rng, (slicing.planes, self.settings.pixels, self.settings.pixels), slicing.spacing_mm)
        with torch.autocast("cpu", enabled=False):  # validation draws within the engine's autocast
            return SlicePair.of(volume, slicing, self.settings.functions, noise, torch_generator(rng))
