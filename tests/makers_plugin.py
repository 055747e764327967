"""Scans whose every voxel tells where it came from, for tests of what the screen shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

import medrecon as mr
from tests.makers_dicom import AXIAL, CORONAL, SAGITTAL, make_series, plan_series

Float64 = NDArray[np.float64]

#: Where the one marker of `make_marked_series` sits, in half extents from the middle: left, front and head of it.
MARKER = np.array([0.5, -0.5, 0.5])
MARKER_VALUE = 1000.0
BODY_VALUE = 100.0


def turned(orientation: Sequence[float], degrees: Sequence[float]) -> tuple[float, ...]:
    """Return an orientation turned about x, y and z by these angles."""
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    first, second = (turn @ np.asarray(orientation[at : at + 3]) for at in (0, 3))
    return (*first.tolist(), *second.tolist())


#: ImageOrientationPatient of the ways in which series are acquired.
ORIENTATIONS: Mapping[str, tuple[float, ...]] = {
    "axial": AXIAL,
    "axial, rows from the back": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "axial, columns from the left": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "axial, feet first and face down": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "sagittal, from the back": (0.0, -1.0, 0.0, 0.0, 0.0, -1.0),
    "axial, nodding": turned(AXIAL, (18.0, 0.0, 0.0)),
    "coronal, doubly oblique": turned(CORONAL, (12.0, -9.0, 6.0)),
    "sagittal, doubly oblique": turned(SAGITTAL, (-7.0, 11.0, 14.0)),
}


def make_marked_series(folder: Path, orientation: Sequence[float], tilt_deg: float = 0.0) -> list[Path]:
    """Write a series with one bright ball at the left, front and head of a body's middle."""
    shape, spacing = (14, 40, 36), (5.0, 2.0, 2.0)
    plan = plan_series(shape=shape, spacing_mm=spacing, orientation=orientation, tilt_deg=tilt_deg, pixels=np.zeros(shape))
    across = np.arange(shape[2])[:, None] * plan.orientation[:3] * spacing[2]
    down = np.arange(shape[1])[:, None] * plan.orientation[3:] * spacing[1]
    points = plan.positions_lps_mm[:, None, None] + down[None, :, None] + across[None, None]
    middle = points.reshape(-1, 3).mean(axis=0)
    away = np.linalg.norm(points - middle - MARKER * 30.0, axis=-1)
    body = np.linalg.norm(points - middle, axis=-1) < 34.0
    values = np.where(away < 8.0, MARKER_VALUE, np.where(body, BODY_VALUE, -1000.0))
    return make_series(
        folder, shape=shape, spacing_mm=spacing, thickness_mm=5.0, orientation=orientation, tilt_deg=tilt_deg, pixels=values
    )


def a_volume(values: ArrayLike, grid: mr.Grid, quantity: str = "arbitrary") -> mr.Volume:
    """Return a volume of any numbers."""
    return mr.Volume(np.asarray(values, dtype=np.float32), grid, mr.Quantity(quantity))


def a_surface(vertices_lps_mm: ArrayLike, triangles: ArrayLike, name: str = "surface") -> mr.Surface:
    """Return a surface of any numbers."""
    return mr.Surface(np.asarray(vertices_lps_mm, dtype=np.float64), np.asarray(triangles, dtype=np.int64), name)
