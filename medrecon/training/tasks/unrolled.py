"""Reconstruct small simulated scans whole, by a network that applies the forward model itself: learned primal-dual.

The phantoms and scans are those of the task `projections`, smaller. Every scan has a geometry of its own, so that the
weights cannot learn one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon.methods._iterations import squared_norm_bound, start_from
from medrecon.operators.xray_transform import XRayTransform
from medrecon.training.tasks import Batch, Context, generator
from medrecon.training.tasks.projections import (
    FIRST_HELD_OUT,
    UNIT,
    Length,
    PhantomScansConfig,
    Size,
    psnr_db,
    read_label_maps,
    scan_phantom,
)


class UnrolledConfig(PhantomScansConfig):
    """Settings of the task `unrolled`."""

    batches_per_scan: int = Field(4, ge=1, description="batches after which one more scan is simulated, until all are there")
    rows: tuple[Size, Size] = Field((48, 64), description="rows and columns of the reconstructed volumes")
    slices: tuple[Size, Size] = Field((8, 16), description="slices of the reconstructed volumes")
    field_mm: tuple[Length, Length] = Field((170.0, 220.0), description="width of the volumes")


@dataclass(frozen=True, eq=False)
class Problem:
    """One scan to be reconstructed; volumes and projections over water's attenuation per mm."""

    A: XRayTransform
    y: Tensor
    start: Tensor
    truth: Tensor
    norm: float

    def solved(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return what a network makes of it, and the truth, both where the network is."""
        device = next(network.parameters()).device
        found: Tensor = network(self.A, self.y.to(device), self.start.to(device), self.norm)
        return found.float(), self.truth.to(device)


class Unrolled:
    """Whole small scans of phantoms, for networks that take the forward model as input."""

    def __init__(self, settings: UnrolledConfig, context: Context) -> None:
        self.settings = settings
        self.context = context
        self._labels = read_label_maps(settings.label_maps)
        self._pool: dict[int, Problem] = {}

    def batch(self, seed: int, index: int) -> Batch:
        """Return ``problems``, a list of `Problem`."""
        random = generator(seed, index)
        ready = min(self.settings.scans, 1 + index // self.settings.batches_per_scan)
        chosen = torch.randint(ready, (self.context.batch,), generator=random).tolist()
        return {"problems": [self.problem(seed, number) for number in chosen]}

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Compare the volumes with the truth, in tenths of water; the mean over the scans."""
        pairs = [problem.solved(network) for problem in batch["problems"]]
        return torch.stack([self.context.loss(x[None, None] / UNIT, truth[None, None] / UNIT) for x, truth in pairs]).mean()

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the PSNR over scans never trained on, and what it gains on their smooth FDK."""
        before, after = [], []
        for number in range(self.settings.held_out):
            problem = self.problem(0, FIRST_HELD_OUT + number)
            before.append(psnr_db(problem.start, problem.truth))
            after.append(psnr_db(*problem.solved(network)))
        return {"psnr_db": float(np.mean(after)), "gain_db": float(np.mean(after) - np.mean(before))}

    def describe(self) -> dict[str, Any]:
        """Tell what was trained on."""
        return self.settings.describe()

    def problem(self, seed: int, number: int) -> Problem:
        """Return one scan of the pool, simulated when it is first asked for."""
        if number not in self._pool:
            scanned = scan_phantom(self.settings, np.random.default_rng((seed, number)), self._labels)
            water, A = self.settings.water_per_mm, scanned.A
            start = start_from(A, scanned.y, "fdk", nonnegative=True) / water
            norm = squared_norm_bound(A, torch.device("cpu")) ** 0.5
            self._pool[number] = Problem(A, scanned.y / water, start, scanned.truth, norm)
        return self._pool[number]
