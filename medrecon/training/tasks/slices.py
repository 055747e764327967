"""Fill the space between thick slices: random volumes cut by a random scanner, and the volumes.

Every example has its own thickness, gap, profile, voxel size and noise; weights trained on it serve all of them, because
the network is given the forward model and not told what to expect.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon.core.profile import ProfileKind, SliceProfile
from medrecon.core.settings import Config
from medrecon.methods._slice_pairs import SlicePair, Slicing
from medrecon.training.synthesis import LabelMap, Shape, random_volume
from medrecon.training.tasks import Batch, Context, generator

_PROFILES: dict[ProfileKind, float] = {"gaussian": 0.5, "bell": 0.2, "triangle": 0.15, "box": 0.15}
_LATER = 2.0  # how much more the volume after a step counts than the one before
_LEAST_STEP, _MOST_STEP = 1.5, 12.0  # planes between slices
_EASY = 0.005  # loss of an example below which it counts less
_HELD_OUT = 2_000_000_000  # seed of examples that are never trained on

Size = Annotated[int, Field(ge=8, le=512)]
Length = Annotated[float, Field(gt=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]


class SlicesConfig(Config):
    """Settings of the task `slices`; pairs are (smallest, largest)."""

    slices: Annotated[int, Field(ge=4, le=64, description="in an example")] = 14
    functions: Annotated[int, Field(ge=2, le=32, description="of the depth, as the network has them")] = 8
    pixels: Size = Field(24, description="rows and columns of an example")
    spacing_mm: tuple[Length, Length] = (0.45, 1.25)
    thickness_mm: tuple[Length, Length] = (0.8, 9.0)
    gap_mm: tuple[Annotated[float, Field(ge=0)], Length] = Field(
        (0.0, 3.0), description="of half of the examples; four in ten have none"
    )
    overlap: Share = Field(0.5, description="largest overlap, as a share of the thickness, of one in ten examples")
    noise: Share = Field(0.02, description="largest standard deviation, as a share of the range, of every second example")
    label_maps: Path | None = Field(None, description="folder of brains as label maps (NIfTI, 1 mm); none: shapes only")
    from_disk: Share = Field(0.5, description="share of examples from the recipe's data, where it names any")
    held_out: Annotated[int, Field(ge=1, le=1000)] = Field(32, description="examples for validation")


class Slices:
    """Volumes drawn from nothing or from disk, cut into thick slices."""

    def __init__(self, settings: SlicesConfig, context: Context) -> None:
        self.settings = settings
        self.context = context
        folder = settings.label_maps
        self._brains = [LabelMap.read(path) for path in sorted(folder.glob("*.nii*"))] if folder else []
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
            self._held_out = [self._pair((_HELD_OUT, number)) for number in range(self.settings.held_out)]
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
        brains = f"{len(self._brains)} label maps of brains in synthetic skulls, " if self._brains else ""
        disk = f"{len(self.context.volumes)} volumes from disk, " if len(self.context.volumes) else "no patient data, "
        return {
            "training_data": f"{brains}random shapes and sheets, {disk}cut into simulated slices",
            "spacing_mm": self.settings.spacing_mm,
            "thickness_mm": self.settings.thickness_mm,
            "gap_mm": self.settings.gap_mm,
            "modalities": ["MR", "CT"],
        }

    def _missed(self, pair: SlicePair, strokes: Tensor) -> Tensor:
        volume = pair.frame.painted(pair.classical, strokes.float())
        return self.context.loss(volume[None, None], pair.truth[None, None])

    def _pair(self, numbers: tuple[int, ...]) -> SlicePair:
        rng = np.random.default_rng(numbers)
        slicing = self._slicing(rng, float(rng.uniform(*self.settings.spacing_mm)))
        noise = float(rng.uniform(0, self.settings.noise)) if rng.random() < 0.5 else 0.0
        volume = self._volume(rng, (slicing.planes, self.settings.pixels, self.settings.pixels), slicing.spacing_mm)
        with torch.autocast("cpu", enabled=False):  # validation draws within the engine's autocast
            return SlicePair.of(volume, slicing, self.settings.functions, noise, _generator(rng))

    def _volume(self, rng: np.random.Generator, shape: Shape, spacing_mm: float) -> Tensor:
        volumes = self.context.volumes
        if not len(volumes) or rng.random() >= self.settings.from_disk:
            return random_volume(rng, shape, spacing_mm, self._brains)
        drawn = volumes.draw(_generator(rng), shape, (spacing_mm,) * 3).voxels
        low, high = np.quantile(drawn.numpy(), (0.001, 0.999))
        return (drawn - float(low)) / max(float(high - low), 1e-6)

    def _slicing(self, rng: np.random.Generator, spacing_mm: float) -> Slicing:
        """Draw a scanner whose slices are thicker than a voxel."""
        thinnest, thickest = self.settings.thickness_mm
        thickest = min(thickest, _MOST_STEP * spacing_mm)
        thickness = math.exp(rng.uniform(math.log(max(thinnest, _LEAST_STEP * spacing_mm)), math.log(thickest)))
        chance = rng.random()
        gap = 0.0 if chance < 0.4 else rng.uniform(*self.settings.gap_mm)
        gap = gap if chance < 0.9 else -rng.uniform(0, self.settings.overlap) * thickness
        step = min(max(thickness + gap, _LEAST_STEP * spacing_mm), _MOST_STEP * spacing_mm)
        first = (thickness - spacing_mm) / 2 * rng.uniform(0.3, 1.2)
        profile = SliceProfile(rng.choice(list(_PROFILES), p=list(_PROFILES.values())))
        return Slicing(spacing_mm, thickness, step, first, self.settings.slices, profile)


def _generator(rng: np.random.Generator) -> torch.Generator:
    return generator(*map(int, rng.integers(2**31, size=2)))
