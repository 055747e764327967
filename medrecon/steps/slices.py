"""Posed slices on their way to a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from medrecon.config import ReconstructionConfig
from medrecon.core.errors import UsageError
from medrecon.core.findings import Finding
from medrecon.core.grid import Grid
from medrecon.core.output_grid import plan_grid
from medrecon.core.scans import SliceScan
from medrecon.core.volume import Volume
from medrecon.device import Device
from medrecon.methods import Reconstructed
from medrecon.steps.job import Finished, Job, check_memory, marked

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.operators.slice_sampler import SliceSampler
    from medrecon.quality.assess import Quality


#: Methods that slice their volume again and again, which on frames that lie anywhere takes hours.
_SLICING_AGAIN = frozenset({"consistent_spline", "recurrent", "zero_shot"})


def is_freehand(scan: SliceScan) -> bool:
    """Whether images were placed by a hand: read as tracked frames, or ultrasound whose images are not parallel."""
    if scan.source.reader == "tracked_frames":
        return True
    return scan.source.modality == "US" and not all(stack.poses.are_parallel for stack in scan.stacks())


@dataclass(frozen=True, eq=False)
class SliceJob(Job):
    """Slices, their forward model and the grid over everything that they have looked at."""

    scan: SliceScan
    grid: Grid
    A: SliceSampler
    y: Tensor
    findings: tuple[Finding, ...] = ()

    @classmethod
    def prepare(cls, scan: SliceScan | Volume, config: ReconstructionConfig, where: Device) -> Self:
        """Plan the output grid, check the memory, build the forward model.

        The planes of a volume are taken as slices along its widest spacing.

        Raises
        ------
        UsageError
            ``SLC-FREEHAND`` for a method that is not made for frames of a freehand probe.
        """
        from torch.utils.dlpack import from_dlpack

        from medrecon.operators.slice_sampler import SliceSampler

        slices = scan if isinstance(scan, SliceScan) else SliceScan.from_volume(scan, axis=int(np.argmax(scan.spacing_mm)))
        _refuse_hours(slices, config.method)
        grid = plan_grid(slices.poses, config.grid.spacing_mm, config.grid.axes, config.grid.region_lps_mm)
        check_memory(grid, slices.pixels.size)
        A = SliceSampler(slices.poses, grid, measured=slices.measured, stack=slices.stack, path=config.path)
        y = from_dlpack(slices.pixels).to(where.name)  # no copy on the CPU: methods leave y as it is
        return cls(slices, grid, A, y)

    def assess(self, made: Reconstructed) -> Quality:
        """Slice the volume again, and map what lies between slices and what no slice saw."""
        from medrecon.quality.assess import assess

        return assess(self.A, self.y, made.x, None if made.coverage is None else made.coverage.cpu().numpy())

    def finish(self, x: Tensor, quality: Quality) -> Finished:
        """Return the volume in the unit of the slices."""
        return Finished(marked(x.cpu().numpy(), quality, self.grid, self.scan, self.scan.quantity))


def _refuse_hours(scan: SliceScan, method: str) -> None:
    if method in _SLICING_AGAIN and is_freehand(scan):
        raise UsageError(
            "SLC-FREEHAND",
            f"{len(scan.poses)} frames of a freehand probe are not parallel, and the method {method} needs slices that are",
            "Choose the preset ultrasound, or the method compound.",
        )
