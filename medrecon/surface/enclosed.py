"""What a surface encloses: signed volumes by the divergence theorem. All are without meaning for an open surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medrecon.core.mesh import Surface

Float64 = NDArray[np.float64]


def volume_mm3(surface: Surface) -> float:
    """Return the enclosed volume, positive where normals point outward."""
    return float(prism_volumes_mm3(surface).sum())


def prism_volumes_mm3(surface: Surface) -> Float64:
    """Return the signed volume under each triangle, down to the middle of the surface's box, (m,).

    Over a closed surface, or one closed piece of it, they add up to what it encloses.
    """
    x, y, z = np.ascontiguousarray((surface.vertices_lps_mm - middle_mm(surface)).T)
    a, b, c = np.ascontiguousarray(surface.triangles.T)
    shadow = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])
    volumes: Float64 = shadow * (z[a] + z[b] + z[c]) / 6
    return volumes


def centroid_lps_mm(surface: Surface) -> Float64:
    """Return the centre of mass of the enclosed volume, (3,)."""
    middle = middle_mm(surface)
    a, b, c = ((surface.vertices_lps_mm - middle)[corner] for corner in surface.triangles.T)
    volumes = np.einsum("ni,ni->n", a, np.cross(b, c))  # six times the tetrahedra between the triangles and the middle
    centroid: Float64 = middle + volumes @ (a + b + c) / (4 * volumes.sum())
    return centroid


def middle_mm(surface: Surface) -> Float64:
    """Return the middle of the surface's box, (3,): an origin that keeps rounding errors small."""
    vertices = surface.vertices_lps_mm
    middle: Float64 = (vertices.min(axis=0) + vertices.max(axis=0)) / 2 if len(vertices) else np.zeros(3)
    return middle
