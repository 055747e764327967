"""Drive the napari plugin on the sample data and take the pictures of the tutorial.

xvfb-run -s "-screen 0 1600x1000x24" python docs/screenshots.py [FOLDER PICTURE PICTURE...]

Pictures go to docs/pictures where no folder is named, and all are taken where none is named: `panel` takes those of the panel,
every other name is that of a function below.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "sample_data"
HEAD = SAMPLES / "ct_head_tilted" / "dicom"
WINDOW_PX = (1440, 900)
_SETTLE_S = 0.8
_PATIENCE_S = 300.0
_SHOWN_PROGRESS = 300  # of 1000
_COLOURS = 256
_ONE_PICTURE = 4  # arguments


def main(folder: Path, wanted: list[str]) -> None:
    """Take the wanted pictures, each in a process of its own: napari keeps listeners of windows that were closed."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        result = reconstructed(HEAD, Path(scratch) / "out") if set(wanted) != {"panel"} else Path()
        for name in wanted:
            subprocess.run([sys.executable, __file__, str(folder), name, str(result)], check=True)


def take(folder: Path, name: str, result: Path) -> None:
    """Take one picture, or those of the panel."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NAPARI_CONFIG"] = str(Path(scratch) / "settings.yaml")  # nobody's own preferences, and none left behind
        with window() as viewer:
            if name == "panel":
                panel(viewer, folder, Path(scratch))
            else:
                PICTURES[name](viewer, result)
                shoot(viewer, folder / f"napari_{name}.png")


def panel(viewer: napari.Viewer, folder: Path, scratch: Path) -> None:
    """Go through the four steps of the panel with a head CT, after a series that is refused."""
    from medrecon_napari.model.steps import Step
    from medrecon_napari.panel import ReconstructionPanel

    made = ReconstructionPanel(viewer)
    viewer.window.add_dock_widget(made, name="Reconstruct (medrecon)", area="right")
    bench = made.bench
    until(lambda: letters_are_there(viewer))
    shoot(viewer, folder / "panel_start.png")
    bench.look_at(with_a_hole(HEAD, scratch / "hole"))
    until(lambda: bench.info is not None)
    shoot(viewer, folder / "panel_refused.png")
    bench.look_at(HEAD)
    until(lambda: bench.info is not None and made.screen.scan(bench.info.id) is not None)
    shoot(viewer, folder / "panel_load.png")
    made.open_step(Step.RECONSTRUCT)
    until(lambda: not made.reconstruct.preview.pair.is_empty)
    shoot(viewer, folder / "panel_reconstruct.png")
    made.reconstruct.run_button.click()
    until(lambda: made.reconstruct.progress.value() > _SHOWN_PROGRESS)
    shoot(viewer, folder / "panel_running.png")
    until(lambda: any_surface(viewer))
    shoot(viewer, folder / "panel_result.png")
    made.open_step(Step.SURFACE)
    until(lambda: made.surface.tissue.count() > 2)
    made.surface.tissue.setCurrentIndex(made.surface.tissue.findData("bone"))
    made.surface.make_button.click()
    until(lambda: any_surface(viewer, "bone"))
    show_bone(viewer)
    shoot(viewer, folder / "panel_surface.png")
    made.open_step(Step.EXPORT)
    made.export.folder.setText("~/exports")
    shoot(viewer, folder / "panel_export.png")
    made.home.close()


def with_a_hole(series: Path, folder: Path) -> Path:
    """Copy a series without one of its slices."""
    shutil.copytree(series, folder)
    sorted(folder.iterdir())[10].unlink()
    return folder


def show_bone(viewer: napari.Viewer) -> None:
    """Show bone under transparent skin from the front, a little from above."""
    viewer.dims.ndisplay = 3
    for layer in viewer.layers:
        layer.visible = layer.metadata.get("role") == "surface"
        if layer.metadata.get("tissue") == "skin":
            layer.opacity, layer.blending = 0.25, "translucent_no_depth"
        elif layer.metadata.get("tissue") == "bone":
            viewer.layers.selection.active = layer
    viewer.reset_view()
    viewer.scene.camera.set_view_direction((0.3, 0.8, -0.5), (-1.0, 0.0, 0.0))


def any_surface(viewer: napari.Viewer, tissue: str = "skin") -> bool:
    """Whether a surface is in the viewer: the last layer of a result."""
    return any(layer.metadata.get("tissue") == tissue for layer in viewer.layers)


def letters_are_there(viewer: napari.Viewer) -> bool:
    """Whether the panel has prepared the viewer."""
    from medrecon_napari.viewing import letters

    return letters.is_there(viewer)


def reconstructed(series: Path, out: Path) -> Path:
    """Reconstruct a series in a child process and return the folder of the result."""
    surfaces = "surfaces=[{tissue: skin}, {tissue: bone}]"
    command = [sys.executable, "-m", "medrecon", "run", str(series), "--out", str(out)]
    subprocess.run(
        [*command, "--formats", "nifti,stl,maps", "--set", surfaces, "--progress", "none"], check=True, capture_output=True
    )
    return next(out.iterdir())


def viewing(viewer: napari.Viewer, _result: Path) -> None:
    """Show thick MR slices with letters, corner text, and the viewing tools."""
    from medrecon_napari.viewing.widget import ViewingTools

    viewer.open(str(SAMPLES / "mr_brain_thick" / "dicom"), plugin="medrecon")
    viewer.window.add_dock_widget(ViewingTools(viewer), name="Viewing")


def three_planes(viewer: napari.Viewer, result: Path) -> None:
    """Let axial, coronal and sagittal planes of a result meet in the bleeding on the patient's right."""
    from medrecon_napari.viewing.threeplanes import ThreePlanes
    from medrecon_napari.viewing.windows import choose

    layer = picture_of(viewer, result)
    viewer.window.add_dock_widget(ThreePlanes(viewer), name="Three planes", area="right")
    settle()
    choose(layer, "2")
    viewer.dims.point = bleeding(layer)


