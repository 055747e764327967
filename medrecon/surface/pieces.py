"""The separate pieces of a surface, and the choice of the largest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medrecon.core.mesh import Surface
from medrecon.surface.enclosed import prism_volumes_mm3

_LEAST_SHARE = 0.2  # a second lung holds more of the first one's volume, gas in the bowel less


def largest_pieces(surface: Surface, pieces: int = 1, by_volume: bool = True) -> Surface:
    """Keep the largest piece, and up to `pieces` - 1 others of at least a fifth of its size.

    Parameters
    ----------
    by_volume : bool
        Size is the enclosed volume; cavities, which are pieces turned the other way round, are then never kept, so that the
        result is filled. Else it is the number of triangles, for surfaces that are open and enclose nothing.
    """
    piece = piece_of_vertex(surface)
    if piece.max(initial=0) == 0:
        return surface
    sizes = np.bincount(piece[surface.triangles[:, 0]], weights=prism_volumes_mm3(surface) if by_volume else None)
    order = np.argsort(-sizes, kind="stable")[:pieces]
    others = order[1:][sizes[order[1:]] >= _LEAST_SHARE * sizes[order[0]]]
    return _only(surface, np.isin(piece, [order[0], *others]))


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
