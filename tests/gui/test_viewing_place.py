"""What is on the screen is where the patient has it, and the letters say so, however the data stand.

Every voxel of the volumes here has a value of its own, so that napari's own sampling tells which voxel is where; the
definition of the grid tells where that voxel is in the patient.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from medrecon_napari.layers import scan_layers
from medrecon_napari.place import Edges, Place, edges, in_words, side
from medrecon_napari.viewing import letters, probe
from napari.components import ViewerModel
from napari.layers import Layer
from numpy.typing import NDArray

import medrecon as mr
from tests.makers_plugin import ORIENTATIONS, a_volume, make_marked_series
from tests.makers_volumes import DIRECTIONS, ORIGIN_LPS_MM, SHAPE, SPACING_MM, STANDING

OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))
#: Each sixth of the upright ways and each second of the oblique ones; all of them are held to the definition without napari.
_SOME = [*range(0, 48, 6), *range(48, 56, 2)]
every_way_of_standing = pytest.mark.parametrize("directions", DIRECTIONS, ids=STANDING)
some_ways_of_standing = pytest.mark.parametrize("directions", [DIRECTIONS[k] for k in _SOME], ids=[STANDING[k] for k in _SOME])


def counted(directions: NDArray[np.float64]) -> mr.Volume:
    """A volume in which every voxel has a value of its own."""
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    return a_volume(values, mr.Grid.from_parts(SHAPE, SPACING_MM, ORIGIN_LPS_MM, directions))


def patient_place(value: float, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the voxel of this value is, in LPS mm, from the definition."""
    index = np.array(np.unravel_index(round(value), SHAPE))
    return np.asarray(ORIGIN_LPS_MM + directions @ (index * np.asarray(SPACING_MM)))


def opened(directions: NDArray[np.float64]) -> tuple[ViewerModel, Layer]:
    viewer = ViewerModel()
    letters.add(viewer)
    layer = viewer.add_layer(Layer.create(*scan_layers(counted(directions))[0]))
    return viewer, layer


def value_at(viewer: ViewerModel, world: NDArray[np.float64]) -> float:
    """Return what napari shows at a world point, not a number outside the picture."""
    viewer.dims.point = world
    value = viewer.layers[0].get_value(world, world=True, dims_displayed=list(viewer.dims.displayed))
    return float("nan") if value is None else float(value)


@every_way_of_standing
def test_every_voxel_of_a_layer_lies_where_the_grid_has_it(directions: NDArray[np.float64]) -> None:
    data, layer, _ = scan_layers(counted(directions))[0]
    for index in itertools.product(*((0, n - 1) for n in data.shape)):
        true = patient_place(data[index], directions)
        assert np.abs((layer["metadata"]["to_lps_mm"] @ (*index, 1))[:3] - true).max() < 1e-9


@some_ways_of_standing
def test_the_status_tells_the_patient_place_of_the_voxel_that_napari_shows(directions: NDArray[np.float64]) -> None:
    viewer, layer = opened(directions)
    place = letters.place_of_layer(layer)
    assert place is not None
    for index in ((0, 0, 0), (1, 2, 3), tuple(n - 1 for n in layer.data.shape)):
        world = np.asarray(layer.data_to_world(index))
        true = patient_place(value_at(viewer, world), directions)
        assert np.abs(place.lps_of_world(world) - true).max() < 1e-9
        assert in_words(true.tolist()) in probe.at(layer, world.tolist())[0]


