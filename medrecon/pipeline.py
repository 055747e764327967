"""Read this to know what happens to a scan, in order.

Plan the output grid, build the forward model, run the method, ask the two questions that follow every method (does
``A x`` give back ``y``? which part did ``A`` never see?), extract surfaces, and write down how it came about. What each
step is for slices and for projections stands in `medrecon.steps`.
"""

from __future__ import annotations

from medrecon import device as devices
from medrecon import methods
from medrecon.config import DEFAULT_PRESETS, ReconstructionConfig, load_config
from medrecon.core.errors import UsageError
from medrecon.core.progress import Reporter, Stages
from medrecon.core.projections import ProjectionScan
from medrecon.core.scans import SliceScan
from medrecon.core.volume import Volume
from medrecon.device import Device
from medrecon.result import Result
from medrecon.steps.job import Job, doubt_of
from medrecon.steps.projections import ProjectionJob
from medrecon.steps.record import Clock, provenance_of
from medrecon.steps.slices import SliceJob, is_freehand
from medrecon.steps.surfaces import make_surfaces

_STAGES = {"prepare": 0.05, "reconstruct": 0.55, "quality": 0.2, "surface": 0.2}


def reconstruct(
    scan: SliceScan | ProjectionScan | Volume,
    config: ReconstructionConfig | None = None,
    *,
    preset: str | None = None,
    device: str | None = None,
    progress: Reporter | None = None,
) -> Result:
    """Turn measured slices or X-ray projections into an isotropic volume and its surfaces.

    Parameters
    ----------
    scan : SliceScan, ProjectionScan or Volume
        Of a volume, the planes along its widest spacing are the slices.
    config : ReconstructionConfig, optional
        Instead of `preset`; where neither is given, the preset ``fast`` for slices, ``ultrasound`` for frames of a
        freehand probe, and ``cbct-fast`` for projections.
    device : str, optional
        Overrides the configuration's device.
    progress : callable, optional
        Called with `medrecon.core.progress.Progress`; raise `CancelledError` in it to stop.

    Raises
    ------
    UsageError, InputError, GeometryError, MemoryBudgetError, CancelledError
    """
    import torch

    clock, stages = Clock(), Stages(_STAGES, progress)
    config = _settle(config, preset, device, preset_kind_of(scan))
    method, where = methods.get(config.method).checked_for(kind_of(scan)), devices.choose(config.device)
    stages.tick("prepare")(0.0)
    job = _prepare(scan, config, where)
    if job.plan.words:
        stages.say("prepare", job.plan.words)
    clock.lap("prepare")
    settings = method.settings.model_validate(dict(config.settings))
    with devices.seeded(config.seed), torch.no_grad():
        made = methods.Reconstructed.of(method.run(job.A, job.y, settings, stages.tick("reconstruct")))
    clock.lap("reconstruct")
    quality = job.assess(made)
    done = job.finish(made.x, quality)
    stages.tick("quality")(1.0)
    clock.lap("quality")
    surfaces, noticed = make_surfaces(done.volume, config, stages.tick("surface"))
    clock.lap("surface")
    provenance = provenance_of(job.scan, config, method, where, clock, done.calibration, job.plan.as_json())
    findings = (*job.findings, *made.findings, *done.findings, *noticed)
    return Result(done.volume, surfaces, quality, provenance, job.scan, findings, doubt_of(made, done))


def kind_of(scan: SliceScan | ProjectionScan | Volume) -> str:
    """Name what a scan is made of, as `medrecon.methods` does: ``slices`` or ``projections``."""
    return "projections" if isinstance(scan, ProjectionScan) else "slices"


def preset_kind_of(scan: SliceScan | ProjectionScan | Volume) -> str:
    """Name what a scan is to `medrecon.config.DEFAULT_PRESETS`: ``slices``, ``frames`` or ``projections``."""
    return "frames" if isinstance(scan, SliceScan) and is_freehand(scan) else kind_of(scan)


def _prepare(scan: SliceScan | ProjectionScan | Volume, config: ReconstructionConfig, where: Device) -> Job:
    if isinstance(scan, ProjectionScan):
        return ProjectionJob.prepare(scan, config, where)
    return SliceJob.prepare(scan, config, where)


def _settle(config: ReconstructionConfig | None, preset: str | None, device: str | None, kind: str) -> ReconstructionConfig:
    if config is not None and preset is not None:
        raise UsageError("ARG-BOTH", "a configuration and a preset were given", "Give one of them.")
    config = config if config is not None else load_config(preset or DEFAULT_PRESETS[kind])
    return config if device is None else config.model_validate(config.model_dump() | {"device": device})
