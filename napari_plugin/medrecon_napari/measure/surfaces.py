"""How far two surfaces lie apart, measured from points of each to the triangles of the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import medrecon as mr
from medrecon.core.errors import UsageError

_MOST_POINTS = 20_000  # more change the numbers less than their last digit
_SEED = 20260101


@dataclass(frozen=True, slots=True)
class SurfaceDistance:
    """Distances between two surfaces in mm, over the points of both.

    Parameters
    ----------
    mean, rms, percentile_95, maximum : float
        The maximum is the Hausdorff distance, over the points that were looked at.
    points : int
    """

    mean: float
    rms: float
    percentile_95: float
    maximum: float
    points: int


def surface_distance(one: mr.Surface, other: mr.Surface) -> SurfaceDistance:
    """Return how far two surfaces lie apart; both ways count alike.

    Points are the vertices, at most 20 000 of each surface, chosen with a fixed seed.

    Raises
    ------
    UsageError
        ``NAP-LAYER`` where one of them has no triangles.
    """
    if not (len(one.triangles) and len(other.triangles)):
        raise UsageError("NAP-LAYER", "a surface without triangles has no distance to another", "Choose two surfaces.")
    distances = np.concatenate([_distances(one, other), _distances(other, one)])
    return SurfaceDistance(
        float(distances.mean()),
        float(np.sqrt((distances**2).mean())),
        float(np.percentile(distances, 95)),
        float(distances.max()),
        len(distances),
    )


def _distances(source: mr.Surface, target: mr.Surface) -> NDArray[np.float64]:
    """Return the distances from points of one surface to the triangles of another."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkDoubleArray
    from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

    distance, found = vtkImplicitPolyDataDistance(), vtkDoubleArray()
    distance.SetInput(target.to_vtk())
    distance.FunctionValue(numpy_to_vtk(_points(source)), found)
    signed: NDArray[np.float64] = vtk_to_numpy(found).astype(np.float64)
    return np.abs(signed)


def _points(surface: mr.Surface) -> NDArray[np.float64]:
    used = np.unique(surface.triangles)
    if len(used) > _MOST_POINTS:
        used = np.random.default_rng(_SEED).choice(used, _MOST_POINTS, replace=False)
    return np.ascontiguousarray(surface.vertices_lps_mm[used])