def coverage(viewer: napari.Viewer, result: Path) -> None:
    """Show what was measured, what lies between slices, and what the scanner never saw."""
    from medrecon_napari.viewing import maps

    layer = picture_of(viewer, result)
    maps.toggle(viewer, "coverage")
    viewer.dims.order = (2, 0, 1)
    viewer.dims.point = bleeding(layer)
    viewer.layers.selection.active = layer


def surface(viewer: napari.Viewer, result: Path) -> None:
    """Show bone under transparent skin, with the source slices as rectangles."""
    from medrecon_napari.viewing import rectangles

    viewer.open(str(HEAD), plugin="medrecon")
    viewer.open(str(result), plugin="medrecon")
    rectangles.toggle(viewer)
    show_bone(viewer)
    next(layer for layer in viewer.layers if layer.metadata.get("role") == rectangles.ROLE).visible = True


def before_after(viewer: napari.Viewer, result: Path) -> None:
    """Show the difference between the measured slices and the result, upon the slices."""
    from medrecon_napari.viewing import compare
    from medrecon_napari.viewing.widget import ViewingTools

    viewer.open(str(HEAD), plugin="medrecon")
    layer = picture_of(viewer, result)
    viewer.window.add_dock_widget(ViewingTools(viewer), name="Viewing")
    compare.before_after(viewer)
    compare.add_difference(viewer)
    viewer.dims.order = (2, 0, 1)
    viewer.dims.point = bleeding(layer)


def measuring(viewer: napari.Viewer, _result: Path) -> None:
    """Draw a distance, an angle and a region in thick oblique MR slices."""
    from medrecon_napari.measure.widget import MeasureTools

    layer = viewer.open(str(SAMPLES / "mr_brain_thick" / "dicom"), plugin="medrecon")[0]
    tools = MeasureTools(viewer)
    viewer.window.add_dock_widget(tools, name="Measure")
    for name in ("Distance", "Angle", "Ellipse"):
        tools.tools[name].click()
    drawing = viewer.layers.selection.active
    plane = float(viewer.dims.point[0])

    def at(*points: tuple[float, float]) -> np.ndarray:
        return np.array([drawing.world_to_data((plane, *point)) for point in points])

    drawing.add_lines(at((-45, -52), (-45, 52)))
    drawing.add_paths([at((0, -50), (38, -50), (38, -12))])
    drawing.add_ellipses(at((0, 4), (0, 34), (24, 34), (24, 4)))
    viewer.layers.selection.active = layer


def picture_of(viewer: napari.Viewer, result: Path) -> Layer:
    """Open a result and show its volume alone."""
    layers: list[Layer] = viewer.open(str(result), plugin="medrecon")
    for layer in layers[1:]:
        layer.visible = False
    viewer.layers.selection.active = layers[0]
    return layers[0]


def bleeding(layer: Layer) -> tuple[float, ...]:
    """Return where the bleeding of the sample head is in the world: the largest compact piece of dense tissue."""
    from scipy import ndimage

    dense = ndimage.binary_erosion((layer.data > 60) & (layer.data < 90), iterations=2)
    pieces, count = ndimage.label(dense)
    largest = int(np.argmax(ndimage.sum_labels(dense, pieces, range(1, count + 1)))) + 1
    return tuple(float(v) for v in layer.data_to_world(ndimage.center_of_mass(pieces == largest)))


@contextmanager
def window() -> Iterator[napari.Viewer]:
    """Open a window and close it afterwards."""
    import napari

    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(*WINDOW_PX)
    try:
        yield viewer
    finally:
        viewer.close()


PICTURES = {one.__name__: one for one in (viewing, three_planes, coverage, surface, before_after, measuring)}


def settle(seconds: float = _SETTLE_S) -> None:
    """Let Qt lay out and draw what is waiting."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def until(happened: Callable[[], bool]) -> None:
    """Let the window work until something happened."""
    end = time.monotonic() + _PATIENCE_S
    while not happened():
        settle(0.02)
        if time.monotonic() > end:
            raise TimeoutError("the window never came to what the next picture shows")


def shoot(viewer: napari.Viewer, path: Path) -> None:
    """Take a picture of the whole window."""
    settle()
    if viewer.dims.ndisplay == 2:
        viewer.reset_view()
        settle()
    taken = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)[..., :3])
    taken.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    if len(sys.argv) == _ONE_PICTURE:
        take(target, sys.argv[2], Path(sys.argv[3]))
    else:
        main(target, sys.argv[2:] or ["panel", *PICTURES])
