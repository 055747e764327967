"""Slices in the index space of a voxel grid: what both paths of the slice model share.

A pixel's ray runs along the slice normal. It crosses the planes of the grid axis that is most parallel to it; depth is
measured on it in millimetres from the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrecon.core.grid import Float64, Grid
from medrecon.core.profile import SliceProfile
from medrecon.core.scans import SlicePoses

#: How far beyond the outermost voxel faces a point may lie and still count as inside, in voxels: rounding only.
SLACK = 1e-3


@dataclass(frozen=True, eq=False)
class SliceGeometry:
    """Poses of n slices, in voxel indices of a grid.

    Parameters
    ----------
    start : (n, 3)
        Index of the centre of pixel (0, 0).
    down, across : (n, 3)
        Index step to the next row, to the next column.
    along : (n, 3)
        Index step per millimetre of depth.
    axis : (n,)
        The grid axis most parallel to the normal.
    thickness_mm : (n,)
        Thickness to which the profile is stretched before it is integrated over the cells, see `cell_thickness`.
    profile : SliceProfile
    image_shape : (rows, columns)
    grid_shape : (slices, rows, columns)
    """

    start: Float64
    down: Float64
    across: Float64
    along: Float64
    axis: NDArray[np.int64]
    thickness_mm: Float64
    profile: SliceProfile
    image_shape: tuple[int, int]
    grid_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.start)

    @property
    def plane_step_mm(self) -> Float64:
        """Distance between grid planes along each slice's ray, (n,)."""
        step: Float64 = 1 / np.abs(self.along[np.arange(len(self)), self.axis])
        return step

    @property
    def reach_planes(self) -> Float64:
        """How many plane distances before and behind its pixel a slice still weighs, (n,)."""
        reach: Float64 = self.profile.reach * self.thickness_mm / self.plane_step_mm + 0.5
        return reach

    def positions_per_pixel(self, k: int) -> tuple[int, int]:
        """Sub-positions along rows and columns over which a pixel of slice `k` is averaged: one unless it exceeds a voxel."""
        down, across = (max(1, int(np.ceil(np.linalg.norm(step[k]) - SLACK))) for step in (self.down, self.across))
        return down, across


def slice_geometry(poses: SlicePoses, grid: Grid) -> SliceGeometry:
    """Express slice poses in the index space of a grid."""
    to_index = np.linalg.inv(grid.to_lps_mm) @ poses.to_lps_mm
    along, down, across, start = (np.ascontiguousarray(to_index[:, :3, column]) for column in range(4))
    axis = np.argmax(np.abs(along * np.asarray(grid.spacing_mm)), axis=1)
    step_mm = 1 / np.abs(along[np.arange(len(along)), axis])
    thickness = cell_thickness(poses.profile, poses.thickness_mm, step_mm)
    return SliceGeometry(start, down, across, along, axis, thickness, poses.profile, poses.image_shape, grid.shape)


def cell_thickness(profile: SliceProfile, thickness_mm: Float64, plane_step_mm: Float64) -> Float64:
    """Return the thickness to use for a profile that is integrated over cells of the grid.

    Integrating over a plane's cell widens the profile by the cell: its variance grows by h^2 / 12. That is taken off
    beforehand, so that a row of A has the variance of the true profile. Measured on a thin T1 scan sliced with box,
    bell and Gaussian at odd offsets, this is as good as sampling the profile at the planes where that is good (bell and
    Gaussian, 0.0 dB apart) and far better where it is not (thin boxes, whose few samples alias: up to 3 dB); plain
    cell integrals lose up to 1 dB where slices are hardly thicker than voxels. What is thinner than a voxel cannot be
    resolved and counts as one voxel thick.
    """
    widening = plane_step_mm**2 / 12 / profile.variance
    corrected: Float64 = np.sqrt(np.maximum(thickness_mm**2 - widening, plane_step_mm**2))
    return corrected


def depth_weights(geometry: SliceGeometry, k: int) -> Float64:
    """Weights of all planes of the grid in slice `k` where its ray runs straight along one axis, not normalised."""
    axis = geometry.axis[k]
    faces = np.arange(geometry.grid_shape[axis] + 1) - 0.5 - geometry.start[k, axis]
    depth = faces / geometry.along[k, axis] / geometry.thickness_mm[k]
    weights: Float64 = np.abs(np.diff(geometry.profile.cumulative(depth)))
    return weights
