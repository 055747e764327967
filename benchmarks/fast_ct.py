"""A thick CT, 28 slices of 512 x 512 at 0.5 mm and 5 mm, to 1 mm isotropic: preset ``fast`` beside plain resampling.

Budget: 15 s on two cores, peak memory three times the result. Every candidate runs in a process of its own; time is that
of the computation. Memory is the process's peak (VmHWM) less what it held just before, with the libraries loaded and the
slices in memory; the table says how much was subtracted. The peers interpolate only: no consistency with the slices, no
coverage, no residual.

    python -m benchmarks.fast_ct [--json FILE] [--rounds 3]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from benchmarks._report import parser, show
from medrecon.core.profile import SliceProfile
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.volume import Quantity

SLICES, SIZE, PIXEL_MM, STEP_MM, VOXEL_MM = 28, 512, 0.5, 5.0, 1.0
TILT_RAD = np.deg2rad(15.0)
BUDGET_S = 15.0


def scan(tilted: bool = False) -> SliceScan:
    """Make a head-like CT: ellipsoids of bone, brain and air with noise of 5 HU."""
    rng = np.random.default_rng(0)
    z = (np.arange(SLICES) - SLICES / 2)[:, None, None] * STEP_MM / 90
    row, column = ((np.arange(SIZE) - SIZE / 2) * PIXEL_MM / 100 for _ in range(2))
    radius = np.sqrt(z**2 + row[None, :, None] ** 2 + (1.2 * column[None, None, :]) ** 2)
    pixels = np.where(radius < 0.85, 40.0, np.where(radius < 0.95, 1200.0, -1000.0)) + rng.normal(0, 5, radius.shape)
    positions = np.zeros((SLICES, 3))
    positions[:, 2] = np.arange(SLICES) * STEP_MM
    positions[:, 1] = positions[:, 2] * np.tan(TILT_RAD) if tilted else 0.0
    poses = SlicePoses.from_parts(
        positions, (0, 1, 0), (1, 0, 0), (PIXEL_MM, PIXEL_MM), (SIZE, SIZE), STEP_MM, SliceProfile("bell")
    )
    return SliceScan(pixels.astype(np.float32), poses, Quantity.HOUNSFIELD)


def ours(tilted: bool = False) -> Callable[[], int]:
    """Reconstruct with the preset ``fast``, quality maps included, without a surface."""
    import medrecon as mr

    config, measured = mr.load_config("fast", None, (f"grid.spacing_mm={VOXEL_MM}", "surfaces=[]")), scan(tilted)
    mr.reconstruct(
        measured.take(range(3)), mr.load_config("fast", None, ("grid.spacing_mm=8.0", "surfaces=[]"))
    )  # loads the libraries
    return lambda: mr.reconstruct(measured, config).volume.voxels.nbytes


def simpleitk() -> Callable[[], int]:
    """Resample with SimpleITK's cubic B-spline."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(scan().pixels)
    image.SetSpacing((PIXEL_MM, PIXEL_MM, STEP_MM))
    size = [round(SIZE * PIXEL_MM / VOXEL_MM)] * 2 + [round(SLICES * STEP_MM / VOXEL_MM)]
    spacing, identity = (VOXEL_MM,) * 3, SimpleITK.Transform()
    return lambda: (
        SimpleITK.GetArrayViewFromImage(
            SimpleITK.Resample(
                image, size, identity, SimpleITK.sitkBSpline, image.GetOrigin(), spacing, image.GetDirection(), -1000.0
            )
        ).nbytes
    )


def scipy_zoom() -> Callable[[], int]:
    """Zoom with scipy's cubic B-spline."""
    from scipy.ndimage import zoom

    pixels, factors = scan().pixels, (STEP_MM / VOXEL_MM, PIXEL_MM / VOXEL_MM, PIXEL_MM / VOXEL_MM)
    return lambda: int(zoom(pixels, factors, order=3, grid_mode=True, mode="nearest").nbytes)


CANDIDATES: dict[str, Callable[[], Callable[[], int]]] = {
    "medrecon fast": ours,
    "medrecon fast, tilted 15 deg": lambda: ours(tilted=True),
    "SimpleITK BSpline": simpleitk,
    "scipy zoom order 3": scipy_zoom,
}


def measure(name: str) -> dict[str, float]:
    """Run one candidate in this process; return seconds, and MiB beyond the loaded slices."""
    work = CANDIDATES[name]()
    Path("/proc/self/clear_refs").write_text("5")  # or making the slices would count as the peak
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    size = work()
    seconds = time.perf_counter() - start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, mib = int(status["VmHWM"].split()[0]) / 1024, 2**20
    return {"seconds": seconds, "subtracted MiB": before / mib, "peak MiB": peak - before / mib, "result MiB": size / mib}


def main() -> None:
    """Measure every candidate in fresh processes, in turns."""
    found = parser(__doc__)
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--only", choices=CANDIDATES, help="measure one candidate in this process and print JSON")
    chosen = found.parse_args()
    if chosen.only:
        sys.stdout.write(json.dumps(measure(chosen.only)))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    for _ in range(chosen.rounds):
        for name in CANDIDATES:
            command = [sys.executable, "-m", "benchmarks.fast_ct", "--only", name]
            runs[name].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    rows = []
    for name, every in runs.items():
        median = {key: statistics.median(run[key] for run in every) for key in every[0]}
        kept = median["seconds"] <= BUDGET_S and median["peak MiB"] <= 3 * median["result MiB"]
        rows.append({"what": name, **median, "peak / result": median["peak MiB"] / median["result MiB"], "in budget": kept})
    show(f"{SLICES} x {SIZE} x {SIZE}, {STEP_MM:g} mm slices to {VOXEL_MM:g} mm isotropic", rows, chosen.json)


if __name__ == "__main__":
    main()
