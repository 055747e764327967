"""Read this to know what happens to a scan, in order.

Plan the output grid, build the forward model, run the method, ask the two questions that follow every method (does
``A x`` give back ``y``? which part did ``A`` never see?), extract surfaces, and write down how it came about.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from medrecon import device as devices
from medrecon import methods
from medrecon.config import ReconstructionConfig, load_config
from medrecon.core.errors import MedreconError, MemoryBudgetError, UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.output_grid import plan_grid
from medrecon.core.progress import Reporter, Stages
from medrecon.core.projections import ProjectionScan
from medrecon.core.provenance import Provenance, hash_of, versions
from medrecon.core.scans import SliceScan
from medrecon.core.volume import OUTSIDE_VALUE, Volume
from medrecon.result import Result

if TYPE_CHECKING:
    from medrecon.quality.assess import Quality

_STAGES = {"prepare": 0.05, "reconstruct": 0.55, "quality": 0.2, "surface": 0.2}


def reconstruct(
    scan: SliceScan | ProjectionScan | Volume,
    config: ReconstructionConfig | None = None,
    *,
    preset: str | None = None,
    device: str | None = None,
    progress: Reporter | None = None,
) -> Result:
    """Turn measured slices into an isotropic volume and its surfaces.

    Parameters
    ----------
    scan : SliceScan or Volume
        The planes of a volume are taken as slices along its widest spacing. Projections can be read, their methods
        stand in `medrecon.methods`; this pipeline does not take them yet (``CMD-LATER``).
    config : ReconstructionConfig, optional
        Instead of `preset`; the preset ``fast`` where neither is given.
    device : str, optional
        Overrides the configuration's device.
    progress : callable, optional
        Called with `medrecon.core.progress.Progress`; raise `CancelledError` in it to stop.

    Raises
    ------
    UsageError, GeometryError, MemoryBudgetError, CancelledError
    """
    import torch

    from medrecon.operators.slice_sampler import SliceSampler
    from medrecon.quality.assess import assess

    started, config = datetime.now(UTC), _settle(config, preset, device)
    clock, stages = _Clock(), Stages(_STAGES, progress)
    method, where = _method_for(config), devices.choose(config.device)
    slices = _as_slices(scan)
    stages.tick("prepare")(0.0)
    grid = plan_grid(slices.poses, config.grid.spacing_mm, config.grid.axes, config.grid.region_lps_mm)
    _check_memory(slices, grid)
    A = SliceSampler(slices.poses, grid, measured=slices.measured, stack=slices.stack, path=config.path)
    y = torch.tensor(slices.pixels, device=where.name)
    clock.lap("prepare")
    with devices.seeded(config.seed), torch.no_grad():
        x = method.run(A, y, method.settings.model_validate(dict(config.settings)), stages.tick("reconstruct"))
    clock.lap("reconstruct")
    quality = assess(A, y, x)
    volume = _volume(x.cpu().numpy(), quality, grid, slices)
    stages.tick("quality")(1.0)
    clock.lap("quality")
    surfaces, findings = _surfaces(volume, config, stages)
    clock.lap("surface")
    provenance = _provenance(slices, config, method, where, started, clock.seconds)
    return Result(volume, surfaces, quality, provenance, slices, findings)


def _settle(config: ReconstructionConfig | None, preset: str | None, device: str | None) -> ReconstructionConfig:
    if config is not None and preset is not None:
        raise UsageError("ARG-BOTH", "a configuration and a preset were given", "Give one of them.")
    config = config if config is not None else load_config(preset)
    return config if device is None else config.model_validate(config.model_dump() | {"device": device})


def _method_for(config: ReconstructionConfig) -> methods.Method:
    method = methods.get(config.method)
    if method.input != "slices":
        raise UsageError("ARG-INPUT", f"the method {method.name} takes {method.input}, the scan is made of slices")
    return method


def _as_slices(scan: SliceScan | ProjectionScan | Volume) -> SliceScan:
    """Take the planes of a volume as slices along its widest spacing."""
    if isinstance(scan, ProjectionScan):
        hint = "It comes with issue B; see the roadmap in README. Methods and operators for projections can be called directly."
        raise UsageError("CMD-LATER", "projections are read, but not reconstructed by this pipeline yet", hint)
    return scan if isinstance(scan, SliceScan) else SliceScan.from_volume(scan, axis=int(np.argmax(scan.spacing_mm)))


def _check_memory(scan: SliceScan, grid: Grid) -> None:
    """Refuse a job that cannot fit before it begins: scan, result, one working copy of each and the quality maps."""
    from medrecon.safety.limits import free_memory_bytes

    needed = 4 * (4 * int(np.prod(grid.shape, dtype=np.int64)) + 3 * scan.pixels.size)
    free = free_memory_bytes()
    if needed > free:
        raise MemoryBudgetError(
            "MEM-BUDGET",
            f"a grid of {list(grid.shape)} voxels needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
            "Choose a larger grid.spacing_mm or a region of interest (grid.region_lps_mm).",
        )


def _volume(voxels: np.ndarray, quality: Quality, grid: Grid, scan: SliceScan) -> Volume:
    """Mark what was never seen, and put the quantity's outside value there: air for CT, never water."""
    seen = quality.coverage > 0
    if not seen.all():
        voxels = np.where(seen, voxels, np.float32(OUTSIDE_VALUE[scan.quantity]))
    return Volume(voxels, grid, scan.quantity, None if seen.all() else seen, scan.source)


def _surfaces(volume: Volume, config: ReconstructionConfig, stages: Stages) -> tuple[tuple[Surface, ...], tuple[Finding, ...]]:
    """Extract every surface asked for; one that cannot be made becomes a finding, the volume is not lost for it."""
    from medrecon.surface.extract import make_surface

    surfaces: list[Surface] = []
    findings: list[Finding] = []
    tick = stages.tick("surface")
    for number, settings in enumerate(config.surfaces, start=1):
        try:
            surfaces.append(make_surface(volume, settings))
        except UsageError:
            raise
        except MedreconError as error:
            if error.code != "SRF-EMPTY":
                raise
            findings.append(Finding(error.code, Verdict.WARN, f"surface {number}: {error.fact}", hint=error.hint))
        tick(number / len(config.surfaces))
    return tuple(surfaces), tuple(findings)


def _provenance(
    scan: SliceScan,
    config: ReconstructionConfig,
    method: methods.Method,
    where: devices.Device,
    started: datetime,
    seconds: dict[str, float],
) -> Provenance:
    import torch

    source = scan.source
    return Provenance(
        series_id=source.series_id,
        reader=source.reader,
        modality=source.modality,
        input_hash=hash_of(source.file_hashes),
        input_file_count=len(source.file_hashes),
        config=config.model_dump(mode="json"),
        config_hash=config.digest,
        method=method.name,
        citation=method.summary,
        device=f"{where.name} ({where.reason})",
        threads=torch.get_num_threads(),
        seed=config.seed,
        allowed=scan.allowed,
        versions=versions(),
        started_utc=started.isoformat(timespec="seconds"),
        seconds=seconds,
    )


@dataclasses.dataclass(slots=True)
class _Clock:
    """Seconds per stage, in the order in which the stages ended."""

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    last_s: float = dataclasses.field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.last_s = round(now - self.last_s, 3), now
