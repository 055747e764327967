"""Open a window with the panel, run, close the window while it runs: once staying, once for good. Says what it saw.

python -m tests.gui.closing STUDY RESULT
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMainWindow

from tests.gui.driver import Driver, answer_question


def main(study: Path) -> None:
    """Do it, and print what was seen as JSON."""
    from medrecon_napari.panel import ReconstructionPanel
    from napari.settings import get_settings

    get_settings().config_path = Path(tempfile.mkdtemp()) / "settings.yaml"
    viewer = napari.Viewer(show_welcome_screen=False)
    panel = ReconstructionPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Reconstruct")
    driver = Driver(panel)
    window = next(one for one in QApplication.topLevelWidgets() if isinstance(one, QMainWindow))
    asked: list[str] = []
    driver.load(study)
    driver.run()
    driver.until(lambda: driver.child("run"), "the run")
    pid = driver.child("run").pid  # type: ignore[union-attr]  # it is there
    answer_question("Stay", asked)
    window.windowHandle().close()  # as the window manager does
    stayed = window.isVisible() and driver.run_text() == "Cancel"
    answer_question("Close all the same", asked)
    QTimer.singleShot(0, window.windowHandle().close)
    napari.run()
    said = {"asked": asked, "stayed": stayed, "pid": pid, "session": str(driver.bench.session.folder)}
    sys.stdout.write(json.dumps(said | {"torch": "torch" in sys.modules, "vtk": "vtkmodules" in sys.modules}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
