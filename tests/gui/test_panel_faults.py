"""What goes wrong around the panel: one clear message each, nothing lost, the window alive."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from medrecon_napari.model import choice
from medrecon_napari.model.runs import RunState
from medrecon_napari.model.steps import Step

import medrecon
from medrecon import methods
from tests.gui.driver import Driver
from tests.makers_dicom import make_series

pytestmark = [pytest.mark.gui, pytest.mark.timeout(900)]  # seconds on a quiet machine are minutes on a busy one
ROOT = Path(__file__).resolve().parents[2]
#: A window that kept what it shows of ten runs would grow by far more; 6 to 24 MB are measured.
GROWTH_BYTES = 40e6


def finished(panel: Driver) -> list[RunState]:
    return [job.state for job in panel.bench.jobs]


def test_a_child_that_is_killed_is_told_with_a_code_and_the_next_run_works(
    panel: Driver, quick_study: Path, quick_runs: Callable[[float], None]
) -> None:
    quick_runs(100.0)  # it must not be over before it is killed, however slow the window is
    panel.load(quick_study)
    panel.run()
    panel.until(lambda: panel.panel.reconstruct.progress.value() > 0, "progress")
    child = panel.child("run")
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    panel.until(panel.message, "a message")
    assert panel.message().endswith("RUN-KILLED")
    assert "Nothing is lost" in panel.message()
    job = panel.bench.jobs.get(1)
    assert not list(job.folder.rglob("*"))
    quick_runs(1.0)
    panel.run()
    panel.until(lambda: panel.layers("result"), "the result of the next run")
    assert finished(panel) == [RunState.FAILED, RunState.FINISHED]


def test_a_killed_preview_is_told_beside_its_picture_and_comes_back(panel: Driver, tiny_study: Path) -> None:
    panel.load(tiny_study)
    panel.open_step(Step.RECONSTRUCT)
    preview = panel.panel.reconstruct.preview
    panel.until(lambda: not preview.pair.is_empty, "a preview")
    said: list[str] = []  # a plane that moved just before asks again at once, and the words have gone when we look
    panel.bench.previews.failed.connect(lambda _: said.append(preview.state.text()))
    os.kill(panel.bench.previews.pid, signal.SIGKILL)
    panel.until(lambda: said, "words")
    assert said[0].startswith("No preview: ")
    assert said[0].endswith("RUN-KILLED")
    preview.pair.clear()
    preview.look("axial" if preview.view.currentData() == "sagittal" else "sagittal")
    panel.until(lambda: not preview.pair.is_empty, "another preview")
    assert len(said) == 1


@pytest.fixture
def half_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a half-written file among the methods, before the panel opens."""
    (tmp_path / "half.py").write_text("def half(A, y")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    for kept in (choice.methods_for, choice.broken_methods):
        kept.cache_clear()
    yield
    for kept in (choice.methods_for, choice.broken_methods):
        kept.cache_clear()


@pytest.mark.usefixtures("half_a_method")  # before the panel
def test_a_broken_method_leaves_the_panel_whole_and_is_shown_as_not_available(quick_study: Path, request: Any) -> None:
    panel: Driver = request.getfixturevalue("panel")
    panel.load(quick_study)
    panel.open_step(Step.RECONSTRUCT)
    said = panel.panel.reconstruct.presets.broken
    assert said.isVisible()
    assert said.text().startswith("Not available: The method 'half' cannot be loaded: SyntaxError in line 1.")
    assert said.text().endswith("ARG-BROKEN")
    box = panel.panel.reconstruct.advanced.method
    rows = {box.itemText(row): box.model().item(row).isEnabled() for row in range(box.count())}
    assert rows["Half: not available"] is False
    assert rows["Interpolate"] is True
    panel.run()
    panel.until(lambda: panel.layers("result"), "the result of another method")


