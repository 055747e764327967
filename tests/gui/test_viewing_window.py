"""In a real window: pictures are where the letters say, in 2D and in 3D, and the tools do what they say."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
import pytest
from medrecon_napari import menu
from medrecon_napari.colours import UNSEEN
from medrecon_napari.layers import coverage_layer, difference_layer, surface_layer, uncertainty_layer, volume_layer
from medrecon_napari.results import place_of
from medrecon_napari.viewing import align, attach, compare, corner, crosshair, letters, maps, rectangles, slab, windows
from medrecon_napari.viewing.banner import HIDDEN, UNKNOWN, Banner, identity
from medrecon_napari.viewing.widget import ViewingTools
from napari.layers import Layer
from numpy.typing import NDArray
from pydicom import Dataset
from qtpy.QtGui import QFont, QFontMetricsF

import medrecon as mr
from medrecon.core.errors import UsageError
from tests.makers_dicom import make_series
from tests.makers_plugin import ORIENTATIONS, a_surface, a_volume, make_marked_series

pytestmark = pytest.mark.gui
Settle = Callable[[], None]


def open_in(window: napari.Viewer, path: Path) -> list[Layer]:
    layers: list[Layer] = window.open(str(path), plugin="medrecon")
    return layers


def bright_side(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """How far below and right of the middle of the body (grey) the marker (white) is, in pixels."""
    grey = picture[..., :3].astype(int).max(axis=2) - picture[..., :3].astype(int).min(axis=2) < 3
    value = picture[..., 0]
    marker = np.argwhere(grey & (value > 250))
    body = np.argwhere(grey & (value > 60) & (value < 200))
    assert len(marker) > 20
    assert len(body) > 200
    down, right = marker.mean(axis=0) - (body.min(axis=0) + body.max(axis=0)) / 2
    return float(down), float(right)


@pytest.mark.parametrize(
    "name", ["axial", "axial, feet first and face down", "coronal", "sagittal", "axial, nodding", "sagittal, doubly oblique"]
)
def test_the_marker_is_drawn_towards_the_letters_of_its_sides(
    name: str, window: napari.Viewer, tmp_path: Path, settle: Settle
) -> None:
    make_marked_series(tmp_path, ORIENTATIONS[name])
    layer = open_in(window, tmp_path)[0]
    layer.contrast_limits = (-150.0, 500.0)
    attach.attach(window)
    corner.show(window, False)
    marker = np.asarray(layer.data_to_world(np.argwhere(layer.data > 900).mean(axis=0)))
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        window.dims.order = order
        window.dims.point = marker
        window.reset_view()
        letters.show(window, False)
        settle()
        down, right = bright_side(window.screenshot(flash=False))
        letters.show(window, True)
        shown = letters.read(window)
        towards = (shown.bottom if down > 0 else shown.top, shown.right if right > 0 else shown.left)
        assert min(abs(down), abs(right)) > 5
        assert all(edge[0] in "LAS" for edge in towards)


def test_the_drawing_check_fails_for_a_picture_that_was_mirrored(window: napari.Viewer, tmp_path: Path, settle: Settle) -> None:
    make_marked_series(tmp_path, ORIENTATIONS["axial"])
    layer = open_in(window, tmp_path)[0]
    layer.contrast_limits = (-150.0, 500.0)
    window.dims.point = np.asarray(layer.data_to_world(np.argwhere(layer.data > 900).mean(axis=0)))
    letters.show(window, False)
    attach.attach(window)
    corner.show(window, False)
    settle()
    right = bright_side(window.screenshot(flash=False)[:, ::-1])[1]
    letters.show(window, True)
    shown = letters.read(window)
    assert (shown.right if right > 0 else shown.left) == "R"


@pytest.mark.parametrize("radiological", [True, False])
def test_the_picture_turns_with_its_letters_when_radiological_is_switched_off(
    radiological: bool, window: napari.Viewer, tmp_path: Path, settle: Settle
) -> None:
    make_marked_series(tmp_path, ORIENTATIONS["axial"])
    layer = open_in(window, tmp_path)[0]
    layer.contrast_limits = (-150.0, 500.0)
    attach.set_radiological(window, radiological)
    window.dims.point = np.asarray(layer.data_to_world(np.argwhere(layer.data > 900).mean(axis=0)))
    letters.show(window, False)
    attach.attach(window)
    corner.show(window, False)
    window.reset_view()
    settle()
    down, right = bright_side(window.screenshot(flash=False))
    letters.show(window, True)
    assert letters.read(window).left == ("R" if radiological else "L")
    assert (right > 0) is radiological
    assert down < 0
    assert letters.read(window).top == "A"


def add_plates(window: napari.Viewer) -> None:
    """Add an upright volume, unseen, and two opaque plates: red towards the head, green towards the feet."""
    attach.attach(window)
    volume = a_volume(np.zeros((20, 20, 20)), mr.Grid.from_parts((20, 20, 20), (2.0, 2.0, 2.0), (-19.0, -19.0, -19.0)))
    first = volume_layer(volume, {"role": "volume"}, "volume")
    layer = window.add_layer(Layer.create(*first))
    layer.opacity = 0.0
    frame = place_of(first).world_from_lps()
    for z, colour in ((10.0, "red"), (-10.0, "green")):
        plate = a_surface([[-15.0, -15, z], [15, -15, z], [15, 15, z], [-15, 15, z]], [[0, 1, 2], [0, 2, 3]])
        data, arguments, kind = surface_layer(plate, frame, {}, colour)
        window.add_layer(Layer.create(data, arguments | {"colormap": colour, "shading": "none", "blending": "opaque"}, kind))
    window.layers.selection.active = layer


@pytest.mark.parametrize(
    ("angles", "radiological"),
    [((0.0, 0.0, 0.0), True), ((0.0, 180.0, 0.0), True), ((0.0, 0.0, 0.0), False), ((180.0, 0.0, 0.0), False)],
)
def test_3d_is_never_a_mirror_image(
    angles: tuple[float, float, float], radiological: bool, window: napari.Viewer, settle: Settle
) -> None:
    add_plates(window)
    attach.set_radiological(window, radiological)
    window.dims.ndisplay = 3
    window.reset_view()
    window.scene.camera.angles = angles
    settle()
    picture = window.screenshot(flash=False)
    red, green = (int(picture[picture.shape[0] // 2, picture.shape[1] // 2, channel]) for channel in (0, 1))
    assert abs(red - green) > 60
    shown = letters.read(window)
    axes = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    towards_us = np.cross(axes[shown.right], axes[shown.top])  # what stands out of the screen, in a patient who is not mirrored
    assert (towards_us[2] > 0) == (red > green)


def test_the_mirror_check_fails_for_a_camera_of_the_other_hand(window: napari.Viewer, settle: Settle) -> None:
    add_plates(window)
    window.scene.camera.orientation = ("away", "down", "right")
    window.dims.ndisplay = 3
    window.reset_view()
    settle()
    picture = window.screenshot(flash=False)
    red, green = (int(picture[picture.shape[0] // 2, picture.shape[1] // 2, channel]) for channel in (0, 1))
    assert letters.read(window).right == "L"
    assert letters.read(window).top == "A"
    assert red > green  # the head in front, where a true patient would show the feet


def test_in_3d_the_letters_follow_the_camera(window: napari.Viewer) -> None:
    add_plates(window)
    window.dims.ndisplay = 3
    camera = window.scene.camera
    seen = set()
    for view, up in (((-1, 0, 0), (0, -1, 0)), ((0, 1, 0), (-1, 0, 0)), ((0, 0, -1), (-1, 0, 0)), ((0, 0, 1), (-1, 0, 0))):
        camera.set_view_direction(view, up)
        shown = letters.read(window)
        seen.add(shown.left + shown.right + shown.top)
    assert seen == {"RLA", "RLS", "APS", "PAS"}


def press(layer: Layer, key: str) -> None:
    layer.keymap[next(bound for bound in layer.keymap if str(bound) == key)](layer)


def with_a_window(image: Dataset, _slice: int) -> None:
    image.WindowCenter, image.WindowWidth = 35, 80


def test_the_number_keys_choose_windows_and_nine_goes_back_to_the_header(window: napari.Viewer, tmp_path: Path) -> None:
    make_series(tmp_path, change=with_a_window)
    layer = open_in(window, tmp_path)[0]
    assert tuple(layer.contrast_limits) == (-5.0, 75.0)
    for key, limits in (("1", (-100, 900)), ("2", (0, 100)), ("3", (-1200, 200)), ("4", (-135, 215)), ("9", (-5, 75))):
        press(layer, key)
        assert tuple(layer.contrast_limits) == limits
    press(layer, "8")
    assert tuple(layer.contrast_limits) not in {(-5.0, 75.0), (-135.0, 215.0)}


def test_windows_in_hounsfield_units_leave_an_mr_alone(window: napari.Viewer, tmp_path: Path) -> None:
    make_series(tmp_path, modality="MR", intercept=0.0)
    layer = open_in(window, tmp_path)[0]
    before = tuple(layer.contrast_limits)
    assert "Hounsfield" in windows.choose(layer, "1")
    assert tuple(layer.contrast_limits) == before


def test_a_result_opens_in_the_window_of_its_slices(window: napari.Viewer, tmp_path: Path) -> None:
    make_series(tmp_path)
    scan = open_in(window, tmp_path)[0]
    scan.contrast_limits = (10.0, 90.0)
    volume = a_volume(np.zeros((4, 5, 6)), mr.Grid.from_parts((4, 5, 6), (1, 1, 1), (0, 0, 0)), "hounsfield")
    result = window.add_layer(
        Layer.create(*volume_layer(volume, {"role": "result", "series": scan.metadata["series"]}, "result"))
    )
    assert tuple(result.contrast_limits) == (10.0, 90.0)
    press(result, "9")
    assert tuple(result.contrast_limits) == (10.0, 90.0)


def test_a_slab_shows_the_mean_or_the_brightest_of_its_planes(window: napari.Viewer, settle: Settle) -> None:
    values = np.zeros((9, 16, 16), dtype=np.float32)
    values[3], values[4], values[5] = 10.0, 20.0, 60.0
    volume = a_volume(values, mr.Grid.from_parts(values.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    layer = window.add_layer(Layer.create(*volume_layer(volume, {"role": "volume"}, "volume")))
    layer.contrast_limits = (0.0, 100.0)
    attach.attach(window)
    corner.show(window, False)
    window.dims.point = layer.data_to_world((4, 8, 8))
    for thickness, mode, wanted in (
        (0.0, "mean", 20.0),
        (2.0, "mean", 30.0),
        (2.0, "MIP (brightest)", 60.0),
        (2.0, "MinIP (darkest)", 10.0),
    ):
        slab.set_slab(window, thickness, mode)
        settle()
        picture = window.screenshot(flash=False)
        shown = picture[picture.shape[0] // 2 + 20, picture.shape[1] // 2 + 20, 0] / 255 * 100
        assert shown == pytest.approx(wanted, abs=0.6)


def test_rectangles_outline_the_slices_where_they_stood(window: napari.Viewer, tmp_path: Path) -> None:
    make_marked_series(tmp_path, ORIENTATIONS["axial, nodding"])
    layer = open_in(window, tmp_path)[0]
    scan = mr.read(tmp_path)
    assert isinstance(scan, mr.SliceScan)
    rectangles.toggle(window)
    drawn = next(one for one in window.layers if one.metadata.get("role") == rectangles.ROLE)
    assert drawn.data.shape == (4 * len(scan.poses), 2, 3)
    place = letters.place_of_layer(layer)
    assert place is not None
    ends = place.lps_of_world(np.concatenate([drawn.data[:, 0], drawn.data.sum(axis=1)]) * drawn.scale)
    corners = scan.poses.corners_lps_mm().reshape(-1, 3)
    assert max(np.linalg.norm(corners - end, axis=1).min() for end in ends) < 1e-3
    lengths = np.linalg.norm(drawn.data[:, 1] * drawn.scale, axis=1)
    assert sorted(set(np.round(lengths, 3))) == [70.0, 78.0]  # no diagonal
    rectangles.toggle(window)
    assert list(window.layers) == [layer]


def test_before_and_after_take_turns(window: napari.Viewer, tmp_path: Path) -> None:
    make_series(tmp_path)
    before = open_in(window, tmp_path)[0]
    with pytest.raises(UsageError) as caught:
        compare.before_after(window)
    assert caught.value.code == "NAP-LAYER"
    volume = a_volume(np.zeros((4, 5, 6)), mr.Grid.from_parts((4, 5, 6), (1, 1, 1), (0, 0, 0)), "hounsfield")
    after = window.add_layer(
        Layer.create(*volume_layer(volume, {"role": "result", "series": before.metadata["series"]}, "result"))
    )
    for shown in (before, after, before):
        assert compare.before_after(window) == shown.name
        assert [layer for layer in window.layers if layer.visible] == [shown]


def test_the_difference_of_two_rasters_is_that_of_the_patients_points(window: napari.Viewer) -> None:
    def ramp(grid: mr.Grid, offset: float) -> mr.Volume:
        places = grid.to_lps(np.moveaxis(np.indices(grid.shape), 0, -1))
        return a_volume(places @ (1.0, 2.0, -3.0) + offset, grid)

    coarse = mr.Grid.from_parts((6, 10, 10), (5.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    fine = mr.Grid.from_parts((51, 40, 40), (1.0, 0.5, 0.5), (0.0, 0.0, -10.0), np.eye(3)[:, ::-1])
    window.add_layer(Layer.create(*volume_layer(ramp(coarse, 0.0), {"role": "scan"}, "slices")))
    window.add_layer(Layer.create(*volume_layer(ramp(fine, 4.0), {"role": "result"}, "result")))
    layer = compare.add_difference(window)
    assert np.abs(layer.data - 4.0)[layer.data != 0].max() < 1e-3
    assert (layer.data != 0).mean() > 0.9
    assert layer.metadata["role"] == "difference"
    low, high = layer.contrast_limits
    assert low == -high


def test_coverage_is_shown_with_its_legend_and_named_in_the_status(window: napari.Viewer) -> None:
    grid = mr.Grid.from_parts((3, 4, 5), (1, 1, 1), (0, 0, 0))
    first = volume_layer(a_volume(np.zeros(grid.shape), grid), {"role": "result"}, "result")
    attach.attach(window)
    window.add_layer(Layer.create(*first))
    with pytest.raises(UsageError):
        maps.toggle(window, "coverage")
    levels = np.broadcast_to(np.array([2, 1, 0, 2, 1]), grid.shape).astype(np.float32)
    layer = window.add_layer(Layer.create(*coverage_layer(a_volume(levels, grid), {}, "coverage")))
    assert corner.texts(window)["medrecon_legend"] == ""
    assert maps.toggle(window, "coverage") is True
    assert "amber: interpolated" in corner.texts(window)["medrecon_legend"]
    said = [layer.get_status(layer.data_to_world((1, 1, k)), world=True, dims_displayed=[1, 2])["value"] for k in range(5)]
    assert said == ["measured", "interpolated", "not seen", "measured", "interpolated"]
    assert maps.toggle(window, "coverage") is False


def test_a_slab_of_coverage_shows_the_worst_in_it_whatever_the_slab_of_the_picture_shows(window: napari.Viewer) -> None:
    grid = mr.Grid.from_parts((3, 4, 5), (1, 1, 1), (0, 0, 0))
    levels = np.broadcast_to(np.array([2.0, 1.0, 0.0])[:, None, None], grid.shape).astype(np.float32)
    picture = window.add_layer(Layer.create(*volume_layer(a_volume(levels, grid), {"role": "result"}, "result")))
    coverage = window.add_layer(Layer.create(*coverage_layer(a_volume(levels, grid), {}, "coverage")))
    slab.set_slab(window, 9.0, "mean")
    assert (picture.projection_mode, coverage.projection_mode) == ("mean", "max")
    assert coverage.data.max() == UNSEEN


def test_uncertainty_is_shown_with_a_legend_in_the_unit_of_the_volume(window: napari.Viewer) -> None:
    grid = mr.Grid.from_parts((3, 4, 5), (1, 1, 1), (0, 0, 0))
    attach.attach(window)
    window.add_layer(Layer.create(*volume_layer(a_volume(np.zeros(grid.shape), grid), {"role": "result"}, "result")))
    tools = ViewingTools(window)
    tools.uncertainty.click()
    assert "learned methods" in tools.said.text()
    doubt = np.linspace(0, 40, 60, dtype=np.float32).reshape(grid.shape)
    made = uncertainty_layer(a_volume(doubt, grid), {"quantity": "hounsfield"}, "doubt")
    layer = window.add_layer(Layer.create(*made))
    assert corner.texts(window)["medrecon_legend"] == ""
    tools.uncertainty.click()
    assert layer.visible
    assert corner.texts(window)["medrecon_legend"] == "Uncertainty\nclear: 0\nred: 40 HU and more"
    most = np.unravel_index(int(layer.data.argmax()), layer.data.shape)
    assert layer.get_status(layer.data_to_world(most), world=True, dims_displayed=[1, 2])["value"] == "40 HU"
    tools.uncertainty.click()
    assert not layer.visible
    tools.deleteLater()


def test_the_residual_is_shown_and_hidden_by_its_button(window: napari.Viewer) -> None:
    grid = mr.Grid.from_parts((3, 4, 5), (1, 1, 1), (0, 0, 0))
    window.add_layer(Layer.create(*volume_layer(a_volume(np.zeros(grid.shape), grid), {"role": "result"}, "result")))
    tools = ViewingTools(window)
    tools.residual.click()
    assert tools.said.text().startswith("NAP-LAYER: no residual layer")
    errors, arguments, kind = difference_layer(a_volume(np.ones(grid.shape), grid), {"role": "residual"}, "residual")
    layer = window.add_layer(Layer.create(errors, arguments | {"visible": False}, kind))
    for shown in (True, False):
        tools.residual.click()
        assert layer.visible is shown
    tools.deleteLater()


def test_a_turn_against_another_layer_is_noted_once_and_only_beside_one_that_is_seen(window: napari.Viewer) -> None:
    turn = np.array([[0.866, -0.5, 0], [0.5, 0.866, 0], [0, 0, 1]])
    plain = mr.Grid.from_parts((3, 4, 5), (1, 1, 1), (0, 0, 0))
    oblique = np.eye(4)
    oblique[:3, :3] = turn @ plain.to_lps_mm[:3, :3]
    first = a_volume(np.zeros((3, 4, 5)), plain), a_volume(np.zeros((3, 4, 5)), mr.Grid((3, 4, 5), oblique))
    made = [Layer.create(*volume_layer(one, {"role": "scan"}, f"scan {k}")) for k, one in enumerate(first)]
    window.add_layer(made[0])
    made[0].visible = False
    align.lay_upon(window, made[1])
    assert made[1].metadata["notes"] == ()
    made[0].visible = True
    align.lay_upon(window, made[1])
    align.lay_upon(window, made[1])
    assert made[1].metadata["notes"] == ("turned by 30.0 degrees against scan 0: the two do not lie upon each other",)


def test_the_corner_text_ends_before_the_letter_in_the_middle_of_a_narrow_window(window: napari.Viewer) -> None:
    """534 pixels are left for the picture in a window of 1280; a letter group such as ASL is 54 pixels wide, the margin 10."""
    name = "MR series-1de2c3ad1139b986"
    grid = mr.Grid.from_parts((3, 4, 5), (1, 1, 1), (0, 0, 0))
    layer = window.add_layer(Layer.create(*volume_layer(a_volume(np.zeros(grid.shape), grid), {"role": "scan"}, name)))
    longest = max(len(line) for line in corner.what(layer).splitlines())
    assert longest == len(name)
    font = QFont("OpenSans")
    font.setPointSizeF(corner._SIZE_PT)
    widest = max(QFontMetricsF(font).horizontalAdvance(line) for line in corner.what(layer).splitlines())
    assert 10 + widest < 534 / 2 - 54 / 2


def test_the_status_gives_place_index_slice_and_value_with_its_unit(window: napari.Viewer, tmp_path: Path) -> None:
    make_series(tmp_path, padding=0, stored=np.where(np.arange(24) < 3, 0, 1064) * np.ones((8, 32, 24), dtype=int))
    layer = open_in(window, tmp_path)[0]
    world = layer.data_to_world((0, 4, 10))
    status = layer.get_status(world, world=True, dims_displayed=[1, 2])
    assert status["coordinates"] == "R 10.0  A 26.0  S 31.0 mm  (LPS -10.0, -26.0, 31.0)  [0, 4, 10] slice 8/8: 40 HU"
    outside = layer.get_status(layer.data_to_world((0, 4, 1)), world=True, dims_displayed=[1, 2])
    assert outside["value"] == "not measured"
    beyond = layer.get_status(layer.data_to_world((0, 4, 99)), world=True, dims_displayed=[1, 2])
    assert beyond["value"] == ""
    assert tmp_path.name not in str(status)


def test_the_banner_shows_the_patient_only_when_asked_and_never_in_the_canvas(
    window: napari.Viewer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_series(tmp_path, patient="MUSTER^MAX")
    open_in(window, tmp_path)
    banner = Banner(window)
    assert banner.label.text() == HIDDEN
    banner.hide_identity.click()
    assert banner.label.text().startswith("MUSTER, MAX")
    canvas = " ".join(str(getattr(overlay, "text", "")) for overlay in window.canvas.overlays.values())
    for text in (canvas, window.title, caplog.text, *(layer.name for layer in window.layers), repr(window.layers[0].metadata)):
        assert "MUSTER" not in text
    banner.hide_identity.click()
    assert banner.label.text() == HIDDEN
    window.layers.clear()
    banner.hide_identity.click()
    assert banner.label.text() == UNKNOWN
    banner.deleteLater()


def test_an_identity_is_one_line_of_plain_text() -> None:
    header = {"00100010": {"Value": [{"Alphabetic": "A\nB^C<b>"}]}, "00100020": {"Value": ["4711"]}, "00100030": {"vr": "DA"}}
    assert identity(header) == "A B, C<b>  ·  ID 4711"
    assert identity({}) == ""


def test_the_buttons_of_the_viewing_tools_do_what_they_say(window: napari.Viewer, tmp_path: Path, settle: Settle) -> None:
    make_series(tmp_path)
    layer = open_in(window, tmp_path)[0]
    tools = ViewingTools(window)
    window.window.add_dock_widget(tools, name="Viewing")
    tools.letters.click()
    assert not window.canvas.overlays["medrecon_left"].visible
    tools.letters.click()
    tools.radiological.click()
    assert letters.read(window).left == "L"
    tools.radiological.click()
    tools.three_planes.click()
    settle()
    assert any(one.metadata.get("role") == crosshair.ROLE for one in window.layers)
    window.window.remove_dock_widget(window.window.dock_widgets["Three planes"])
    assert not tools.three_planes.isChecked()
    assert list(window.layers) == [layer]
    tools.presets.setCurrentIndex(2)
    tools.presets.activated.emit(2)
    assert tuple(layer.contrast_limits) == (-1200.0, 200.0)
    tools.thickness.setValue(6.0)
    assert window.dims.thickness == (6.0, 6.0, 6.0)
    tools.slices.click()
    assert len(window.layers) == 2
    tools.slices.click()
    tools.before_after.click()
    assert tools.said.text().startswith("NAP-LAYER")
    tools.coverage.click()
    assert "maps" in tools.said.text()


def test_the_menu_entries_work_on_the_viewer_and_say_what_they_lack(window: napari.Viewer, tmp_path: Path) -> None:
    from napari.utils.notifications import notification_manager

    make_series(tmp_path)
    layer = open_in(window, tmp_path)[0]
    menu.slices_as_rectangles(window)
    assert len(window.layers) == 2
    menu.slices_as_rectangles(window)
    assert list(window.layers) == [layer]
    for entry in (menu.before_after, menu.difference, menu.coverage, menu.residual, menu.uncertainty):
        entry(window)
        assert "NAP-LAYER" in notification_manager.records[-1].message


def test_scans_open_without_asking_once_the_user_said_so() -> None:
    from napari.settings import get_settings

    before = dict(get_settings().plugins.extension2reader)
    menu.open_scans_with_us()
    chosen = get_settings().plugins.extension2reader
    get_settings().plugins.extension2reader = before
    assert chosen["*.nii.gz"] == chosen["*.dcm"] == chosen["*/"] == "medrecon"


def test_a_dropped_folder_opens_without_a_question_once_the_user_said_so(window: napari.Viewer, tmp_path: Path) -> None:
    from napari.settings import get_settings

    make_series(tmp_path / "series")
    before = dict(get_settings().plugins.extension2reader)
    menu.open_scans_with_us()
    try:
        layers = window.open(str(tmp_path / "series"), plugin=None)
    finally:
        get_settings().plugins.extension2reader = before
    assert [layer.source.reader_plugin for layer in layers] == ["medrecon"]


def test_layers_of_one_patient_lie_upon_each_other_however_they_were_opened(window: napari.Viewer) -> None:
    turn = np.linalg.qr(np.array([[0.1, 0.2, 1], [0.1, 1, -0.2], [1, -0.1, 0.1]]))[0]
    attach.attach(window)
    added = []
    for shape, origin in (((6, 9, 8), (0.0, 0.0, 0.0)), ((12, 7, 5), (11.0, -8.0, 3.0))):
        volume = a_volume(np.zeros(shape), mr.Grid.from_parts(shape, (2.0, 1.0, 1.5), origin, turn))
        added.append(window.add_layer(Layer.create(*volume_layer(volume, {"role": "volume"}, "volume"))))
    places = [letters.place_of_layer(layer) for layer in added]
    for point in itertools.product((-10.0, 25.0), repeat=3):
        here, there = (place.world_of_lps(point) for place in places if place is not None)
        assert np.abs(here - there).max() < 1e-9


def test_a_layer_that_cannot_lie_upon_the_others_says_so(window: napari.Viewer) -> None:
    attach.attach(window)
    for turn in (np.eye(3)[:, ::-1], np.array([[0, 0, 1], [0.2, 0.98, 0], [0.98, -0.2, 0]])):
        q, _ = np.linalg.qr(turn)
        volume = a_volume(np.zeros((4, 5, 6)), mr.Grid.from_parts((4, 5, 6), (1, 1, 1), (0, 0, 0), q))
        layer = window.add_layer(Layer.create(*volume_layer(volume, {"role": "volume"}, "volume")))
    assert "11.5 degrees" in layer.metadata["notes"][-1]
    assert "11.5 degrees" in corner.what(layer).replace("\n", " ")


def test_a_window_is_there_when_continuous_integration_runs(window: napari.Viewer) -> None:
    assert window.window is not None
    assert os.environ.get("QT_QPA_PLATFORM") != "offscreen"
