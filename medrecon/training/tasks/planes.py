"""Bring back what thick slices take away, in single planes across them: for `recurrent`, and the start of `zero_shot`.

Every batch has its own thickness, gap, profile, voxel size and noise. The network sees one plane across the slices at a
time, so that a batch holds planes of many volumes; `zero_shot` goes on from here on the images of the scan itself.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon.methods._coarse_rows import CoarseRows, RegularDepth
from medrecon.methods._self_taught import answer, inner
from medrecon.training.scanners import HELD_OUT, ScannerConfig, Slicing, Subjects, brightness, torch_generator
from medrecon.training.tasks import Batch, Context

_EPS = 0.01  # as `consistent_spline` has it
_APART = 4  # voxels between planes of one volume
_EASY = 1e-3  # squared error of the spline below which an example counts less


class PlanesConfig(ScannerConfig):
    """Settings of the task `planes`."""

    slices: Annotated[int, Field(ge=4, le=64, description="in an example")] = 16
    columns: Annotated[int, Field(ge=16, le=512, description="of an example")] = 48
    volumes: Annotated[int, Field(ge=1, le=64, description="in a batch, each of which gives as many planes")] = 2


class Planes:
    """Planes of volumes drawn from nothing or from disk, their rows made as coarse as slices are along the depth."""

    def __init__(self, settings: PlanesConfig, context: Context) -> None:
        self.settings = settings
        self.context = context
        self._subjects = Subjects(settings, context.volumes)
        self._held_out: list[Batch] = []

    def batch(self, seed: int, index: int) -> Batch:
        """Return planes of a few volumes, all seen by one scanner."""
        return self._planes((seed, index), self.context.batch)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Compare with the truth; a plane of which the spline misses more counts no more for it."""
        start, made, truth = _missed(network, batch)
        with torch.autocast(start.device.type, enabled=False):
            weight = (start.square().mean(dim=(1, 2), keepdim=True) + _EASY).rsqrt()
            return self.context.loss((made * weight)[:, None], torch.zeros_like(truth)[:, None])

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the PSNR over held-out planes, and what it gains on the spline with its smallest correction."""
        if not self._held_out:
            self._held_out = [self._planes((HELD_OUT, number), 4) for number in range(self.settings.held_out)]
        device = next(network.parameters()).device
        after, before = [], []
        for batch in self._held_out:
            start, made, _ = _missed(network, {**batch, **{name: batch[name].to(device) for name in ("truth", "coarse")}})
            after.append(float(made.square().mean()))
            before.append(float(start.square().mean()))
        gain = 10 * np.log10(np.array(before) / np.array(after))
        return {
            "psnr_db": -10 * math.log10(np.mean(after)),
            "gain_db": float(gain.mean()),
            "least_gain_db": float(gain.min()),
        }

    def describe(self) -> dict[str, Any]:
        """Tell what was trained on."""
        return self._subjects.describe()

    def _planes(self, numbers: tuple[int, ...], count: int) -> Batch:
        rng = np.random.default_rng(numbers)
        slicing, noise = self.settings.slicing(rng, self.settings.slices + 2), self.settings.noise_of(rng)
        depth, rows = _rows(slicing, self.settings.slices)
        with torch.autocast("cpu", enabled=False):  # validation draws within the engine's autocast
            truth = torch.cat([self._some(rng, rows.fine, many, slicing.spacing_mm) for many in self._shares(count)])
            coarse = rows.weights @ truth
            coarse = coarse + noise * torch.randn(coarse.shape, generator=torch_generator(rng))
            low, span = brightness(coarse)
        return {
            "truth": (truth - low) / span,
            "coarse": (coarse - low) / span,
            "rows": rows,
            "step": depth.step,
            "thickness": depth.thickness,
        }

    def _shares(self, count: int) -> list[int]:
        return [len(part) for part in np.array_split(np.arange(count), min(self.settings.volumes, count))]

    def _some(self, rng: np.random.Generator, fine: int, count: int, spacing_mm: float) -> Tensor:
        """Draw a volume and return planes of it, (count, fine, columns)."""
        shape = (fine, self.settings.columns, (count - 1) * _APART + 1)
        return self._subjects.draw(rng, shape, spacing_mm)[:, :, ::_APART].permute(2, 0, 1)


def _rows(slicing: Slicing, count: int) -> tuple[RegularDepth, CoarseRows]:
    """Return the depth of a scanner, and its slices but for the first and the last one."""
    depth = RegularDepth.of(slicing.sampler(1, 1), _EPS)
    if not isinstance(depth, RegularDepth):
        raise TypeError(depth)
    return depth, depth.window(1, count)


def _missed(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return by how much spline and network miss the truth, and the truth, away from the rim."""
    rows, coarse = batch["rows"].to(batch["coarse"].device), batch["coarse"]
    with torch.autocast(coarse.device.type, enabled=False):
        start = rows.start @ coarse - batch["truth"]
    made = start + answer(network, coarse, rows, batch["step"], batch["thickness"])
    part = inner(batch["step"])
    return start[part], made[part], batch["truth"][part]
