"""NRRD: one compressed file in LPS millimetres, as 3D Slicer reads and writes it."""

from __future__ import annotations

from medrecon.writers import _itk

WRITES = "volume"
TARGET = "volume.nrrd"

write = _itk.write
