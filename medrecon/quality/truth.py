"""How close a result comes to a volume that is known to be right, at the places where both are known.

The comparison happens at the truth's voxel centres: the truth is never resampled. Range and mask are part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError
from medrecon.core.volume import Volume
from medrecon.quality.metrics import psnr, ssim

_RANGE_PERCENTILE = 99.9
_FOREGROUND = 0.05  # of the range above the truth's lowest value
_EXACT = 1e-3  # voxels: closer than this to a voxel centre, its value is taken as it is


@dataclass(frozen=True, slots=True)
class Closeness:
    """PSNR and SSIM against a truth.

    Parameters
    ----------
    psnr_db, ssim : float
        Over the truth's foreground where the result was seen.
    data_range : float
        99.9th percentile of the truth less its lowest value.
    voxels : int
        How many voxels were compared.
    """

    psnr_db: float
    ssim: float
    data_range: float
    voxels: int


def compare(volume: Volume, truth: Volume) -> Closeness:
    """Compare a volume with the truth at the truth's voxel centres.

    Raises
    ------
    GeometryError
        ``TRU-APART`` where the two have no foreground voxel in common.
    """
    values, inside = _at(volume, truth)
    low = float(truth.voxels.min())
    data_range = float(np.percentile(truth.voxels, _RANGE_PERCENTILE)) - low
    mask = inside & (truth.voxels > low + _FOREGROUND * data_range)
    if truth.seen is not None:
        mask &= truth.seen
    if not mask.any():
        hint = "Give a truth in the same patient space (frame of reference) as the series."
        raise GeometryError("TRU-APART", "the truth and the result have no voxel of foreground in common", hint)
    filled = np.where(inside, values, truth.voxels)  # outside, SSIM windows must not see an edge that is not there
    return Closeness(
        psnr(values, truth.voxels, data_range, mask), ssim(filled, truth.voxels, data_range, mask), data_range, int(mask.sum())
    )


def _at(volume: Volume, truth: Volume) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values of a volume at the voxel centres of the truth, plane by plane, and where they were seen."""
    from scipy.ndimage import map_coordinates

    to_index = np.linalg.inv(volume.grid.to_lps_mm) @ truth.grid.to_lps_mm
    slices, rows, columns = truth.grid.shape
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    seen = np.ones(volume.grid.shape, dtype=np.float32) if volume.seen is None else volume.seen.astype(np.float32)
    values, inside = np.empty(truth.grid.shape, dtype=np.float32), np.empty(truth.grid.shape, dtype=np.bool_)
    for k in range(slices):
        points = np.stack([np.full(row.shape, k), row, column, np.ones(row.shape)])
        index = np.tensordot(to_index[:3], points, axes=1)
        near = np.round(index)
        index = np.where(np.abs(index - near) < _EXACT, near, index)
        values[k] = map_coordinates(volume.voxels, index, order=1, mode="nearest")
        inside[k] = map_coordinates(seen, index, order=1, mode="constant", cval=0.0) > 1 - _EXACT
    return values, inside
