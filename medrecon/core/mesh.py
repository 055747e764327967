"""A triangle surface standing in the patient.

Vertices are LPS millimetres; triangles wind so that their normals point out of the object. How a surface is made
stands in `medrecon.surface`, how it is written in `medrecon.writers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError

if TYPE_CHECKING:
    import trimesh
    from vtkmodules.vtkCommonDataModel import vtkPolyData


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Triangles in LPS millimetres.

    Parameters
    ----------
    vertices_lps_mm : (n, 3) float64
        Made contiguous and read-only, as are the triangles.
    triangles : (m, 3) int64
        Indices into the vertices, counter-clockwise seen from outside.
    name : str
        What it shows: a tissue preset or ``level-300``; becomes part of a file name.
    measures : mapping
        Volume, area and so on with their units in the keys, as `medrecon.surface.measure` fills them in.

    Raises
    ------
    GeometryError
        ``SRF-VERTEX`` for a vertex that is not finite, or a triangle that names one that does not exist.
    """

    vertices_lps_mm: NDArray[np.float64]
    triangles: NDArray[np.int64]
    name: str = "surface"
    measures: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vertices = np.ascontiguousarray(self.vertices_lps_mm, dtype=np.float64).reshape(-1, 3)
        triangles = np.ascontiguousarray(self.triangles, dtype=np.int64).reshape(-1, 3)
        if not np.isfinite(vertices).all():
            raise GeometryError("SRF-VERTEX", "a vertex of the surface is not finite")
        if triangles.size and not (triangles.min() >= 0 and triangles.max() < len(vertices)):
            raise GeometryError(
                "SRF-VERTEX", f"triangles name vertices {triangles.min()} to {triangles.max()}, there are {len(vertices)}"
            )
        for name, array in (("vertices_lps_mm", vertices), ("triangles", triangles)):
            view = array.view()  # the caller's own array stays writeable
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.vertices_lps_mm, self.triangles, self.name, dict(self.measures))

    def to_trimesh(self) -> trimesh.Trimesh:
        """Return a trimesh mesh with the same vertices and triangles, in LPS mm, nothing merged or reordered."""
        import trimesh

        return trimesh.Trimesh(self.vertices_lps_mm, self.triangles, process=False, validate=False)

    def to_vtk(self) -> vtkPolyData:
        """Return VTK polygon data in LPS mm that shares this surface's memory."""
        from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
        from vtkmodules.vtkCommonCore import vtkPoints
        from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

        points, cells, data = vtkPoints(), vtkCellArray(), vtkPolyData()
        points.SetData(numpy_to_vtk(self.vertices_lps_mm))
        cells.SetData(3, numpy_to_vtkIdTypeArray(self.triangles.reshape(-1)))
        data.SetPoints(points)
        data.SetPolys(cells)
        return data
