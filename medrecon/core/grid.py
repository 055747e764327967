"""A box of voxels standing in the patient, without voxel values.

Space is DICOM LPS in millimetres. An index ``(slice, row, column)`` names the centre of a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import GeometryError

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A box of voxels in the patient.

    Parameters
    ----------
    shape : (slices, rows, columns)
    to_lps_mm : (4, 4) float64
        Maps ``(slice, row, column, 1)`` to patient millimetres (LPS).

    Raises
    ------
    GeometryError
        ``GRID-SHAPE`` for a size below one, ``GRID-SINGULAR`` for a matrix that cannot be inverted.
    """

    shape: tuple[int, int, int]
    to_lps_mm: Float64

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError("GRID-SHAPE", f"a grid needs three sizes of at least 1, not {list(shape)}")
        affine = np.array(self.to_lps_mm, dtype=np.float64)  # our own copy
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not _invertible(affine[:3, :3]):
            raise GeometryError("GRID-SINGULAR", f"the voxel-to-patient matrix cannot be inverted: {affine.tolist()}")
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "to_lps_mm", affine)

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.shape, self.to_lps_mm)

    @classmethod
    def from_parts(
        cls, shape: tuple[int, int, int], spacing_mm: ArrayLike, origin_lps_mm: ArrayLike, directions: ArrayLike | None = None
    ) -> Self:
        """Build a grid from spacing (slice, row, column), the centre of voxel 0 and a direction matrix.

        Parameters
        ----------
        directions : (3, 3), optional
            Column ``k`` is the unit LPS vector along index axis ``k`` (slice, row, column). Without it the axes are
            slice = +z (head), row = +y (back), column = +x (left).
        """
        axes = np.eye(3)[:, ::-1] if directions is None else np.asarray(directions, dtype=np.float64)
        affine = np.eye(4)
        affine[:3, :3] = axes * np.asarray(spacing_mm, dtype=np.float64)
        affine[:3, 3] = np.asarray(origin_lps_mm, dtype=np.float64)
        return cls(shape, affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along slice, row and column, in mm."""
        slices, rows, columns = (float(v) for v in np.linalg.norm(self.to_lps_mm[:3, :3], axis=0))
        return slices, rows, columns

    @property
    def directions(self) -> Float64:
        """Unit LPS vectors of the index axes as columns, (3, 3)."""
        directions: Float64 = self.to_lps_mm[:3, :3] / np.asarray(self.spacing_mm)
        return directions

    @property
    def origin_lps_mm(self) -> Float64:
        """Centre of voxel (0, 0, 0) in LPS mm."""
        origin: Float64 = self.to_lps_mm[:3, 3]
        return origin

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.to_lps_mm[:3, :3])))

    @property
    def is_sheared(self) -> bool:
        """Whether the index axes are not perpendicular (more than 1e-4 in any cosine, about 0.006 degrees)."""
        gram = self.directions.T @ self.directions
        return bool(np.abs(gram - np.eye(3)).max() > 1e-4)

    @property
    def is_left_handed(self) -> bool:
        """Whether (slice, row, column) form a left-handed triple in LPS."""
        return bool(np.linalg.det(self.to_lps_mm[:3, :3]) < 0)

    def to_lps(self, indices: ArrayLike) -> Float64:
        """Map indices (..., 3) as (slice, row, column) to LPS mm (..., 3)."""
        points: Float64 = np.asarray(indices, dtype=np.float64) @ self.to_lps_mm[:3, :3].T + self.to_lps_mm[:3, 3]
        return points

    def to_index(self, points_lps_mm: ArrayLike) -> Float64:
        """Map LPS mm (..., 3) to fractional indices (..., 3)."""
        inverse = np.linalg.inv(self.to_lps_mm[:3, :3])
        indices: Float64 = (np.asarray(points_lps_mm, dtype=np.float64) - self.to_lps_mm[:3, 3]) @ inverse.T
        return indices

    def corners_lps_mm(self) -> Float64:
        """Return the eight corner voxel centres in LPS mm, (8, 3)."""
        last = np.asarray(self.shape) - 1
        return self.to_lps(np.stack(np.meshgrid(*([0, n] for n in last), indexing="ij"), axis=-1).reshape(8, 3))

    def crop(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """Return the part that begins at index `start` and has `shape`; it may reach beyond this grid."""
        affine = self.to_lps_mm.copy()
        affine[:3, 3] = self.to_lps(start)
        return Grid(shape, affine)

    def same_place(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether the two grids have the same shape and all corners within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners_lps_mm() - other.corners_lps_mm()).max() <= tolerance_mm)


def _invertible(matrix: Float64) -> bool:
    """Whether no axis is (nearly) a mix of the others; spacings may differ widely, so columns are normalised first."""
    lengths = np.linalg.norm(matrix, axis=0)
    return bool(lengths.min() > 1e-9 and np.linalg.cond(matrix / lengths) < 1e6)
