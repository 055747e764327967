"""What is written down about a run: when, how long, with what, on which machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from medrecon import methods
from medrecon.config import ReconstructionConfig
from medrecon.core.projections import ProjectionScan
from medrecon.core.provenance import Provenance, hash_of, versions
from medrecon.core.scans import SliceScan
from medrecon.device import Device


@dataclasses.dataclass(slots=True)
class Clock:
    """When a run started, and the seconds of each stage in the order in which they ended."""

    started: datetime = dataclasses.field(default_factory=lambda: datetime.now(UTC))
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    last_s: float = dataclasses.field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Note the seconds since the last stage ended."""
        now = time.perf_counter()
        self.seconds[stage], self.last_s = round(now - self.last_s, 3), now


def provenance_of(
    scan: SliceScan | ProjectionScan,
    config: ReconstructionConfig,
    method: methods.Method,
    where: Device,
    clock: Clock,
    calibration: Mapping[str, Any],
    plan: Mapping[str, Any],
) -> Provenance:
    """Write down how a result came about."""
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
        started_utc=clock.started.isoformat(timespec="seconds"),
        seconds=clock.seconds,
        calibration=calibration,
        plan=plan,
    )
