"""Surfaces of a head CT of 270 x 512 x 512, stage by stage, beside scikit-image's and VTK's marching cubes in the same run.

Budget: 3 s from the volume to a smooth, decimated, measured surface. The head is synthetic (skin, skull, sinuses, noise);
the CT in ../shared/data, upsampled to the same grid, is added where it is there. The peers only extract: their surface is
neither cleaned nor smoothed nor made lighter. Rounds take turns; the fastest is shown, and the processor time that goes
with it, which a busy machine changes less.

    python benchmarks/surfaces.py [--json FILE] [--rounds 3] [--data FOLDER]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import parser, show
from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.volume import Quantity, Volume
from medrecon.surface import refine
from medrecon.surface.extract import extract, make_surface
from medrecon.surface.measure import measure
from medrecon.surface.pieces import largest_pieces
from medrecon.surface.settings import SurfaceConfig
from medrecon.surface.slivers import weld_slivers
from medrecon.surface.tissues import HOUNSFIELD_PRESETS

SHAPE = (270, 512, 512)
Job = Callable[[], Surface]


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
        gaussian_filter(voxels, 1.0) + 12 * noise, Grid.from_parts(SHAPE, (0.5, 0.45, 0.45), (0, 0, 0)), Quantity.HOUNSFIELD
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


def jobs(volume: Volume, config: SurfaceConfig) -> Iterator[tuple[str, Job]]:
    """Yield the whole, its stages one after the other, and the peers."""
    level = HOUNSFIELD_PRESETS[config.tissue].low or 0.0
    raw = extract(volume, config)
    piece = largest_pieces(raw)
    welded = weld_slivers(piece, volume.grid)
    smooth = refine.smooth(welded, config.smoothing_iterations, config.smoothing_pass_band)
    light = refine.decimate(smooth, config.target_triangles or len(smooth.triangles))
    yield "medrecon, all stages", lambda: make_surface(volume, config)
    yield "  extract", lambda: extract(volume, config)
    yield "  largest piece", lambda: largest_pieces(raw)
    yield "  weld slivers", lambda: weld_slivers(piece, volume.grid)
    yield "  smooth", lambda: refine.smooth(welded, config.smoothing_iterations, config.smoothing_pass_band)
    yield "  decimate", lambda: refine.decimate(smooth, config.target_triangles or len(smooth.triangles))
    yield "  measure", lambda: (measure(light), light)[1]
    yield "scikit-image marching cubes", lambda: by_skimage(volume, level)
    yield "vtkMarchingCubes", lambda: by_vtk(volume, level)


def timed(volume: Volume, config: SurfaceConfig, rounds: int) -> list[dict[str, Any]]:
    """Run all jobs in turns and describe the fastest run of each."""
    best: dict[str, tuple[float, float, Surface]] = {}
    for _ in range(rounds):
        for name, job in jobs(volume, config):
            start, start_cpu = time.perf_counter(), time.process_time()
            surface = job()
            wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            if name not in best or wall < best[name][0]:
                best[name] = wall, cpu, surface
    return [{"program": name, "s": wall, "cpu s": cpu, **_figures(surface)} for name, (wall, cpu, surface) in best.items()]


def _figures(surface: Surface) -> dict[str, Any]:
    measures = measure(surface)
    found = {"triangles": measures["triangle_count"], "area cm2": round(float(str(measures["area_mm2"])) / 100, 1)}
    return found | {"volume ml": measures["volume_ml"] or "open", "watertight": measures["watertight"]}


def main() -> None:
    """Make the heads, time all, print a table for each tissue."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data"))
    chosen = arguments.parse_args()
    heads = {"synthetic head": head()}
    if (file := chosen.data / "volumes" / "ct_example.nii.gz").is_file():
        heads["CT, upsampled"] = real_head(file)
    rows = [
        {"volume": name, "tissue": tissue, **row}
        for name, volume in heads.items()
        for tissue in ("skin", "bone")
        for row in timed(volume, SurfaceConfig(tissue=tissue), chosen.rounds)
    ]
    show(f"Surfaces of {' x '.join(map(str, SHAPE))} voxels (budget: 3 s for all stages)", rows, chosen.json)


if __name__ == "__main__":
    main()
