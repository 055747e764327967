"""The FDK back projection on a GPU, in Triton: one lane per voxel, the height innermost in volume and projections.

A program sums a piece of one voxel column over a block of views in registers, so that the volume is read and written
once per block. Weights and positions are float32. The kernel also runs in Triton's interpreter.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators import _backprojection_triton_kernels as kernels
from medrecon.operators._backprojection_tables import DetectorTables

_BLOCK = 256
_BEAMS = {"parallel": 0, "flat": 1, "curved": 2}


class Accumulator:
    """A volume to which blocks of filtered views are added, with the height innermost while it grows."""

    def __init__(self, tables: DetectorTables, device: torch.device) -> None:
        axis = tables.vertical_axis()
        self._upright, self._device = axis is not None, device
        height = 0 if axis is None else axis
        self._order = (*(a for a in range(3) if a != height), height)
        self._volume = torch.zeros([tables.grid_shape[a] for a in self._order], device=device)

    def add(self, tables: DetectorTables, filtered: Tensor, weights: Float64) -> None:
        """Add the views of `tables`: filtered projections (views, rows, columns) and a weight each."""
        values = filtered.to(self._device, torch.float32).transpose(1, 2).contiguous()
        frames = tables.frames[:, :, [*self._order, 3]].copy()
        rows, columns = tables.detector_shape
        numbers = np.column_stack([frames.reshape(len(frames), 12), tables.distances, tables.piercing, tables.heights, weights])
        n0, n1, n2 = self._volume.shape
        block = min(_BLOCK, triton.next_power_of_2(n2))
        kernels.backproject[(n0 * n1, triton.cdiv(n2, block))](
            self._volume,
            values,
            torch.tensor(numbers, dtype=torch.float32, device=self._device),
            n1,
            n2,
            len(frames),
            columns,
            rows,
            1 / tables.pitch_mm[1],
            1 / tables.pitch_mm[0],
            _BEAMS[tables.beam],
            self._upright,
            block,
        )

    def result(self) -> Tensor:
        """Return the volume (slices, rows, columns)."""
        return self._volume.permute([self._order.index(a) for a in range(3)]).contiguous()
