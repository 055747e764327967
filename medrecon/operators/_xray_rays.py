"""The rays of a scan in the index coordinates of a grid: what every X-ray back end starts from.

The model, the same in all back ends (Joseph 1982, IEEE Trans. Med. Imaging 1, 192): a ray crosses the planes of the
index axis along which it moves fastest, in voxels; at each plane the volume is interpolated bilinearly, with zero
outside; the sum is multiplied by the length in mm of the ray between two planes. Only planes between source and pixel
count. Everything here is float64; a back end rounds what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrecon.core.grid import Float64, Grid
from medrecon.core.views import ViewGeometry

#: An axis must lead by this much to win, so that rays at exactly 45 degrees fall alike in every back end.
AXIS_PREFERENCE = (1.0, 1.0 + 1e-6, 1.0 + 2e-6)


@dataclass(frozen=True, slots=True, eq=False)
class Rays:
    """Pixels and sources of all views in index coordinates (slice, row, column) of a grid.

    Parameters
    ----------
    columns : (n, columns, 3)
        Pixel (row 0, column c) of each view.
    row_step : (n, 3)
        From one detector row to the next.
    origins : (n, 3)
        The source; for a parallel beam the step towards the source, of any length.
    parallel : bool
    to_mm : (3, 3)
        From index steps to mm.
    grid_shape : (slices, rows, columns)
    detector_shape : (rows, columns)
    """

    columns: Float64
    row_step: Float64
    origins: Float64
    parallel: bool
    to_mm: Float64
    grid_shape: tuple[int, int, int]
    detector_shape: tuple[int, int]

    @classmethod
    def of(cls, views: ViewGeometry, grid: Grid) -> Rays:
        """Express the rays of `views` in the index coordinates of `grid`."""
        to_mm = grid.to_lps_mm[:3, :3]
        to_index = np.linalg.inv(to_mm)
        detector = views.detector
        first_row = float(detector.row_mm(0))
        columns = grid.to_index(views.column_points_lps_mm() + first_row * views.v[:, None])
        if views.sources_lps_mm is None:
            origins = -np.asarray(views.ray_directions) @ to_index.T
        else:
            origins = grid.to_index(views.sources_lps_mm)
        row_step = detector.pitch_mm[0] * views.v @ to_index.T
        return cls(columns, row_step, origins, views.is_parallel, to_mm, grid.shape, detector.shape)

    def __len__(self) -> int:
        return len(self.origins)

    def take(self, first: int, last: int) -> Rays:
        """Return the rays of a range of views."""
        part = slice(first, last)
        return Rays(
            self.columns[part],
            self.row_step[part],
            self.origins[part],
            self.parallel,
            self.to_mm,
            self.grid_shape,
            self.detector_shape,
        )

    def towards_source(self, row: float) -> Float64:
        """Step from each pixel of one detector row to the source, (n, columns, 3)."""
        if self.parallel:
            return np.broadcast_to(self.origins[:, None], self.columns.shape)
        step: Float64 = self.origins[:, None] - self.columns - row * self.row_step[:, None]
        return step


def vertical_axis(rays: Rays) -> int | None:
    """Return the index axis along which the rows of every view step, if there is one and no ray runs mainly along it.

    Then all pixels of a detector column lie above each other over the volume, and so do their crossings with a plane.
    """
    reach = np.abs(rays.row_step).max(axis=0) * rays.detector_shape[0]
    axis = int(np.argmax(reach))
    others = [a for a in range(3) if a != axis]
    along = rays.row_step[:, axis]
    if reach[others].max() > 1e-4 or not (np.all(along > 0) or np.all(along < 0)):
        return None
    for row in (0, rays.detector_shape[0] - 1):
        step = np.abs(rays.towards_source(row)) * np.asarray(AXIS_PREFERENCE)
        if (step[..., axis] >= step[..., others].max(axis=-1)).any():
            return None
    return axis


def main_axis(rays: Rays, axes: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether the rays of each column move faster along the second of two axes than along the first, (n, columns).

    Only for rays with a `vertical_axis`, where all rays of a column agree.
    """
    step = np.abs(rays.towards_source(0)) * np.asarray(AXIS_PREFERENCE)
    first, second = axes
    return np.asarray(step[..., second] > step[..., first])
