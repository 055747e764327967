"""The surfaces of a volume, as many as were asked for."""

from __future__ import annotations

from medrecon.config import ReconstructionConfig
from medrecon.core.errors import MedreconError, UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.mesh import Surface
from medrecon.core.progress import Tick
from medrecon.core.volume import Volume


def make_surfaces(volume: Volume, config: ReconstructionConfig, tick: Tick) -> tuple[tuple[Surface, ...], tuple[Finding, ...]]:
    """Extract every surface asked for; one that cannot be made becomes a finding, the volume is not lost for it."""
    from medrecon.surface.extract import make_surface

    surfaces: list[Surface] = []
    findings: list[Finding] = []
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
