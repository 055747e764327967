"""The FDK back projection on the CPU: lays the data out for the compiled loops and spreads them over threads."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators import _backprojection_cpu_kernels as kernels
from medrecon.operators._backprojection_tables import DetectorTables
from medrecon.operators._xray_cpu import in_threads, padded_columns, view_blocks

_BEAMS = {"parallel": kernels.PARALLEL, "flat": kernels.FLAT, "curved": kernels.CURVED}


class Accumulator:
    """A volume to which blocks of filtered views are added."""

    def __init__(self, tables: DetectorTables, device: torch.device) -> None:
        del device  # the CPU
        axis = tables.vertical_axis()
        self._kernel = kernels.backproject_voxels if axis is None else kernels.backproject_columns
        height = 0 if axis is None else axis
        self._order = (*(a for a in range(3) if a != height), height)
        self._flipped = bool(tables.frames[0, 2, height] < 0)
        self._volume = np.zeros(tables.grid_shape, np.float32)
        turned = self._volume.transpose(self._order)  # the same memory: a height grows with v
        self._turned = turned[:, :, ::-1] if self._flipped else turned

    def add(self, tables: DetectorTables, filtered: Tensor, weights: Float64) -> None:
        """Add the views of `tables`: filtered projections (views, rows, columns) and a weight each."""
        frames, pitch = self._frames(tables), np.array(tables.pitch_mm)
        for block in view_blocks(len(tables), math.prod(tables.detector_shape)):
            places = (frames[block], tables.distances[block], tables.piercing[block], tables.heights[block])
            padded = padded_columns(filtered[block].float(), beside=1)
            work = partial(self._kernel, self._turned, padded, _BEAMS[tables.beam], *places, pitch, weights[block])
            in_threads(work, len(self._turned))

    def result(self) -> Tensor:
        """Return the volume (slices, rows, columns)."""
        return torch.from_numpy(self._volume)

    def _frames(self, tables: DetectorTables) -> Float64:
        """Frames in the volume's order of axes, its height growing with v."""
        frames = tables.frames[:, :, [*self._order, 3]].copy()
        if self._flipped:
            frames[:, :, 3] += (self._turned.shape[2] - 1) * frames[:, :, 2]
            frames[:, :, 2] *= -1
        return frames
