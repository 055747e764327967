"""How a voxel index becomes a detector position: what every FDK back projector starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medrecon.core._view_projection import oblique
from medrecon.core.grid import Float64, Grid
from medrecon.core.views import ViewGeometry

Beam = Literal["parallel", "flat", "curved"]


@dataclass(frozen=True, slots=True, eq=False)
class DetectorTables:
    """The projection of every view as affine maps, in mm along the detector's own axes.

    Parameters
    ----------
    beam : str
        ``parallel``, ``flat`` or ``curved`` (diverging, by the detector's shape).
    frames : (n, 3, 4)
        Map (slice, row, column, 1) to mm along u, normal and v, from the source; for a parallel beam along u and v of
        the detector, sliding along the rays.
    distances : (n,)
        Source to detector (flat), radius (curved), 1 (parallel).
    piercing : (n, 2)
        Where (0, 0) of the frame lies on the detector, along u and v from its centre (flat and parallel); where the
        source lies along u and normal from the cylinder's axis (curved).
    heights : (n,)
        Curved: height of the source above the detector's centre.
    pitch_mm : (row, column)
    detector_shape : (rows, columns)
    grid_shape : (slices, rows, columns)
    """

    beam: Beam
    frames: Float64
    distances: Float64
    piercing: Float64
    heights: Float64
    pitch_mm: tuple[float, float]
    detector_shape: tuple[int, int]
    grid_shape: tuple[int, int, int]

    @classmethod
    def of(cls, views: ViewGeometry, grid: Grid) -> DetectorTables:
        """Express the views' projections in the index coordinates of `grid`."""
        detector, n = views.detector, len(views)
        beam: Beam = "parallel" if views.is_parallel else "curved" if views.is_curved else "flat"
        if views.sources_lps_mm is None:
            axes = np.stack([oblique(views, views.u), views.normals, oblique(views, views.v)], axis=1)
            origin, distances, piercing, heights = views.centres_lps_mm, np.ones(n), np.zeros((n, 2)), np.zeros(n)
        else:
            axes = np.stack([views.u, views.normals, views.v], axis=1)
            origin, distances, piercing, heights = views.sources_lps_mm, views.source_detector_mm, views.piercing_mm, np.zeros(n)
        if detector.curve_radius_mm is not None and views.sources_lps_mm is not None:
            from_axis = origin - views.centres_lps_mm + detector.curve_radius_mm * views.normals
            along = np.einsum("kai,ki->ka", axes, from_axis)
            distances, piercing, heights = np.full(n, detector.curve_radius_mm), along[:, :2], along[:, 2]
        frames = np.einsum("kai,ij->kaj", axes, grid.to_lps_mm[:3])
        frames[:, :, 3] -= np.einsum("kai,ki->ka", axes, origin)
        return cls(beam, frames, distances, piercing, heights, detector.pitch_mm, detector.shape, grid.shape)

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, first: int, last: int) -> DetectorTables:
        """Return the tables of a range of views."""
        part = slice(first, last)
        return replace(
            self,
            frames=self.frames[part],
            distances=self.distances[part],
            piercing=self.piercing[part],
            heights=self.heights[part],
        )

    def vertical_axis(self) -> int | None:
        """Return the index axis that runs along v in every view, if there is one: then a column of voxels sees one column."""
        steps = self.frames[:, :, :3] * np.asarray(self.grid_shape)  # mm over the whole grid
        axis = int(np.argmax(np.abs(steps[:, 2]).mean(axis=0)))
        aside = np.abs(steps[:, :2, axis]).max()
        along = self.frames[:, 2, axis]
        if aside > 1e-4 * min(self.pitch_mm) or not (np.all(along > 0) or np.all(along < 0)):
            return None
        return axis
