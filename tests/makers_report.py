"""Results to report on: a head-sized ball with something on its left, scanned in thick slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import trimesh

from medrecon.core.findings import Finding
from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.profile import SliceProfile
from medrecon.core.provenance import Provenance, versions
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.source import Source
from medrecon.core.volume import Quantity, Volume
from medrecon.quality.assess import Quality
from medrecon.result import Result


def ball_scan(findings: tuple[Finding, ...] = (), header: Mapping[str, Any] | None = None) -> SliceScan:
    """12 axial slices, 4 mm thick every 5 mm, 40 x 36 pixels of 1.5 x 2 mm, of a ball of 22 mm radius."""
    positions = np.array([[-35.0, -29.25, z] for z in np.arange(-27.5, 30, 5)])
    poses = SlicePoses.from_parts(positions, (0, 1, 0), (1, 0, 0), (1.5, 2.0), (40, 36), 4.0, SliceProfile("bell"))
    pixel = np.stack(np.meshgrid([0.0], np.arange(40), np.arange(36), [1.0], indexing="ij"), axis=-1)[0, :, :, 0]
    points = np.einsum("nij,rcj->nrci", poses.to_lps_mm[:, :3], pixel)
    inside = np.linalg.norm(points, axis=-1) < 22
    source = Source("dicom", "series-00000000000000ff", "CT", ("00",), (), header or {})
    return SliceScan(np.where(inside, 40.0, -1000.0), poses, Quantity.HOUNSFIELD, findings=findings, source=source)


def ball_volume() -> Volume:
    """The same ball on an isotropic grid of 1.5 mm."""
    grid = Grid.from_parts((38, 40, 48), (1.5, 1.5, 1.5), (-35.25, -29.25, -27.75))
    points = grid.to_lps(np.moveaxis(np.indices(grid.shape), 0, -1))
    inside = np.linalg.norm(points, axis=-1) < 22
    return Volume(np.where(inside, 40.0, -1000.0).astype(np.float32), grid, Quantity.HOUNSFIELD)


def ball_surface(radius_mm: float = 22.0) -> Surface:
    """A closed ball, its measures as `medrecon.surface` names them."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius_mm)
    return Surface(mesh.vertices, mesh.faces, "skin", {"volume_ml": 44.6, "watertight": True, "extent_mm": [44.0, 44.0, 44.0]})


def ball_result(
    findings: tuple[Finding, ...] = (), header: Mapping[str, Any] | None = None, metrics: Mapping[str, float] | None = None
) -> Result:
    """A whole result, with made-up quality."""
    scan, volume = ball_scan(findings, header), ball_volume()
    coverage = np.full(volume.grid.shape, 2, dtype=np.uint8)
    coverage[:2], coverage[5::7] = 0, 1
    counts = np.bincount(coverage.ravel()) / coverage.size
    residual = np.random.default_rng(1).normal(0, 3, scan.pixels.shape).astype(np.float32)
    quality = Quality(0.004, 3.0, residual, coverage, float(counts[2]), float(counts[1]), float(counts[0]))
    provenance = Provenance(
        series_id=scan.source.series_id,
        reader="dicom",
        modality="CT",
        input_hash="ab" * 32,
        input_file_count=12,
        config={"method": "consistent_spline", "settings": {"order": 3}},
        config_hash="cd" * 32,
        method="consistent_spline",
        citation="A spline made consistent. Somebody 2005.",
        device="cpu (no GPU)",
        threads=2,
        seed=0,
        versions=versions(),
        started_utc="2026-01-01T12:00:00+00:00",
        seconds={"prepare": 0.1, "reconstruct": 2.5},
    )
    return Result(volume, (ball_surface(),), quality, provenance, scan, metrics=metrics or {})


def noise_result() -> Result:
    """The largest pages come from noise, which no picture format can compress."""
    rng = np.random.default_rng(2)
    grid = Grid.from_parts((96, 380, 380), (1.0, 0.6, 0.6), (-114.0, -114.0, -48.0))
    volume = Volume(rng.normal(0, 300, grid.shape).astype(np.float32), grid)
    scan = replace(SliceScan.from_volume(volume), source=Source(modality="MR"))
    quality = replace(ball_result().quality, residual_map=volume.voxels, coverage=rng.integers(0, 3, grid.shape, dtype=np.uint8))
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=40)
    rough = mesh.vertices * rng.normal(1, 0.05, (len(mesh.vertices), 1))
    surfaces = tuple(Surface(rough, mesh.faces, f"rough-{k}") for k in range(4))
    return replace(ball_result(), volume=volume, scan=scan, quality=quality, surfaces=surfaces)
