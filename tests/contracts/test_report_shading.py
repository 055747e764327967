"""Pictures of surfaces: the outline is the projected shape, what is in front hides what is behind, letters name the sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from medrecon.core.mesh import Surface
from medrecon.quality.shading import VIEWPOINTS, camera, draw
from tests.makers_report import ball_surface


def opaque(surface: Surface, viewpoint: str, size_px: int = 200) -> NDArray[np.bool_]:
    return np.asarray(draw(surface, [viewpoint], size_px)[0].image[..., 3] > 127)


def with_bump(centre: tuple[float, float, float]) -> Surface:
    """A ball of 20 mm radius and a small one at `centre`."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=20)
    bump = trimesh.creation.icosphere(subdivisions=2, radius=4)
    bump.apply_translation(centre)
    both = trimesh.util.concatenate([ball, bump])
    return Surface(both.vertices, both.faces, measures={"watertight": True})


@pytest.mark.parametrize("viewpoint", VIEWPOINTS)
@pytest.mark.parametrize("watertight", [True, False])
def test_a_ball_has_the_outline_of_a_circle_of_its_size(viewpoint: str, watertight: bool) -> None:
    surface = replace(ball_surface(), measures={"watertight": watertight})
    tile = draw(surface, [viewpoint], 200)[0]
    area = float((tile.image[..., 3] / 255.0).sum()) * tile.mm_per_pixel**2
    assert area == pytest.approx(np.pi * 22**2, rel=0.01)


def test_the_outline_check_sees_a_smaller_ball() -> None:
    tile = draw(ball_surface(21.0), ["left"], 200)[0]
    area = float((tile.image[..., 3] / 255.0).sum()) * tile.mm_per_pixel**2
    assert area != pytest.approx(np.pi * 22**2, rel=0.03)


@pytest.mark.parametrize(("viewpoint", "side"), [("anterior", "right"), ("superior", "left")])
def test_something_on_the_patients_left_appears_where_the_letter_says(viewpoint: str, side: str) -> None:
    surface = with_bump((30.0, 0.0, 0.0))
    image = opaque(surface, viewpoint)
    columns = np.flatnonzero(image.any(axis=0))
    centre_of_ball = image.shape[1] / 2 + {"right": -1, "left": 1}[side] * 5
    longer = "right" if columns[-1] - centre_of_ball > centre_of_ball - columns[0] else "left"
    assert getattr(camera(viewpoint).sides, side) == "L"
    assert longer == side


def test_the_letters_of_each_view_are_those_of_someone_standing_there() -> None:
    assert [getattr(camera("anterior").sides, s) for s in ("left", "right", "top", "bottom")] == ["R", "L", "S", "I"]
    assert [getattr(camera("left").sides, s) for s in ("left", "right", "top", "bottom")] == ["A", "P", "S", "I"]
    assert [getattr(camera("superior").sides, s) for s in ("left", "right", "top", "bottom")] == ["L", "R", "A", "P"]


def test_what_stands_in_front_hides_what_is_behind() -> None:
    front, behind, plain = (
        draw(surface, ["anterior"], 200)[0].image
        for surface in (with_bump((0.0, -24.0, 0.0)), with_bump((0.0, 24.0, 0.0)), with_bump((0.0, 0.0, 0.0)))
    )
    steps = [np.abs(np.diff(image[60:140, 100, 0].astype(float))).max() for image in (front, behind, plain)]
    assert steps[0] > 20  # the edge of the bump
    assert max(steps[1:]) < 8  # a ball, evenly lit


def test_triangles_without_area_and_needles_are_drawn_without_a_warning() -> None:
    vertices = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0], [0, 0, 30], [0, 5, 0]], dtype=float)
    surface = Surface(vertices, np.array([[0, 1, 2], [0, 0, 1], [0, 3, 1], [0, 4, 3]]))
    assert opaque(surface, "anterior").any()
