"""Every error and finding code with its longer explanation: what ``medrecon explain CODE`` prints.

A test keeps this list and the codes used in the source equal. Sorted by code.
"""

from __future__ import annotations

from collections.abc import Mapping

EXPLANATIONS: Mapping[str, str] = {
    "ARG-ALLOW": "A laxness was named that does not exist. Each allowed laxness has a fixed name and is recorded in the result.",
    "ARG-NAME": "A method, reader, format or preset was named that does not exist. The message lists the known names.",
    "CFG-FILE": "A YAML file could not be read as plain data: at most 64 kB, no aliases, no key twice, no tags.",
    "CFG-VALUE": "A setting is unknown, of the wrong type or out of range. The message names it and the nearest known one.",
    "GRID-SHAPE": "A voxel grid needs at least one voxel along each axis.",
    "GRID-SINGULAR": "The matrix from voxel index to patient mm has no inverse: a spacing is zero or two axes are parallel.",
    "OUT-SPACE": "The disk is full or a quota is reached. The scratch file was removed; an older result is untouched.",
    "OUT-WRITE": "The operating system refused a write. The message names its error; an older result is untouched.",
    "PROFILE-TABLE": "A measured slice profile needs at least three pairs of depth (in thicknesses, rising) and weight.",
    "SCAN-POSE": "A slice pose is not finite, or its rows, columns and normal are not perpendicular.",
    "SCAN-SHAPE": "Pixels, masks and poses of a scan do not have matching sizes.",
    "SCAN-THICKNESS": "Every slice needs a positive, finite thickness in millimetres.",
    "SRF-VERTEX": "A surface has a vertex that is not finite, or a triangle that names a vertex which does not exist.",
    "VOL-SHAPE": "Voxels or a mask do not have the shape of their grid.",
    "VOL-SHEARED": "The volume's axes are not perpendicular, and the target library or format cannot hold that.",
}
