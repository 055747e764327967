"""What the writers of plain volume files share: the smallest type that loses nothing, and reading back before the rename."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import OutputError
from medrecon.core.grid import Grid
from medrecon.core.volume import Quantity, Volume

#: Stands in every file that has a place for words; our readers find the quantity behind it.
RESEARCH_USE = "research use"


def lossless(volume: Volume) -> NDArray[np.float32] | NDArray[np.int16]:
    """Return whole Hounsfield units as int16, everything else as float32."""
    if volume.quantity is not Quantity.HOUNSFIELD:
        return volume.voxels
    limits = np.iinfo(np.int16)
    if not (volume.voxels.min() >= limits.min and volume.voxels.max() <= limits.max):
        return volume.voxels
    whole = volume.voxels.astype(np.int16)
    return whole if np.array_equal(whole, volume.voxels) else volume.voxels


def label(volume: Volume) -> str:
    """Return what the file says of itself; nothing in it comes from the source's header."""
    return f"{RESEARCH_USE}; {volume.quantity}"


def compare(volume: Volume, values: NDArray[Any], grid: Grid) -> None:
    """Raise `OutputError` (``OUT-READBACK``) where what was read back differs from what was to be written."""
    if not grid.same_place(volume.grid) or not np.array_equal(values, volume.voxels, equal_nan=True):
        raise not_as_meant()


def not_as_meant() -> OutputError:
    """Make the error for a file that does not read back as what was to be written."""
    return OutputError("OUT-READBACK", "the file that was written does not read back as the same volume.", "Check the disk.")