def test_layers_removed_and_renamed_during_a_run_are_no_loss(panel: Driver, quick_study: Path) -> None:
    panel.load(quick_study)
    panel.viewer.layers[0].name = "mine"
    panel.run()
    panel.until(lambda: panel.panel.reconstruct.progress.value() > 0, "progress")
    panel.viewer.layers.clear()
    panel.until(lambda: panel.layers("surface"), "the result")
    panel.layers("result")[0].name = "renamed"
    panel.viewer.layers.remove(panel.layers("coverage")[0])
    panel.until(lambda: panel.message().startswith("Finished in"), "the good news")
    panel.open_step(Step.SURFACE)
    card = panel.panel.jobs.cards[1]
    panel.viewer.layers.clear()
    panel.click(card.show_again)
    panel.until(lambda: panel.layers("surface"), "the result again")


def test_a_folder_that_vanished_is_told_and_the_images_stay(panel: Driver, quick_study: Path, tmp_path: Path) -> None:
    shutil.copytree(quick_study, tmp_path / "study")
    panel.load(tmp_path / "study")
    shutil.rmtree(tmp_path / "study")
    panel.run()
    assert panel.message() == "The folder is not there any more. Choose it again in step 1. INP-MISSING"
    assert panel.layers("scan")
    panel.drop(tmp_path / "study")
    panel.until(lambda: panel.message().endswith("INP-NONE") or panel.message().endswith("INP-MISSING"), "a message")


def test_a_folder_that_vanishes_while_it_is_read_is_told_by_the_child(panel: Driver, tmp_path: Path) -> None:
    make_series(tmp_path / "study")
    panel.load(tmp_path / "study")
    for file in (tmp_path / "study").iterdir():
        file.unlink()
    panel.run()
    panel.until(panel.message, "a message")
    assert panel.message().endswith("INP-NONE")
    assert panel.run_text() == "Run"


def test_a_refused_series_says_why_and_offers_the_way_out(panel: Driver, quick_study: Path, tmp_path: Path) -> None:
    shutil.copytree(quick_study, tmp_path / "study")
    sorted((tmp_path / "study").iterdir())[4].unlink()
    panel.drop(tmp_path / "study")
    panel.until(lambda: panel.bench.info, "the series")
    load = panel.panel.load
    assert load.table.item(0, 1).text() == "✕ Refused"
    assert not load.next_button.isEnabled()
    assert load.next_button.toolTip() == "The series is refused; step 1 says why and what to do."
    assert not panel.layers("scan")
    panel.click(load.details.switches["missing-slices"])
    panel.until(lambda: panel.layers("scan"), "its images, once that was allowed")
    assert load.next_button.isEnabled()
    assert load.table.item(0, 1).text() == "! Usable"


def test_a_refused_series_does_not_stand_beside_the_pictures_of_the_one_before(
    panel: Driver, quick_study: Path, tmp_path: Path
) -> None:
    panel.load(quick_study)
    assert [layer.visible for layer in panel.layers("scan")] == [True]
    make_series(tmp_path / "study", shape=(9, 20, 18), drop=(4,), seed=7)
    panel.drop(tmp_path / "study")
    panel.until(lambda: not any(layer.visible for layer in panel.layers("scan")), "the empty view")
    assert len(panel.layers("scan")) == 1, "it is hidden, not removed"


def with_result(panel: Driver, study: Path) -> None:
    panel.load(study)
    panel.run()
    panel.until(lambda: panel.layers("surface"), "the result")
    panel.open_step(Step.EXPORT)


def test_a_copy_with_fewer_files_is_shown_instead_of_the_whole_series(panel: Driver, quick_study: Path, tmp_path: Path) -> None:
    panel.load(quick_study)
    whole = panel.panel.screen.scan(panel.bench.info.id)
    copy = shutil.copytree(quick_study, tmp_path / "copy")
    for file in sorted(copy.iterdir())[-2:]:
        file.unlink()
    panel.load(copy)
    panel.until(lambda: whole not in panel.viewer.layers, "the pictures of the copy")
    panel.until(panel.scan_is_shown, "the pictures of the copy")
    assert panel.panel.screen.scan(panel.bench.info.id).data.shape[0] == whole.data.shape[0] - 2


