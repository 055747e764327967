"""The bytes of a binary STL file, which two writers need: the plain file and the DICOM object that wraps one.

STL has no unit and no coordinate system; the vertices stay LPS millimetres, and the header text can say so. Attribute
bytes stay zero: the colours that some programs keep there are not allowed in DICOM.
"""

from __future__ import annotations

import numpy as np

from medrecon.core.grid import Float64
from medrecon.core.mesh import Surface

_HEADER_BYTES = 80
_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl_bytes(surface: Surface, header: str = "medrecon SPACE=LPS UNITS=mm") -> bytes:
    """Return a surface as binary STL, in LPS millimetres.

    Parameters
    ----------
    header : str
        ASCII text, cut at 80 bytes; 3D Slicer reads ``SPACE=LPS`` there. It must not begin with ``solid``, by which
        programs recognise the text form of STL.

    Raises
    ------
    ValueError
        If `header` is not ASCII or begins with ``solid``.
    """
    if header.lower().startswith("solid") or not header.isascii():
        raise ValueError("the header of a binary STL must be ASCII and must not begin with 'solid'")
    corners = surface.vertices_lps_mm[surface.triangles]
    records = np.zeros(len(corners), dtype=_RECORD)
    records["normal"] = _unit_normals(corners)
    records["corners"] = corners
    count = np.array(len(corners), dtype="<u4")
    return header.encode("ascii")[:_HEADER_BYTES].ljust(_HEADER_BYTES) + count.tobytes() + records.tobytes()


def _unit_normals(corners: Float64) -> Float64:
    """Outward unit normals (m, 3) of triangles (m, 3, 3); zero, as STL allows, for a triangle without area."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    unit: Float64 = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    return unit
