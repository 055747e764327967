"""What the writers of mesh files share: what each file says of itself, and arrays as lines of text."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from medrecon.core.mesh import Surface

#: 3D Slicer looks for the first token in headers and comments of STL, PLY and OBJ; without it LPS is assumed there too.
SPACE = "SPACE=LPS"
UNITS = "UNITS=mm"


def statement(surface: Surface) -> str:
    """Return what a file says of itself, in ASCII; nothing in it comes from the source's header."""
    name = surface.name.encode("ascii", "replace").decode("ascii")
    return f"medrecon {SPACE} {UNITS} research use, not for diagnosis: {name}"


def lines(template: str, rows: NDArray[Any]) -> str:
    """Return `template`, one line, filled in once for every row; a single formatting call, as loops are slow."""
    return (template * len(rows)) % tuple(rows.reshape(-1).tolist())
