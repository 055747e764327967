"""Parting of sheets that touch along an edge.

Edge collapses, and labelled voxels that meet at an edge, leave edges with four triangles. Such a surface is closed, yet
not watertight: at the pinch nobody can say which triangles belong together. Here the triangles are paired, and each pair
gets a middle vertex of its own, pulled a little into its own solid. Then every edge has two triangles, also after
a file without shared vertices is read back. A single vertex in which sheets touch is left.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medrecon.core.mesh import Surface

_PULL = 0.01  # of the way to the far corners: far more than single precision rounds, far less than a voxel
Indices = NDArray[np.int64]
Triangle = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two triangles that bound one wedge of the inside at a pinched edge from `u` to `v`; `back` runs from `v` to `u`."""

    u: int
    v: int
    out: int
    back: int


def open_pinches(surface: Surface) -> Surface:
    """Return the surface with every pinched edge doubled; the same object where there is none.

    Triangles that lie back to back are removed first. Of the triangles around a pinched edge, those that bound the same
    wedge of the inside stay together, so that touching solids are parted. Open borders stay open.
    """
    unfolded = _without_folds(surface)
    pairs = _paired(unfolded)
    if not pairs:
        return unfolded
    vertices = np.concatenate([unfolded.vertices_lps_mm, _middles(unfolded, pairs)])
    return replace(unfolded, vertices_lps_mm=vertices, triangles=_halved(unfolded, pairs))


def _paired(surface: Surface) -> list[_Pair]:
    """Pair the triangles around every pinched edge."""
    halves = np.flatnonzero(_pinched(surface.triangles))
    edges = _half_edges(surface.triangles)[halves]
    owners = halves % max(len(surface.triangles), 1)
    angles = _angles(surface, edges, owners)
    outs: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
    backs: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
    for (a, b), owner, angle in zip(edges.tolist(), owners.tolist(), angles.tolist(), strict=True):
        (outs if a < b else backs)[min(a, b), max(a, b)].append((angle, owner))
    return [_Pair(*edge, out, back) for edge in sorted(outs) for out, back in _matched(outs[edge], backs[edge])]


def _matched(outs: list[tuple[float, int]], backs: list[tuple[float, int]]) -> list[tuple[int, int]]:
    """Match triangles over the inside: turning back from one that runs along the edge, the next that runs against it."""
    full_turn = 2 * np.pi
    gaps = sorted(((out - back) % full_turn, i, j) for i, (out, _) in enumerate(outs) for j, (back, _) in enumerate(backs))
    matched: dict[int, int] = {}
    for _, i, j in gaps:
        if i not in matched and j not in matched.values():
            matched[i] = j
    return [(outs[i][1], backs[j][1]) for i, j in matched.items()]


def _angles(surface: Surface, edges: Indices, owners: Indices) -> NDArray[np.float64]:
    """Angle of each triangle around its edge, right-handed about the direction from the lower to the higher vertex."""
    start, end = (surface.vertices_lps_mm[side] for side in (edges.min(axis=1), edges.max(axis=1)))
    axis = end - start
    first = np.eye(3)[np.abs(axis).argmin(axis=1)]
    across = np.cross(axis, first)
    above = np.cross(axis, across) / np.maximum(np.linalg.norm(axis, axis=1), 1e-300)[:, None]
    arm = surface.vertices_lps_mm[_far(surface.triangles, edges, owners)] - start
    angles: NDArray[np.float64] = np.arctan2(np.einsum("ni,ni->n", arm, above), np.einsum("ni,ni->n", arm, across))
    return angles


def _middles(surface: Surface, pairs: list[_Pair]) -> NDArray[np.float64]:
    """Return one vertex for each pair: the middle of its edge, pulled towards the far corners of its triangles."""
    edges = np.array([(pair.u, pair.v) for pair in pairs])
    far = sum(
        surface.vertices_lps_mm[_far(surface.triangles, edges, np.array(owners))]
        for owners in ([pair.out for pair in pairs], [pair.back for pair in pairs])
    )
    middle = surface.vertices_lps_mm[edges].mean(axis=1)
    middles: NDArray[np.float64] = middle + _PULL * (far / 2 - middle)
    return middles


def _halved(surface: Surface, pairs: list[_Pair]) -> Indices:
    """Halve the triangles of every pair at their common new vertex."""
    changed: dict[int, Triangle] = {}
    moved: dict[tuple[int, int, int], int] = {}  # (triangle, edge) -> the half of it that now has this edge
    count = len(surface.triangles)
    for middle, pair in enumerate(pairs, start=len(surface.vertices_lps_mm)):
        for origin, a, b in ((pair.out, pair.u, pair.v), (pair.back, pair.v, pair.u)):
            k = moved.get((origin, a, b), origin)
            corners: Triangle = changed.get(k) or tuple(surface.triangles[k].tolist())
            c = next(corner for corner in corners if corner not in (a, b))
            changed[k], changed[count] = (a, middle, c), (middle, b, c)
            moved[origin, b, c] = count
            count += 1
    triangles = np.resize(surface.triangles, (count, 3))
    triangles[list(changed)] = list(changed.values())
    return triangles


def _far(triangles: Indices, edges: Indices, owners: Indices) -> Indices:
    """Return the corner of each triangle that is not on its edge."""
    far: Indices = triangles[owners].sum(axis=1) - edges.sum(axis=1)
    return far


def _half_edges(triangles: Indices) -> Indices:
    """Return the directed edges (3m, 2); number k belongs to triangle k modulo m."""
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])


def _pinched(triangles: Indices) -> NDArray[np.bool_]:
    """Which directed edges have more than two triangles."""
    edges = _half_edges(triangles)
    names = edges.min(axis=1) * (int(edges.max(initial=0)) + 1) + edges.max(axis=1)
    ordered = np.sort(names)
    thirds = ordered[2:][ordered[2:] == ordered[:-2]]
    return np.isin(names, thirds) if len(thirds) else np.zeros(len(names), dtype=bool)


def _without_folds(surface: Surface) -> Surface:
    """Remove pairs of triangles with the same corners and opposite normals, and vertices that nothing uses then."""
    triangles = surface.triangles
    suspects = np.unique(np.flatnonzero(_pinched(triangles)) % max(len(triangles), 1))
    waiting: dict[tuple[int, ...], list[int]] = defaultdict(list)
    folded: list[int] = []
    for k, corners in zip(suspects.tolist(), triangles[suspects].tolist(), strict=True):
        lowest = corners.index(min(corners))
        a, b, c = corners[lowest:] + corners[:lowest]
        if waiting[a, c, b]:
            folded += [k, waiting[a, c, b].pop()]
        else:
            waiting[a, b, c].append(k)
    if not folded:
        return surface
    used, renumbered = np.unique(np.delete(triangles, folded, axis=0), return_inverse=True)
    return replace(surface, vertices_lps_mm=surface.vertices_lps_mm[used], triangles=renumbered.reshape(-1, 3))
