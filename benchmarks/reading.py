"""Reading 300 slices of 512 x 512 beside dcm2niix and SimpleITK, on the same files in the same run.

Budget: as fast as dcm2niix, half the time of SimpleITK. The series is made here. Ours runs in this process (find and
read, as the pipeline does); dcm2niix converts without compression; SimpleITK sorts and reads. Rounds take turns, so
that a busy machine slows all alike; medians and ratios are what counts.

    python benchmarks/reading.py [--json FILE] [--slices 300] [--rounds 5]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

import medrecon as mr
from benchmarks._report import parser, show
from tests.makers_dicom import make_series


def ours(folder: Path) -> None:
    """Find and read with medrecon."""
    mr.read(folder)


def dcm2niix(folder: Path) -> None:
    """Convert with dcm2niix, without compression."""
    program = Path(sys.executable).with_name("dcm2niix")
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([program, "-z", "n", "-o", out, folder], stdout=subprocess.DEVNULL, check=True)


def simpleitk(folder: Path) -> None:
    """Sort and read with SimpleITK's series reader."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    reader.Execute()


PEERS: dict[str, Callable[[Path], None]] = {"medrecon": ours, "dcm2niix": dcm2niix, "SimpleITK": simpleitk}


def main() -> None:
    """Make the series, read it in turns, print medians and ratios."""
    arguments = parser(__doc__)
    arguments.add_argument("--slices", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=5)
    chosen = arguments.parse_args()
    rng = np.random.default_rng(0)
    pixels = rng.integers(-1000, 2000, (8, 512, 512)).astype(np.float64)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "series"
        make_series(
            folder,
            shape=(chosen.slices, 512, 512),
            spacing_mm=(1.0, 0.5, 0.5),
            thickness_mm=1.0,
            pixels=np.resize(pixels, (chosen.slices, 512, 512)),
        )
        times: dict[str, list[float]] = {name: [] for name in PEERS}
        for turn in range(chosen.rounds + 1):
            for name, read in PEERS.items():
                start = time.perf_counter()
                read(folder)
                if turn:  # the first round warms the disk cache
                    times[name].append(time.perf_counter() - start)
    base = statistics.median(times["medrecon"])
    rows = [
        {"reader": name, "median s": statistics.median(t), "fastest s": min(t), "ours / theirs": base / statistics.median(t)}
        for name, t in times.items()
    ]
    show(f"Reading {chosen.slices} slices of 512 x 512", rows, chosen.json)
    print(f"resident memory of this process: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
