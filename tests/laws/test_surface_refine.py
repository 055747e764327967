"""Smoothing keeps the volume, decimation keeps the surface closed and in its place, and pinches are opened."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from trimesh.smoothing import filter_laplacian

from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.volume import Volume
from medrecon.surface.enclosed import volume_mm3
from medrecon.surface.extract import extract, make_surface
from medrecon.surface.pieces import largest_pieces
from medrecon.surface.pinches import open_pinches
from medrecon.surface.refine import decimate, smooth
from medrecon.surface.settings import SurfaceConfig
from medrecon.surface.slivers import weld_slivers
from tests.makers_surfaces import points_of

RADIUS_MM = 14.0
MIDDLE = np.array([19.6, 20.3, 19.4])


def ball(noise: float = 0.0, steps: bool = False) -> Surface:
    """A ball as flying edges draw it: clean, from noisy values, or from a mask with the staircase of its voxels."""
    grid = Grid.from_parts((40, 40, 40), (1, 1, 1), (0, 0, 0))
    values = RADIUS_MM - np.linalg.norm(points_of(grid) - MIDDLE, axis=-1)
    values = values + noise * np.random.default_rng(0).standard_normal(values.shape)
    values = np.where(values > 0, 1.0, -1.0) if steps else values
    raw = extract(Volume(values.astype(np.float32), grid), SurfaceConfig(level=0.0))
    return largest_pieces(raw)


def roughness_mm(surface: Surface) -> float:
    """How far the vertices scatter about the best ball."""
    return float(np.linalg.norm(surface.vertices_lps_mm - MIDDLE, axis=1).std())


def torn(values_seed: int = 3) -> Surface:
    """The largest piece of thresholded noise: what decimation finds hardest."""
    values = np.random.default_rng(values_seed).standard_normal((36, 36, 36)).astype(np.float32)
    grid = Grid.from_parts(values.shape, (1.3, 1.0, 0.7), (5, -70, 90))
    return largest_pieces(extract(Volume(values, grid), SurfaceConfig(level=0.6)))


def loses_volume(before: Surface, after: Surface) -> bool:
    return abs(volume_mm3(after) / volume_mm3(before) - 1) > 0.01


@pytest.mark.parametrize("rough", [ball(noise=0.4), ball(steps=True)], ids=["noise", "staircase"])
@pytest.mark.parametrize(("iterations", "pass_band", "left"), [(20, 0.1, 0.8), (40, 0.02, 0.4)], ids=["default", "strong"])
def test_smoothing_evens_the_surface_and_keeps_its_volume(rough: Surface, iterations: int, pass_band: float, left: float) -> None:
    even = smooth(rough, iterations, pass_band)
    assert roughness_mm(even) < left * roughness_mm(rough)
    assert not loses_volume(rough, even)


def test_the_volume_check_fails_on_plain_laplacian_smoothing() -> None:
    rough = ball(noise=0.4)
    mesh = filter_laplacian(rough.to_trimesh(), lamb=0.5, iterations=20, volume_constraint=False)
    assert loses_volume(rough, Surface(mesh.vertices, mesh.faces))


def test_a_rod_three_voxels_thick_loses_as_little_as_the_settings_say() -> None:
    grid = Grid.from_parts((60, 24, 24), (1, 1, 1), (0, 0, 0))
    x, y, z = np.moveaxis(points_of(grid) - [11.6, 11.3, 29.4], -1, 0)
    rod = np.minimum(1.5 - np.hypot(x, y), 25 - np.abs(z)).astype(np.float32)
    raw = extract(Volume(rod, grid), SurfaceConfig(level=0.0))
    defaults = SurfaceConfig()
    even = smooth(raw, defaults.smoothing_iterations, defaults.smoothing_pass_band)
    assert volume_mm3(even) == pytest.approx(0.985 * volume_mm3(raw), rel=0.003)


def test_a_pass_band_of_two_lets_everything_through_and_zero_iterations_change_nothing() -> None:
    rough = ball(noise=0.4)
    assert roughness_mm(smooth(rough, pass_band=2.0)) == pytest.approx(roughness_mm(rough), rel=0.05)
    assert smooth(rough, iterations=0) is rough


def test_smoothing_leaves_open_borders_where_they_are() -> None:
    half = ball(noise=0.4)
    kept = half.triangles[(half.vertices_lps_mm[half.triangles][..., 2] > MIDDLE[2]).all(axis=1)]
    cap = Surface(half.vertices_lps_mm, kept)
    rim = trimesh.grouping.group_rows(cap.to_trimesh().edges_sorted, require_count=1)
    rim_vertices = np.unique(cap.to_trimesh().edges_sorted[rim])
    assert len(rim_vertices) > 50
    assert np.allclose(smooth(cap).vertices_lps_mm[rim_vertices], cap.vertices_lps_mm[rim_vertices], atol=1e-9)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.08])
def test_decimation_reaches_its_target_stays_closed_and_in_its_place(share: float) -> None:
    full = ball()
    target = int(share * len(full.triangles))
    light = decimate(full, target)
    assert len(light.triangles) == pytest.approx(target, abs=2)
    assert light.to_trimesh().is_watertight
    assert np.abs(np.linalg.norm(light.vertices_lps_mm - MIDDLE, axis=1) - RADIUS_MM).max() < 0.15
    assert volume_mm3(light) == pytest.approx(volume_mm3(full), rel=0.01)


def test_decimation_does_nothing_to_a_surface_that_is_light_enough() -> None:
    full = ball()
    assert decimate(full, len(full.triangles)) is full


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_even_a_sponge_stays_watertight_also_in_single_precision_without_shared_vertices(share: float) -> None:
    sponge = torn()
    light = decimate(sponge, int(share * len(sponge.triangles)))
    assert light.to_trimesh().is_watertight
    assert read_from_soup(light).is_watertight


def read_from_soup(surface: Surface) -> trimesh.Trimesh:
    """What a reader of STL sees: single precision, equal corners merged."""
    corners = surface.vertices_lps_mm.astype(np.float32)[surface.triangles].reshape(-1, 3)
    return trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=True)


def two_boxes_sharing_an_edge() -> Surface:
    boxes = [trimesh.creation.box((1, 1, 2)), trimesh.creation.box((1, 1, 2))]
    boxes[1].apply_translation((1, 1, 0))
    mesh = trimesh.util.concatenate(boxes)
    mesh.merge_vertices()
    return Surface(mesh.vertices, mesh.faces)


def test_bodies_that_touch_along_an_edge_are_parted() -> None:
    touching = two_boxes_sharing_an_edge()
    parted = open_pinches(touching)
    mesh = parted.to_trimesh()
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(4.0, rel=0.01)
    assert mesh.volume < 4.0  # the cleft lies outside, not inside


def test_the_parting_check_fails_before_they_are_parted() -> None:
    touching = two_boxes_sharing_an_edge()
    assert volume_mm3(touching) == pytest.approx(4.0)
    assert not touching.to_trimesh().is_watertight


def test_triangles_back_to_back_are_removed_with_their_vertices() -> None:
    box = trimesh.creation.box((1, 1, 1))
    a, b, _ = box.faces[0]
    fin = [[a, b, 8], [b, a, 8]]  # stands on an edge of the box
    finned = Surface(np.vstack([box.vertices, [3, 3, 3]]), np.vstack([box.faces, fin]))
    cleaned = open_pinches(finned)
    assert (len(cleaned.vertices_lps_mm), len(cleaned.triangles)) == (8, 12)
    assert cleaned.to_trimesh().is_watertight


def test_a_surface_without_pinches_is_returned_as_it_is() -> None:
    clean = ball()
    assert open_pinches(clean) is clean


def ball_volume() -> Volume:
    grid = Grid.from_parts((40, 40, 40), (1, 1, 1), (0, 0, 0))
    values = RADIUS_MM - np.linalg.norm(points_of(grid) - MIDDLE, axis=-1)
    return Volume(values.astype(np.float32), grid)


@pytest.mark.parametrize("share", [0.7, 0.05], ids=["light", "heavy enough to be welded"])
def test_volume_changes_are_reported_and_add_up_as_trimesh_finds_them(share: float) -> None:
    volume = ball_volume()
    raw = make_surface(volume, SurfaceConfig(level=0.0, smoothing_iterations=0, target_triangles=None))
    target = int(share * len(raw.triangles))
    light = make_surface(volume, SurfaceConfig(level=0.0, smoothing_pass_band=0.01, target_triangles=target))
    by_smoothing, by_decimation = (
        float(str(light.measures[f"volume_change_by_{step}_percent"])) / 100 for step in ("smoothing", "decimation")
    )
    assert -0.01 < by_smoothing < 0 > by_decimation > -0.03
    assert (1 + by_smoothing) * (1 + by_decimation) == pytest.approx(light.to_trimesh().volume / raw.to_trimesh().volume)


def test_welding_removes_a_third_of_the_triangles_and_keeps_the_surface_where_it_is() -> None:
    volume = ball_volume()
    raw = extract(volume, SurfaceConfig(level=0.0))
    welded = weld_slivers(raw, volume.grid)
    assert len(welded.triangles) < 0.67 * len(raw.triangles)
    assert welded.to_trimesh().is_watertight
    assert np.abs(np.linalg.norm(welded.vertices_lps_mm - MIDDLE, axis=1) - RADIUS_MM).max() < 0.03
    assert volume_mm3(welded) == pytest.approx(volume_mm3(raw), rel=0.003)


def plate() -> Volume:
    """A plate half a voxel thick that lies in a plane of voxels."""
    grid = Grid.from_parts((9, 24, 24), (1, 1, 1), (0, 0, 0))
    x, y, z = np.moveaxis(points_of(grid) - [11.6, 11.3, 4.0], -1, 0)
    return Volume(np.minimum(0.25 - np.abs(z), 8 - np.hypot(x, y)).astype(np.float32), grid)


def test_welding_leaves_a_wall_thinner_than_a_voxel_standing() -> None:
    volume = plate()
    raw = extract(volume, SurfaceConfig(level=0.0))
    assert volume_mm3(weld_slivers(raw, volume.grid)) == pytest.approx(volume_mm3(raw), rel=0.03)


def test_the_wall_check_fails_on_welding_that_asks_for_no_wall() -> None:
    volume = plate()
    raw = extract(volume, SurfaceConfig(level=0.0))
    _, merged = np.unique(np.rint(raw.vertices_lps_mm), axis=0, return_inverse=True)
    vertices = np.stack([np.bincount(merged, weights=axis) / np.bincount(merged) for axis in raw.vertices_lps_mm.T], axis=1)
    assert volume_mm3(Surface(vertices, merged[raw.triangles])) < 0.5 * volume_mm3(raw)
