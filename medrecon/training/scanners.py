"""Random scanners that cut volumes into thick slices, and what lies in them: the common ground of tasks about slices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medrecon.core.grid import Grid
from medrecon.core.profile import ProfileKind, SliceProfile
from medrecon.core.scans import SlicePoses
from medrecon.core.settings import Config
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.training.mixture import Mixture
from medrecon.training.synthesis import LabelMap, Shape, random_volume
from medrecon.training.tasks import generator

HELD_OUT = 2_000_000_000  # seed of examples that are never trained on

_DARK = 1e-6
_PROFILES: dict[ProfileKind, float] = {"gaussian": 0.5, "bell": 0.2, "triangle": 0.15, "box": 0.15}
_LEAST_STEP, _MOST_STEP = 1.5, 12.0  # planes between slices

Length = Annotated[float, Field(gt=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Slicing:
    """How a volume is cut into slices: lengths in mm, `first_mm` from the first plane to the first slice's centre."""

    spacing_mm: float
    thickness_mm: float
    step_mm: float
    first_mm: float
    slices: int
    profile: SliceProfile

    @property
    def planes(self) -> int:
        """Planes of a volume that the slices fill, as many behind the last one as before the first."""
        return round((2 * self.first_mm + (self.slices - 1) * self.step_mm) / self.spacing_mm) + 1

    def sampler(self, rows: int, columns: int) -> SliceSampler:
        """Return the forward model for a volume (planes, rows, columns), across its first axis."""
        depths = self.first_mm + self.step_mm * np.arange(self.slices)
        positions = np.stack([np.zeros_like(depths), np.zeros_like(depths), depths], axis=1)
        pixels = (self.spacing_mm, self.spacing_mm)
        poses = SlicePoses.from_parts(positions, (0, 1, 0), (1, 0, 0), pixels, (rows, columns), self.thickness_mm, self.profile)
        return SliceSampler(poses, Grid.from_parts((self.planes, rows, columns), (self.spacing_mm,) * 3, (0, 0, 0)))


class ScannerConfig(Config):
    """What is scanned, and how: pairs are (smallest, largest)."""

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

    def slicing(self, rng: np.random.Generator, slices: int) -> Slicing:
        """Draw a scanner whose slices are thicker than a voxel."""
        spacing_mm = float(rng.uniform(*self.spacing_mm))
        thinnest, thickest = self.thickness_mm
        thickest = min(thickest, _MOST_STEP * spacing_mm)
        thickness = math.exp(rng.uniform(math.log(max(thinnest, _LEAST_STEP * spacing_mm)), math.log(thickest)))
        chance = rng.random()
        gap = 0.0 if chance < 0.4 else rng.uniform(*self.gap_mm)
        gap = gap if chance < 0.9 else -rng.uniform(0, self.overlap) * thickness
        step = min(max(thickness + gap, _LEAST_STEP * spacing_mm), _MOST_STEP * spacing_mm)
        first = (thickness - spacing_mm) / 2 * rng.uniform(0.3, 1.2)
        profile = SliceProfile(rng.choice(list(_PROFILES), p=list(_PROFILES.values())))
        return Slicing(spacing_mm, thickness, step, first, slices, profile)

    def noise_of(self, rng: np.random.Generator) -> float:
        """Draw the standard deviation of the noise; every second scan has none."""
        return float(rng.uniform(0, self.noise)) if rng.random() < 0.5 else 0.0


class Subjects:
    """Volumes to scan: drawn from nothing, and from disk where the recipe names any."""

    def __init__(self, settings: ScannerConfig, volumes: Mixture) -> None:
        self._settings, self._volumes = settings, volumes
        folder = settings.label_maps
        self._brains = [LabelMap.read(path) for path in sorted(folder.glob("*.nii*"))] if folder else []

    def draw(self, rng: np.random.Generator, shape: Shape, spacing_mm: float) -> Tensor:
        """Return a volume of isotropic voxels, about 0 to 1."""
        if not len(self._volumes) or rng.random() >= self._settings.from_disk:
            return random_volume(rng, shape, spacing_mm, self._brains)
        drawn = self._volumes.draw(torch_generator(rng), shape, (spacing_mm,) * 3).voxels
        low, high = np.quantile(drawn.numpy(), (0.001, 0.999))
        return (drawn - float(low)) / max(float(high - low), 1e-6)

    def describe(self) -> dict[str, Any]:
        """Tell what is trained on, for the manifest."""
        brains = f"{len(self._brains)} label maps of brains in synthetic skulls, " if self._brains else ""
        disk = f"{len(self._volumes)} volumes from disk, " if len(self._volumes) else "no patient data, "
        return {
            "training_data": f"{brains}random shapes and sheets, {disk}cut into simulated slices",
            "spacing_mm": self._settings.spacing_mm,
            "thickness_mm": self._settings.thickness_mm,
            "gap_mm": self._settings.gap_mm,
            "modalities": ["MR", "CT"],
        }


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """Return a generator of torch that goes on from one of numpy."""
    return generator(*map(int, rng.integers(2**31, size=2)))


def brightness(y: Tensor) -> tuple[float, float]:
    """Return the darkest value, and how much brighter the brightest are but for one of a thousand; 1 where nothing is seen."""
    values = y.cpu().numpy()
    low, high = float(values.min()), float(np.quantile(values.reshape(-1)[:: max(1, values.size // 1_000_000)], 0.999))
    return low, (high - low if high - low > _DARK * max(abs(low), abs(high), _DARK) else 1.0)
