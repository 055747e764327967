"""Scans whose detector columns stand upright over the volume, as most scanners' do, in the order that suits the loops."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.operators._xray_rays import Rays, main_axis


@dataclass(frozen=True, eq=False)
class Upright:
    """Rays of a scan whose detector columns stand upright, in volume indices (first, second, height).

    Parameters
    ----------
    order : (3,)
        Axes of the grid in that order.
    flipped : bool
        Whether the height counts against the grid's index, so that it grows with the detector's rows.
    pixels, steps : (views, columns, 3)
        Pixel of row 0, and the step from it to the source.
    row_step : (views,)
    across : (views, columns) bool
        Rays that run mainly along the second axis.
    to_mm : (3, 3)
    """

    order: tuple[int, int, int]
    flipped: bool
    pixels: Float64
    steps: Float64
    row_step: Float64
    across: NDArray[np.bool_]
    to_mm: Float64

    @classmethod
    def of(cls, rays: Rays, axis: int) -> Upright:
        """Rearrange rays that have a vertical axis."""
        first, second = (a for a in range(3) if a != axis)
        order = (first, second, axis)
        flipped = bool(rays.row_step[0, axis] < 0)
        pixels, steps = (np.array(array[..., order]) for array in (rays.columns, rays.towards_source(0)))
        to_mm = rays.to_mm[:, order].copy()
        row_step = np.abs(rays.row_step[:, axis])
        if flipped:
            pixels[..., 2] = rays.grid_shape[axis] - 1 - pixels[..., 2]
            steps[..., 2] *= -1
            to_mm[:, 2] *= -1
        return cls(order, flipped, pixels, steps, row_step, main_axis(rays, (first, second)), to_mm)

    def part(self, views: slice) -> Upright:
        """Return the rays of a range of views."""
        pixels, steps, row_step = self.pixels[views], self.steps[views], self.row_step[views]
        return replace(self, pixels=pixels, steps=steps, row_step=row_step, across=self.across[views])

    def sizes(self, grid_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape of an arranged volume: (first, second, height)."""
        first, second, height = (grid_shape[a] for a in self.order)
        return first, second, height

    def arrange(self, volume: Tensor) -> Tensor:
        """Bring a volume into the order (first, second, height), as a copy where it is not."""
        moved = volume.permute(self.order)
        return (moved.flip(2) if self.flipped else moved).contiguous()

    def restore(self, arranged: Tensor) -> Tensor:
        """Bring a volume back into the grid's order, as a view where it need not be flipped."""
        moved = arranged.flip(2) if self.flipped else arranged
        return moved.permute([self.order.index(a) for a in range(3)])
