"""Filtered back projection of views around one axis: weigh, filter, back project, a block of views at a time.

With S the source, C the isocentre and r the unit ray of a pixel, the formula for a flat detector is

    f(x) = sum over views of step * SDD / U(x)^2 * ramp[w * ((C - S) . r) p](u(x), v(x)),

U the depth of x along the detector's normal, w the redundancy weight, and the ramp on the detector's own pitch. It holds
for any shift of source or detector and for a slanted detector; for a centred circle it is the familiar
1/2 (SID/U)^2 cos p. A tilted detector takes one more factor, SDD over each row's distance across the tilt. On a curved
detector the ramp runs over angles and the weight of distance is 1 / L(x)^2; for a parallel beam both are 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.core.progress import Tick
from medrecon.core.views import Detector, ViewGeometry
from medrecon.methods._detector_rows import extend, fill_unmeasured, is_truncated
from medrecon.methods._flat_detector import FlatDetector
from medrecon.methods._ramp import RampFilter, smooth_rows
from medrecon.methods._redundancy import Fans, angular_steps, check_redundancy, redundancy_weights, refuse_unbalanced
from medrecon.operators.fdk_backprojection import FdkBackProjector
from medrecon.operators.xray_transform import XRayTransform

if TYPE_CHECKING:
    from medrecon.methods.fdk import FdkConfig

_BLOCK_BYTES = {
    "cpu": 16 * 2**20,
    "cuda": 256 * 2**20,
}  # of padded rows: small beside the data, enough for a pass over the volume
_TRUNCATION_SHARE = 0.25


def reconstruct(A: XRayTransform, y: Tensor, config: FdkConfig, tick: Tick) -> Tensor:
    """Return the volume (slices, rows, columns) of projections (views, rows, columns)."""
    device = A.device or str(y.device)
    flat = FlatDetector.of(A.views)
    views = flat.views
    fans = Fans.of(views)
    steps, arc = angular_steps(fans.azimuth_rad)
    weights = redundancy_weights(fans, arc)
    refuse_unbalanced(check_redundancy(fans, arc, weights))
    plan = _Plan.of(views, fans, config, is_truncated(y), _BLOCK_BYTES["cuda" if device.startswith("cuda") else "cpu"])
    rays = RayWeights.of(views)
    projector = FdkBackProjector(plan.padded_views, A.grid, device)
    for part in plan.blocks():
        block = y[part].to(device, torch.float32)
        if A.measured is not None:
            block = fill_unmeasured(block, A.measured[part].to(device))
        block = flat.resample(block, part)
        block = block * rays.of_block(part, block) * torch.from_numpy(weights[part]).to(block)[:, None]
        projector.add(part.start, plan.filtered(block), steps[part] * rays.per_view[part])
        tick(part.stop / len(views))
    return projector.result()


@dataclass(frozen=True, eq=False)
class RayWeights:
    """How much a ray counts by its direction: ((C - S) . r), and the factors that belong to whole views.

    Parameters
    ----------
    along, height : (n, columns), (n,)
        In-plane part of (C - S) . d for the ray vector d through the middle line, and its change per mm of v.
    square, cross : (n, columns)
        |d|^2 on the middle line, and d . v: what the length of any ray of the column follows from.
    tilt : (n, 2)
        Each row's distance from the source across the tilt is SDD (1 + tilt . (1, v mm)); only flat detectors.
    per_view : (n,)
    row_mm : (rows,)
    """

    along: Float64
    height: Float64
    square: Float64
    cross: Float64
    tilt: Float64
    per_view: Float64
    row_mm: Float64
    parallel: bool = False

    @classmethod
    def of(cls, views: ViewGeometry) -> RayWeights:
        """Work the weights out from the vectors of the views."""
        rows, columns = views.detector.shape
        n, row_mm = len(views), views.detector.row_mm(np.arange(rows))
        if views.sources_lps_mm is None:
            along = np.ones((n, columns))
            return cls(along, np.zeros(n), along, along, np.zeros((n, 2)), 1 / _obliquity(views), row_mm, parallel=True)
        axis, rays = views.axis, views.column_points_lps_mm() - views.sources_lps_mm[:, None]
        towards = views.isocentre - views.sources_lps_mm
        towards = towards - np.outer(towards @ axis, axis)
        tilt, per_view = np.zeros((n, 2)), np.ones(n)
        if not views.is_curved:
            across = np.cross(axis, views.u)  # in plane, perpendicular to the rows
            across *= np.sign(np.einsum("ki,ki->k", across, views.normals))[:, None] / np.linalg.norm(across, axis=1)[:, None]
            per_view = views.source_detector_mm
            middle = np.einsum("ki,ki->k", views.towards_detector, across)
            tilt = np.stack([middle / per_view - 1, np.einsum("ki,ki->k", views.v, across) / per_view], axis=1)
        return cls(
            np.einsum("kci,ki->kc", rays, towards),
            np.einsum("ki,ki->k", views.v, towards),
            (rays**2).sum(axis=2),
            np.einsum("kci,ki->kc", rays, views.v),
            tilt,
            per_view,
            row_mm,
        )

    def of_block(self, part: slice, like: Tensor) -> Tensor:
        """Return the weight of every pixel of some views, (views, rows, columns)."""

        def tensor(array: Float64) -> Tensor:
            return torch.from_numpy(array).to(like)

        if self.parallel:
            return like.new_ones(())
        row = tensor(self.row_mm)[None, :, None]
        along = tensor(self.along[part])[:, None] + row * tensor(self.height[part])[:, None, None]
        length = tensor(self.square[part])[:, None] + 2 * row * tensor(self.cross[part])[:, None] + row**2
        tilt = 1 + tensor(self.tilt[part, :1])[:, None] + row * tensor(self.tilt[part, 1:])[:, None]
        return along / length.sqrt() / tilt


@dataclass(frozen=True)
class _Plan:
    """How wide rows get, what they are filtered with, and how many views are worked on at a time."""

    views: ViewGeometry
    beside: int
    faded: int
    ramp: RampFilter
    row_cutoff: float | None
    block: int

    @classmethod
    def of(cls, views: ViewGeometry, fans: Fans, config: FdkConfig, truncated: bool, block_bytes: int) -> _Plan:
        rows, columns = views.detector.shape
        share = (_TRUNCATION_SHARE if truncated else 0.0) if config.truncation == "auto" else config.truncation
        faded = round(share * columns)
        beside = max(1, _columns_missing_on_one_side(fans))
        width = columns + 2 * max(beside, faded)
        radius = views.detector.curve_radius_mm
        pitch = views.detector.pitch_mm[1] if radius is None else _angular_pitch(views)
        ramp = RampFilter(width, pitch, radius is not None, config.window, config.cutoff)
        block = int(max(1, min(len(views), block_bytes // (4 * rows * ramp.length))))
        return cls(views, beside, faded, ramp, config.row_cutoff, block)

    @property
    def padded_views(self) -> ViewGeometry:
        """The same views on a detector with room for what the filter leaves beside it, and one row above and below."""
        detector = self.views.detector
        rows, columns = detector.shape
        wider = Detector((rows + 2, columns + 2 * self.beside), detector.pitch_mm, detector.curve_radius_mm)
        return self.views.with_detector(wider)

    def blocks(self) -> Iterator[slice]:
        """Yield ranges of views."""
        n = len(self.views)
        return (slice(first, min(first + self.block, n)) for first in range(0, n, self.block))

    def filtered(self, block: Tensor) -> Tensor:
        """Filter weighted views (views, rows, columns); the result also holds what lies just beside the detector."""
        if self.row_cutoff is not None:
            block = smooth_rows(block, self.row_cutoff)
        room = max(self.beside, self.faded)
        filtered = self.ramp.apply(extend(block, room, self.faded))
        filtered = filtered[..., room - self.beside : filtered.shape[-1] - room + self.beside]
        return torch.cat([filtered[:, :1], filtered, filtered[:, -1:]], dim=1)


def _columns_missing_on_one_side(fans: Fans) -> int:
    """By how many columns the detector reaches further on one side of the axis than on the other."""
    low, high = fans.edges_mm.mean(axis=0)
    pitch = abs(float(np.median(np.diff(fans.distance_mm, axis=1)))) if fans.distance_mm.shape[1] > 1 else np.inf
    return int(np.ceil(abs(low + high) / pitch - 1e-6))


def _angular_pitch(views: ViewGeometry) -> float:
    """Angle between neighbouring columns of a curved detector, as the source sees them."""
    return float(views.detector.pitch_mm[1] / np.median(np.linalg.norm(views.towards_detector, axis=1)))


def _obliquity(views: ViewGeometry) -> Float64:
    """How much of a step between columns of a parallel beam's detector lies across the rays, in the plane of the circle."""
    across = np.cross(np.asarray(views.ray_directions), views.axis)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    share: Float64 = np.abs(np.einsum("ki,ki->k", across, views.u))
    return share
