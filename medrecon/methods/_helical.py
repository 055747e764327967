"""Filtered back projection along a helix: rays sorted into parallel fans, and the turns that see a voxel averaged.

Every ray is looked up by its angle phi and its distance t from the axis, so that the ramp runs along t as in a parallel
beam, and by the slope v at which it climbs. A voxel is seen at phi, and at phi + pi, phi + 2 pi ... from further along
the helix; for every phi of a half turn these are averaged with weights that fall to 0 towards the detector's upper and
lower edge:

    f(x) = pi / N sum over phi of [sum_k w(v_k) q_k(t_k, v_k)] / [sum_k w(v_k)].

Stierstorfer et al. 2004, Phys. Med. Biol. 49, 2209. A flat detector's rows are looked up at the same slopes as a curved
one's. A focal spot that jumps is taken for several helices, each of which is reconstructed by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Float64, Grid
from medrecon.core.progress import Tick
from medrecon.core.views import ViewGeometry
from medrecon.methods._detector_rows import extend, fill_unmeasured, is_truncated
from medrecon.methods._iterations import part_of
from medrecon.methods._ramp import RampFilter, smooth_rows
from medrecon.methods._redundancy import Fans, frame_about
from medrecon.operators.xray_transform import XRayTransform

if TYPE_CHECKING:
    from medrecon.methods.fdk import FdkConfig

_FEWEST_TURNS = 0.6
_STEADY = 0.99  # correlation of height and angle
_FLAT_TOP = 0.6  # of the detector's height, within which every row counts fully
_JUMP = 0.25  # of a pixel at the axis, beyond which the source does not move smoothly
_MOST_SPOTS = 4
_VOXELS_AT_ONCE = 1 << 21
_TRUNCATION_SHARE = 0.25
_LEAST_WEIGHT = 1e-4


def is_helical(views: ViewGeometry) -> bool:
    """Whether the source climbs along its axis as it turns, by more than a detector row in more than half a turn."""
    if views.is_parallel or len(views) < 3:
        return False
    order = _in_order(views)
    angle = np.unwrap(Fans.of(views.take(order)).azimuth_rad)
    height = np.asarray(views.sources_lps_mm)[order] @ views.axis
    row_mm = views.detector.pitch_mm[0] / float(np.median(views.magnification))
    if np.ptp(angle) < _FEWEST_TURNS * 2 * np.pi or np.ptp(height) < max(row_mm, 1e-9):
        return False
    return bool(abs(np.corrcoef(angle, height)[0, 1]) > _STEADY)


def reconstruct(A: XRayTransform, y: Tensor, config: FdkConfig, tick: Tick) -> Tensor:
    """Return the volume (slices, rows, columns) of helical projections (views, rows, columns)."""
    if A.views.detector.shape[0] < 2:
        raise GeometryError(
            "PRJ-FEW", "a helical scan with one detector row has no slopes to weigh", "Use an iterative method, such as cgls."
        )
    device = torch.device(A.device or y.device)
    spots = _focal_spots(A.views, _in_order(A.views))
    total = torch.zeros(A.domain, device=device)
    for number, views in enumerate(spots):
        helix = _Helix.of(A.views.take(views))
        which = torch.from_numpy(views)
        measured = None if A.measured is None else A.measured[which]
        filtered = helix.filtered(y[which], measured, config, device)
        total += helix.backproject(filtered, A.grid, part_of(tick, number / len(spots), (number + 1) / len(spots)))
    return total / len(spots)


@dataclass(frozen=True, eq=False)
class _Helix:
    """Where every ray (phi, t, slope) is found in the views.

    Parameters
    ----------
    phi_rad : (m,)
        Rising in steps of pi / half_turn; at each of them all t were measured.
    half_turn : int
        Steps in half a turn.
    t_mm : (columns,)
        Evenly spaced distances from the axis.
    slope : (rows,)
        Evenly spaced: height gained per mm across the axis.
    view : (m, columns)
        Fractional number of the view that holds the ray.
    source_mm : (m, columns)
        Height of that view's source along the axis.
    column : (views, columns)
        Fractional detector column of each t.
    row_offset, row_gain : (views, columns)
        Fractional detector row is offset + gain * slope, at each t.
    radius_mm : float
    frame : (3, 3)
        Two directions across the axis, from which angles count, and the axis.
    origin_lps_mm : (3,)
    """

    phi_rad: Float64
    half_turn: int
    t_mm: Float64
    slope: Float64
    view: Float64
    source_mm: Float64
    column: Float64
    row_offset: Float64
    row_gain: Float64
    radius_mm: float
    frame: Float64
    origin_lps_mm: Float64

    @classmethod
    def of(cls, views: ViewGeometry) -> _Helix:
        """Sort the rays of views that follow one another around the axis with rising angle."""
        fans, axis, rows = Fans.of(views), views.axis, views.detector.shape[0]
        angle, radius = np.unwrap(fans.azimuth_rad), float(np.median(fans.radius_mm))
        half_turn = max(2, round(np.pi / float(np.diff(angle).mean())))
        first, last = angle[0] + np.pi + fans.half_fan_rad, angle[-1] + np.pi - fans.half_fan_rad
        phi = first + np.arange(int((last - first) / np.pi * half_turn) + 1) * np.pi / half_turn
        t_mm = _even_distances(fans)
        beta = phi[:, None] - np.pi + np.arcsin(t_mm / radius)
        height = (np.asarray(views.sources_lps_mm) - views.isocentre) @ axis
        column = np.stack([_place(t_mm, t) for t in fans.distance_mm])
        offset, gain = _rows_per_slope(views, axis, column)
        steepest = ((-offset / gain).max(), ((rows - 1 - offset) / gain).min())
        return cls(
            phi,
            half_turn,
            t_mm,
            np.linspace(*steepest, rows),
            np.interp(beta, angle, np.arange(len(angle))),
            np.interp(beta, angle, height),
            column,
            offset,
            gain,
            radius,
            frame_about(axis),
            views.isocentre,
        )

    def filtered(self, y: Tensor, measured: Tensor | None, config: FdkConfig, device: torch.device) -> Tensor:
        """Return the filtered rays (m, rows, columns) of projections (views, rows, columns)."""
        columns = len(self.t_mm)
        share = (_TRUNCATION_SHARE if is_truncated(y) else 0.0) if config.truncation == "auto" else config.truncation
        faded = round(share * columns)
        ramp = RampFilter(columns + 2 * faded, float(self.t_mm[1] - self.t_mm[0]), False, config.window, config.cutoff)
        sampled = self._sampled(y, measured, device)
        cosine = torch.from_numpy(1 / np.sqrt(1 + self.slope**2)).to(sampled)[:, None]
        result = sampled.new_empty((len(self.phi_rad), *sampled.shape[2:0:-1]))
        for m in range(len(result)):
            rays = self._between_views(sampled, m).T * cosine
            if config.row_cutoff is not None:
                rays = smooth_rows(rays, config.row_cutoff)
            result[m] = ramp.apply(extend(rays, faded, faded))[:, faded : faded + columns]
        return result

    def backproject(self, filtered: Tensor, grid: Grid, tick: Tick) -> Tensor:
        """Return the volume (slices, rows, columns) of filtered rays (m, rows, columns)."""
        volume = filtered.new_empty(grid.shape)
        slices = max(1, _VOXELS_AT_ONCE // (grid.shape[1] * grid.shape[2]))
        for first in range(0, grid.shape[0], slices):
            last = min(first + slices, grid.shape[0])
            x, y, z = self._points(grid, first, last, filtered)
            total = torch.zeros_like(z)
            for start in range(self.half_turn):
                total += self._averaged(filtered, start, x, y, z)
            volume[first:last] = total * (np.pi / self.half_turn)
            tick(last / grid.shape[0])
        return volume

    def _sampled(self, y: Tensor, measured: Tensor | None, device: torch.device) -> Tensor:
        """Look the views up at even slopes and distances: (views, columns, rows)."""
        views, rows, columns = y.shape
        slope = torch.from_numpy(self.slope).to(device, torch.float32)[:, None]
        result = torch.empty((views, len(self.t_mm), rows), device=device)
        for k in range(views):
            image = y[k].to(device, torch.float32)
            if measured is not None:
                image = fill_unmeasured(image, measured[k].to(device))
            offset, gain, column = (
                torch.from_numpy(a[k]).to(device, torch.float32) for a in (self.row_offset, self.row_gain, self.column)
            )
            row = offset + gain * slope
            at = torch.stack([(2 * column / (columns - 1) - 1).expand_as(row), 2 * row / (rows - 1) - 1], dim=-1)
            found = torch.nn.functional.grid_sample(image[None, None], at[None], align_corners=True, padding_mode="border")
            result[k] = found[0, 0].T
        return result

    def _between_views(self, sampled: Tensor, m: int) -> Tensor:
        """Interpolate the rays of one phi between the views: (columns, rows)."""
        number = np.clip(self.view[m], 0, len(sampled) - 1)
        low = np.minimum(number.astype(np.int64), len(sampled) - 2)
        share = torch.from_numpy(number - low).to(sampled)[:, None]
        before = torch.from_numpy(low).to(sampled.device)
        columns = torch.arange(len(self.t_mm), device=sampled.device)
        return torch.lerp(sampled[before, columns], sampled[before + 1, columns], share)

    def _points(self, grid: Grid, first: int, last: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates of voxels in the helix's frame, each (slices, rows, columns)."""
        to_frame = np.eye(4)
        to_frame[:3, :3], to_frame[:3, 3] = self.frame, -self.frame @ self.origin_lps_mm
        affine = torch.from_numpy((to_frame @ grid.to_lps_mm)[:3]).to(like)
        i, j, k = (
            torch.arange(*ends, device=like.device, dtype=like.dtype) for ends in ((first, last), *((n,) for n in grid.shape[1:]))
        )
        x, y, z = (a[0] * i[:, None, None] + a[1] * j[:, None] + a[2] * k + a[3] for a in affine)
        return x, y, z

    def _averaged(self, filtered: Tensor, start: int, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Average what a phi and all its half turns give to the voxels."""
        values, weights = torch.zeros_like(z), torch.zeros_like(z)
        for m in self._that_see(start, float(z.min()), float(z.max()), float((x**2 + y**2).max()) ** 0.5):
            value, weight = self._looked_up(filtered[m], m, x, y, z)
            values += weight * value
            weights += weight
        return values / weights.clamp(min=_LEAST_WEIGHT)

    def _that_see(self, start: int, lowest: float, highest: float, reach: float) -> Iterator[int]:
        """Yield the half turns of a phi whose rays come to heights between two."""
        far = self.radius_mm + reach
        for m in range(start, len(self.phi_rad), self.half_turn):
            rays = (self.slope[[0, -1]] * far).clip(self.slope[[0, -1]].min() * far, self.slope[[0, -1]].max() * far)
            if self.source_mm[m].min() + min(rays.min(), 0) <= highest and self.source_mm[m].max() + max(rays.max(), 0) >= lowest:
                yield m

    def _looked_up(self, rays: Tensor, m: int, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Value and weight of every voxel in the filtered rays (rows, columns) of one phi."""
        cos, sin = float(np.cos(self.phi_rad[m])), float(np.sin(self.phi_rad[m]))
        t = x * sin - y * cos
        along = x * cos + y * sin + (self.radius_mm**2 - t**2).clamp(min=0).sqrt()
        column = (t - float(self.t_mm[0])) / float(self.t_mm[1] - self.t_mm[0])
        c = column.floor().clamp(0, len(self.t_mm) - 2)
        share = column - c
        source = torch.from_numpy(self.source_mm[m]).to(z)
        left = c.long()
        slope = (z - torch.lerp(source[left], source[left + 1], share)) / along
        row = (slope - float(self.slope[0])) / float(self.slope[1] - self.slope[0])
        r = row.floor().clamp(0, len(self.slope) - 2)
        lift = row - r
        flat, index = rays.reshape(-1), r.long() * rays.shape[1] + left
        below = torch.lerp(flat[index], flat[index + 1], share)
        above = torch.lerp(flat[index + rays.shape[1]], flat[index + rays.shape[1] + 1], share)
        weight = self._weight(row) * ((share >= 0) & (share <= 1))
        return torch.lerp(below, above, lift), weight

    def _weight(self, row: Tensor) -> Tensor:
        """1 in the middle of the detector, falling as cos^2 to 0 at its first and last row."""
        half = (len(self.slope) - 1) / 2
        beyond = ((row / half - 1).abs() - _FLAT_TOP) / (1 - _FLAT_TOP)
        return torch.cos(torch.pi / 2 * beyond.clamp(0, 1)) ** 2


def _in_order(views: ViewGeometry) -> np.ndarray:
    """Numbers of the views along the helix, the source's angle rising: as they come, or by height if they were shuffled."""
    order = np.arange(len(views))
    azimuth = Fans.of(views).azimuth_rad
    if np.abs(np.diff(np.unwrap(azimuth))).max() > np.pi / 2:
        order = np.argsort(np.asarray(views.sources_lps_mm) @ views.axis, kind="stable")
    angle = np.unwrap(azimuth[order])
    return order if angle[-1] > angle[0] else np.ascontiguousarray(order[::-1])


def _focal_spots(views: ViewGeometry, order: np.ndarray) -> list[np.ndarray]:
    """Split the views so that in each part the source moves smoothly: one part for each focal spot."""
    sources = np.asarray(views.sources_lps_mm)[order]
    limit = _JUMP * min(views.detector.pitch_mm) / float(np.median(views.magnification))
    for spots in range(1, _MOST_SPOTS + 1):
        jumps = [np.abs(np.diff(_in_turning_frame(sources[k::spots], views), 2, axis=0)) for k in range(spots)]
        if max(float(jump.max()) for jump in jumps) < limit:
            return [np.ascontiguousarray(order[k::spots]) for k in range(spots)]
    return [order]


def _in_turning_frame(sources: Float64, views: ViewGeometry) -> Float64:
    """Distance from the axis, way around it and height, mm, (n, 3)."""
    across = (sources - views.isocentre) @ frame_about(views.axis).T
    radius = np.linalg.norm(across[:, :2], axis=1)
    around = np.unwrap(np.arctan2(across[:, 1], across[:, 0])) * radius.mean()
    return np.stack([radius, around, across[:, 2]], axis=1)


def _even_distances(fans: Fans) -> Float64:
    """Distances from the axis that all views measured, as many as there are columns."""
    inner = np.sort(fans.distance_mm[:, [0, -1]], axis=1)
    return np.linspace(inner[:, 0].max(), inner[:, 1].min(), fans.distance_mm.shape[1])


def _place(t_mm: Float64, of_columns_mm: Float64) -> Float64:
    """Fractional column at which a view sees each t."""
    columns = np.arange(len(of_columns_mm), dtype=np.float64)
    rising = of_columns_mm[-1] > of_columns_mm[0]
    known, at = (of_columns_mm, columns) if rising else (of_columns_mm[::-1], columns[::-1])
    return np.asarray(np.interp(t_mm, known, at))


def _rows_per_slope(views: ViewGeometry, axis: Float64, column: Float64) -> tuple[Float64, Float64]:
    """Row at slope 0, and rows per slope, at fractional columns (views, columns)."""
    rays = views.column_points_lps_mm() - np.asarray(views.sources_lps_mm)[:, None]
    climb = rays @ axis
    across = np.linalg.norm(rays - climb[..., None] * axis, axis=2)
    rows_per_mm = 1 / (views.detector.pitch_mm[0] * (views.v @ axis))[:, None]
    numbers = np.arange(rays.shape[1])
    climb, across = (
        np.stack([np.interp(c, numbers, v) for c, v in zip(column, values, strict=True)]) for values in (climb, across)
    )
    return (views.detector.shape[0] - 1) / 2 - climb * rows_per_mm, across * rows_per_mm
