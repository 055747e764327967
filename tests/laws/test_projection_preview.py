"""A coarse preview of projections shows what stands where in the patient, as the run will, and in the run's unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from medrecon.config import load_config
from medrecon.core.errors import UsageError
from medrecon.core.patient_position import PatientPosition, between
from medrecon.core.projections import ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.core.volume import Volume
from medrecon.preview import View
from medrecon.preview_projections import coarser, preview_projections

WATER_PER_MM = 0.02
#: A ball of water about the isocentre's neighbourhood, off every axis of the patient, in LPS mm.
CENTRE, RADIUS_MM = np.array([18.0, -12.0, 9.0]), 14.0


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As the preview's own process has it: threads that wait for each other cost seconds on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    small = coarser(scan, spacing_mm)
    times = tuple(whole // few for whole, few in zip(scan.views.detector.shape, small.views.detector.shape, strict=True))
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
    small = coarser(ProjectionScan(pixels, scan.views, measured=measured), 2.0)
    assert small.pixels.size < scan.pixels.size / 3
    assert np.abs(small.pixels - 2.0).max() < 1e-6
    assert small.measured is not None
    assert small.measured.all()


TURNS = np.arange(160 * 5) * 2 * np.pi / 160
CURVED, FLAT = Detector((32, 128), (2.5, 3.1), 1000.0), Detector((32, 128), (2.5, 3.1))
HELICES = {
    "curved": ViewGeometry.helical(TURNS, 600, 1000, CURVED, pitch_mm_per_turn=40, z0_mm=-100),
    "flat, the other way around": ViewGeometry.helical(-TURNS, 600, 1000, FLAT, pitch_mm_per_turn=40, z0_mm=100),
}
HELICES["in any order"] = HELICES["curved"].take(np.random.default_rng(0).permutation(len(TURNS)))


@pytest.mark.parametrize(("name", "view"), list(zip(HELICES, get_args(View), strict=True)))
def test_a_coarse_plane_of_a_helical_scan_shows_a_ball_where_it_is(name: str, view: View) -> None:
    config = load_config("ct-helical", None, (f"hounsfield.water_per_mm={WATER_PER_MM}",))
    plane = preview_projections(ball_seen_by(HELICES[name]), config, view, CENTRE).plane
    assert np.abs(centre_of_mass(plane, -500.0) - CENTRE).max() < max(plane.spacing_mm) / 2 + 0.1
    distance = np.linalg.norm(_places(plane) - CENTRE, axis=-1)
    assert np.abs(plane.voxels[distance < RADIUS_MM - 5]).max() < 60.0
    assert np.abs(plane.voxels[(distance > RADIUS_MM + 5) & (distance < 2 * RADIUS_MM)] + 1000).max() < 60.0
    assert plane.seen is not None
    assert plane.seen[distance < 2 * RADIUS_MM].all()


COLUMNS, SHIFT_COLUMNS = 150, 12.4  # neither a whole number of joined columns


@pytest.fixture(scope="module")
def displaced() -> ProjectionScan:
    """A scan whose axis appears beside the middle column, while its files say that it is in the middle."""
    views = cone(200, Detector((112, COLUMNS), (0.9, 0.9)))
    truly = replace(views, centres_lps_mm=views.centres_lps_mm - SHIFT_COLUMNS * 0.9 * views.u)
    return replace(ball_seen_by(truly), views=views)


@pytest.mark.parametrize("spacing_mm", [0.6, 1.3, 3.0])
def test_the_axis_is_given_as_a_column_of_the_whole_detector(displaced: ProjectionScan, spacing_mm: float) -> None:
    column = (COLUMNS - 1) / 2 + SHIFT_COLUMNS
    given = ("hounsfield.scanner=false", f"projections.axis={column}", f"grid.spacing_mm={spacing_mm}")
    plane = preview_projections(displaced, load_config("cbct-fast", None, given), "axial", CENTRE).plane
    assert np.abs(centre_of_mass(plane, WATER_PER_MM / 2) - CENTRE)[:2].max() < 0.5
    assert np.median(plane.voxels[np.linalg.norm(_places(plane) - CENTRE, axis=-1) < 9]) == pytest.approx(WATER_PER_MM, rel=0.05)


@pytest.mark.parametrize("off", [-3.0, 3.0])
def test_the_check_of_the_axis_fails_a_few_columns_beside_it(displaced: ProjectionScan, off: float) -> None:
    column = (COLUMNS - 1) / 2 + SHIFT_COLUMNS + off
    config = load_config("cbct-fast", None, ("hounsfield.scanner=false", f"projections.axis={column}"))
    plane = preview_projections(displaced, config, "axial", CENTRE).plane
    inside = plane.voxels[np.linalg.norm(_places(plane) - CENTRE, axis=-1) < 9]
    off_place = np.abs(centre_of_mass(plane, WATER_PER_MM / 2) - CENTRE)[:2].max() > 0.5
    assert off_place or abs(np.median(inside) / WATER_PER_MM - 1) > 0.05


def test_the_last_column_may_hold_the_axis_and_the_one_after_it_not(displaced: ProjectionScan) -> None:
    last = load_config("cbct-fast", None, (f"projections.axis={COLUMNS - 1}",))
    assert preview_projections(displaced, last, "axial", CENTRE).plane.voxels.any()
    with pytest.raises(UsageError, match=f"column {COLUMNS}, the detector has {COLUMNS}"):
        preview_projections(displaced, load_config("cbct-fast", None, (f"projections.axis={COLUMNS}",)), "axial", CENTRE)


@pytest.mark.parametrize(("position", "view"), list(zip(["HFP", "FFS", "HFDR"], get_args(View), strict=True)))
def test_a_plane_is_the_patients_also_where_the_settings_say_how_the_patient_lay(
    scan: ProjectionScan, position: str, view: View
) -> None:
    """The ball is where the same rays put it about a patient who lay so: the scanner stays, the patient is turned in it."""
    turned = between(None, PatientPosition(position))
    centre = np.asarray(scan.views.moved(turned).isocentre) + turned[:3, :3] @ (CENTRE - scan.views.isocentre)
    config = load_config("cbct-fast", None, (f"projections.patient_position={position}",))
    plane = preview_projections(scan, config, view, centre).plane
    assert np.abs(centre_of_mass(plane, WATER_PER_MM / 2) - centre).max() < max(plane.spacing_mm)


def test_samples_of_known_material_are_measured_in_the_whole_volume(scan: ProjectionScan) -> None:
    x, y, z = (float(v) for v in CENTRE)
    sample = f"hounsfield.samples=[{{centre_lps_mm: [{x}, {y}, {z}], radius_mm: 8, hounsfield: 0}}]"
    plane = preview_projections(scan, load_config("cbct-fast", None, (sample,)), "axial", (0, 0, -20)).plane
    assert plane.quantity == "hounsfield"
    assert np.median(plane.voxels) == pytest.approx(-1000, abs=30)


def test_a_method_of_slices_has_no_preview_of_projections(scan: ProjectionScan) -> None:
    with pytest.raises(UsageError, match="ARG-INPUT"):
        preview_projections(scan, load_config("fast"), "axial", CENTRE)


def _places(plane: Volume) -> np.ndarray:
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in plane.grid.shape), indexing="ij"), axis=-1)
    return np.asarray(plane.grid.to_lps(indices))
