"""GLB, binary glTF: what web browsers and headsets show.

glTF is in metres with y up and the front along +z, so a node turns the patient to stand upright facing the viewer and
scales mm to m. The vertices behind that node stay LPS millimetres, as the file's ``extras`` say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medrecon.core.mesh import Surface
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers._mesh_text import statement

WRITES = "surface"
TARGET = "surface-{name}.glb"

#: LPS mm to glTF metres: left stays x, head becomes y, front (minus posterior) becomes z.
LPS_MM_TO_GLTF_M = np.array([[1e-3, 0, 0, 0], [0, 0, 1e-3, 0], [0, -1e-3, 0, 0], [0, 0, 0, 1]])


def write(surface: Surface, target: Path, context: WriteContext) -> None:  # noqa: ARG001 (the writers' contract)
    """Write a surface, single precision. Same surface, same bytes.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    import trimesh
    from trimesh.exchange.gltf import export_glb

    scene = trimesh.Scene()
    scene.add_geometry(surface.to_trimesh(), node_name=surface.name, geom_name=surface.name, transform=LPS_MM_TO_GLTF_M)

    def describe(tree: dict[str, Any]) -> None:
        extras = {"space": "LPS", "unit": "mm", "statement": statement(surface)}
        tree["asset"] = {"version": "2.0", "generator": "medrecon", "extras": extras}

    with replacing(target) as scratch:
        scratch.write_bytes(export_glb(scene, include_normals=False, tree_postprocessor=describe))
