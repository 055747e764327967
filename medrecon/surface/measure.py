"""How large a surface is, and whether it is a proper one."""

from __future__ import annotations

import numpy as np

from medrecon.core.mesh import Surface
from medrecon.surface.enclosed import centroid_lps_mm, volume_mm3
from medrecon.surface.pieces import piece_of_vertex


def measure(surface: Surface) -> dict[str, object]:
    """Measure a surface.

    Returns
    -------
    dict
        Plain data for JSON. ``volume_ml`` is what the surface encloses; cavities count out where they are part of it.
        ``centroid_lps_mm`` is the centre of that volume, ``euler_number`` is vertices - edges + triangles (2 for a ball).
        These three are None where the surface is not watertight: where an edge has not exactly two triangles, wound alike.
        Further ``area_mm2``, ``extent_mm`` (along left, back and head), ``triangle_count``, ``vertex_count``,
        ``components`` (separate pieces) and ``watertight``.
    """
    mesh = surface.to_trimesh()
    watertight = bool(len(surface.triangles) and mesh.is_watertight and mesh.is_winding_consistent)
    vertices, triangles = len(surface.vertices_lps_mm), len(surface.triangles)
    return {
        "volume_ml": volume_mm3(surface) / 1000 if watertight else None,
        "area_mm2": area_mm2(surface),
        "extent_mm": np.ptp(surface.vertices_lps_mm, axis=0).tolist() if vertices else [0.0, 0.0, 0.0],
        "triangle_count": triangles,
        "vertex_count": vertices,
        "watertight": watertight,
        "euler_number": vertices - triangles // 2 if watertight else None,  # each edge has two triangles: 3/2 edges to each
        "components": int(piece_of_vertex(surface).max(initial=-1)) + 1,
        "centroid_lps_mm": centroid_lps_mm(surface).tolist() if watertight else None,
    }


def area_mm2(surface: Surface) -> float:
    """Return the surface's area."""
    a, b, c = (surface.vertices_lps_mm[corner] for corner in surface.triangles.T)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)
