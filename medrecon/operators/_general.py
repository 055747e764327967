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

            y = _general_cpu.forward(self.geometry, x)
        else:
            y = _general_reference.forward(self.geometry, x)
        return self._scaled(y, into=y)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the transpose of `forward`."""
        values = self._scaled(y, into=torch.empty_like(y))
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

    def _scaled(self, y: Tensor, into: Tensor) -> Tensor:
        """Bring the sum of each row to 1, or to 0 where nothing is seen; image by image, since all scales are larger than `y`."""
        for k, seen in enumerate(self.seen):
            scale = np.divide(1, seen, out=np.zeros_like(seen), where=seen > 0)
            into[k] = y[k] * torch.from_numpy(scale).to(y)
        return into


def _is_compiled(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
