"""The panel in a real window, with real buttons: from a dropped folder to an export that is opened again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import trimesh
from medrecon_napari.colours import UNSEEN
from medrecon_napari.measure.widget import MeasureTools
from medrecon_napari.model.runs import RunState
from medrecon_napari.model.steps import Step
from medrecon_napari.panel.screen import as_layers
from medrecon_napari.place import apply
from medrecon_napari.results import result_layers
from medrecon_napari.viewing import letters
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest

from tests.gui.driver import Driver, Pulse, wait
from tests.makers_dicom import make_series
from tests.makers_projections import parallel_views, scanned, write_nxtomo

pytestmark = [pytest.mark.gui, pytest.mark.timeout(900)]  # seconds on a quiet machine are minutes on a busy one
SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"
#: The promise is 0.1 s while a run is going; a slow or busy processor takes longer for the same.
STILL_S = 0.5
#: Layers come one by one, and napari computes 0.1 s and more for each; this notices a freeze, benchmarks/panel.py the rest.
STILL_WHEN_SHOWN_S = 3.0


def table_of(driver: Driver) -> list[list[str]]:
    table = driver.panel.load.table
    return [[table.item(row, column).text() for column in range(table.columnCount())] for row in range(table.rowCount())]


def at_lps(layer: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of an image layer at points of the patient, which must be voxel centres."""
    index = np.round(apply(np.linalg.inv(layer.metadata["to_lps_mm"]), points)).astype(int)
    return np.asarray(layer.data[tuple(index.T)], dtype=np.float64)


def points_of(layer: Any, count: int = 300) -> NDArray[np.float64]:
    index = np.random.default_rng(0).integers(0, layer.data.shape, (count, 3))
    return np.asarray(apply(layer.metadata["to_lps_mm"], index))


def still_until(driver: Driver, happened: Callable[[], object], what: str) -> float:
    """Wait; say how long the window stood still meanwhile, and return the longest that it computed without a break."""
    with Pulse() as pulse:
        driver.until(happened, what)
    wall, computed = pulse.longest_s()
    print(f"while {what} the window stood still for {wall * 1e3:.0f} ms at most, and computed {computed * 1e3:.0f} ms")  # noqa: T201
    return computed


def run_and_cancel(driver: Driver) -> None:
    driver.run()
    driver.until(lambda: driver.panel.reconstruct.progress.value() > 0, "progress")
    child, job = driver.child("run"), driver.bench.jobs.running("reconstruct")
    assert child is not None
    assert driver.run_text() == "Cancel"
    wait(800)
    started = time.monotonic()
    driver.click(driver.panel.reconstruct.run_button)
    assert driver.run_text() == "Cancelling…"
    assert not driver.panel.reconstruct.run_button.isEnabled()
    driver.until(lambda: not child.is_running(), "the end of the child")
    print(f"cancelled: the child was gone after {time.monotonic() - started:.2f} s")  # noqa: T201 (a measurement)
    driver.until(lambda: driver.run_text() == "Run", "Run again")
    assert driver.bench.jobs.get(job.number).state is RunState.CANCELLED
    assert not list(job.folder.rglob("*")), "a cancelled run leaves no partial file"


def test_from_a_dropped_folder_to_a_reopened_export(panel: Driver, tmp_path: Path) -> None:
    steps, screen = panel.panel.steps, panel.panel
    assert steps[Step.RECONSTRUCT].summary == "Choose a folder or a file in step 1 first."
    panel.load(SAMPLES / "ct_head_tilted" / "dicom")
    assert [row[1] for row in table_of(panel)] == ["! Usable"]
    assert steps[Step.EXPORT].summary == "Reconstruct first: there is no result to export yet."
    panel.click(screen.load.next_button)
    assert screen.open() is Step.RECONSTRUCT

    panel.until(lambda: not screen.reconstruct.preview.pair.is_empty, "a preview")
    assert [layer.name for layer in panel.layers("preview")] == ["preview, not a result"]
    panel.click(screen.reconstruct.advanced_switch)
    panel.click(screen.reconstruct.advanced_switch)
    screen.reconstruct.advanced.row("grid", "spacing_mm").show_value(2.5)
    screen.reconstruct.advanced._edited()
    assert panel.bench.config.grid.spacing_mm == 2.5

    run_and_cancel(panel)
    panel.run()
    assert still_until(panel, lambda: not panel.bench.jobs.unfinished(), "a run was going") < STILL_S
    assert still_until(panel, lambda: panel.layers("surface"), "its result was shown") < STILL_WHEN_SHOWN_S
    assert not panel.layers("preview")
    assert len(panel.layers("coverage")) == len(panel.layers("residual")) == 1

    panel.open_step(Step.SURFACE)
    panel.until(lambda: screen.surface.tissue.count() > 2, "tissues")
    screen.surface.tissue.setCurrentIndex(screen.surface.tissue.findData("bone"))
    panel.click(screen.surface.make_button)
    panel.until(lambda: {one.metadata["tissue"] for one in panel.layers("surface")} == {"skin", "bone"}, "a surface of bone")
    assert " mL · watertight ✓" in screen.surface.measures.text()

    result = panel.layers("result")[0]
    measure_a_known_distance(panel, result)
    exported = export(panel, tmp_path)
    compare_with(result, panel.layers("coverage")[0], panel.layers("surface"), exported)
    before = points_of(result)
    panel.viewer.layers.clear()
    again = panel.viewer.open(str(exported), plugin="medrecon")[0]
    assert np.array_equal(at_lps(again, before), at_lps(result, before))


