"""The slices of a grid as DICOM sees them: in order along the normal that their rows and columns define.

A left-handed grid, or one whose slices run against that normal, is written in the opposite order; no row, column or
slice is ever mirrored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from medrecon.core.errors import GeometryError, OutputError
from medrecon.core.grid import Float64, Grid

_SMALL_COSINE = 1e-3
_MOST_PIXELS = 65535  # rows and columns are 16 bit numbers


@dataclass(frozen=True, slots=True)
class Planes:
    """The slices of a grid as DICOM sees them.

    Parameters
    ----------
    order : slice indices, along the normal
    across, down : unit vectors along growing column and row index, LPS
    pixel_spacing_mm : (between rows, between columns)
    step_mm : float
    positions_lps_mm : (n, 3), centre of the first pixel, in that order
    """

    order: tuple[int, ...]
    across: Float64
    down: Float64
    pixel_spacing_mm: tuple[float, float]
    step_mm: float
    positions_lps_mm: Float64

    def common(self) -> Dataset:
        """Return the attributes that all slices share."""
        image = Dataset()
        image.ImageOrientationPatient = decimals([*self.across, *self.down])
        image.PatientOrientation = [_letters(self.across), _letters(self.down)]
        image.PixelSpacing = decimals(self.pixel_spacing_mm)
        image.SliceThickness = image.SpacingBetweenSlices = decimals([self.step_mm])[0]
        return image

    def place(self, image: Dataset, number: int) -> None:
        """Give an image the position of slice `number` (from 1)."""
        position = self.positions_lps_mm[number - 1]
        image.ImagePositionPatient = decimals(position)
        image.SliceLocation = decimals([position @ self.normal])[0]

    @property
    def normal(self) -> Float64:
        """Unit vector from slice to slice."""
        normal: Float64 = np.cross(self.across, self.down)
        return normal


def planes_of(grid: Grid) -> Planes:
    """Order the slices of a grid along the normal that their rows and columns define."""
    if grid.is_sheared:
        raise GeometryError(
            "VOL-SHEARED",
            "the axes of the grid are not perpendicular, and DICOM slices are",
            "Reconstruct onto a box grid first.",
        )
    if max(grid.shape[1:]) > _MOST_PIXELS:
        raise OutputError("OUT-SIZE", f"DICOM holds {_MOST_PIXELS} rows and columns, the volume has {list(grid.shape[1:])}")
    left, _, right = np.linalg.svd(grid.directions[:, [2, 1]], full_matrices=False)
    across, down = (left @ right).T  # the nearest pair that is exactly perpendicular
    order = tuple(range(grid.shape[0]))
    if grid.directions[:, 0] @ np.cross(across, down) < 0:
        order = order[::-1]
    positions = grid.to_lps([(k, 0, 0) for k in order])
    step, *pixel_spacing = grid.spacing_mm
    return Planes(order, across, down, (pixel_spacing[0], pixel_spacing[1]), step, positions)


def _letters(direction: Float64) -> str:
    """Name a direction by the letters of the sides it points to, the nearest one first."""
    sides = [("L", "R"), ("P", "A"), ("H", "F")]
    near_first = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(sides[axis][int(direction[axis] < 0)] for axis in near_first if abs(direction[axis]) > _SMALL_COSINE)


def decimals(values: Iterable[float]) -> list[str]:
    """Return numbers as decimal strings, with as many digits as these hold; no minus before a zero."""
    return [format_number_as_ds(round(float(value), 12) + 0.0) for value in values]
