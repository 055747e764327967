"""MetaImage: one compressed file in LPS millimetres, as ITK reads and writes it."""

from __future__ import annotations

from medrecon.writers import _itk

WRITES = "volume"
TARGET = "volume.mha"

write = _itk.write
