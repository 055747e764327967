"""Bodies whose area, volume and normals are known in closed form, and grids that stand in the patient in every way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import elliprg

from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.volume import Quantity, Volume

Float64 = NDArray[np.float64]
CENTRE_LPS_MM = np.array([13.0, -40.0, 200.0])
TURN = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid of three different axes, turned in space, so that nothing hides behind a symmetry."""

    semi_axes_mm: tuple[float, float, float] = (31.0, 22.0, 17.0)

    @property
    def volume_mm3(self) -> float:
        return float(4 / 3 * np.pi * np.prod(self.semi_axes_mm))

    @property
    def area_mm2(self) -> float:
        """Carlson's closed form."""
        a, b, c = (axis**2 for axis in self.semi_axes_mm)
        return float(4 * np.pi * elliprg(a * b, a * c, b * c))

    def depth_mm(self, points: Float64) -> Float64:
        """How far inside the points are, along the ray from the centre; negative outside."""
        away = points - CENTRE_LPS_MM
        far = np.linalg.norm(away, axis=-1)
        share = np.linalg.norm(away @ TURN / self.semi_axes_mm, axis=-1)
        depth: Float64 = np.where(far > 1e-9, far / np.maximum(share, 1e-12) - far, min(self.semi_axes_mm))
        return depth

    def outward(self, points: Float64) -> Float64:
        """Unit normals of the ellipsoids through the points."""
        gradient = (points - CENTRE_LPS_MM) @ TURN / np.square(self.semi_axes_mm) @ TURN.T
        normals: Float64 = gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)
        return normals

    def on(self, grid: Grid) -> Volume:
        return Volume(self.depth_mm(points_of(grid)).astype(np.float32), grid)


def points_of(grid: Grid) -> Float64:
    """LPS mm of every voxel centre, (slices, rows, columns, 3)."""
    return grid.to_lps(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))


def grid_around(matrix: Float64, half_mm: float = 34.0) -> Grid:
    """A grid with these index axes that holds a ball of `half_mm`, its middle a third of a voxel off the centre."""
    reach = half_mm * np.linalg.norm(np.linalg.inv(matrix), axis=1)  # of the ball along each index
    rows, columns, slices = (int(2 * np.ceil(n) + 3) for n in (reach[1], reach[2], reach[0]))
    shape = (slices, rows, columns)
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = CENTRE_LPS_MM - matrix @ ((np.array(shape) - 1) / 2 + 0.3)
    return Grid(shape, affine)


_OBLIQUE = Rotation.from_euler("xyz", [30, 40, -20], degrees=True).as_matrix()
_SHEAR = np.array([[1, 0.34, 0], [0, 1, 0.2], [0, 0, 1]])
STANDING: dict[str, Float64] = {
    "upright": np.eye(3)[:, ::-1],
    "anisotropic": np.eye(3)[:, ::-1] * [3.0, 0.9, 0.7],
    "oblique": _OBLIQUE * 1.1,
    "oblique and anisotropic": _OBLIQUE * [2.5, 0.8, 1.0],
    "flipped": _OBLIQUE * [1.0, -1.2, 1.0],
    "tilted gantry (sheared)": _OBLIQUE @ _SHEAR * [1.8, 0.9, 0.9],
    "sheared and flipped": _OBLIQUE @ _SHEAR * [1.0, 1.0, -1.3],
}


def all_48(volume: Volume) -> Iterator[Volume]:
    """Yield the same values at the same places, stored in all orders and directions of the three axes."""
    for order in itertools.permutations(range(3)):
        for steps in itertools.product((1, -1), repeat=3):
            turned = volume.voxels.transpose(order)[:: steps[0], :: steps[1], :: steps[2]]
            matrix = volume.grid.to_lps_mm[:3, order] * steps
            affine = np.eye(4)
            affine[:3, :3] = matrix
            first = np.where(np.array(steps) > 0, 0, np.array(turned.shape) - 1)
            affine[:3, 3] = volume.grid.origin_lps_mm + volume.grid.to_lps_mm[:3, order] @ first
            yield Volume(turned, Grid(turned.shape, affine), volume.quantity)


def face_normals(surface: Surface) -> Float64:
    """Normals (m, 3) of the triangles by the right hand, as long as twice their area."""
    a, b, c = (surface.vertices_lps_mm[corner] for corner in surface.triangles.T)
    return np.cross(b - a, c - a)


def inside_out(surface: Surface) -> Surface:
    return replace(surface, triangles=surface.triangles[:, ::-1])


def mirrored(surface: Surface) -> Surface:
    """The same surface with left and right exchanged about the bodies' centre, its triangles still wound outward."""
    mirror = surface.vertices_lps_mm * [-1, 1, 1] + [2 * CENTRE_LPS_MM[0], 0, 0]
    return replace(surface, vertices_lps_mm=mirror, triangles=surface.triangles[:, ::-1])


def chest(spacing_mm: tuple[float, float, float] = (3.0, 2.0, 2.0)) -> tuple[Volume, dict[str, float]]:
    """A chest in Hounsfield units, cut by the scan at both ends, on a hollow table; with the true volumes in mL.

    An elliptic cylinder of tissue (40) with a spine (700) and two elliptic cylinders of lung (-850), in air (-1000).
    """
    shape = (30, 110, 170)
    grid = Grid.from_parts(shape, spacing_mm, (-170.0, -110.0, 50.0))
    x, y = np.moveaxis(points_of(grid)[..., :2], -1, 0)

    def within(x0: float, y0: float, a: float, b: float) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = ((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 <= 1
        return inside

    voxels = np.full(shape, -1000.0)
    voxels[within(0, -10, 140, 85)] = 40
    for side in (-1, 1):
        voxels[within(side * 65, -15, 45, 60)] = -850
    voxels[within(0, 45, 18, 18)] = 700
    table = (np.abs(x) < 160) & (y > 80) & (y < 104)
    voxels[table] = -100
    voxels[table & (np.abs(x) < 156) & (y > 84) & (y < 100)] = -1000
    height_mm = shape[0] * spacing_mm[0]
    truth = {"lung": 2 * 45 * 60, "skin": 140 * 85 - 2 * 45 * 60, "bone": 18 * 18}  # the cut lungs are open to the outside
    return (
        Volume(voxels.astype(np.float32), grid, Quantity.HOUNSFIELD),
        {name: np.pi * area * height_mm / 1000 for name, area in truth.items()},
    )
