"""Between arrays, VTK and the patient: volumes in, meshes in index space out, and those placed by the full affine.

VTK counts (x, y, z) = (column, row, slice) from zero with spacing one and knows nothing of the patient; so tilted, sheared,
flipped and anisotropic grids need no resampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface

if TYPE_CHECKING:
    from vtkmodules.vtkCommonDataModel import vtkImageData

Corners = NDArray[np.float32]
Triangles = NDArray[np.int64]


def image(values: NDArray[Any]) -> vtkImageData:
    """Share the array with VTK as an image of spacing one, x along columns."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    shared = vtkImageData()
    shared.SetDimensions(*values.shape[::-1])
    shared.GetPointData().SetScalars(numpy_to_vtk(values.reshape(-1)))
    return shared


def arrays(mesh: Any) -> tuple[Corners, Triangles]:  # noqa: ANN401 (vtkPolyData is untyped)
    """Return vertices as (column, row, slice) and triangles."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    triangles = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return vtk_to_numpy(mesh.GetPoints().GetData()), triangles.astype(np.int64, copy=False)


def stand(corners: Corners, start: NDArray[np.int64], triangles: Triangles, grid: Grid, name: str) -> Surface:
    """Place a mesh in the patient: its vertices count (column, row, slice) from `start`, its triangles wind outward in that."""
    matrix = grid.to_lps_mm[:3, 2::-1]
    vertices = corners.astype(np.float64) @ matrix.T + grid.to_lps(start)
    mirrored = np.linalg.det(matrix) < 0  # such a map turns a mesh inside out, and its triangles are turned back
    return Surface(vertices, triangles[:, ::-1] if mirrored else triangles, name)
