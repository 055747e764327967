"""X-ray projections on their way to a volume: checked, turned into line integrals, and in the end into Hounsfield units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from medrecon.config import HounsfieldConfig, ReconstructionConfig
from medrecon.core.errors import InputError, UsageError
from medrecon.core.field_of_view import judge_field_of_view, recommended_grid
from medrecon.core.findings import Finding, Verdict, refuse
from medrecon.core.grid import Grid
from medrecon.core.hounsfield import HounsfieldCalibration, Origin
from medrecon.core.projections import (
    ProjectionScan,
    judge_arc,
    judge_line_integrals,
    judge_sampling,
    without_impossible_values,
)
from medrecon.core.volume import Quantity, Volume
from medrecon.device import Device
from medrecon.methods import Reconstructed
from medrecon.steps.corrections import line_integrals_of
from medrecon.steps.job import Finished, Job, Plan, check_memory, marked

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medrecon.operators.xray_transform import XRayTransform
    from medrecon.quality.assess import Quality

_SAMPLES_ON_GRID = "Give its centre in LPS mm, inside the field of view; `medrecon inspect` tells how far that reaches."


@dataclass(frozen=True, eq=False)
class ProjectionJob(Job):
    """Line integrals, their forward model and the grid over the field of view."""

    scan: ProjectionScan
    grid: Grid
    A: XRayTransform
    y: Tensor
    findings: tuple[Finding, ...]
    hounsfield: HounsfieldConfig
    plan: Plan

    @classmethod
    def prepare(cls, scan: ProjectionScan, config: ReconstructionConfig, where: Device) -> Self:
        """Check the values, take logarithm and corrections, plan the grid in the field of view, check the memory.

        Raises
        ------
        InputError
            ``PRJ-VALUE`` and ``PRJ-EMPTY`` for values that cannot be reconstructed, ``PRJ-FLAT`` for counts without an
            open beam.
        GeometryError
            ``PRJ-FOV`` or ``GRID-REGION`` where grid and field of view do not meet, ``PRJ-UNIT`` for an arc of radians called
            degrees.
        """
        from medrecon.operators.xray_transform import XRayTransform

        scan, impossible = without_impossible_values(scan)
        refuse(impossible, scan.allowed, InputError)
        scan, notes = line_integrals_of(scan, config.projections)
        grid = recommended_grid(scan.views, config.grid.spacing_mm, config.grid.region_lps_mm)
        refuse(judge_field_of_view(scan.views, grid))
        _refuse_samples_outside(config.hounsfield, grid)
        check_memory(grid, scan.pixels.size)
        seen, arc = judge_line_integrals(scan), judge_arc(scan.views)
        refuse(seen, error=InputError)
        refuse(arc, scan.allowed)
        found = (*impossible, *arc, *judge_field_of_view(scan.views, grid), *judge_sampling(scan.views), *seen)
        scan = replace(scan, source=scan.source.briefly())
        A = XRayTransform(scan.views, grid, _mask(scan), device=where.name)
        data = _tensor(scan.pixels, where, grid)
        plan = A.plan(device=where.name)
        told = (*(f for f in found if f not in scan.findings), *notes)
        return cls(scan, grid, A, data, told, config.hounsfield, Plan(str(plan), plan.as_json()))

    def assess(self, made: Reconstructed) -> Quality:
        """Project the volume again, and map what was seen from all sides, from some, and from too few."""
        from medrecon.quality.assess_projections import assess_projections

        return assess_projections(self.A, self.y, made.x)

    def finish(self, x: Tensor, quality: Quality) -> Finished:
        """Return the volume in Hounsfield units where a calibration is known, else as attenuation per mm."""
        voxels = x.cpu().numpy()
        try:
            calibration = _calibration(self.hounsfield, self.scan, voxels, self.grid)
        except UsageError as error:  # known only now, and no reason to lose the volume
            failed = Finding(error.code, Verdict.WARN, f"the values stay attenuation per mm: {error.fact}", hint=error.hint)
            return Finished(self._marked(voxels, quality, Quantity.ATTENUATION_PER_MM), (failed,))
        if calibration is None:
            return Finished(self._marked(voxels, quality, Quantity.ATTENUATION_PER_MM), (_uncalibrated(),))
        volume = self._marked(calibration.to_hounsfield(voxels), quality, Quantity.HOUNSFIELD)
        at_zero, at_one = calibration.to_hounsfield(np.array([0.0, 1.0]))
        return Finished(volume, (_calibrated(calibration),), calibration.as_json(), float(at_one - at_zero))

    def _marked(self, voxels: np.ndarray, quality: Quality, quantity: Quantity) -> Volume:
        return marked(voxels, quality, self.grid, self.scan, quantity)


def _calibration(config: HounsfieldConfig, scan: ProjectionScan, voxels: np.ndarray, grid: Grid) -> HounsfieldCalibration | None:
    """Take the calibration from where the user says, else from the scanner's files, else there is none."""
    if config.samples:
        means = [_mean_in_ball(voxels, grid, s.centre_lps_mm, s.radius_mm) for s in config.samples]
        return HounsfieldCalibration.from_samples(means, [s.hounsfield for s in config.samples])
    if config.water_per_mm is not None:
        return HounsfieldCalibration(config.water_per_mm, config.air_per_mm)
    if config.effective_kev is not None:
        return HounsfieldCalibration.from_energy(config.effective_kev)
    told = next((f.numbers["water_per_mm"] for f in scan.findings if f.code == "PRJ-WATER"), None)
    if config.scanner and isinstance(told, float):
        return HounsfieldCalibration(told, origin=Origin.SCANNER)
    return None


