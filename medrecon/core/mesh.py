"""A triangle surface standing in the patient.

Vertices are LPS millimetres; triangles wind so that their normals point out of the object. How a surface is made
stands in `medrecon.surface`, how it is written in `medrecon.writers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Triangles in LPS millimetres.

    Parameters
    ----------
    vertices_lps_mm : (n, 3) float64
    triangles : (m, 3) int64
        Indices into the vertices, counter-clockwise seen from outside.
    name : str
        What it shows: a tissue preset or ``level-300``; becomes part of a file name.
    measures : mapping
        Volume, area and so on with their units in the keys, as `medrecon.surface.measure` fills them in.
    """

    vertices_lps_mm: NDArray[np.float64]
    triangles: NDArray[np.int64]
    name: str = "surface"
    measures: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vertices = np.array(self.vertices_lps_mm, dtype=np.float64).reshape(-1, 3)
        triangles = np.array(self.triangles, dtype=np.int64).reshape(-1, 3)
        if not np.isfinite(vertices).all():
            raise GeometryError("SRF-VERTEX", "a vertex of the surface is not finite")
        if triangles.size and not (triangles.min() >= 0 and triangles.max() < len(vertices)):
            raise GeometryError("SRF-VERTEX", f"a triangle names vertex {triangles.max()}, there are {len(vertices)}")
        for name, array in (("vertices_lps_mm", vertices), ("triangles", triangles)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)
