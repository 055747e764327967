"""A coarse preview of projections shows what stands where in the patient, as the run will, and in the run's unit."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from medrecon.config import load_config
from medrecon.core.errors import UsageError
from medrecon.core.projections import ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.core.volume import Volume
from medrecon.preview import View
from medrecon.preview_projections import coarser, preview_projections

WATER_PER_MM = 0.02
#: A ball of water about the isocentre's neighbourhood, off every axis of the patient, in LPS mm.
CENTRE, RADIUS_MM = np.array([18.0, -12.0, 9.0]), 14.0


def cone(count: int, detector: Detector) -> ViewGeometry:
    return ViewGeometry.cone(np.linspace(0, 2 * np.pi, count, endpoint=False), 600.0, 900.0, detector)


def ball_seen_by(views: ViewGeometry) -> ProjectionScan:
    """Line integrals through the ball: the length of the chord, exact for every ray through a pixel's centre."""
    rows, columns = np.meshgrid(*(np.arange(n, dtype=float) for n in views.detector.shape), indexing="ij")
    pixels = np.zeros(views.shape, dtype=np.float32)
    for k in range(len(views)):
        source = views.sources_lps_mm[k]  # type: ignore[index]  # a cone has sources
        rays = views.pixel_lps_mm(k, rows, columns) - source
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        along = rays @ (CENTRE - source)
        miss2 = ((CENTRE - source) ** 2).sum() - along**2
        pixels[k] = 2 * WATER_PER_MM * np.sqrt(np.maximum(RADIUS_MM**2 - miss2, 0))
    return ProjectionScan(pixels, views)


@pytest.fixture(scope="module")
def scan() -> ProjectionScan:
    return ball_seen_by(cone(200, Detector((120, 160), (0.9, 0.9))))


def centre_of_mass(plane: Volume, level: float) -> np.ndarray:
    index = np.argwhere(plane.voxels > level)
    return np.asarray(plane.grid.to_lps(index).mean(axis=0))


@pytest.mark.parametrize("view", get_args(View))
def test_a_coarse_plane_shows_a_ball_where_it_is_in_the_patient(scan: ProjectionScan, view: View) -> None:
    config = load_config("cbct-fast", None, (f"hounsfield.water_per_mm={WATER_PER_MM}",))
    seen = preview_projections(scan, config, view, CENTRE)
    assert seen.measured is None
    assert seen.draft
    assert seen.plane.quantity == "hounsfield"
    assert np.abs(centre_of_mass(seen.plane, -500.0) - CENTRE).max() < max(seen.plane.spacing_mm)
    inside = np.linalg.norm(_places(seen.plane) - CENTRE, axis=-1) < RADIUS_MM - 4
    assert abs(float(np.median(seen.plane.voxels[inside]))) < 60.0


def test_the_check_of_the_place_fails_for_a_ball_elsewhere(scan: ProjectionScan) -> None:
    mirrored = ProjectionScan(scan.pixels[:, :, ::-1], scan.views)
    config = load_config("cbct-fast", None, (f"hounsfield.water_per_mm={WATER_PER_MM}",))
    plane = preview_projections(mirrored, config, "axial", CENTRE).plane
    assert np.abs(centre_of_mass(plane, -500.0) - CENTRE).max() > 3 * max(plane.spacing_mm)


@pytest.mark.parametrize("spacing_mm", [1.3, 2.0, 5.0])
def test_joined_pixels_lie_where_those_were_that_they_are_made_of(scan: ProjectionScan, spacing_mm: float) -> None:
    small, times = coarser(scan, spacing_mm)
    rows, columns = (np.arange(n, dtype=float) for n in small.views.detector.shape)
    firsts = [(n * t + (t - 1) / 2) for n, t in zip((rows, columns), times, strict=True)]
    for k in (0, 71):
        joined = small.views.pixel_lps_mm(k, rows[:, None], columns[None])
        members = scan.views.pixel_lps_mm(k, firsts[0][:, None], firsts[1][None])
        assert np.abs(joined - members).max() < 1e-9


def test_joined_pixels_hold_the_mean_of_what_was_measured(scan: ProjectionScan) -> None:
    measured = np.ones(scan.pixels.shape, dtype=bool)
    measured[:, 0, 0] = False
    pixels = np.where(measured, 2.0, 1e6).astype(np.float32)
    small, times = coarser(ProjectionScan(pixels, scan.views, measured=measured), 2.0)
    assert min(times) > 1
    assert np.abs(small.pixels - 2.0).max() < 1e-6
    assert small.measured is not None
    assert small.measured.all()


def test_a_method_of_slices_has_no_preview_of_projections(scan: ProjectionScan) -> None:
    with pytest.raises(UsageError, match="ARG-INPUT"):
        preview_projections(scan, load_config("fast"), "axial", CENTRE)


def _places(plane: Volume) -> np.ndarray:
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in plane.grid.shape), indexing="ij"), axis=-1)
    return np.asarray(plane.grid.to_lps(indices))
