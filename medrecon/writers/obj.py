"""Wavefront OBJ: text that every modelling program reads, with the space and the unit in comments."""

from __future__ import annotations

from pathlib import Path

from medrecon.core.mesh import Surface
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers._mesh_text import lines, statement

WRITES = "surface"
TARGET = "surface-{name}.obj"

# the wording that Mimics writes, and by which 3D Slicer recognises the unit
_UNIT = "vertex coordinates are measured in units, where 1 unit = 1.000000 mm"


def write(surface: Surface, target: Path, context: WriteContext) -> None:  # noqa: ARG001 (the writers' contract)
    """Write a surface in LPS mm, to 10 nm. Same surface, same bytes.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    vertices = lines("v %.5f %.5f %.5f\n", surface.vertices_lps_mm)
    faces = lines("f %d %d %d\n", surface.triangles + 1)
    with replacing(target) as scratch:
        scratch.write_bytes(f"# {statement(surface)}\n# {_UNIT}\n{vertices}{faces}".encode("ascii"))
