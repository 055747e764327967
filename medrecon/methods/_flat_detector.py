"""Curved detectors on which neighbouring columns are not seen under equal angles, looked at as flat ones.

Filtering needs equal steps in angle or on a plane. A cylinder about the source has the one; any other, and a cylinder
in a parallel beam, is resampled onto the plane that touches it at its centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrecon.core.views import Detector, ViewGeometry

_UNEQUAL = 0.01  # of a column's angle, beyond which steps do not count as equal


@dataclass(frozen=True, eq=False)
class FlatDetector:
    """Views as the filter takes them, and how projections get there.

    Parameters
    ----------
    views : ViewGeometry
        Flat, or curved about the source.
    original : ViewGeometry, optional
        Where the projections were measured, if that is not the same.
    """

    views: ViewGeometry
    original: ViewGeometry | None = None

    @classmethod
    def of(cls, views: ViewGeometry) -> FlatDetector:
        """Keep the views if they can be filtered as they are."""
        if not views.is_curved or _has_equal_angles(views):
            return cls(views)
        return cls(views.with_detector(_touching(views)), views)

    def resample(self, block: Tensor, part: slice) -> Tensor:
        """Look up some views of projections (views, rows, columns) where the pixels of the flat detector see them."""
        if self.original is None:
            return block
        which = np.arange(*part.indices(len(self.views)))
        parts = [self._one(block[k], int(view)) for k, view in enumerate(which)]
        return torch.stack(parts)

    def _one(self, image: Tensor, view: int) -> Tensor:
        rows, columns = self.views.detector.shape
        row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        seen_column, seen_row, _ = self._original().take([view]).project(self.views.pixel_lps_mm(view, row, column))
        height, width = image.shape
        at = np.stack([seen_column[0] * 2 / max(width - 1, 1) - 1, seen_row[0] * 2 / max(height - 1, 1) - 1], axis=-1)
        where = torch.from_numpy(at).to(image)[None]
        sampled = torch.nn.functional.grid_sample(image[None, None], where, align_corners=True, padding_mode="zeros")
        return sampled[0, 0]

    def _original(self) -> ViewGeometry:
        return self.views if self.original is None else self.original


def _has_equal_angles(views: ViewGeometry) -> bool:
    if views.sources_lps_mm is None:
        return False
    rays = views.column_points_lps_mm() - views.sources_lps_mm[:, None]
    rays = rays - np.einsum("kci,ki->kc", rays, views.v)[..., None] * views.v[:, None]
    rays = rays / np.linalg.norm(rays, axis=2, keepdims=True)
    steps = np.linalg.norm(np.diff(rays, axis=1), axis=2)
    return bool(steps.size == 0 or np.ptp(steps) < _UNEQUAL * steps.mean())


def _touching(views: ViewGeometry) -> Detector:
    """Return a plane at the detector's centre, as wide as the shadow of the curved one."""
    detector = views.detector
    rows, columns = detector.shape
    edges = views.column_points_lps_mm(np.array([-0.5, columns - 0.5]))
    if views.sources_lps_mm is None:
        offsets = np.einsum("kei,ki->ke", edges - views.centres_lps_mm[:, None], views.u)
        grown = np.ones(1)
    else:
        rays = edges - views.sources_lps_mm[:, None]
        scale = views.source_detector_mm[:, None] / np.einsum("kei,ki->ke", rays, views.normals)
        on_plane = views.sources_lps_mm[:, None] + scale[..., None] * rays
        offsets = np.einsum("kei,ki->ke", on_plane - views.centres_lps_mm[:, None], views.u)
        grown = scale
    half_columns = int(np.ceil(np.abs(offsets).max() / detector.pitch_mm[1] - 0.5))
    wide = columns + 2 * max(0, int(np.ceil(half_columns - (columns - 1) / 2)))
    tall = rows if rows == 1 else rows + 2 * max(0, int(np.ceil((float(grown.max()) - 1) * rows / 2)))
    return Detector((tall, wide), detector.pitch_mm)
