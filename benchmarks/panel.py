"""How long a clinician waits in front of the panel, and what ten runs leave in memory, in a real window.

Every case runs in a fresh process on the display there is, or under xvfb-run where there is none.

    python -m benchmarks.panel [--json FILE] [--slices 300]

Beside the clock stands what the process itself computed: on a busy machine the clock shows the others too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import parser, say, show

ROOT = Path(__file__).resolve().parents[1]
HEAD = ROOT / "sample_data" / "ct_head_tilted" / "dicom"
CONE_BEAM = ROOT / "sample_data" / "cone_beam_head"
#: What is measured, and the most it may be: seconds, milliseconds or MB, as the name says.
BUDGETS = {
    "panel visible after the click, s": 1.5,
    "series shown after the drop, s": 3.0,
    "first preview after step 2 opened, s": 2.0,
    "next preview after a plane was moved, s": 2.0,
    "oblique preview (patient axes), s": 2.0,
    "preview of projections, s": 2.0,
    "window still while a run was going, ms": 100.0,
    "window still while the result was shown, ms": None,
    "child gone after Cancel, s": 2.0,
    "memory after ten runs, MB": 40.0,
}
OPENED = 3
RUNS = 10
SETTLED_MS = 500


def main() -> None:
    """Measure everything and print it."""
    options = parser(__doc__)
    options.add_argument("--slices", type=int, default=300, help="of 512 x 512, for the series that is shown")
    options.add_argument("--case", help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.case:
        print(json.dumps(CASES[arguments.case](arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        make_series(Path(scratch) / "large", (arguments.slices, 512, 512))
        make_series(Path(scratch) / "small", (10, 40, 36))
        opened = [measured("visible", Path(scratch)) for _ in range(OPENED + 1)][1:]  # the first one reads from a cold disk
        found = {name: [statistics.median(one[name][k] for one in opened) for k in range(2)] for name in opened[0]}
        for case in ("shown", "previews", "run", "memory"):
            found |= measured(case, Path(scratch))
    rows = [
        {
            "what": name,
            "clock": values[0],
            "computed": values[1] if len(values) > 1 else "",
            "budget": budget or "",
            "kept": "" if budget is None else values[0] <= budget,
        }
        for name, values in found.items()
        for budget in [BUDGETS[name]]
    ]
    show("The panel", rows, arguments.json)


def measured(case: str, folder: Path) -> dict[str, list[float]]:
    """Run one case in a process of its own."""
    say(f"{case} ...")
    command = [sys.executable, "-m", "benchmarks.panel", "--case", case, "--folder", str(folder)]
    if not os.environ.get("DISPLAY") and shutil.which("xvfb-run"):
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *command]
    environment = os.environ | ({"MALLOC_ARENA_MAX": "1"} if case == "memory" else {})  # else one pool for every new thread
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    return {name: list(values) for name, values in json.loads(done.stdout.splitlines()[-1]).items()}


def make_series(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write a CT series that nobody was scanned for."""
    from tests.makers_dicom import make_series as make

    step_mm = 120.0 / shape[0]
    row, column = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[1:]), indexing="ij")
    disk = np.where(np.hypot(row, column) < 0.8, 40.0, -1000.0)
    make(folder, shape=shape, spacing_mm=(step_mm, 0.7, 0.7), thickness_mm=step_mm, pixels=np.broadcast_to(disk, shape))


def opened_panel() -> tuple[Any, float, float]:
    """Open a window, then the panel in it; return its driver, and the clock and processor seconds until it was painted."""
    import napari
    from napari.settings import get_settings
    from qtpy.QtWidgets import QApplication

    from tests.gui.driver import Driver, wait

    get_settings().config_path = Path(tempfile.mkdtemp()) / "settings.yaml"
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(1440, 900)
    wait(1500)
    clock, processor = time.perf_counter(), time.process_time()
    from medrecon_napari.panel import ReconstructionPanel

    panel = ReconstructionPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Reconstruct", area="right")
    while not panel.load.folder_button.isVisible():
        QApplication.processEvents()
    panel.load.folder_button.repaint()
    QApplication.processEvents()
    waited = (time.perf_counter() - clock, time.process_time() - processor)
    return Driver(panel), *waited


def visible(_: Path) -> dict[str, tuple[float, ...]]:
    """Measure from the click to the painted panel."""
    driver, *waited = opened_panel()
    driver.panel.home.close()
    return {"panel visible after the click, s": tuple(waited)}