def _mean_in_ball(voxels: np.ndarray, grid: Grid, centre_lps_mm: tuple[float, float, float], radius_mm: float) -> float:
    """Mean of the voxels whose centres lie in a ball; of the nearest one where the ball is smaller than a voxel."""
    middle, reach = grid.to_index(centre_lps_mm), radius_mm / np.asarray(grid.spacing_mm)
    low = np.maximum(np.floor(middle - reach), 0).astype(int)
    high = np.minimum(np.ceil(middle + reach), np.asarray(grid.shape) - 1).astype(int)
    box = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    indices = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid.to_lps(indices) - np.asarray(centre_lps_mm), axis=-1)
    inside = distance <= max(radius_mm, float(distance.min()))
    return float(voxels[box][inside].mean(dtype=np.float64))


def _refuse_samples_outside(config: HounsfieldConfig, grid: Grid) -> None:
    """Refuse a sample beyond the grid before the work begins."""
    for number, sample in enumerate(config.samples, start=1):
        index = grid.to_index(sample.centre_lps_mm)
        if not ((index >= -0.5) & (index <= np.asarray(grid.shape) - 0.5)).all():
            raise UsageError("HU-SAMPLE", f"sample {number} of the calibration lies outside the volume", _SAMPLES_ON_GRID)


def _calibrated(calibration: HounsfieldCalibration) -> Finding:
    how = {
        Origin.MEASURED: "as measured in the volume",
        Origin.SCANNER: "as the scanner's files say",
        Origin.GIVEN: "as the settings say",
        Origin.ENERGY: "that of pure water at the declared energy, not measured in this spectrum",
    }[calibration.origin]
    verdict = Verdict.WARN if calibration.origin is Origin.ENERGY else Verdict.OK
    fact = f"Hounsfield units take water as {calibration.water_per_mm:.5g} per mm and air as {calibration.air_per_mm:.3g}, {how}"
    hint = "Measure water in this scanner's own spectrum (hounsfield.samples)." if verdict is Verdict.WARN else ""
    return Finding("HU-CALIBRATED", verdict, fact, calibration.as_json(), hint=hint)


def _uncalibrated() -> Finding:
    fact = "the values are attenuation per mm, not Hounsfield units: nothing tells what water attenuates in this spectrum"
    hint = "Give hounsfield.water_per_mm, hounsfield.samples (measured water and air) or hounsfield.effective_kev."
    return Finding("HU-NONE", Verdict.OK, fact, hint=hint)


def _mask(scan: ProjectionScan) -> torch.Tensor | None:
    import torch

    return None if scan.measured is None else torch.tensor(scan.measured)


def _tensor(pixels: np.ndarray, where: Device, grid: Grid) -> Tensor:
    """Put the data where the computation is, unless they and some volumes do not fit there; then they are streamed."""
    import torch

    data = torch.tensor(pixels)
    if where.name == "cpu":
        return data
    free = int(torch.cuda.mem_get_info(where.name)[0])
    return data.to(where.name) if 4 * (3 * data.numel() + 8 * int(np.prod(grid.shape))) < free else data
