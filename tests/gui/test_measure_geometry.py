"""Measurements are the patient's millimetres on any raster: closed forms, no window."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from medrecon_napari.measure import geometry
from medrecon_napari.measure.region import in_mask, in_outline
from medrecon_napari.measure.surfaces import surface_distance
from medrecon_napari.measure.table import COLUMNS, Row, as_csv, label_row, region_row, save_csv, surface_row
from medrecon_napari.place import Place, apply
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import medrecon as mr
from medrecon.core.errors import OutputError, UsageError
from tests.makers_plugin import a_surface

TURN = Rotation.from_euler("xyz", (25.0, -40.0, 10.0), degrees=True).as_matrix()
#: Anisotropic rasters: upright, oblique, and mirrored.
RASTERS = {
    "upright": np.diag([5.0, 0.5, 2.0, 1.0]),
    "oblique": np.block([[TURN * (5.0, 0.5, 2.0), np.array([[10.0], [-20.0], [30.0]])], [np.zeros((1, 3)), np.ones((1, 1))]]),
    "mirrored": np.diag([-5.0, 0.5, 2.0, 1.0]),
}
every_raster = pytest.mark.parametrize("to_lps", RASTERS.values(), ids=RASTERS)


def test_a_distance_is_that_of_pythagoras() -> None:
    assert geometry.length_mm([[0, 0, 0], [3, 4, 12]]) == 13
    assert geometry.length_mm([[0, 0, 0], [3, 4, 0], [3, 4, 12]]) == 17


@every_raster
def test_a_distance_between_voxels_counts_the_spacing_of_each_axis(to_lps: NDArray[np.float64]) -> None:
    ends = apply(to_lps, [[0, 0, 0], [2, 20, 5]])
    assert geometry.length_mm(ends) == pytest.approx(np.sqrt(10.0**2 + 10.0**2 + 10.0**2))


@pytest.mark.parametrize("degrees", [0.0, 0.001, 30.0, 90.0, 135.0, 179.999, 180.0])
def test_an_angle_is_the_one_that_was_drawn(degrees: float) -> None:
    turn = np.deg2rad(degrees)
    points = np.array([[7.0, 0, 0], [0, 0, 0], [3 * np.cos(turn), 3 * np.sin(turn), 0]])
    assert geometry.angle_deg(points @ TURN.T + 5) == pytest.approx(degrees, abs=1e-6)


def test_an_angle_without_an_arm_is_not_a_number() -> None:
    assert np.isnan(geometry.angle_deg([[1, 1, 1], [1, 1, 1], [2, 2, 2]]))


def test_areas_of_polygons_are_those_of_the_schoolbook_in_any_plane() -> None:
    l_shape = np.array([[0.0, 0, 0], [6, 0, 0], [6, 2, 0], [2, 2, 0], [2, 5, 0], [0, 5, 0]])
    assert geometry.area_mm2(l_shape) == pytest.approx(18)
    assert geometry.area_mm2(l_shape @ TURN.T + 100) == pytest.approx(18)
    assert geometry.area_mm2(l_shape[::-1]) == pytest.approx(18)


def test_an_ellipse_has_the_area_pi_a_b() -> None:
    corners = np.array([[0.0, 0, 0], [0, 0, 20], [0, 10, 20], [0, 10, 0]])
    outline = geometry.ellipse(corners)
    assert geometry.area_mm2(outline) == pytest.approx(np.pi * 10 * 5, rel=1e-9)
    assert np.abs(outline - (0, 5, 10)).max(axis=0) == pytest.approx((0, 5, 10), rel=1e-3)


@every_raster
def test_an_outline_counts_the_voxels_whose_centres_it_holds(to_lps: NDArray[np.float64]) -> None:
    data = np.arange(6 * 20 * 10, dtype=np.float32).reshape(6, 20, 10)
    place = Place(to_lps, np.eye(4))
    outline = apply(to_lps, [[3, 3.5, 1.5], [3, 3.5, 6.5], [3, 11.5, 6.5], [3, 11.5, 1.5]])
    found = in_outline(data, place, outline)
    inside = data[3, 4:12, 2:7].astype(np.float64)
    assert found.voxels == 40
    assert found.mean == pytest.approx(inside.mean())
    assert found.sd == pytest.approx(inside.std(ddof=1))
    assert (found.minimum, found.maximum) == (inside.min(), inside.max())
    assert found.area_mm2 == pytest.approx(8 * 0.5 * 5 * 2.0)
    assert found.volume_ml == pytest.approx(40 * 5.0 * 0.5 * 2.0 / 1000)


@every_raster
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_outline_may_lie_across_any_axis(to_lps: NDArray[np.float64], axis: int) -> None:
    data = np.zeros((8, 9, 10), dtype=np.float32)
    np.moveaxis(data, axis, 0)[4] = 7.0
    flat = np.array([[1.5, 1.5], [1.5, 6.5], [6.5, 6.5], [6.5, 1.5]])
    found = in_outline(data, Place(to_lps, np.eye(4)), apply(to_lps, np.insert(flat, axis, 4.0, axis=1)))
    assert (found.voxels, found.mean) == (25, 7.0)


def test_a_disc_of_constant_value_has_no_deviation_and_nearly_its_voxels_area() -> None:
    to_lps = np.diag([5.0, 0.5, 0.5, 1.0])
    corners = apply(to_lps, [[1, 20, 20], [1, 20, 80], [1, 80, 80], [1, 80, 20]])
    found = in_outline(np.full((3, 100, 100), 55.0, dtype=np.float32), Place(to_lps, np.eye(4)), geometry.ellipse(corners))
    assert (found.mean, found.sd) == (55.0, 0.0)
    assert found.area_mm2 == pytest.approx(np.pi * 15**2, rel=1e-6)
    assert found.voxels * 0.25 == pytest.approx(np.pi * 15**2, rel=0.01)


def test_voxels_that_were_never_measured_are_not_counted() -> None:
    data = np.array([[[1.0, 1.0, -1024.0, -1024.0]] * 4] * 2, dtype=np.float32)
    square = [[1, -0.4, -0.4], [1, -0.4, 3.4], [1, 3.4, 3.4], [1, 3.4, -0.4]]
    place = Place(np.eye(4), np.eye(4))
    assert in_outline(data, place, square).mean < -500
    found = in_outline(data, place, square, data > -1000)
    assert (found.voxels, found.mean) == (8, 1.0)
    assert in_mask(data, place, np.ones(data.shape, dtype=bool), data > -1000).mean == 1.0


def test_an_outline_that_leaves_its_plane_or_the_image_is_refused() -> None:
    place, data = Place(np.eye(4), np.eye(4)), np.zeros((5, 5, 5), dtype=np.float32)
    for outline in ([[0, 0, 0], [0, 3, 0], [3, 0, 3]], [[9, 1, 1], [9, 3, 1], [9, 3, 3]]):
        with pytest.raises(UsageError) as caught:
            in_outline(data, place, outline)
        assert caught.value.code == "NAP-REGION"


def test_an_outline_between_voxel_centres_holds_none() -> None:
    found = in_outline(np.zeros((3, 5, 5)), Place(np.eye(4), np.eye(4)), [[1, 1.1, 1.1], [1, 1.1, 1.9], [1, 1.9, 1.9]])
    assert found.voxels == 0
    assert np.isnan(found.mean)
    assert found.area_mm2 == pytest.approx(0.32)


@every_raster
def test_a_label_has_the_volume_of_its_voxels(to_lps: NDArray[np.float64]) -> None:
    data, mask = np.arange(1000.0).reshape(10, 10, 10), np.zeros((10, 10, 10), dtype=bool)
    mask[2:4, 3:8, 1:6] = True
    found = in_mask(data, Place(to_lps, np.eye(4)), mask)
    assert found.volume_ml == pytest.approx(50 * 5.0 / 1000)
    assert found.mean == pytest.approx(data[2:4, 3:8, 1:6].mean())


def ball(radius_mm: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> mr.Surface:
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius_mm)
    return a_surface(mesh.vertices + centre, mesh.faces)


def test_concentric_balls_lie_their_radii_apart() -> None:
    found = surface_distance(ball(20.0), ball(23.0))
    for value in (found.mean, found.rms, found.percentile_95, found.maximum):
        assert value == pytest.approx(3.0, abs=0.1)


def test_a_surface_lies_on_itself_and_a_moved_one_as_far_as_it_was_moved() -> None:
    assert surface_distance(ball(20.0), ball(20.0)).maximum < 1e-4
    found = surface_distance(ball(20.0), ball(20.0, (0.0, 0.0, 5.0)))
    assert found.maximum == pytest.approx(5.0, abs=0.05)
    assert 0 < found.mean < 5.0


def test_the_distance_is_to_triangles_not_to_vertices() -> None:
    plate = a_surface(np.array([[-100.0, -100, 0], [100, -100, 0], [0, 100, 0]]), [[0, 1, 2]])
    chip = a_surface(np.array([[0.0, 0, 2], [1, 0, 2], [0, 1, 2]]), [[0, 1, 2]])
    assert np.sort(_one_way(chip, plate)) == pytest.approx([2.0, 2.0, 2.0])


def _one_way(source: mr.Surface, target: mr.Surface) -> NDArray[np.float64]:
    from medrecon_napari.measure.surfaces import _distances

    return _distances(source, target)


def test_an_empty_surface_has_no_distance() -> None:
    with pytest.raises(UsageError) as caught:
        surface_distance(ball(1.0), a_surface([], []))
    assert caught.value.code == "NAP-LAYER"


def rows() -> list[Row]:
    statistics = in_mask(np.full((2, 2, 2), 40.0), Place(np.eye(4), np.eye(4)), np.ones((2, 2, 2), dtype=bool))
    return [
        Row("distance", "CT", 12.345678, "mm", points_lps_mm=[[0, 0, 0], [12.345678, 0, 0]]),
        region_row("CT", statistics, "HU", [[1, 2, 3]]),
        label_row("=cmd|' /C calc'!A0", 3, statistics, "HU"),
        surface_row("bone / skin", surface_distance(ball(2.0), ball(3.0))),
    ]


def test_the_table_comes_back_from_csv_as_it_was() -> None:
    read = list(csv.DictReader(io.StringIO(as_csv(rows()))))
    assert list(read[0]) == list(COLUMNS)
    assert read[0]["value"] == "12.3457"
    assert read[0]["points_lps_mm"] == "0.00 0.00 0.00; 12.35 0.00 0.00"
    assert (read[1]["mean"], read[1]["sd"], read[1]["voxels"], read[1]["volume_ml"], read[1]["unit"]) == (
        "40",
        "0",
        "8",
        "0.008",
        "HU",
    )
    assert read[1]["area_mm2"] == ""
    assert float(read[3]["maximum"]) == pytest.approx(1.0, abs=0.05)


def test_a_layers_name_is_no_formula_to_a_spreadsheet() -> None:
    read = list(csv.DictReader(io.StringIO(as_csv(rows()))))
    assert read[2]["layer"].startswith("'=")
    assert as_csv([Row("distance", "a", -1.5, "mm")]).count("'") == 0


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    save_csv(rows(), tmp_path / "m.csv")
    text = (tmp_path / "m.csv").read_text()
    assert text.startswith(as_csv(rows()))
    assert "Research use only" in text.splitlines()[-1]
    with pytest.raises(OutputError):
        save_csv(rows(), tmp_path / "no such folder" / "m.csv")
    assert list(tmp_path.iterdir()) == [tmp_path / "m.csv"]
