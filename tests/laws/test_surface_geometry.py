"""A surface stands where the body stands, as large as it is, and looks outward; judged by closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from medrecon.core.errors import CancelledError, GeometryError
from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.volume import Quantity, Volume
from medrecon.surface.extract import extract, make_surface
from medrecon.surface.measure import measure
from medrecon.surface.settings import SurfaceConfig
from tests.makers_surfaces import (
    CENTRE_LPS_MM,
    STANDING,
    Ellipsoid,
    all_48,
    face_normals,
    grid_around,
    inside_out,
    mirrored,
    points_of,
)

BODY = Ellipsoid()
RAW = SurfaceConfig(level=0.0, smoothing_iterations=0, target_triangles=None)
REFINED = SurfaceConfig(level=0.0, target_triangles=6000)
every_way_of_standing = pytest.mark.parametrize("matrix", STANDING.values(), ids=STANDING)
raw_and_refined = pytest.mark.parametrize("config", [RAW, REFINED], ids=["raw", "smoothed and decimated"])


def faults(surface: Surface, grid: Grid) -> list[str]:
    """What is wrong with a surface of the body, by formulas that know nothing of how it was made."""
    mesh = surface.to_trimesh()
    centroid_voxels = np.abs(np.linalg.solve(grid.to_lps_mm[:3, :3], mesh.center_mass - CENTRE_LPS_MM)).max()
    looks_out = (face_normals(surface) * BODY.outward(mesh.triangles_center)).sum(axis=1) > 0
    checks = {
        "area": abs(mesh.area / BODY.area_mm2 - 1) < 0.01,
        "volume": abs(mesh.volume / BODY.volume_mm3 - 1) < 0.01,
        "centroid": centroid_voxels < 0.1,
        "place": np.abs(BODY.depth_mm(surface.vertices_lps_mm)).max() < 0.35 * max(grid.spacing_mm),
        "normals": bool(looks_out.all()),
        "watertight": mesh.is_watertight,
    }
    return [name for name, right in checks.items() if not right]


@every_way_of_standing
@raw_and_refined
def test_area_volume_centroid_place_and_normals_are_those_of_the_ellipsoid(matrix: np.ndarray, config: SurfaceConfig) -> None:
    volume = BODY.on(grid_around(matrix))
    assert faults(make_surface(volume, config), volume.grid) == []


def test_the_check_fails_on_a_mirrored_surface_that_still_looks_outward() -> None:
    volume = BODY.on(grid_around(STANDING["oblique"]))
    assert faults(mirrored(make_surface(volume, RAW)), volume.grid) == ["place"]


def test_the_check_fails_on_a_surface_that_is_inside_out() -> None:
    volume = BODY.on(grid_around(STANDING["oblique"]))
    assert {"volume", "normals"} <= set(faults(inside_out(make_surface(volume, RAW)), volume.grid))


def test_the_check_fails_where_the_affine_is_reduced_to_origin_spacing_and_directions() -> None:
    volume = BODY.on(grid_around(STANDING["tilted gantry (sheared)"]))
    q, _ = np.linalg.qr(volume.grid.directions)
    straight = q * np.sign(np.diag(q.T @ volume.grid.directions)) * volume.grid.spacing_mm
    affine = volume.grid.to_lps_mm.copy()
    affine[:3, :3] = straight
    unsheared = replace(volume, grid=Grid(volume.grid.shape, affine))
    assert faults(make_surface(unsheared, RAW), volume.grid)


def small_body() -> Volume:
    return Ellipsoid((9.0, 6.5, 5.0)).on(grid_around(STANDING["oblique and anisotropic"] * 0.8, half_mm=10))


def apart_mm(one: Surface, other: Surface) -> float:
    """The longest way from a vertex of either surface to the nearest of the other; infinite if one encloses less."""
    volumes = [surface.to_trimesh().volume for surface in (one, other)]
    if volumes[0] != pytest.approx(volumes[1], rel=1e-3):  # the diagonal of a quad depends on the order of the axes
        return np.inf
    trees = [cKDTree(surface.vertices_lps_mm) for surface in (one, other)]
    return float(max(trees[0].query(trees[1].data)[0].max(), trees[1].query(trees[0].data)[0].max()))


def test_the_same_values_stored_in_all_48_ways_give_the_same_surface() -> None:
    surfaces = [make_surface(turned, RAW) for turned in all_48(small_body())]
    assert len(surfaces) == 48
    assert max(apart_mm(surface, surfaces[0]) for surface in surfaces) < 1e-4


def test_the_48_ways_check_fails_where_voxels_are_flipped_and_the_affine_is_not() -> None:
    volume = small_body()
    flipped = volume.with_voxels(volume.voxels[:, ::-1])
    assert apart_mm(make_surface(flipped, RAW), make_surface(volume, RAW)) > 1


def test_the_48_ways_check_fails_where_the_surface_is_inside_out() -> None:
    surface = make_surface(small_body(), RAW)
    assert apart_mm(inside_out(surface), surface) == np.inf


# --- where the scan ends ---------------------------------------------------------------------------------------------


def cut_ball() -> tuple[Volume, float, float]:
    """A ball of radius 15 mm, cut by the end of the scan 4.5 mm beyond its centre; volume and area of what is left, closed."""
    grid = Grid.from_parts((40, 40, 22), (1, 1, 1), (0, 0, 0))
    centre = np.array([16.5, 19.6, 19.7])  # x runs along the 22 columns, whose last voxel ends at 21.5
    voxels = 15 - np.linalg.norm(points_of(grid) - centre, axis=-1)
    radius, height = 15.0, 15 + 21.5 - 16.5
    volume = np.pi * height**2 * (3 * radius - height) / 3
    lid = np.pi * (radius**2 - (21.5 - 16.5) ** 2)
    cap_left = 15 - 16.5 - (-0.5)  # the ball ends at x = 1.5: it is not cut on the other side
    assert cap_left < 0
    return Volume(voxels.astype(np.float32), grid), volume, 2 * np.pi * radius * height + lid


def test_a_body_cut_by_the_scan_is_closed_half_a_voxel_beyond_the_last_voxel() -> None:
    volume, true_volume_mm3, true_area_mm2 = cut_ball()
    measures = make_surface(volume, RAW).measures
    assert measures["watertight"]
    assert measures["volume_ml"] == pytest.approx(true_volume_mm3 / 1000, rel=0.01)
    assert measures["area_mm2"] == pytest.approx(true_area_mm2, rel=0.01)


def test_a_body_cut_by_the_scan_is_left_open_if_so_wanted_and_then_has_no_volume() -> None:
    volume, _, _ = cut_ball()
    measures = make_surface(volume, RAW.model_copy(update={"closed": False})).measures
    assert not measures["watertight"]
    assert measures["volume_ml"] is measures["centroid_lps_mm"] is measures["euler_number"] is None


def test_a_volume_cut_on_all_six_sides_is_a_closed_box() -> None:
    grid = Grid.from_parts((20, 24, 28), (2.0, 1.0, 0.5), (3, 4, 5))
    values = np.full(grid.shape, 9.0, dtype=np.float32)
    values[2, 3, 3] = 8.0  # a level needs two values to lie between
    measures = make_surface(Volume(values, grid), SurfaceConfig(level=8.5, smoothing_iterations=0)).measures
    assert measures["watertight"]
    assert measures["volume_ml"] == pytest.approx(40 * 24 * 14 / 1000, rel=0.01)  # but for its bevelled edges
    assert measures["extent_mm"] == pytest.approx([14, 24, 40], rel=1e-3)


def test_voxels_that_were_not_seen_are_outside() -> None:
    volume = BODY.on(grid_around(STANDING["upright"]))
    seen = points_of(volume.grid)[..., 2] < CENTRE_LPS_MM[2]
    half = make_surface(replace(volume, seen=seen), RAW).measures
    assert half["watertight"]
    assert half["volume_ml"] == pytest.approx(BODY.volume_mm3 / 2000, rel=0.03)
    assert make_surface(volume, RAW).measures["volume_ml"] != pytest.approx(BODY.volume_mm3 / 2000, rel=0.03)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_outside(hole: float) -> None:
    volume = BODY.on(grid_around(STANDING["upright"]))
    voxels = volume.voxels.copy()
    voxels[points_of(volume.grid)[..., 2] >= CENTRE_LPS_MM[2]] = hole
    half = make_surface(volume.with_voxels(voxels), RAW).measures
    assert half["volume_ml"] == pytest.approx(BODY.volume_mm3 / 2000, rel=0.03)


# --- pieces ----------------------------------------------------------------------------------------------------------


def balls(radii_mm: tuple[float, ...]) -> Volume:
    """Balls in a row, 30 mm apart; a negative radius is a hole in the ball before it."""
    grid = Grid.from_parts((30, 30, 30 * len(radii_mm)), (1, 1, 1), (0, 0, 0))
    points = points_of(grid)
    values = np.full(grid.shape, -100.0)
    for number, radius in enumerate(radii_mm):
        far = np.linalg.norm(points - [30 * number + 14.6, 14.7, 14.4], axis=-1)
        values = np.maximum(values, radius - far)
    return Volume(values.astype(np.float32), grid)


def test_the_piece_that_encloses_most_is_kept() -> None:
    measures = make_surface(balls((6.0, 11.0)), RAW).measures
    assert measures["components"] == 1
    assert measures["volume_ml"] == pytest.approx(4 / 3 * np.pi * 11**3 / 1000, rel=0.01)


def test_all_pieces_are_kept_if_so_wanted() -> None:
    measures = make_surface(balls((6.0, 11.0)), RAW.model_copy(update={"largest_component": False})).measures
    assert measures["components"] == 2
    assert measures["volume_ml"] == pytest.approx(4 / 3 * np.pi * (6**3 + 11**3) / 1000, rel=0.01)


def test_a_cavity_is_filled_with_the_largest_piece_and_counts_out_of_all_pieces() -> None:
    ball = balls((12.0,))
    hollow = ball.with_voxels(np.minimum(ball.voxels, 7 - ball.voxels))  # inside from 5 to 12 mm of the centre
    filled, shell = (
        make_surface(hollow, RAW.model_copy(update={"largest_component": largest})).measures for largest in (True, False)
    )
    assert filled["volume_ml"] == pytest.approx(4 / 3 * np.pi * 12**3 / 1000, rel=0.01)
    assert shell["volume_ml"] == pytest.approx(4 / 3 * np.pi * (12**3 - 5**3) / 1000, rel=0.01)


# --- measures and refusals -------------------------------------------------------------------------------------------


def test_measures_are_those_that_trimesh_finds() -> None:
    surface = make_surface(BODY.on(grid_around(STANDING["flipped"])), REFINED)
    mesh, found = surface.to_trimesh(), surface.measures
    assert found["volume_ml"] == pytest.approx(mesh.volume / 1000)
    assert found["area_mm2"] == pytest.approx(mesh.area)
    assert found["extent_mm"] == pytest.approx(mesh.extents)
    assert found["centroid_lps_mm"] == pytest.approx(mesh.center_mass)
    assert (found["euler_number"], found["watertight"]) == (mesh.euler_number, mesh.is_watertight)
    assert (found["triangle_count"], found["vertex_count"]) == (len(mesh.faces), len(mesh.vertices))
    assert found["components"] == mesh.body_count == 1


def test_a_surface_of_nothing_can_still_be_measured() -> None:
    measures = measure(Surface(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)))
    assert (measures["area_mm2"], measures["watertight"], measures["components"]) == (0.0, False, 0)


@pytest.mark.parametrize("level", [-1e6, 1e6])
def test_a_level_beyond_all_values_is_refused_with_the_range(level: float) -> None:
    volume = BODY.on(grid_around(STANDING["upright"]))
    with pytest.raises(GeometryError, match=f"{volume.voxels.min():g} to {volume.voxels.max():g}") as raised:
        extract(volume, SurfaceConfig(level=level))
    assert raised.value.code == "SRF-EMPTY"


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_volume_without_contrast_is_refused(value: float) -> None:
    volume = Volume(np.full((4, 5, 6), value, dtype=np.float32), Grid((4, 5, 6), np.eye(4)))
    with pytest.raises(GeometryError) as raised:
        make_surface(volume)
    assert raised.value.code == "SRF-EMPTY"


def test_a_single_plane_is_closed_to_a_slab_and_refused_where_it_must_stay_open() -> None:
    values = np.zeros((1, 20, 20), dtype=np.float32)
    values[0, 5:15, 4:16] = 1
    volume = Volume(values, Grid.from_parts(values.shape, (3, 1, 1), (0, 0, 0)))
    slab = make_surface(volume, SurfaceConfig(level=0.5, smoothing_iterations=0)).measures
    assert slab["watertight"]
    assert slab["volume_ml"] == pytest.approx(10 * 12 * 3 / 1000, rel=0.2)  # its edges are bevelled
    with pytest.raises(GeometryError) as raised:
        make_surface(volume, RAW.model_copy(update={"level": 0.5, "closed": False}))
    assert raised.value.code == "SRF-EMPTY"


def test_of_open_pieces_the_one_with_most_triangles_is_kept() -> None:
    volume, _, _ = cut_ball()
    voxels = volume.voxels.copy()
    voxels[1:4, 1:4, 1:4] = np.maximum(voxels[1:4, 1:4, 1:4], 1.0)
    config = RAW.model_copy(update={"closed": False})
    alone, beside = (make_surface(volume.with_voxels(v), config).measures for v in (volume.voxels, voxels))
    assert beside["triangle_count"] == pytest.approx(alone["triangle_count"], rel=0.02)
    assert beside["components"] == 1


def test_voxels_exactly_at_the_level_give_no_triangle_without_area() -> None:
    volume = BODY.on(grid_around(STANDING["upright"]))
    whole = Volume(np.rint(volume.voxels), volume.grid, Quantity.HOUNSFIELD)
    surface = extract(whole, RAW)
    single = surface.vertices_lps_mm.astype(np.float32)[surface.triangles]
    assert all((single[:, i] != single[:, j]).any(axis=1).all() for i, j in ((0, 1), (1, 2), (2, 0)))


def test_the_volume_is_not_changed_and_the_same_surface_comes_again() -> None:
    volume = BODY.on(grid_around(STANDING["flipped"]))
    before = volume.voxels.copy()
    first, second = make_surface(volume, REFINED), make_surface(volume, REFINED)
    assert np.array_equal(volume.voxels, before)
    assert np.array_equal(first.vertices_lps_mm, second.vertices_lps_mm)
    assert np.array_equal(first.triangles, second.triangles)
    assert first.measures == second.measures


def test_progress_rises_to_one_and_can_stop_the_work() -> None:
    volume = BODY.on(grid_around(STANDING["upright"] * 2))
    told: list[float] = []
    make_surface(volume, REFINED, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0

    def stop(_: float) -> None:
        raise CancelledError("RUN-CANCELLED", "stopped")

    with pytest.raises(CancelledError):
        make_surface(volume, REFINED, stop)
