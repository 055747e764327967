"""The images of a scan as something to learn from: on the voxels of the grid, from 0 to 1, some of them held back.

What was held back decides whether a network is better than `consistent_spline` on this scan: both bring back the same
coarse rows of images that the network has never seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Float64, Grid
from medrecon.core.progress import silent
from medrecon.core.scans import SlicePoses
from medrecon.methods._coarse_rows import CoarseRows, RegularDepth
from medrecon.methods._self_taught import COARSE_ROWS, Float32, Pupil
from medrecon.methods._spline import cardinal_spline, spline_through_slices
from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline
from medrecon.operators.slice_sampler import SliceSampler

_RANGE = (0.001, 0.999)  # quantiles of the measured values that become 0 and 1
_BEYOND = 0.25  # how far beyond them values are kept: metal and air count no more than bone
_SAMPLES = 1_000_000  # pixels that are enough to tell
_LEAST_SLICES, _LEAST_COARSE, _LEAST_WIDTH = 6, 6, 24  # below, there is too little to learn from
_LEAST_STEP = 1.2  # planes from slice to slice, below which nothing is missing between them
_HELD_SHARE, _MOST_HELD = 6, 6  # one image in so many is held back, at most so many
_SAME_SPACING = 0.02
_FAR_MM = 1e4  # between images that must not smooth each other


@dataclass(frozen=True, eq=False)
class OwnImages:
    """What a scan offers to learn from.

    Parameters
    ----------
    depth : RegularDepth
    planes : (n, rows, columns) Tensor
        The slices on the voxels of the grid, by rising plane, in the unit of the scan.
    low, span : float
        Value that becomes 0, and by how much 1 is brighter.
    stacks : list of (n, length, width) float32
        The slices, from 0 to 1, with rows of the grid's depth spacing to be made coarse: along their rows, and along
        their columns.
    held : (n,) bool
        Which of them no network is trained on.
    coarse : int
        Coarse rows of a patch.
    """

    depth: RegularDepth
    planes: Tensor
    low: float
    span: float
    stacks: list[Float32]
    held: NDArray[np.bool_]
    coarse: int

    @classmethod
    def of(cls, A: SliceSampler, y: Tensor, eps: float) -> Self | str:
        """Return what there is to learn from, or why there is nothing, in words."""
        used = np.flatnonzero(A.seen.any(axis=(1, 2)))
        if len(used) < _LEAST_SLICES:
            return f"{len(used)} slices hold a measurement, {_LEAST_SLICES} are needed"
        low, high = _range(A, y)
        depth = RegularDepth.of(A, eps) if high > low else "all pixels have one value"
        if isinstance(depth, str):
            return depth
        if depth.step < _LEAST_STEP:
            return f"slices are {depth.step:.2f} voxels apart, so that nothing is missing between them"
        planes = _planes(depth, y)
        stacks = _stacks(depth, ((planes - low) / (high - low)).clamp(-_BEYOND, 1 + _BEYOND))
        shortest, narrowest = (min(stack.shape[axis] for stack in stacks) for axis in (1, 2))
        coarse = min(COARSE_ROWS, len(planes), math.floor((shortest - 1) / depth.step))
        if coarse < _LEAST_COARSE or narrowest < _LEAST_WIDTH:
            return f"images of {shortest} voxels hold too little to learn from at {depth.step:.1f} voxels from slice to slice"
        return cls(depth, planes, low, high - low, stacks, _held(len(planes)), coarse)

    @property
    def normalised(self) -> Tensor:
        """The planes as a network sees them."""
        return ((self.planes - self.low) / self.span).clamp_(-_BEYOND, 1 + _BEYOND)

    def to_learn(self) -> list[Float32]:
        """Return the stacks without what is held back."""
        return [stack[~self.held] for stack in self.stacks]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a network did on images that it has never seen.

    Parameters
    ----------
    gain_db : float
        PSNR of the best mixture of network and `consistent_spline` over that of the spline alone.
    share : float
        The network's share of that mixture.
    """

    gain_db: float
    share: float


def judge(pupil: Pupil, images: OwnImages) -> Judgement:
    """Compare a network with `consistent_spline` on the images that were held back."""
    products = np.zeros(3)
    for stack, spacing in zip(images.stacks, _cross_spacing(images.depth), strict=True):
        products += _products(pupil, images.depth, stack[images.held], spacing)
    classical, mixed, change = products
    share = float(np.clip(mixed / change, 0, 1)) if change > 0 else 0.0
    left = classical - 2 * share * mixed + share**2 * change
    return Judgement(10 * math.log10(classical / left) if left > 0 else 0.0, share)