@some_ways_of_standing
def test_the_letters_name_the_sides_between_which_neighbouring_pixels_lie(directions: NDArray[np.float64]) -> None:
    viewer, layer = opened(directions)
    middle = np.asarray(layer.data_to_world(np.asarray(layer.data.shape) // 2))
    for order in itertools.permutations(range(3)):
        viewer.dims.order = order
        ways = [way_of_axis(viewer, middle, axis, directions) for axis in order[1:]]
        for vertical, horizontal in itertools.product(("up", "down"), ("left", "right")):
            viewer.scene.camera.orientation2d = (vertical, horizontal)
            shown = letters.read(viewer)
            down, right = ways[0] * (1 if vertical == "down" else -1), ways[1] * (1 if horizontal == "right" else -1)
            assert (shown.bottom, shown.top) == (side(down), side(-down))
            assert (shown.right, shown.left) == (side(right), side(-right))
            assert shown.left == "".join(OPPOSITE[letter] for letter in shown.right)


def way_of_axis(
    viewer: ViewerModel, middle: NDArray[np.float64], axis: int, directions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """In which patient direction a world axis grows, from the values of two neighbouring voxels as napari shows them."""
    step = np.zeros(3)
    step[axis] = viewer.layers[0].scale[axis]
    here, before = (patient_place(value_at(viewer, point), directions) for point in (middle, middle - step))
    return np.asarray(here - before)


def test_the_letters_check_fails_for_a_layer_that_was_mirrored_behind_our_back() -> None:
    directions = DIRECTIONS[0]
    viewer, layer = opened(directions)
    honest = letters.read(viewer)
    layer.data = layer.data[:, :, ::-1]
    middle = np.asarray(layer.data_to_world(np.asarray(layer.data.shape) // 2))
    step = np.array([0.0, 0.0, layer.scale[2]])
    way = patient_place(value_at(viewer, middle), directions) - patient_place(value_at(viewer, middle - step), directions)
    assert side(way) == OPPOSITE[honest.right]


@pytest.mark.parametrize("directions", DIRECTIONS[:48:5], ids=STANDING[:48:5])
def test_the_usual_view_of_a_volume_is_radiological(directions: NDArray[np.float64]) -> None:
    viewer, _ = opened(directions)
    for order, wanted in (((0, 1, 2), "RLAP"), ((1, 0, 2), "RLSI"), ((2, 0, 1), "APSI")):
        viewer.dims.order = order
        shown = letters.read(viewer)
        assert shown.left + shown.right + shown.top + shown.bottom == wanted


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_one_marker_of_a_series_is_on_the_side_that_the_letters_name(name: str, tmp_path: Path) -> None:
    make_marked_series(tmp_path, ORIENTATIONS[name])
    viewer = ViewerModel()
    letters.add(viewer)
    layer = viewer.add_layer(Layer.create(*scan_layers(mr.read(tmp_path))[0]))
    marker = np.argwhere(layer.data > 900).mean(axis=0)
    towards = np.asarray(layer.data_to_world(marker)) - np.asarray(layer.data_to_world((np.asarray(layer.data.shape) - 1) / 2))
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        viewer.dims.order = order
        shown = letters.read(viewer)
        nearer = [shown.bottom if towards[order[1]] > 0 else shown.top, shown.right if towards[order[2]] > 0 else shown.left]
        assert all(edge[0] in "LAS" for edge in nearer)


def test_letters_are_empty_where_no_layer_knows_its_place() -> None:
    viewer = ViewerModel()
    letters.add(viewer)
    viewer.add_image(np.zeros((4, 5, 6)))
    assert letters.read(viewer) == Edges("", "", "", "")


def test_letters_follow_the_layer_that_is_seen() -> None:
    viewer, first = opened(DIRECTIONS[0])
    first.visible = False
    assert letters.read(viewer).left == ""
    first.visible = True
    assert letters.read(viewer).left != ""


def test_second_letters_appear_from_ten_degrees_on() -> None:
    turn = np.deg2rad(9.9)
    assert side([np.cos(turn), np.sin(turn), 0]) == "L"
    turn = np.deg2rad(10.1)
    assert side([np.cos(turn), np.sin(turn), 0]) == "LP"
    assert side([-1, -1.1, 1.2]) == "SAR"
    assert edges([1, 0, 0], [0, -1, 0]) == Edges("R", "L", "A", "P")


def test_a_place_beside_another_shows_one_patient_point_at_one_world_point() -> None:
    turn = DIRECTIONS[49]
    one, other = (
        Layer.create(*scan_layers(a_volume(np.zeros(shape), mr.Grid.from_parts(shape, (2, 1, 1), origin, turn)))[0])
        for shape, origin in (((6, 7, 8), (0, 0, 0)), ((5, 9, 4), (30, -20, 11)))
    )
    first, second = letters.place_of_layer(one), letters.place_of_layer(other)
    assert first is not None
    assert second is not None
    point = np.array([12.0, -3.0, 5.0])
    assert np.abs(first.world_of_lps(point) - second.world_of_lps(point)).max() > 1  # each is turned about its own middle
    assert np.abs(first.world_of_lps(point) - second.beside(first).world_of_lps(point)).max() < 1e-9


def test_places_that_are_turned_differently_are_left_where_they_are() -> None:
    places = [letters.place_of_layer(opened(DIRECTIONS[k])[1]) for k in (49, 51)]
    one, other = places
    assert one is not None
    assert other is not None
    assert not one.shares_turn_with(other)
    assert one.beside(other) is one
    assert one.turned_against(other) > 1


def test_images_that_are_not_parallel_each_know_their_place() -> None:
    poses = np.stack([np.diag([-1.0, 1.0, 1.0, 1.0]), np.eye(4)])
    poses[1, :3] = [[0, 1, 0, 5], [-1, 0, 0, 6], [0, 0, -1, 7]]
    scan = mr.SliceScan(np.zeros((2, 3, 4), dtype=np.float32), mr.SlicePoses(poses, (3, 4), np.ones(2)))
    layer = Layer.create(*scan_layers(scan)[0])
    place = letters.place_of_layer(layer)
    assert place is not None
    assert not place.is_one_space
    for k, (row, column) in itertools.product(range(2), ((0, 0), (2, 3))):
        world = np.asarray(layer.data_to_world((k, row, column)))
        assert np.abs(place.lps_of_world(world) - (poses[k] @ (0, row, column, 1))[:3]).max() < 1e-9
    assert "not parallel" in layer.metadata["notes"][0]


def test_a_place_needs_to_be_told() -> None:
    assert Place.of({}, np.eye(4)) is None
