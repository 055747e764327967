"""The FDK back projection on the CPU: lays the data out for the compiled loops and spreads them over threads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators import _backprojection_cpu_kernels as kernels
from medrecon.operators._backprojection_tables import DetectorTables
from medrecon.operators._xray_cpu import in_threads
from medrecon.operators._xray_cpu_kernels import PAD_AFTER, PAD_BEFORE

_BEAMS = {"parallel": kernels.PARALLEL, "flat": kernels.FLAT, "curved": kernels.CURVED}


class Accumulator:
    """A volume to which blocks of filtered views are added, with the height innermost while it grows."""

    def __init__(self, tables: DetectorTables, device: torch.device) -> None:
        del device  # the CPU
        axis = tables.vertical_axis()
        self._kernel = kernels.backproject_voxels if axis is None else kernels.backproject_columns
        height = 0 if axis is None else axis
        first, second = (a for a in range(3) if a != height)
        self._order = (first, second, height)
        self._flipped = bool(tables.frames[0, 2, height] < 0)
        self._volume = np.zeros([tables.grid_shape[a] for a in self._order], np.float32)

    def add(self, tables: DetectorTables, filtered: Tensor, weights: Float64) -> None:
        """Add the views of `tables`: filtered projections (views, rows, columns) and a weight each."""
        padded, frames = _padded(filtered.float()), self._frames(tables)
        fixed = (
            _BEAMS[tables.beam],
            frames,
            tables.distances,
            tables.piercing,
            tables.heights,
            np.array(tables.pitch_mm),
            weights,
        )
        in_threads(lambda start, stop: self._kernel(self._volume, padded, *fixed, start, stop), len(self._volume))

    def result(self) -> Tensor:
        """Return the volume (slices, rows, columns)."""
        tensor = torch.from_numpy(self._volume)
        moved = tensor.flip(2) if self._flipped else tensor
        return moved.permute([self._order.index(a) for a in range(3)]).contiguous()

    def _frames(self, tables: DetectorTables) -> Float64:
        """Frames in the volume's order of axes, its height growing with v."""
        frames = tables.frames[:, :, [*self._order, 3]].copy()
        if self._flipped:
            frames[:, :, 3] += (self._volume.shape[2] - 1) * frames[:, :, 2]
            frames[:, :, 2] *= -1
        return frames


def _padded(filtered: Tensor) -> np.ndarray:
    """Copy (views, rows, columns) to (views, columns, rows) with zeros around."""
    views, rows, columns = filtered.shape
    padded = torch.zeros(views, columns + 2, PAD_BEFORE + rows + PAD_AFTER)
    padded[:, 1:-1, PAD_BEFORE : PAD_BEFORE + rows] = filtered.transpose(1, 2)
    return padded.numpy()
