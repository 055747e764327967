"""Three planes in a real window: they meet in one patient point, share one look, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import napari
import numpy as np
import pytest
from medrecon_napari.layers import scan_layers
from medrecon_napari.viewing import letters, windows
from medrecon_napari.viewing.threeplanes import ThreePlanes
from napari.layers import Layer

import medrecon as mr
from tests.makers_plugin import ORIENTATIONS, make_marked_series

pytestmark = pytest.mark.gui
Settle = Callable[[], None]
Scene = tuple[napari.Viewer, Layer, ThreePlanes]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("series")
    make_marked_series(folder, ORIENTATIONS["sagittal"])
    return str(folder)


@pytest.fixture(scope="module")
def scene(only_window: napari.Viewer, series: str, settle: Settle) -> Iterator[Scene]:
    """One window with one series and its planes, which cost seconds; every test leaves it as it was."""
    before = len(only_window.mouse_move_callbacks)
    layer = only_window.open(series, plugin="medrecon")[0]
    steps = [one.step for one in only_window.dims.range]
    planes = ThreePlanes(only_window)
    only_window.window.add_dock_widget(planes, name="Three planes", area="right")
    settle()
    assert [one.step for one in only_window.dims.range] == steps, "the sliders must keep the steps of the image"
    assert len(only_window.mouse_move_callbacks) == before + 1
    yield only_window, layer, planes
    only_window.layers.clear()


def marker_point(layer: Layer) -> tuple[float, ...]:
    return tuple(float(v) for v in layer.data_to_world(np.argwhere(layer.data > 900).mean(axis=0)))


def test_the_main_view_is_not_shown_twice(scene: Scene) -> None:
    _, _, planes = scene
    assert {axis for axis, view in planes.views.items() if view.canvas.isVisible()} == {1, 2}
    assert [letters.read(planes.views[axis].model).left for axis in (1, 2)] == ["R", "A"]


def test_all_planes_show_the_patient_point_at_which_they_meet(scene: Scene) -> None:
    window, layer, planes = scene
    window.dims.point = marker_point(layer)
    for view in planes.views.values():
        assert view.model.dims.point == pytest.approx(window.dims.point)
        copy = view.copies[layer]
        assert copy.data is layer.data
        assert copy.get_value(view.model.dims.point, world=True, dims_displayed=list(view.model.dims.displayed)) > 900
    planes.views[2].model.dims.point = (0.0, 10.0, -4.0)
    assert window.dims.point == pytest.approx(planes.views[1].model.dims.point)
    assert window.dims.point[1] == pytest.approx(10.0, abs=1.1)


def test_the_crosshair_stands_where_the_planes_meet(scene: Scene) -> None:
    window, layer, planes = scene
    window.dims.point = tuple(float(v) for v in layer.data_to_world((4, 30, 5)))
    for viewer, drawn in ((window, planes.crosshair), *((view.model, view.crosshair) for view in planes.views.values())):
        assert drawn is not None
        starts, ways = drawn.data[:, 0] * drawn.scale, drawn.data[:, 1] * drawn.scale
        for axis, (start, way) in enumerate(zip(starts, ways, strict=True)):
            assert np.delete(start, axis) == pytest.approx(np.delete(viewer.dims.point, axis))
            assert np.count_nonzero(way) == 1
    assert window.layers.selection.active is layer


def test_windows_visibility_and_slabs_are_shared_by_all_planes(scene: Scene, series: str) -> None:
    window, layer, planes = scene
    copies = [view.copies[layer] for view in planes.views.values()]
    windows.choose(layer, "3")
    assert all(tuple(copy.contrast_limits) == (-1200.0, 200.0) for copy in copies)
    copies[0].contrast_limits = (0.0, 50.0)
    assert tuple(layer.contrast_limits) == tuple(copies[1].contrast_limits) == (0.0, 50.0)
    layer.visible = False
    assert not any(copy.visible for copy in copies)
    layer.visible = True
    window.dims.thickness = (4.0, 4.0, 4.0)
    assert all(view.model.dims.thickness == (4.0, 4.0, 4.0) for view in planes.views.values())
    window.dims.thickness = (0.0, 0.0, 0.0)
    second = window.add_layer(Layer.create(*scan_layers(mr.read(series))[0]))
    assert all(second in view.copies for view in planes.views.values())
    window.layers.remove(second)
    assert all(second not in view.copies and len(view.model.layers) == 2 for view in planes.views.values())


def test_in_3d_all_three_planes_are_shown_and_another_main_plane_is_left_out(scene: Scene) -> None:
    window, layer, planes = scene
    window.dims.ndisplay = 3
    assert all(planes.views[axis].canvas.isVisible() for axis in range(3))
    assert letters.read(planes.views[0].model).left == "R"
    assert layer in planes.views[0].copies
    window.dims.ndisplay = 2
    window.dims.order = (2, 0, 1)
    assert {axis for axis, view in planes.views.items() if view.canvas.isVisible()} == {0, 1}
    window.dims.order = (0, 1, 2)


def test_closing_the_planes_leaves_nothing_behind(scene: Scene, settle: Settle) -> None:
    window, layer, planes = scene
    before = len(window.mouse_move_callbacks)
    window.window.remove_dock_widget(planes)
    settle()
    assert planes.views == {}
    assert list(window.layers) == [layer]
    assert len(window.mouse_move_callbacks) == before - 1
    window.dims.point = (1.0, 2.0, 3.0)  # nobody follows any more
