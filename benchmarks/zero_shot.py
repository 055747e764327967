"""How much `zero_shot` wins over cubic interpolation and `consistent_spline`, on volumes sliced as in `slices_quality`.

A network is trained for every case, so that every case takes the seconds that are asked for. With --steps the outcome does
not depend on how busy the machine is. --columns takes a slab from the middle of the volume, to save time while developing.

    OMP_NUM_THREADS=1 python -m benchmarks.zero_shot [--only NAME] [--case 4/1] [--seconds 200 | --steps N] [--columns N]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.slices_quality import TRUTHS, Truth, operator, ours, peers, simulate
from medrecon.core.progress import silent
from medrecon.methods.zero_shot import ZeroShotConfig, zero_shot
from medrecon.quality.metrics import psnr
from medrecon.quality.residual import residual

#: Thickness and gap in mm: least gain in dB over scipy's cubic spline.
REACH_DB = {(3, 0): 3.0, (4, 1): 2.0, (5, 0): 2.0}


def measure(truth: Truth, thickness_mm: int, gap_mm: int, config: ZeroShotConfig) -> bool:
    """Print one line; return whether the promise is kept."""
    slices = simulate(truth, thickness_mm, gap_mm)
    A, y = operator(truth, slices), torch.from_numpy(slices.images)
    planes = A.domain[0]
    target, mask = truth.voxels[:planes], truth.head()[:planes]
    began, clock = time.process_time(), time.perf_counter()
    made = zero_shot(A, y, config, silent)
    seconds, wall = time.process_time() - began, time.perf_counter() - clock
    volumes = peers(truth, slices, planes)["cubic (scipy)"](), ours(A, y, "consistent_spline"), made.x.numpy()
    cubic, spline, learned = (psnr(x, target, truth.peak, mask) for x in volumes)
    wanted = REACH_DB[thickness_mm, gap_mm]
    kept = "reached" if learned - cubic >= wanted else "NOT REACHED"
    print(
        f"{truth.name:20} {thickness_mm}/{gap_mm} mm  cubic {cubic:.2f} dB, consistent_spline {spline - cubic:+.2f}, "
        f"zero_shot {learned - cubic:+.2f} (wanted {wanted:+.1f}): {kept}; residual {residual(A, y, made.x).relative:.1e}, "
        f"{seconds:.0f} CPU s, {wall:.0f} s",
        flush=True,
    )
    print(f"{'':20} {made.findings[0].fact}", flush=True)
    return learned - cubic >= wanted


def slab(truth: Truth, columns: int | None) -> Truth:
    """Return the middle columns."""
    width = truth.voxels.shape[2]
    if columns is None or columns >= width:
        return truth
    first = (width - columns) // 2
    return dataclasses.replace(truth, voxels=np.ascontiguousarray(truth.voxels[:, :, first : first + columns]))


def main() -> int:
    """Print the table; return 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", choices=sorted(TRUTHS), action="append", help="only this volume; may be repeated")
    parser.add_argument("--case", choices=[f"{t}/{g}" for t, g in REACH_DB], action="append", help="only this thickness/gap")
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--steps", type=int, help="in place of the seconds")
    parser.add_argument("--margin-db", type=float, default=ZeroShotConfig().margin_db, help="0.3 lets the network in more often")
    parser.add_argument("--columns", type=int, help="only so many, from the middle")
    options = parser.parse_args()
    config = ZeroShotConfig(seconds=options.seconds, steps=options.steps, margin_db=options.margin_db)
    kept = []
    for name in options.only or TRUTHS:
        truth = slab(TRUTHS[name](options.data), options.columns)
        for thickness, gap in REACH_DB:
            if options.case is None or f"{thickness}/{gap}" in options.case:
                kept.append(measure(truth, thickness, gap, config))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
