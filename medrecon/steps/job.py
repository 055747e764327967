"""What a scan becomes before a method sees it: ``A``, ``y``, and what to do with the ``x`` that comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon.core.errors import MemoryBudgetError
from medrecon.core.field_of_view import estimated_memory_bytes
from medrecon.core.findings import Finding
from medrecon.core.grid import Grid
from medrecon.core.projections import ProjectionScan
from medrecon.core.scans import SliceScan
from medrecon.core.volume import OUTSIDE_VALUE, Quantity, Volume
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.operators.linear import LinearOperator
    from medrecon.quality.assess import Quality

_FREE_SHARE = 0.8  # of the free memory, that a spacing is proposed for


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """What came of a method's volume.

    Parameters
    ----------
    volume : Volume
    findings : tuple of Finding
    calibration : mapping
        As it stands in the provenance; empty where nothing was calibrated.
    scale : float
        By how much the volume's values grow where the method's grow by 1.
    """

    volume: Volume
    findings: tuple[Finding, ...] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job is cut to fit into memory: in words, told before it begins, and in numbers. Empty where nothing is cut."""

    words: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return dict(self.numbers)


class Job(ABC):
    """One scan on its way to a volume."""

    scan: SliceScan | ProjectionScan
    grid: Grid
    A: LinearOperator
    y: Tensor
    findings: tuple[Finding, ...]
    plan: Plan = Plan()

    @abstractmethod
    def assess(self, made: Reconstructed) -> Quality:
        """Ask the two questions: whether ``A x`` gives back ``y``, and what A never saw."""

    @abstractmethod
    def finish(self, x: Tensor, quality: Quality) -> Finished:
        """Turn the method's voxels into the volume that is returned."""


def marked(voxels: np.ndarray, quality: Quality, grid: Grid, scan: SliceScan | ProjectionScan, quantity: Quantity) -> Volume:
    """Mark what was never seen, and put the quantity's outside value there: air for CT, never water.

    `voxels` are the method's own, and are written to: a copy would be the largest array of a run.
    """
    seen = quality.coverage > 0
    if not seen.all():
        np.copyto(voxels, np.float32(OUTSIDE_VALUE[quantity]), where=~seen)
    return Volume(voxels, grid, quantity, None if seen.all() else seen, scan.source)


def doubt_of(made: Reconstructed, done: Finished) -> Volume | None:
    """Return a method's uncertainty on the grid and in the unit of the finished volume."""
    if made.uncertainty is None:
        return None
    values = made.uncertainty.cpu().numpy() * np.float32(abs(done.scale))
    return Volume(values, done.volume.grid, Quantity.ARBITRARY, done.volume.seen, done.volume.source)


def check_memory(grid: Grid, measured_values: int) -> None:
    """Refuse a job that cannot fit before it begins: scan, result, one working copy of each and the quality maps.

    Raises
    ------
    MemoryBudgetError
        ``MEM-BUDGET``, with a spacing that would fit.
    """
    from medrecon.safety.limits import free_memory_bytes

    voxels, free = int(np.prod(grid.shape, dtype=np.int64)), free_memory_bytes()
    needed = estimated_memory_bytes(voxels, measured_values)
    if needed <= free:
        return
    room = _FREE_SHARE * free - 12 * measured_values
    coarser = f", such as {max(grid.spacing_mm) * (16 * voxels / room) ** (1 / 3):.2g}" if room > 0 else ""
    raise MemoryBudgetError(
        "MEM-BUDGET",
        f"a grid of {list(grid.shape)} voxels needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
        f"Choose a larger grid.spacing_mm{coarser}, or a region of interest (grid.region_lps_mm).",
    )
