"""PLY, binary: shared vertices, with the space and the unit in comments."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medrecon.core.mesh import Surface
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers._mesh_text import SPACE, UNITS, statement

WRITES = "surface"
TARGET = "surface-{name}.ply"

_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


def write(surface: Surface, target: Path, context: WriteContext) -> None:  # noqa: ARG001 (the writers' contract)
    """Write a surface in LPS mm, single precision. Same surface, same bytes.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    header = (
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {words}" for words in (statement(surface), SPACE, UNITS)),
        f"element vertex {len(surface.vertices_lps_mm)}",
        *(f"property float {axis}" for axis in "xyz"),
        f"element face {len(surface.triangles)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    )
    faces = np.empty(len(surface.triangles), dtype=_FACE)
    faces["count"] = 3
    faces["corners"] = surface.triangles
    with replacing(target) as scratch:
        scratch.write_bytes("\n".join(header).encode("ascii") + surface.vertices_lps_mm.astype("<f4").tobytes() + faces.tobytes())
