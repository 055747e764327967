"""Run ten times in one window, and say what stays: memory, layers, threads, open files.

python -m tests.gui.ten_runs STUDY RESULT
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import threading
from pathlib import Path
from unittest.mock import patch

import napari
import numpy as np
import psutil
from medrecon_napari.model import previews, workbench
from napari.layers import Image, Labels, Surface
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication

from tests.gui.driver import Driver

RUNS = 10
KEPT_BYTES = 50_000_000


def main(study: Path, result: Path) -> None:
    """Do it, and print what stays as JSON; at the end hold on to something, so that the check can be seen to fail."""
    from medrecon_napari.panel import ReconstructionPanel
    from napari.settings import get_settings

    get_settings().config_path = Path(tempfile.mkdtemp()) / "settings.yaml"
    stand_in = str(Path(__file__).with_name("stand_in.py"))
    idle = (sys.executable, "-c", "import sys; sys.stdin.read()")
    patch.object(workbench, "run_command", lambda _, out: (sys.executable, stand_in, str(result), str(out), "0.1", "run")).start()
    patch.object(previews, "preview_command", lambda *_: idle).start()
    viewer = napari.Viewer(show_welcome_screen=False)
    panel = ReconstructionPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Reconstruct")
    driver = Driver(panel)
    driver.load(study)
    run_and_clear(driver)  # what is loaded at the first run stays
    before = held()
    for _ in range(RUNS):
        run_and_clear(driver)
    after = held()
    kept = np.ones(KEPT_BYTES, dtype=np.uint8)
    leaky = held()["bytes"] - after["bytes"]
    states = {str(job.state) for job in driver.bench.jobs}
    sys.stdout.write(json.dumps({"before": before, "after": after, "states": sorted(states), "leaky": leaky}) + "\n")
    panel.home.close()
    viewer.close()
    del kept


def run_and_clear(driver: Driver) -> None:
    """Run once, wait for the result, and take it out of the viewer."""
    driver.run()
    driver.until(lambda: driver.layers("surface"), "the result")
    driver.viewer.layers.clear()


def held() -> dict[str, int]:
    """Return what this process holds."""
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    QApplication.processEvents()
    gc.collect()
    process = psutil.Process()
    return {
        "bytes": int(process.memory_info().rss),
        "layers": sum(isinstance(one, Image | Labels | Surface) for one in gc.get_objects()),
        "threads": sum(thread.name.startswith("medrecon") for thread in threading.enumerate()),
        "files": int(process.num_fds()),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