def _products(pupil: Pupil, depth: RegularDepth, fine: Float32, spacing_mm: float) -> Float64:
    """Return |e|^2, <e, d> and |d|^2, with e = truth - spline, d = network - spline."""
    rows = _most_rows(depth, fine.shape[1])
    truth = torch.from_numpy(fine[:, : rows.fine])
    A = _beside_each_other(depth, rows, truth.shape[0], truth.shape[2], spacing_mm)
    coarse = rows.weights @ truth
    spline = consistent_spline(A, coarse.transpose(0, 1).contiguous(), ConsistentSplineConfig(), silent).transpose(0, 1)
    with torch.inference_mode():
        answer = pupil.answer(coarse.to(pupil.device), rows.to(pupil.device)).cpu()
    cut = math.ceil(depth.step)
    error, change = ((x - spline)[:, cut:-cut].double().numpy() for x in (truth, rows.start @ coarse + answer))
    return np.array([(error**2).sum(), (error * change).sum(), (change**2).sum()])


def _most_rows(depth: RegularDepth, length: int) -> CoarseRows:
    """Return as many coarse rows as an image of this length has room for."""
    count = min(len(depth.at), math.floor((length - 1) / depth.step))
    return depth.window((len(depth.at) - count) // 2, count)


def _beside_each_other(depth: RegularDepth, rows: CoarseRows, count: int, width: int, spacing_mm: float) -> SliceSampler:
    """Return a forward model of images (rows, count, width) that stand so far apart that none smooths another."""
    step_mm = float(depth.A.geometry.plane_step_mm[0])
    nowhere = np.zeros_like(rows.at)
    positions = np.stack([nowhere, nowhere, rows.at * step_mm], axis=1)
    thickness, profile = depth.A.poses.thickness_mm[0], depth.A.poses.profile
    poses = SlicePoses.from_parts(positions, (0, 1, 0), (1, 0, 0), (_FAR_MM, spacing_mm), (count, width), thickness, profile)
    return SliceSampler(poses, Grid.from_parts((rows.fine, count, width), (step_mm, _FAR_MM, spacing_mm), (0, 0, 0)))


def _held(count: int) -> NDArray[np.bool_]:
    """Choose images evenly, the outermost ones never."""
    some = max(1, min(_MOST_HELD, count // _HELD_SHARE))
    held = np.zeros(count, dtype=np.bool_)
    held[np.linspace(0, count - 1, some + 2).round().astype(int)[1:-1]] = True
    return held


def _range(A: SliceSampler, y: Tensor) -> tuple[float, float]:
    values = y.cpu().numpy()[A.seen] if A.measured is not None else y.cpu().numpy().reshape(-1)
    low, high = np.quantile(values[:: max(1, values.size // _SAMPLES)], _RANGE)
    return float(low), float(high)


def _planes(depth: RegularDepth, y: Tensor) -> Tensor:
    """Return the slices on the voxels of the grid, the depth first: the spline on a grid whose planes are the slices."""
    A, axis = depth.A, depth.axes[0]
    shape = list(A.domain)
    shape[axis] = len(depth.at)
    stretched = np.eye(4)
    stretched[axis, axis], stretched[axis, 3] = (depth.at[-1] - depth.at[0]) / (len(depth.at) - 1), depth.at[0]
    grid = Grid((shape[0], shape[1], shape[2]), A.grid.to_lps_mm @ stretched)
    on_planes = SliceSampler(A.poses, grid, A.measured, A.stack)
    return spline_through_slices(on_planes, y, 3, silent).permute(depth.axes).contiguous()


def _stacks(depth: RegularDepth, planes: Tensor) -> list[Float32]:
    """Return the planes with rows, and with columns, as far apart as the planes of the grid."""
    _, rows_mm, columns_mm = (depth.A.grid.spacing_mm[axis] for axis in depth.axes)
    turned = (planes, rows_mm), (planes.transpose(1, 2), columns_mm)
    return [_respaced(stack, mm, float(depth.A.geometry.plane_step_mm[0])) for stack, mm in turned]


def _respaced(stack: Tensor, have_mm: float, want_mm: float) -> Float32:
    """Interpolate rows to another spacing, averaging where it is wider."""
    ratio = want_mm / have_mm
    if abs(ratio - 1) > _SAME_SPACING:
        places = np.arange(0, stack.shape[1] - 1 + 1e-6, ratio)
        shifts = (np.arange(n := math.ceil(ratio)) + 0.5) / n - 0.5
        spline = cardinal_spline(np.arange(stack.shape[1], dtype=np.float64), 3)
        matrix = np.mean([spline(places + shift * ratio) for shift in shifts], axis=0)
        stack = torch.from_numpy(matrix.astype(np.float32)).to(stack) @ stack
    return np.ascontiguousarray(stack.cpu().numpy())


def _cross_spacing(depth: RegularDepth) -> tuple[float, float]:
    """Spacing across the rows that are made coarse, for both stacks."""
    _, rows_mm, columns_mm = (depth.A.grid.spacing_mm[axis] for axis in depth.axes)
    return columns_mm, rows_mm
