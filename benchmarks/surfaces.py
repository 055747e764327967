"""Surfaces of a head CT of 270 x 512 x 512, stage by stage, beside scikit-image's and VTK's marching cubes in the same run.

Budget: 3 s from the volume to a smooth, decimated, measured surface. The head is synthetic (skin, skull, sinuses, noise);
with --data the CT of ../shared/data, upsampled to the same grid, is added. A stage's time is taken inside the one run
whose total is shown. The peers only extract: their surface is neither cleaned nor smoothed nor made lighter. Rounds take
turns; the fastest is shown, and the processor time that goes with it, which a busy machine changes less.

    python -m benchmarks.surfaces [--json FILE] [--rounds 3] [--data FOLDER]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import parser, say, show
from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.volume import Quantity, Volume
from medrecon.surface.extract import make_surface
from medrecon.surface.measure import measure
from medrecon.surface.settings import SurfaceConfig
from medrecon.surface.tissues import HOUNSFIELD_PRESETS

SHAPE = (270, 512, 512)
BUDGET_S = 3.0
STAGES = ("extract", "largest piece", "weld slivers", "smooth", "decimate", "measure")  # a tick ends each
Seconds = tuple[float, float]  # wall, processor
Peer = Callable[[Volume, float], Surface]


def head() -> Volume:
    """Return a head in Hounsfield units: skin, skull with orbits and a sinus, a head rest, an edge blur and noise."""
    from scipy.ndimage import gaussian_filter

    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE), indexing="ij", sparse=True)
    shell = np.sqrt((x / 0.68) ** 2 + (y / 0.85) ** 2 + ((z + 0.15) / 1.05) ** 2)
    voxels = np.full(SHAPE, -1000, dtype=np.float32)
    voxels[shell < 1] = 40
    voxels[(shell < 0.93) & (shell > 0.85)] = 1100
    for side in (-0.25, 0.25):
        voxels[((x - side) / 0.13) ** 2 + ((y + 0.75) / 0.13) ** 2 + (z / 0.2) ** 2 < 1] = 15
    voxels[(x / 0.12) ** 2 + ((y + 0.62) / 0.15) ** 2 + ((z + 0.2) / 0.25) ** 2 < 1] = -1000
    voxels[np.broadcast_to((np.abs(y - 0.97) < 0.015) & (np.abs(x) < 0.6), SHAPE)] = -200
    noise = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    return Volume(
        gaussian_filter(voxels, 1.0, truncate=2.0) + 12 * noise,
        Grid.from_parts(SHAPE, (0.5, 0.45, 0.45), (0, 0, 0)),
        Quantity.HOUNSFIELD,
    )


def real_head(file: Path) -> Volume:
    """Return a CT on the same number of voxels, by cubic splines."""
    import nibabel
    from scipy.ndimage import zoom

    coarse = Volume.from_nibabel(nibabel.Nifti1Image.from_filename(file), Quantity.HOUNSFIELD)
    factors = np.array(SHAPE) / coarse.grid.shape
    spacing = np.array(coarse.spacing_mm) / factors
    return Volume(zoom(coarse.voxels, factors, order=3), Grid.from_parts(SHAPE, spacing, (0, 0, 0)), Quantity.HOUNSFIELD)


def by_skimage(volume: Volume, level: float) -> Surface:
    """Extract with scikit-image (Lewiner)."""
    from skimage.measure import marching_cubes

    corners, triangles, _, _ = marching_cubes(volume.voxels.copy(), level)  # it takes no read-only array
    return Surface(volume.grid.to_lps(corners), triangles)


def by_vtk(volume: Volume, level: float) -> Surface:
    """Extract with vtkMarchingCubes."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkMarchingCubes

    image = vtkImageData()
    image.SetDimensions(*volume.grid.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(volume.voxels.reshape(-1)))
    cubes = vtkMarchingCubes()
    cubes.SetInputData(image)
    cubes.SetValue(0, level)
    cubes.ComputeNormalsOff()
    cubes.Update()
    corners = vtk_to_numpy(cubes.GetOutput().GetPoints().GetData())[:, ::-1]
    triangles: NDArray[np.int64] = vtk_to_numpy(cubes.GetOutput().GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return Surface(volume.grid.to_lps(corners), triangles)


PEERS: dict[str, Peer] = {"scikit-image marching cubes": by_skimage, "vtkMarchingCubes": by_vtk}


def now() -> Seconds:
    """Return the two clocks."""
    return time.perf_counter(), time.process_time()


def staged(volume: Volume, config: SurfaceConfig) -> tuple[Surface, dict[str, Seconds]]:
    """Make the surface once; return it with the seconds of the whole and of every stage."""
    marks = [now()]
    surface = make_surface(volume, config, lambda _: marks.append(now()))
    names = {f"  {name}": (begin, end) for name, begin, end in zip(STAGES, marks[:-1], marks[1:], strict=True)}
    spans = {"medrecon, all stages": (marks[0], marks[-1])} | names
    return surface, {name: (end[0] - begin[0], end[1] - begin[1]) for name, (begin, end) in spans.items()}


def rows_of(name: str, volume: Volume, config: SurfaceConfig, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for the fastest run of ours, its stages, and the peers."""
    level = HOUNSFIELD_PRESETS[config.tissue].low or 0.0
    runs: list[tuple[Surface, dict[str, Seconds]]] = []
    peers: dict[str, tuple[Seconds, Surface]] = {}
    for _ in range(rounds):
        runs.append(staged(volume, config))
        for peer, extract in PEERS.items():
            begin = now()
            surface = extract(volume, level)
            took = now()[0] - begin[0], now()[1] - begin[1]
            if peer not in peers or took < peers[peer][0]:
                peers[peer] = took, surface
    what = {"volume": name, "tissue": config.tissue}
    surface, seconds = min(runs, key=lambda run: next(iter(run[1].values())))
    for stage, took in seconds.items():
        whole = {"in budget": took[0] <= BUDGET_S, **_figures(surface)} if stage.startswith("medrecon") else {}
        yield {**what, "program": stage, "s": took[0], "cpu s": took[1], **whole}
    for peer, (took, surface) in peers.items():
        yield {**what, "program": peer, "s": took[0], "cpu s": took[1], **_figures(surface)}


def _figures(surface: Surface) -> dict[str, Any]:
    measures = surface.measures or measure(surface)
    found = {"triangles": measures["triangle_count"], "area cm2": round(float(str(measures["area_mm2"])) / 100, 1)}
    return found | {"volume ml": measures["volume_ml"] or "open", "watertight": measures["watertight"]}


def heads(data: Path | None) -> Iterator[tuple[str, Volume]]:
    """Yield the synthetic head, and where a folder of real data is given, the upsampled CT in it."""
    yield "synthetic head", head()
    if data is not None:
        yield "CT, upsampled", real_head(data / "volumes" / "ct_example.nii.gz")


def main() -> None:
    """Make the heads, time all, print each row as it is known and a table at the end."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--data", type=Path, help="folder of real data, such as ../shared/data")
    chosen = arguments.parse_args()
    rows = []
    say("making the head")
    for name, volume in heads(chosen.data):
        for tissue in ("skin", "bone"):
            for row in rows_of(name, volume, SurfaceConfig(tissue=tissue), chosen.rounds):
                say(f"{name}, {tissue}: {row['program'].strip()}: {row['s']:.2f} s")
                rows.append(row)
    show(f"Surfaces of {' x '.join(map(str, SHAPE))} voxels (budget: {BUDGET_S:g} s for all stages)", rows, chosen.json)


if __name__ == "__main__":
    main()
