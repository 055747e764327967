"""The FDK back projection in plain torch: the truth for the fast back ends, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators._backprojection_tables import DetectorTables


class Accumulator:
    """A volume to which blocks of filtered views are added, slice by slice."""

    def __init__(self, tables: DetectorTables, device: torch.device) -> None:
        self._device = device
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._volume = torch.zeros(tables.grid_shape, device=device, dtype=self._dtype)

    def add(self, tables: DetectorTables, filtered: Tensor, weights: Float64) -> None:
        """Add the views of `tables`: filtered projections (views, rows, columns) and a weight each."""
        rows, columns = tables.detector_shape
        padded = torch.nn.functional.pad(filtered.to(self._device, self._dtype), (1, 1, 1, 1))
        for view in range(len(tables)):
            flat = padded[view].flatten()
            for k in range(tables.grid_shape[0]):
                column, row, share = self._place(tables, view, k)
                seen = (column > -1) & (column < columns) & (row > -1) & (row < rows)
                c, r = (torch.where(seen, at + 1, 0).floor() for at in (column, row))
                s, t = torch.where(seen, column + 1 - c, 0), torch.where(seen, row + 1 - r, 0)
                index = (r * (columns + 2) + c).long()
                above = (1 - s) * flat[index] + s * flat[index + 1]
                below = (1 - s) * flat[index + columns + 2] + s * flat[index + columns + 3]
                value = float(weights[view]) * share * ((1 - t) * above + t * below)
                self._volume[k] += torch.where(seen, value, 0)

    def result(self) -> Tensor:
        """Return the volume (slices, rows, columns)."""
        return self._volume.float()

    def _place(self, tables: DetectorTables, view: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Column, row and distance weight of all voxels of one slice."""
        frame = torch.tensor(tables.frames[view], dtype=self._dtype, device=self._device)
        i, j = (torch.arange(n, dtype=self._dtype, device=self._device) for n in tables.grid_shape[1:])
        x, depth, v = (frame[a, 0] * k + (frame[a, 1] * i)[:, None] + (frame[a, 2] * j)[None, :] + frame[a, 3] for a in range(3))
        u, grown, share = _meet(tables, view, x, depth)
        shift = tables.heights[view] if tables.beam == "curved" else tables.piercing[view, 1]
        rows, columns = tables.detector_shape
        column = u / tables.pitch_mm[1] + (columns - 1) / 2
        row = (grown * v + shift) / tables.pitch_mm[0] + (rows - 1) / 2
        return torch.where(grown > 0, column, -2.0), row, share


def _meet(tables: DetectorTables, view: int, x: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return u in mm, how much v grows up to the detector (0 where not seen), and the weight of distance."""
    if tables.beam == "parallel":
        return x, torch.ones_like(x), torch.ones_like(x)
    first, second = (float(p) for p in tables.piercing[view])
    distance, zero = float(tables.distances[view]), torch.zeros_like(x)
    if tables.beam == "flat":
        grown = torch.where(depth > 0, distance / depth, zero)
        return grown * x + first, grown, 1 / depth**2
    a, b = x * x + depth * depth, x * first + depth * second
    root = b * b - a * (first**2 + second**2 - distance**2)
    grown = torch.where((root >= 0) & (depth > 0), (root.clamp(min=0).sqrt() - b) / a, zero)
    return distance * torch.atan2(first + grown * x, second + grown * depth), grown, 1 / a
