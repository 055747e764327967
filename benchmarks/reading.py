"""Reading 300 slices of 512 x 512 beside dcm2niix and SimpleITK, on the same files in the same run.

Budget: as fast as dcm2niix, half the time of SimpleITK. The series is made here. Ours runs in this process: find and
read, as the pipeline does, and then each alone, as the panel does. dcm2niix converts without compression; SimpleITK sorts
and reads. Rounds take turns, so that a busy machine slows all alike; medians and ratios are what counts. Processor time,
that of child processes included, is shown beside, for machines that have other things to do. Every turn is taken twice
in a row and the second one counts.

    python benchmarks/reading.py [--json FILE] [--slices 300] [--rounds 5]
"""

from __future__ import annotations

import functools
import os
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
from medrecon.core.reading import SeriesInfo
from tests.makers_dicom import make_series


def ours(folder: Path) -> None:
    """Find and read with medrecon."""
    mr.read(folder)


def only_find(folder: Path) -> None:
    """List the series, as the panel does first."""
    mr.find(folder)


def only_read(folder: Path) -> None:
    """Read a series that was found before."""
    mr.read(folder, _found(folder))


@functools.cache
def _found(folder: Path) -> SeriesInfo:
    return mr.find(folder)[0]


def dcm2niix(folder: Path) -> None:
    """Convert with dcm2niix, without compression and without a JSON file beside."""
    program = Path(sys.executable).with_name("dcm2niix")
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([program, "-z", "n", "-b", "n", "-o", out, folder], stdout=subprocess.DEVNULL, check=True)


def simpleitk(folder: Path) -> None:
    """Sort and read with SimpleITK's series reader."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    reader.Execute()


PEERS: dict[str, Callable[[Path], None]] = {
    "medrecon": ours,
    "medrecon, find": only_find,
    "medrecon, read": only_read,
    "dcm2niix": dcm2niix,
    "SimpleITK": simpleitk,
}


def processor_s() -> float:
    """Seconds of all cores that this process and its finished children have used."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def row(name: str, measured: list[tuple[float, float]], base: float) -> dict[str, object]:
    """Describe one reader's rounds; `base` is our median."""
    wall, cpu = ([one[k] for one in measured] for k in range(2))
    median = statistics.median(wall)
    return {
        "reader": name,
        "median s": median,
        "fastest s": min(wall),
        "median cpu s": statistics.median(cpu),
        "ours / theirs": base / median,
    }


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
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in PEERS}
        for turn in range(chosen.rounds + 1):
            for name, read in PEERS.items():
                read(folder)  # brings back the memory that the one before gave away; who comes after would pay for it
                start, start_cpu = time.perf_counter(), processor_s()
                read(folder)
                if turn:  # the first round warms the disk cache
                    times[name].append((time.perf_counter() - start, processor_s() - start_cpu))
    base = statistics.median(wall for wall, _ in times["medrecon"])
    rows = [row(name, measured, base) for name, measured in times.items()]
    show(f"Reading {chosen.slices} slices of 512 x 512", rows, chosen.json)
    print(f"resident memory of this process: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