def test_a_series_that_is_chosen_again_shows_the_pictures_that_are_there(
    panel: Driver, quick_study: Path, tmp_path: Path
) -> None:
    panel.load(quick_study)
    first = panel.panel.screen.scan(panel.bench.info.id)
    make_series(tmp_path / "other", shape=(6, 24, 20), seed=3)
    panel.load(tmp_path / "other")
    assert not first.visible
    panel.load(quick_study)
    assert panel.panel.screen.scan(panel.bench.info.id) is first
    assert first.visible


def test_a_place_that_cannot_be_written_to_is_told_and_nothing_is_lost(panel: Driver, quick_study: Path, tmp_path: Path) -> None:
    with_result(panel, quick_study)
    (tmp_path / "file").write_text("no folder")
    panel.panel.export.folder.setText(str(tmp_path / "file" / "below"))
    panel.click(panel.panel.export.export_button)
    panel.until(lambda: panel.message().split()[-1].startswith("OUT-"), "a message")
    assert str(tmp_path) not in panel.message()
    panel.panel.export.folder.setText(str(tmp_path / "out"))
    panel.panel.export.formats["dicom"].setChecked(False)
    panel.click(panel.panel.export.export_button)
    panel.until(lambda: panel.bench.exported, "the export to another place")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB; skips where no file system may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_and_leaves_no_half_export(panel: Driver, quick_study: Path, full_disk: Path) -> None:
    with_result(panel, quick_study)
    panel.panel.export.folder.setText(str(full_disk))
    panel.click(panel.panel.export.export_button)
    panel.until(lambda: panel.message().split()[-1].startswith("OUT-"), "a message")
    print(panel.message())  # noqa: T201
    assert "space" in panel.message() or "full" in panel.message()
    assert not [path for path in full_disk.rglob("*") if path.is_file()]
    assert panel.bench.results(), "the result is still there"


@pytest.mark.usefixtures("screen")
def test_closing_the_window_while_it_runs_asks_ends_the_child_and_exits_with_0(tiny_study: Path, tmp_path: Path) -> None:
    said = said_by("tests.gui.closing", str(tiny_study), TMPDIR=str(tmp_path))
    assert said["asked"] == ["1 job is still running. Closing ends it."] * 2
    assert said["stayed"]
    assert not psutil.pid_exists(said["pid"])
    assert not Path(said["session"]).exists()
    assert not said["torch"]
    assert not list(tmp_path.glob("medrecon-*")), "nothing of the patient stays behind"


@pytest.mark.usefixtures("screen")
def test_ten_runs_leave_no_memory_no_layers_and_no_threads_behind(tiny_study: Path, tiny_result: Path) -> None:
    one_pool = {"MALLOC_ARENA_MAX": "1"}  # else the C library keeps one for each new thread, up to eight a processor
    said = said_by("tests.gui.ten_runs", str(tiny_study), str(tiny_result), **one_pool)
    before, after = said["before"], said["after"]
    grown = after["bytes"] - before["bytes"]
    print(f"after ten runs {grown / 1e6:+.1f} MB, {after['threads']} threads, {after['files']} open files")  # noqa: T201
    assert said["states"] == [RunState.FINISHED]
    assert grown < GROWTH_BYTES
    assert said["leaky"] > GROWTH_BYTES, "the check must see what is kept"
    assert after["layers"] == before["layers"]
    assert after["threads"] <= before["threads"]
    assert after["files"] <= before["files"] + 2


def said_by(module: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run a program of this folder in a process of its own, and return what it printed."""
    places = os.pathsep.join([str(ROOT), str(Path(medrecon.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": places} | environment,
        timeout=900,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