def shown(folder: Path) -> dict[str, tuple[float, ...]]:
    """Measure from the drop of a long series to its picture."""
    driver = opened_panel()[0]
    waited = timed(lambda: driver.load(folder / "large"))
    driver.panel.home.close()
    return {"series shown after the drop, s": waited}


def previews(_: Path) -> dict[str, tuple[float, ...]]:
    """Measure previews: the first one, one after the plane moved, one on oblique axes, and one of projections."""
    from medrecon_napari.model.steps import Step

    driver = opened_panel()[0]
    driver.load(HEAD)
    driver.until(lambda: driver.bench.previews.is_ready, "the child")
    box = driver.panel.reconstruct.preview

    def until_shown(act: Callable[[], object]) -> tuple[float, ...]:
        box.picture = None
        return timed(lambda: (act(), driver.until(lambda: box.picture is not None, "a preview")))

    first = until_shown(lambda: driver.panel.open_step(Step.RECONSTRUCT))
    following = until_shown(lambda: box.look("sagittal"))
    row = driver.panel.reconstruct.advanced.row("grid", "axes")

    def turn() -> None:
        row.show_value("patient")
        driver.panel.reconstruct.advanced._edited()

    turn()
    driver.until(lambda: not driver.bench.previews.is_busy, "the first oblique one, which loads what it needs")
    oblique = until_shown(lambda: box.look("axial"))
    driver.panel.open_step(Step.LOAD)
    driver.load(CONE_BEAM)
    driver.until(lambda: driver.bench.previews.is_ready, "the child for projections")
    coarse = until_shown(lambda: driver.panel.open_step(Step.RECONSTRUCT))
    driver.panel.home.close()
    return {
        "first preview after step 2 opened, s": first,
        "next preview after a plane was moved, s": following,
        "oblique preview (patient axes), s": oblique,
        "preview of projections, s": coarse,
    }


def run(_: Path) -> dict[str, tuple[float, ...]]:
    """Measure how long the window stands still while it runs, while the result is shown, and how long a cancel takes."""
    from tests.gui.driver import Pulse, wait

    driver = opened_panel()[0]
    driver.load(HEAD)
    driver.panel.reconstruct.preview.switch.setChecked(False)
    driver.run()
    with Pulse() as going:
        driver.until(lambda: not driver.bench.jobs.unfinished(), "the run", 300)
    with Pulse() as showing:
        driver.until(lambda: any(one.visible for one in driver.layers("surface")), "the result", 300)
        wait(SETTLED_MS)
    driver.run()
    driver.until(lambda: driver.panel.reconstruct.progress.value() > 100, "progress")
    child = driver.child("run")
    driver.until(lambda: time.monotonic() - driver.bench._pressed_s > 1, "time to press again")
    driver.click(driver.panel.reconstruct.run_button)
    gone = timed(lambda: driver.until(lambda: child is None or not child.is_running(), "its end"))
    driver.panel.home.close()
    return {
        "window still while a run was going, ms": tuple(1e3 * s for s in going.longest_s()),
        "window still while the result was shown, ms": tuple(1e3 * s for s in showing.longest_s()),
        "child gone after Cancel, s": gone[:1],
    }


def memory(folder: Path) -> dict[str, tuple[float, ...]]:
    """Measure by how much the window's process grows over ten runs, the first one left out."""
    import gc

    import psutil
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    driver = opened_panel()[0]
    driver.load(folder / "small")
    driver.panel.reconstruct.preview.switch.setChecked(False)

    def held_mb() -> float:
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        gc.collect()
        return float(psutil.Process().memory_info().rss) / 1e6

    before = 0.0
    for number in range(RUNS + 1):
        driver.run()
        driver.until(lambda: driver.layers("surface"), "the result", 300)
        driver.viewer.layers.clear()
        if number == 0:
            before = held_mb()
    grown = held_mb() - before
    driver.panel.home.close()
    return {"memory after ten runs, MB": (grown,)}


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Return the clock and processor seconds that something took."""
    clock, processor = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - clock, time.process_time() - processor


CASES: dict[str, Callable[[Path], dict[str, tuple[float, ...]]]] = {
    one.__name__: one for one in (visible, shown, previews, run, memory)
}


if __name__ == "__main__":
    main()
