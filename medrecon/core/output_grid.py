"""Where the voxels of a result stand: the grid over everything that the slices of a scan have looked at.

A voxel belongs to the grid when its centre lies in the scanned box: no slice is cut off, none is invented. The box is
that of the images' outer pixel edges, thickened by half a slice thickness to both sides.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np

from medrecon.core.errors import GeometryError, UsageError
from medrecon.core.grid import Float64, Grid
from medrecon.core.scans import SlicePoses

GridAxes = Literal["scanner", "patient"]
Region = tuple[tuple[float, float, float], tuple[float, float, float]]

_SLACK = 1e-6  # in voxels: what a sum of spacings may be off by rounding


def plan_grid(
    poses: SlicePoses,
    spacing_mm: float | tuple[float, float, float] | None = None,
    axes: GridAxes = "scanner",
    region_lps_mm: Region | None = None,
) -> Grid:
    """Plan the voxels of a result.

    Along each axis the first voxel's outer face lies on the face of the scanned box, so for parallel slices

        first plane = z_first - T_first / 2 + dz / 2,
        planes      = floor((z_last + T_last / 2 - z_first + T_first / 2) / dz + 1 / 2), at least 1.

    In scanner axes the rows and columns of voxels hang on the outer pixel edges of the first image: with the
    image's own pixel spacing, voxel centres and pixel centres coincide. A tilted series gets an orthogonal grid too.

    Parameters
    ----------
    poses : SlicePoses
    spacing_mm : float or (slice, row, column), optional
        Isotropic by default, with the finest in-plane spacing.
    axes : {"scanner", "patient"}
        The first image's normal, row and column direction, or the patient's axes (head, back, left).
    region_lps_mm : ((x, y, z), (x, y, z)), optional
        Lowest and highest corner in LPS mm; the grid keeps the voxels whose centres lie in this box. Where the grid
        is oblique to it, the voxels in the grid-aligned hull of the box.

    Returns
    -------
    Grid

    Raises
    ------
    UsageError
        ``GRID-SPACING`` for a spacing that is not positive and finite.
    GeometryError
        ``GRID-REGION`` for a region without any voxel of the scan.
    """
    spacing = _spacing_mm(poses, spacing_mm)
    directions = _directions(poses) if axes == "scanner" else np.eye(3)[:, ::-1]
    faces = _slab_corners_lps_mm(poses) @ directions
    low, high = faces.min(axis=(0, 1)), faces.max(axis=(0, 1))
    anchor = low.copy()
    if axes == "scanner":
        anchor[1:] = faces[0].min(axis=0)[1:]  # the first image's outer pixel edges
    first = np.ceil((low - anchor) / spacing - 0.5 - _SLACK)
    last = np.floor((high - anchor) / spacing - 0.5 + _SLACK)
    slices, rows, columns = (int(n) for n in np.maximum(last - first + 1, 1))
    origin = directions @ (anchor + (first + 0.5) * spacing)
    grid = Grid.from_parts((slices, rows, columns), spacing, origin, directions)
    return grid if region_lps_mm is None else within_region(grid, region_lps_mm)


def within_region(grid: Grid, region: Region) -> Grid:
    """Keep the voxels whose centres lie in a box of patient space.

    Raises
    ------
    GeometryError
        ``GRID-REGION`` where there is none, with how far the grid reaches.
    """
    low, high = np.asarray(region, dtype=np.float64).reshape(2, 3)
    corners = grid.to_index(np.array(list(itertools.product(*zip(low, high, strict=True)))))
    first = np.maximum(np.ceil(corners.min(axis=0) - _SLACK), 0)
    last = np.minimum(np.floor(corners.max(axis=0) + _SLACK), np.asarray(grid.shape) - 1)
    if not np.isfinite(corners).all() or (low > high).any() or (last < first).any():
        scanned = grid.corners_lps_mm()
        reach = f"{_rounded(scanned.min(axis=0))} to {_rounded(scanned.max(axis=0))}"
        raise GeometryError(
            "GRID-REGION",
            f"the region {low.tolist()} to {high.tolist()} mm (LPS) holds no voxel of the scanned volume",
            f"The scan reaches from {reach} mm.",
        )
    start_slice, start_row, start_column = (int(n) for n in first)
    slices, rows, columns = (int(n) for n in last - first + 1)
    return grid.crop((start_slice, start_row, start_column), (slices, rows, columns))


def grid_bytes(grid: Grid, bytes_per_voxel: int = 4) -> int:
    """Return the memory that the voxels of a grid take, as float32 by default."""
    return math.prod(grid.shape) * bytes_per_voxel


def _spacing_mm(poses: SlicePoses, wanted: float | tuple[float, float, float] | None) -> Float64:
    """Spacing (slice, row, column), checked."""
    given = poses.pixel_spacing_mm.min() if wanted is None else np.asarray(wanted, dtype=np.float64)
    if np.ndim(given) not in (0, 1) or np.size(given) not in (1, 3) or not (np.isfinite(given).all() and np.min(given) > 0):
        raise UsageError("GRID-SPACING", f"the voxel spacing must be one or three positive numbers, not {wanted}")
    return np.broadcast_to(given, 3).astype(np.float64)


def _directions(poses: SlicePoses) -> Float64:
    """Return normal, row and column direction of the first image as columns, made exactly perpendicular."""
    normal, across = poses.to_lps_mm[0, :3, 0], poses.to_lps_mm[0, :3, 2]
    across = across - (across @ normal) * normal
    across = across / np.linalg.norm(across)
    return np.stack([normal, np.cross(normal, across), across], axis=1)


def _slab_corners_lps_mm(poses: SlicePoses) -> Float64:
    """Corners of every image's slab: outer pixel edges, half a thickness before and behind, (n, 8, 3)."""
    rows, columns = poses.image_shape
    sides = np.array(list(itertools.product((-0.5, 0.5), (-0.5, rows - 0.5), (-0.5, columns - 0.5))))
    depth = sides[None, :, 0] * poses.thickness_mm[:, None]
    pixels = np.broadcast_to(sides[:, 1:], (len(poses), 8, 2))
    ones = np.ones((len(poses), 8, 1))
    corners: Float64 = np.einsum("nij,nkj->nki", poses.to_lps_mm[:, :3], np.concatenate([depth[..., None], pixels, ones], axis=2))
    return corners


def _rounded(point: Float64) -> list[float]:
    return [round(float(v), 1) for v in point]
