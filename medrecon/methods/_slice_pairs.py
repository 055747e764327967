"""Known volumes and what thick slices of them leave: pairs that a network learns from.

Slices are parallel to the planes of the volume and their pixels are its voxels, so that A is a matrix along the depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Grid
from medrecon.core.profile import SliceProfile
from medrecon.core.progress import silent
from medrecon.core.scans import SlicePoses
from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline
from medrecon.networks.recurrent_inference import SliceFrame
from medrecon.operators._slice_geometry import depth_weights
from medrecon.operators.slice_sampler import SliceSampler

_DARK = 1e-6


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


def frame_of(A: SliceSampler, functions: int) -> tuple[SliceFrame, NDArray[np.intp]]:
    """Return the frame of one stack whose slices lie along the grid, and the order of its slices by depth."""
    geometry = A.geometry
    axis = int(geometry.axis[0])
    order = np.argsort(geometry.start[:, axis])
    weights = np.stack([depth_weights(geometry, int(k)) for k in order])
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), _DARK)
    thickness = float(A.poses.thickness_mm.mean() / geometry.plane_step_mm.mean())
    return SliceFrame.of(weights, geometry.start[order, axis], thickness, functions), order


@dataclass(frozen=True, eq=False)
class SlicePair:
    """A known volume, and what the network is given to find it again.

    Parameters
    ----------
    truth, classical : (depth, rows, columns) Tensor
        The volume, and what `consistent_spline` makes of its slices.
    seen : (2 + functions, n, rows, columns) Tensor
    frame : SliceFrame
    """

    truth: Tensor
    classical: Tensor
    seen: Tensor
    frame: SliceFrame

    @classmethod
    def of(
        cls, truth: Tensor, slicing: Slicing, functions: int, noise: float = 0.0, generator: torch.Generator | None = None
    ) -> Self:
        """Slice a volume, with noise of a standard deviation; all are brought to 0 to 1."""
        A = slicing.sampler(truth.shape[1], truth.shape[2])
        y = A.forward(truth)
        if noise > 0:
            y = y + noise * torch.randn(y.shape, generator=generator)
        low, span = brightness(y)
        y, truth = (y - low) / span, (truth - low) / span
        classical, frame = consistent_spline(A, y, ConsistentSplineConfig(), silent), frame_of(A, functions)[0]
        return cls(truth, classical, frame.seen(classical, y), frame)

    def to(self, device: torch.device) -> Self:
        """Return the pair on a device."""
        return type(self)(self.truth.to(device), self.classical.to(device), self.seen.to(device), self.frame.to(device))

    def missed(self, strokes: Tensor) -> Tensor:
        """Return by how much the classical volume with strokes over it misses the truth."""
        return self.frame.painted(self.classical, strokes.float()) - self.truth


def brightness(y: Tensor) -> tuple[float, float]:
    """Return the darkest value, and how much brighter the brightest are but for one of a thousand; 1 where nothing is seen."""
    values = y.cpu().numpy()
    low, high = float(values.min()), float(np.quantile(values.reshape(-1)[:: max(1, values.size // 1_000_000)], 0.999))
    return low, (high - low if high - low > _DARK * max(abs(low), abs(high), _DARK) else 1.0)
