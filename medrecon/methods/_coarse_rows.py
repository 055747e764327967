"""Rows that stand for several finer ones each, as slices do along the depth, and the way there and back as small matrices.

What holds along the depth of a scan is laid over its own sharp images here: `CoarseRows.window` cuts a few slices out of
the forward model, `coarsen` makes of an image what they would have seen of it, `start` is the spline through that with its
smallest probable correction, and `detail` puts a network's answer in its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.methods._consistency import correction_along_depth
from medrecon.methods._spline import cardinal_spline
from medrecon.networks.recurrent_inference import SliceFrame
from medrecon.networks.wdsr import cosines
from medrecon.operators._separable import SeparableSlices, SliceGroup
from medrecon.operators.slice_sampler import SliceSampler

_LEAST_SEEN = 0.5  # of a slice's weight
_UNEVEN = 0.02  # of the step by which a slice may be off its place, and of the thickness


@dataclass(frozen=True, eq=False)
class CoarseRows:
    """A few coarse rows and the fine ones around them.

    Parameters
    ----------
    weights : (coarse, fine) Tensor
        How much a coarse row holds of each fine one; rows add up to 1.
    start : (fine, coarse) Tensor
        The spline through coarse rows, corrected until it gives them back.
    places : (fine,) Tensor
        Where a fine row lies, in steps from the nearest coarse row, -1/2 to 1/2.
    nearest : (fine,) int64 Tensor
        Which coarse row that is.
    at : (coarse,) float64
        Where the coarse rows lie among the fine ones.
    """

    weights: Tensor
    start: Tensor
    places: Tensor
    nearest: Tensor
    at: Float64

    @classmethod
    def of(cls, A: SliceSampler, depth: Float64, at: Float64, step: float, eps: float) -> Self:
        """Prepare the matrices for slices with these weights over the planes, at these planes."""
        planes = np.arange(depth.shape[1], dtype=np.float64)
        spline = cardinal_spline(at, 3)(planes)
        back = correction_along_depth(A, depth, eps)
        start = spline + back @ (np.eye(len(at)) - depth @ spline)
        nearest = np.abs(planes[:, None] - at).argmin(axis=1)
        places = np.clip((planes - at[nearest]) / step, -0.5, 0.5)
        return cls(_float32(depth), _float32(start), _float32(places), torch.from_numpy(nearest), at)

    @property
    def fine(self) -> int:
        """Number of fine rows."""
        return len(self.places)

    def to(self, device: torch.device) -> CoarseRows:
        """Return the matrices on a device."""
        if self.weights.device == device:
            return self
        weights, start, places, nearest = (t.to(device) for t in (self.weights, self.start, self.places, self.nearest))
        return CoarseRows(weights, start, places, nearest, self.at)

    def frame(self, functions: int, step: float, thickness: float) -> SliceFrame:
        """Return what a recurrent network is told: slices `step` rows apart, `thickness` steps thick."""
        offsets = ((np.arange(functions) + 0.5) / functions - 0.5) * step
        places = np.clip(self.at[:, None] + offsets, 0, self.fine - 1).reshape(-1)
        looks = torch.from_numpy(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(self.fine)))).to(self.weights)
        guide = torch.tensor([thickness, step / 4, thickness * step / 4]).log().to(self.weights)
        return SliceFrame(self.weights, self.start, looks, self.synthesis(functions), guide)

    def detail(self, coefficients: Tensor) -> Tensor:
        """Return what a network adds, (batch, fine, columns), from its answer (batch, basis, coarse, columns)."""
        batch, basis, coarse, columns = coefficients.shape
        return self.synthesis(basis) @ coefficients.transpose(1, 2).reshape(batch, coarse * basis, columns)

    def synthesis(self, basis: int) -> Tensor:
        """Return the matrix (fine, coarse x basis) from coefficients to fine rows."""
        matrix = self.weights.new_zeros((self.fine, len(self.weights), basis))
        matrix[torch.arange(self.fine, device=matrix.device), self.nearest] = cosines(self.places, basis)
        return matrix.flatten(1)


@dataclass(frozen=True, eq=False)
class RegularDepth:
    """The depth of a scan whose slices follow each other in equal steps.

    Parameters
    ----------
    A : SliceSampler
    axes : (depth, rows, columns)
        The grid axes along which slices lie.
    order : (n,) int
        Slices by rising plane.
    at : (n,) float64
        The planes of their centres.
    weights : (n, planes) float64
        What they hold of each plane.
    eps : float
        How far slices may be missed, as in `consistent_spline`.
    """

    A: SliceSampler
    axes: tuple[int, int, int]
    order: NDArray[np.int64]
    at: Float64
    weights: Float64
    eps: float

    @classmethod
    def of(cls, A: SliceSampler, eps: float) -> Self | str:
        """Return the depth of a scan, or why it has none, in words."""
        group = _only_group(A)
        if isinstance(group, str):
            return group
        at = A.geometry.start[:, group.axes[0]]
        order = np.argsort(at, kind="stable")
        found = cls(A, group.axes, order, at[order], group.depth[order], eps)
        return found.unevenness or found

    @property
    def step(self) -> float:
        """Planes from one slice to the next."""
        return float(np.median(np.diff(self.at)))

    @property
    def thickness(self) -> float:
        """Thickness of a slice in steps."""
        return float(self.A.geometry.thickness_mm[0] / self.A.geometry.plane_step_mm[0]) / self.step

    @property
    def unevenness(self) -> str:
        """What keeps slices from being regular, in words; empty where nothing does."""
        thickness = self.A.poses.thickness_mm
        if np.ptp(thickness) > _UNEVEN * thickness.mean():
            return f"slices are from {thickness.min():.2f} to {thickness.max():.2f} mm thick"
        off = np.abs(self.at - self.at[0] - np.arange(len(self.at)) * (self.at[-1] - self.at[0]) / max(len(self.at) - 1, 1))
        if off.max() > _UNEVEN * self.step:
            return f"slices are up to {off.max() / self.step:.0%} of a step off equal steps"
        return ""

    def whole(self) -> CoarseRows:
        """Return the rows of all slices, on all planes of the grid."""
        return CoarseRows.of(self.A, self.weights, self.at, self.step, self.eps)

    def window(self, first: int, count: int) -> CoarseRows:
        """Return a few slices on the planes from half a step before the first to half a step after the last one."""
        at = self.at[first : first + count]
        low = max(math.floor(at[0] - self.step / 2 + 0.5), 0)
        high = min(math.floor(at[-1] + self.step / 2 + 0.5), self.weights.shape[1])
        weights = self.weights[first : first + count, low:high]
        return CoarseRows.of(self.A, weights / weights.sum(axis=1, keepdims=True), at - low, self.step, self.eps)


def _only_group(A: SliceSampler) -> SliceGroup | str:
    if len(np.unique(A.stack)) > 1:
        return f"the scan has {len(np.unique(A.stack))} stacks"
    factors = A.factors or SeparableSlices.build(A.geometry)
    if factors is None or len(factors.groups) != 1:
        return "the slices are oblique to the grid"
    if (factors.groups[0].depth_seen < _LEAST_SEEN).any():
        return "some slices lie outside the grid"
    return factors.groups[0]


def _float32(matrix: Float64) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