def measure_a_known_distance(panel: Driver, result: Any) -> None:
    """Draw from voxel to voxel and read the distance that their centres are apart."""
    tools = MeasureTools(panel.viewer)
    panel.viewer.window.add_dock_widget(tools, name="Measure", area="left")
    panel.viewer.layers.selection.active = result
    panel.click(tools.tools["Distance"])
    drawing = panel.viewer.layers.selection.active
    ends = [[20, 30, 10], [20, 50, 30]]
    drawing.add_lines(np.array([drawing.world_to_data(result.data_to_world(one)) for one in ends]))
    shown = float(tools.table.item(0, 1).text())
    lps = apply(result.metadata["to_lps_mm"], np.array(ends, dtype=float))
    assert shown == pytest.approx(float(np.linalg.norm(lps[0] - lps[1])), rel=1e-3)
    panel.click(tools.clear)


def export(panel: Driver, folder: Path) -> Path:
    step = panel.panel.export
    panel.open_step(Step.EXPORT)
    assert step.export_button.toolTip() == "Choose a folder to export to."
    step.folder.setText(str(folder / "out"))
    panel.click(step.export_button)
    panel.until(lambda: panel.bench.exported, "the export")
    assert panel.message().startswith("Exported to ")
    return next((folder / "out").iterdir())


def compare_with(result: Any, coverage: Any, surfaces: list[Any], exported: Path) -> None:
    """Other people's programs find in the exported files what the window shows."""
    points = points_of(result)
    image = nibabel.load(exported / "volume.nii.gz")
    index = np.round(apply(np.linalg.inv(image.affine), points * [-1, -1, 1])).astype(int)
    assert np.array_equal(np.asarray(image.dataobj)[tuple(index.T)], at_lps(result, points))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(exported / "dicom")))
    series = reader.Execute()
    values = np.array([series.GetPixel(series.TransformPhysicalPointToIndex(point.tolist())) for point in points])
    never_seen = at_lps(coverage, points) == UNSEEN
    assert 0 < never_seen.sum() < len(points)
    padding = np.unique(values[never_seen])
    assert len(padding) == 1, "what was never seen is padding in DICOM"
    assert padding[0] < values[~never_seen].min(), "padding is a value that no voxel has"
    assert np.abs(values - at_lps(result, points))[~never_seen].max() <= 0.5 + 1e-3
    for layer in surfaces:
        mesh = trimesh.load(exported / f"surface-{layer.metadata['tissue']}.stl")
        shown = apply(layer.metadata["to_lps_mm"], layer.data[0])
        assert np.abs(mesh.bounds - [shown.min(axis=0), shown.max(axis=0)]).max() < 1e-2


@pytest.mark.usefixtures("window")
def test_the_pulse_notices_a_window_that_stands_still() -> None:
    with Pulse() as pulse:
        wait(50)
        until = time.thread_time() + 2 * STILL_S
        while time.thread_time() < until:
            continue
        wait(50)
    assert min(pulse.longest_s()) > STILL_S


