"""The separate pieces of a surface, and the choice of the largest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medrecon.core.mesh import Surface
from medrecon.surface.enclosed import prism_volumes_mm3

_LEAST_SHARE = 0.2  # a second lung holds more of the first one's volume, gas in the bowel less


def largest_pieces(surface: Surface, pieces: int = 1) -> Surface:
    """Keep the piece that encloses the largest volume, and up to `pieces` - 1 others of at least a fifth of it.

    Cavities are pieces of their own and turned the other way round, so they are never kept: the result is filled.
    """
    piece = piece_of_vertex(surface)
    if piece.max(initial=0) == 0:
        return surface
    volumes = np.bincount(piece[surface.triangles[:, 0]], weights=prism_volumes_mm3(surface))
    order = np.argsort(-volumes, kind="stable")[:pieces]
    kept = order[volumes[order] >= _LEAST_SHARE * volumes[order[0]]]
    return _only(surface, np.isin(piece, kept))


def piece_of_vertex(surface: Surface) -> NDArray[np.int64]:
    """Return which connected piece each vertex belongs to, numbered from 0, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b, c = surface.triangles.T.astype(np.int32)
    size = len(surface.vertices_lps_mm)
    ends = np.concatenate([a, b]), np.concatenate([b, c])
    edges = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(size, size)).tocsr()
    edges.data[:] = 1  # an edge named 256 times would have summed to zero
    _, piece = connected_components(edges, directed=False)
    numbers: NDArray[np.int64] = piece.astype(np.int64)
    return numbers


def _only(surface: Surface, kept: NDArray[np.bool_]) -> Surface:
    renumbered = np.cumsum(kept) - 1
    triangles = renumbered[surface.triangles[kept[surface.triangles[:, 0]]]]
    return Surface(surface.vertices_lps_mm[kept], triangles, surface.name, surface.measures)
