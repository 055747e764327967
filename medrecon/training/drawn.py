"""What a task gets when it draws a volume from disk."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from medrecon.core.volume import Quantity


@dataclass(frozen=True, slots=True)
class Drawn:
    """Voxel values for training.

    Parameters
    ----------
    voxels : (slices, rows, columns) float32 tensor, in the unit of `quantity`
    spacing_mm : (slice, row, column)
    quantity : Quantity
    """

    voxels: Tensor
    spacing_mm: tuple[float, float, float]
    quantity: Quantity