def test_layers_of_a_result_come_hidden_and_unpainted_and_are_shown_and_painted_in_the_end(
    panel: Driver, tiny_result: Path
) -> None:
    panel.until(lambda: letters.is_there(panel.viewer), "the letters")
    layers = as_layers(result_layers(tiny_result))
    wanted, came, done = [layer.visible for layer in layers], [], []
    middle = panel.panel.home._window.centralWidget()

    def inserted(event: Any) -> None:
        came.append((event.value.visible, middle.updatesEnabled(), panel.viewer.canvas.overlays["medrecon_left"].box))

    panel.viewer.layers.events.inserted.connect(inserted)
    panel.panel.screen.add(layers, lambda: done.append(True))
    panel.until(lambda: done, "all layers")
    panel.viewer.layers.events.inserted.disconnect(inserted)
    assert came == [(False, False, False)] * len(layers)
    assert [layer.visible for layer in layers] == wanted
    assert middle.updatesEnabled()
    assert panel.viewer.canvas.overlays["medrecon_left"].box
    assert panel.viewer.layers.selection.active is layers[0]


def test_a_window_that_loses_its_panel_between_two_turns_is_painted_again(panel: Driver, tiny_result: Path) -> None:
    home = panel.panel.home
    middle = home._window.centralWidget()
    seen: list[bool] = []

    def close() -> None:
        seen.append(middle.updatesEnabled())
        home.close()

    def soon(_event: object) -> None:
        QTimer.singleShot(0, close)

    panel.viewer.layers.events.inserted.connect(soon)
    panel.panel.screen.add(as_layers(result_layers(tiny_result))[:1])
    panel.until(lambda: home.is_closed, "the end of the panel")
    panel.viewer.layers.events.inserted.disconnect(soon)
    assert seen == [False]
    assert middle.updatesEnabled()


def test_a_double_click_on_run_starts_one_job(panel: Driver, quick_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel.load(quick_study)
    panel.open_step(Step.RECONSTRUCT)
    button = panel.panel.reconstruct.run_button
    monkeypatch.setattr(panel.bench, "_clock", lambda: 100.0)  # the second click is as quick as a hand, on every machine
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    QTest.mouseDClick(button, Qt.MouseButton.LeftButton)
    panel.until(lambda: panel.layers("result"), "the result")
    assert [job.state for job in panel.bench.jobs] == [RunState.FINISHED]


def test_projections_are_listed_with_their_verdict_and_reconstructed_with_presets_of_their_own(
    panel: Driver, tmp_path: Path
) -> None:
    (tmp_path / "scan").mkdir()
    write_nxtomo(tmp_path / "scan" / "scan.nxs", scanned(parallel_views(60)), np.degrees(np.pi / 60 * np.arange(60)))
    panel.load(tmp_path / "scan")
    assert table_of(panel) == [["Projections", "! Usable", "60 views", "2×2", "–"]]
    panel.click(panel.panel.load.next_button)
    step = panel.panel.reconstruct
    shown = [name for name, button in step.presets.buttons.items() if button.isVisible()]
    assert {"cbct-fast", "micro-ct"} <= set(shown)
    assert not {"fast", "best"} & set(shown)
    panel.until(lambda: not step.preview.pair.is_empty, "a coarse preview")
    assert step.preview.state.text().endswith("a draft: the run will be sharper")
    assert step.preview.picture.measured is None
    assert not step.preview.in_viewer.isVisible()
    assert not panel.layers("preview"), "detector images are no place to lay it upon"
    assert "voxels" in step.cost.text()
    panel.run()
    panel.until(lambda: panel.layers("result"), "the volume")
    assert not panel.layers("scan")[0].visible, "detector images stand nowhere in the patient"


def test_the_presets_of_slices_come_back_with_slices(panel: Driver, quick_study: Path) -> None:
    panel.load(quick_study)
    panel.open_step(Step.RECONSTRUCT)
    buttons = panel.panel.reconstruct.presets.buttons
    assert [name for name, button in buttons.items() if button.isVisible()] == ["fast", "best"]


def test_every_series_can_be_told_in_the_table_also_when_all_columns_are_wide(panel: Driver, tmp_path: Path) -> None:
    for k in range(5):  # with a bar beside them
        make_series(tmp_path / f"{k}", shape=(8, 24, 20), drop=(3,), study=k, seed=k)
    panel.drop(tmp_path)
    panel.until(lambda: panel.bench.info, "the series")
    table = panel.panel.load.table
    wait(100)
    needed = table.fontMetrics().horizontalAdvance(table.item(0, 0).text())
    assert table.columnWidth(0) > needed + 8
