"""STL, binary: the format that every 3D printer reads. It has no unit; the header says mm and LPS."""

from __future__ import annotations

from pathlib import Path

from medrecon.core.mesh import Surface
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers._mesh_text import statement
from medrecon.writers._stl import stl_bytes

WRITES = "surface"
TARGET = "surface-{name}.stl"


def write(surface: Surface, target: Path, context: WriteContext) -> None:  # noqa: ARG001 (the writers' contract)
    """Write a surface in LPS mm, single precision. Same surface, same bytes.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    with replacing(target) as scratch:
        scratch.write_bytes(stl_bytes(surface, statement(surface)))
