"""What the voxels in a region hold: mean, standard deviation, area, volume, without napari and without Qt.

A voxel belongs to a region when its centre lies in it. Areas are those of the drawn outline, volumes those of the
voxels; both are patient millimetres, on rasters of any spacing and direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError
from medrecon_napari.measure.geometry import area_mm2
from medrecon_napari.place import Place, apply, inverse

_FLAT = 0.25  # of a voxel: how far an outline may leave its plane


@dataclass(frozen=True, slots=True)
class RegionStatistics:
    """Statistics over the voxels of a region.

    Parameters
    ----------
    voxels : int
        How many were counted; voxels that were never measured are not.
    mean, sd, minimum, maximum : float
        In the unit of the voxels; `sd` with n - 1; not a number where there are too few voxels.
    area_mm2 : float
        Of the outline; not a number for regions that are not flat.
    volume_ml : float
        Number of voxels in the region, measured or not, times their volume.
    """

    voxels: int
    mean: float
    sd: float
    minimum: float
    maximum: float
    area_mm2: float
    volume_ml: float


def in_outline(
    data: NDArray[Any], place: Place, outline_lps_mm: ArrayLike, seen: NDArray[np.bool_] | None = None
) -> RegionStatistics:
    """Return the statistics of the voxels in a flat outline that lies in a plane of the raster.

    Parameters
    ----------
    data : (slices, rows, columns)
    place : Place
        Where the data stand.
    outline_lps_mm : (n, 3)
    seen : bool, optional
        Voxels that are False are not counted.

    Raises
    ------
    UsageError
        ``NAP-REGION`` where the outline lies in no plane of the raster, or outside of it.
    """
    outline = np.asarray(outline_lps_mm, dtype=np.float64)
    to_lps = place.lps_at((0, 0, 0))
    index = apply(inverse(to_lps), outline)
    axis = int(np.argmin(np.ptp(index, axis=0)))
    plane = round(float(index[:, axis].mean()))
    if not place.is_one_space or np.ptp(index[:, axis]) > _FLAT or not 0 <= plane < data.shape[axis]:
        raise UsageError(
            "NAP-REGION",
            "the region does not lie in a plane of the image",
            "Draw it in an axial, coronal or sagittal view of the same layer.",
        )
    inside = _inside(np.delete(index, axis, axis=1), tuple(np.delete(data.shape, axis)))
    values = np.take(data, plane, axis=axis)[inside]
    measured = values if seen is None else values[np.take(seen, plane, axis=axis)[inside]]
    return _statistics(measured, area_mm2(outline), float(inside.sum()) * _voxel_ml(place))


def in_mask(data: NDArray[Any], place: Place, mask: NDArray[np.bool_], seen: NDArray[np.bool_] | None = None) -> RegionStatistics:
    """Return the statistics of the voxels in a mask of the data's shape; a mask has a volume, no area."""
    measured = data[mask] if seen is None else data[mask & seen]
    return _statistics(measured, float("nan"), float(mask.sum()) * _voxel_ml(place))


def _voxel_ml(place: Place) -> float:
    return abs(float(np.linalg.det(place.lps_at((0, 0, 0))[:3, :3]))) / 1000


def _inside(polygon: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which pixels have their centre in a polygon of pixel coordinates (n, 2)."""
    from skimage.measure import grid_points_in_poly

    low = np.clip(np.floor(polygon.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(polygon.max(axis=0)).astype(int) + 1, 0, shape)
    inside = np.zeros(shape, dtype=np.bool_)
    if (high > low).all():
        inside[low[0] : high[0], low[1] : high[1]] = grid_points_in_poly(tuple(high - low), polygon - low)
    return inside


def _statistics(values: NDArray[Any], area: float, volume_ml: float) -> RegionStatistics:
    numbers = values.astype(np.float64)
    if not len(numbers):
        return RegionStatistics(0, *(float("nan"),) * 4, area, volume_ml)
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
    return RegionStatistics(
        len(numbers), float(numbers.mean()), sd, float(numbers.min()), float(numbers.max()), area, float(volume_ml)
    )
