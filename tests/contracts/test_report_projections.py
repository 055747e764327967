"""The report of a result from projections: what was measured, how, how well it comes back, and no text of a header."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import medrecon as mr
from medrecon.config import load_config
from medrecon.core.projections import ProjectionScan
from medrecon.core.source import Source
from medrecon.core.views import Detector, ViewGeometry
from medrecon.quality.report import render
from medrecon.quality.report_projections import content
from tests.contracts.test_report import HEADER, POISON, Page, loads
from tests.makers_xray import ball

TURN = np.arange(40) * 2 * np.pi / 40
CONE = ViewGeometry.cone(TURN, 300, 500, Detector((20, 30), (3.0, 3.0)))
CURVED = Detector((10, 30), (3.0, 3.0), 500.0)
HELIX = ViewGeometry.helical(np.arange(120) * 2 * np.pi / 40, 300, 500, CURVED, pitch_mm_per_turn=12, z0_mm=-18)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small problems: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def result_of(views: ViewGeometry, *assignments: str) -> mr.Result:
    """A ball at the patient's left, in front and towards the head."""
    source = Source("rtk", "series-00000000000000ff", "CT", ("00",), (), HEADER)
    scan = ProjectionScan(ball(7, (10, -5, 4), 0.02).project(views), views, source=source)
    return mr.reconstruct(scan, load_config("cbct-fast", None, ("surfaces=[]", *assignments)))


@pytest.fixture(scope="module")
def result() -> mr.Result:
    return result_of(CONE, "hounsfield.water_per_mm=0.02")


@pytest.fixture(scope="module")
def html(result: mr.Result) -> str:
    return render(result)


def test_the_page_loads_nothing_is_closed_and_small(html: str) -> None:
    assert loads(html) == []
    assert Page(html).open == []
    assert len(html.encode()) < 5e6


def test_no_text_of_the_header_reaches_the_page(html: str) -> None:
    assert [secret for secret in POISON if secret in html] == []


def test_the_geometry_is_told_in_numbers_and_drawn(html: str) -> None:
    text = Page(html).text
    for said in ("Views 40 over 360°", "Detector 20 × 30 pixels, flat", "Source to axis 300 mm", "Source to detector 500 mm"):
        assert said in text
    assert html.count("<svg") == 1
    assert "seen from the feet" in text
    assert "Hounsfield units with water at 0.02 per mm (given)" in text


def test_every_picture_has_the_size_it_claims_and_words_for_it(html: str) -> None:
    pictures = [a for tag, a in Page(html).tags if tag == "img"]
    assert len(pictures) == 2 + 4 + 1 + 3 * 4 + 4 + 3
    for attributes in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
        assert image.size == (int(attributes["width"]), int(attributes["height"]))
        assert attributes["alt"]


def test_views_stand_head_up_with_the_letters_of_the_sides_they_show(result: mr.Result) -> None:
    assert isinstance(result.scan, ProjectionScan)
    views = content(result, result.scan)["views"]
    assert [view.tile.label for view in views] == ["0°", "90°", "180°", "270°"]
    assert [(v.tile.sides.left, v.tile.sides.right) for v in views] == [("R", "L"), ("A", "P"), ("L", "R"), ("P", "A")]
    assert {(v.tile.sides.top, v.tile.sides.bottom) for v in views} == {("S", "I")}


def brightest(picture: np.ndarray) -> tuple[str, str]:
    """In which half of a picture its bright part lies: top or bottom, left or right."""
    row, column = np.argwhere(picture > 0.8 * picture.max()).mean(axis=0) - (np.array(picture.shape) - 1) / 2
    return "top" if row < 0 else "bottom", "left" if column < 0 else "right"


def test_the_ball_is_drawn_on_the_side_that_the_letters_name(result: mr.Result) -> None:
    """It lies to the left, in front and towards the head: right in the front view, left (A) from the patient's left."""
    assert isinstance(result.scan, ProjectionScan)
    drawn = [brightest(view.tile.image) for view in content(result, result.scan)["views"]]
    assert drawn == [("top", "right"), ("top", "left"), ("top", "left"), ("top", "right")]


def test_rows_that_grow_to_the_feet_are_shown_head_up_too() -> None:
    """A C-arm reads its rows downwards."""
    views = ViewGeometry.c_arm(np.arange(-90, 270, 9.0), 0, 300, 500, Detector((20, 30), (3.0, 3.0)))
    other = result_of(views)
    assert isinstance(other.scan, ProjectionScan)
    shown = content(other, other.scan)["views"]
    assert {view.tile.sides.top for view in shown} == {"S"}
    assert all(brightest(view.tile.image)[0] == "top" for view in shown)
    for view in shown:
        sides = {"left": view.tile.sides.left, "right": view.tile.sides.right}
        assert sides[brightest(view.tile.image)[1]] in {"L", "A"}


@pytest.mark.parametrize(
    "views",
    [
        ViewGeometry.fan(TURN, 300, 500, 30, 3.0),
        ViewGeometry.parallel(TURN / 2, Detector((1, 30), (2.0, 2.0))),
        HELIX,
    ],
    ids=["fan", "parallel", "helix"],
)
def test_other_scanners_are_reported_too(views: ViewGeometry) -> None:
    scan = ProjectionScan(ball(7, (10, -5, 0), 0.02).project(views), views)
    html = render(mr.reconstruct(scan, load_config("cbct-fast", None, ("surfaces=[]",))))
    assert Page(html).open == []
    assert re.search(r"(Fan beam|Parallel beam|Helical scan)", html)


def test_an_unusable_residual_is_said_and_not_drawn(result: mr.Result) -> None:
    empty = np.zeros_like(result.quality.residual_map)
    broken = replace(
        result, quality=replace(result.quality, residual=float("nan"), residual_rms=float("nan"), residual_map=empty)
    )
    assert "not a number" in Page(render(broken)).text
