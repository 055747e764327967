"""How a projection job is cut to fit into memory, decided and shown before it begins.

The volume is cut into slabs of slices and the scan into blocks of views. A slab of a volume projects to a part of the
line integrals, and the parts add up; so any cut gives the same numbers but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

from medrecon.core.errors import MemoryBudgetError

_BYTES = 4
_SMALLEST_SLAB = 8
_FEWEST_VIEWS = 8
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class XRayPlan:
    """The cut of one operator application.

    Parameters
    ----------
    grid_shape : (slices, rows, columns)
    projection_shape : (views, rows, columns)
    slab_slices : int
        Slices of the volume in work at a time.
    block_views : int
        Views in work at a time.
    batch : int
        Volumes that are projected together.
    device : str
        Where the work is done.
    budget_bytes : int
        What the work may take beside the data themselves.
    """

    grid_shape: tuple[int, int, int]
    projection_shape: tuple[int, int, int]
    slab_slices: int
    block_views: int
    batch: int
    device: str
    budget_bytes: int

    @property
    def data_bytes(self) -> int:
        """Size of one volume and one set of projections, times the batch."""
        return _BYTES * self.batch * (prod(self.grid_shape) + prod(self.projection_shape))

    @property
    def working_bytes(self) -> int:
        """Estimate of the memory in use beside the data: slab and block, each with one rearranged copy."""
        return _working(self.grid_shape, self.projection_shape, self.slab_slices, self.block_views, self.batch)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut."""
        return self.slab_slices >= self.grid_shape[0] and self.block_views >= self.projection_shape[0]

    def slabs(self) -> Iterator[tuple[int, int]]:
        """First and last (excluded) slice of every slab."""
        return _ranges(self.grid_shape[0], self.slab_slices)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First and last (excluded) view of every block."""
        return _ranges(self.projection_shape[0], self.block_views)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain data, as it stands in ``run.json``."""
        return {
            "volume": list(self.grid_shape),
            "projections": list(self.projection_shape),
            "device": self.device,
            "slabs": self._slabs,
            "slab_slices": self.slab_slices,
            "blocks": self._blocks,
            "block_views": self.block_views,
            "data_bytes": self.data_bytes,
            "working_bytes": self.working_bytes,
        }

    @property
    def _slabs(self) -> int:
        return ceil(self.grid_shape[0] / self.slab_slices)

    @property
    def _blocks(self) -> int:
        return ceil(self.projection_shape[0] / self.block_views)

    def __str__(self) -> str:
        volume, projections = " x ".join(map(str, self.grid_shape)), " x ".join(map(str, self.projection_shape))
        return (
            f"volume {volume}, projections {projections} ({self.data_bytes / _MIB:.0f} MiB) on {self.device}: "
            f"{self._slabs} slab(s) of {self.slab_slices} slices, {self._blocks} block(s) of {self.block_views} views, "
            f"{self.working_bytes / _MIB:.0f} MiB beside the data"
        )


def plan_xray(
    grid_shape: tuple[int, int, int],
    projection_shape: tuple[int, int, int],
    budget_bytes: int,
    batch: int = 1,
    device: str = "cpu",
) -> XRayPlan:
    """Cut a job until its working memory fits into the budget: blocks of views first, then slabs.

    Raises
    ------
    MemoryBudgetError
        ``MEM-BUDGET`` where even the smallest slab and block do not fit.
    """
    slices, views = grid_shape[0], projection_shape[0]
    slab, block = slices, views
    while _working(grid_shape, projection_shape, slab, block, batch) > budget_bytes:
        if block > 4 * _FEWEST_VIEWS or (block > _FEWEST_VIEWS and slab <= _SMALLEST_SLAB):
            block = ceil(block / 2)
        elif slab > _SMALLEST_SLAB:
            slab = ceil(slab / 2)
        else:
            needed = _working(grid_shape, projection_shape, slab, block, batch)
            raise MemoryBudgetError(
                "MEM-BUDGET",
                f"{slab} slices and {block} views need {needed / _MIB:.0f} MiB, {budget_bytes / _MIB:.0f} MiB are allowed",
                "Choose larger voxels or fewer volumes at a time.",
            )
    return XRayPlan(grid_shape, projection_shape, slab, block, batch, device, budget_bytes)


def halved(plan: XRayPlan) -> XRayPlan | None:
    """Return the plan with half the slab, for after running out of memory; None where it cannot be halved."""
    if plan.slab_slices <= _SMALLEST_SLAB:
        return None
    return XRayPlan(
        plan.grid_shape,
        plan.projection_shape,
        ceil(plan.slab_slices / 2),
        plan.block_views,
        plan.batch,
        plan.device,
        plan.budget_bytes // 2,
    )


def _working(grid: tuple[int, int, int], projections: tuple[int, int, int], slab: int, block: int, batch: int) -> int:
    slab_voxels, block_pixels = slab * grid[1] * grid[2], block * projections[1] * projections[2]
    return 2 * _BYTES * batch * (slab_voxels + block_pixels)


def _ranges(n: int, step: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + step, n)) for first in range(0, n, step))
