"""What the tests of the plugin share: whether there is a screen with OpenGL, and one real window for all of them.

Tests that need a window take the fixture `window`, which skips visibly where there is no screen; everything else runs
anywhere. The window is opened once, since opening one costs seconds, and is empty at the beginning of every test.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import napari

    from tests.gui.driver import Driver

#: napari's own warnings under the versions that are tested; each is none of ours.
_NOT_OURS = (
    "ignore:.*copy.*keyword.*:DeprecationWarning",
    "ignore:The 'warn' method is deprecated:DeprecationWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that opens a window, and let napari's own warnings pass in this folder only."""
    for item in items:
        if "tests/gui/" not in item.path.as_posix():
            continue
        for warning in _NOT_OURS:
            item.add_marker(pytest.mark.filterwarnings(warning))
        if {"window", "only_window", "panel"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.gui)


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the settings of this machine's user out of the tests, and those of the tests out of the user's file."""
    from napari.settings import get_settings

    settings = get_settings()
    settings.config_path = tmp_path_factory.mktemp("napari") / "settings.yaml"
    settings.reset()


@pytest.fixture(scope="session")
def screen(request: pytest.FixtureRequest) -> None:
    """Skip where no window with OpenGL can be opened, and say why."""
    why = _no_display()
    if not why:
        request.getfixturevalue("qapp")
        why = _no_opengl()
    if why:
        pytest.skip(why)


@pytest.fixture(scope="session")
def only_window(screen: None) -> Iterator[napari.Viewer]:  # noqa: ARG001 (needs one)
    """Open the window that all tests share."""
    import napari

    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(900, 600)
    yield viewer
    viewer.close()


@pytest.fixture
def window(only_window: napari.Viewer) -> Iterator[napari.Viewer]:
    """Return the window, empty, in 2D, its axes in their first order."""
    yield only_window
    for name in list(only_window.window.dock_widgets):
        only_window.window.remove_dock_widget(only_window.window.dock_widgets[name])
    only_window.layers.clear()
    only_window.dims.ndisplay = 2
    only_window.dims.order = tuple(range(only_window.dims.ndim))
    only_window.dims.thickness = (0.0,) * only_window.dims.ndim
    only_window.scene.camera.orientation = ("towards", "down", "right")


@pytest.fixture(scope="session")
def settle() -> Callable[[], None]:
    """Return a function that lets Qt do what is waiting."""
    from qtpy.QtWidgets import QApplication

    def wait(rounds: int = 4) -> None:
        for _ in range(rounds):
            QApplication.processEvents()
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a CT series that is read in a moment."""
    from tests.makers_dicom import make_series

    folder = tmp_path_factory.mktemp("tiny") / "study"
    make_series(folder, shape=(10, 40, 36), spacing_mm=(4.0, 1.0, 1.0), thickness_mm=4.0)
    return folder


@pytest.fixture(scope="session")
def tiny_result(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reconstruct the tiny study through the command line, once for all tests."""
    out = tmp_path_factory.mktemp("result")
    command = [sys.executable, "-m", "medrecon", "run", str(tiny_study), "--out", str(out)]
    subprocess.run([*command, "--formats", "nifti,stl,maps,report", "--progress", "none"], check=True, capture_output=True)
    return next(out.iterdir())


@pytest.fixture
def panel(window: napari.Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Open the panel in the window, with a memory of its own: other tests and the user's own windows have theirs."""
    from medrecon_napari.panel import ReconstructionPanel, memory

    from tests.gui.driver import Driver

    monkeypatch.setattr("medrecon_napari.panel.home.beside_napari", lambda: memory.Memory(tmp_path / "memory.json"))
    made = ReconstructionPanel(window)
    window.window.add_dock_widget(made, name="Reconstruct", area="right")
    yield Driver(made)
    made.home.close()


@pytest.fixture
def quick_runs(tiny_result: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that lets every run take so many seconds, and hand out the tiny result."""
    stand_in = Path(__file__).with_name("stand_in.py")

    def last(seconds: float) -> None:
        monkeypatch.setattr(
            "medrecon_napari.model.workbench.run_command",
            lambda _, out: (sys.executable, str(stand_in), str(tiny_result), str(out), str(seconds), "run"),
        )

    return last


@pytest.fixture
def quick_study(tiny_study: Path, quick_runs: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a study whose runs take a second and whose preview never comes, for tests of the window alone."""
    quick_runs(1.0)
    idle = (sys.executable, "-c", "import sys; sys.stdin.read()")
    monkeypatch.setattr("medrecon_napari.model.previews.preview_command", lambda *_: idle)
    return tiny_study


def _no_display() -> str:
    """Say why no window can be opened, or nothing where one can."""
    if os.environ.get("QT_QPA_PLATFORM") in ("offscreen", "minimal"):
        return "Qt's offscreen platform has no OpenGL; run under xvfb-run"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display; run under xvfb-run"
    return ""


def _no_opengl() -> str:
    """Say why nothing can be drawn, or nothing where it can; needs Qt's application."""
    from qtpy.QtGui import QOffscreenSurface, QOpenGLContext

    context, surface = QOpenGLContext(), QOffscreenSurface()
    surface.create()
    usable = context.create() and context.makeCurrent(surface)
    context.doneCurrent()
    return "" if usable else "the display has no OpenGL; install Mesa's software driver"
