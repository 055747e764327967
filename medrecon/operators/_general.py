"""The slice model for slices that stand anywhere: ray by ray."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators import _general_reference
from medrecon.operators._slice_geometry import SliceGeometry


@dataclass(frozen=True, eq=False)
class GeneralSlices:
    """Slices of any pose; rows have unit sum."""

    geometry: SliceGeometry

    def forward(self, x: Tensor) -> Tensor:
        """Sample the slices."""
        if _is_compiled(x):
            from medrecon.operators import _general_cpu

            return _general_cpu.forward(self.geometry, x).mul_(self._scale(x))
        return _general_reference.forward(self.geometry, x).mul_(self._scale(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the transpose of `forward`."""
        values = y * self._scale(y)
        if _is_compiled(y):
            from medrecon.operators import _general_cpu

            return _general_cpu.adjoint(self.geometry, values)
        return _general_reference.adjoint(self.geometry, values)

    @cached_property
    def seen(self) -> Float64:
        """Share of every pixel's weight that lies inside the grid, (n, rows, columns)."""
        from medrecon.operators import _general_cpu

        return _general_cpu.seen(self.geometry)

    def sees(self, least: float) -> NDArray[np.bool_]:
        """Return the pixels of which at least this share of the weight lies inside the grid, (n, rows, columns)."""
        enough: NDArray[np.bool_] = self.seen >= least
        return enough

    def _scale(self, like: Tensor) -> Tensor:
        """Return what brings the sum of each row to 1; 0 where nothing is seen."""
        seen = torch.from_numpy(np.divide(1, self.seen, out=np.zeros_like(self.seen), where=self.seen > 0))
        return seen.to(like)


def _is_compiled(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
