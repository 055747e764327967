"""How much of a thin volume comes back from thick slices of it: PSNR, SSIM and residual beside plain interpolation.

The slices are simulated here, in plain numpy, not with the operator under test: a Gaussian with a full width at half
maximum of the slice thickness, sampled at the truth's planes, cut off and renormalised at the ends. No noise is added.
PSNR is over a head mask, its range the 99.9th percentile of the truth; SSIM over the mask in the middle half of the box.

    python benchmarks/slices_quality.py [--json FILE] [--data FOLDER] [--only NAME]
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

from medrecon import methods
from medrecon.core.output_grid import plan_grid
from medrecon.core.profile import SliceProfile
from medrecon.core.progress import silent
from medrecon.core.scans import SlicePoses
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.quality.metrics import psnr, ssim
from medrecon.quality.residual import residual

Float32 = NDArray[np.float32]

CASES_MM = ((3, 0), (4, 0), (4, 1), (5, 0), (5, 1), (6, 0))
#: Thickness and gap in mm: least gain in dB of `consistent_spline` over scipy's cubic spline.
REACH_DB = {(3, 0): 1.8, (4, 1): 0.5, (5, 0): 1.0}
LARGEST_RESIDUAL = 1e-3
OURS = ("interpolate", "consistent_spline")


@dataclass(frozen=True)
class Truth:
    """A thin volume (plane, row, column), its spacing along each axis in mm, and where the head is."""

    name: str
    voxels: Float32
    spacing_mm: tuple[float, float, float]

    @property
    def peak(self) -> float:
        """The range of the PSNR."""
        return float(np.percentile(self.voxels, 99.9))

    def head(self) -> NDArray[np.bool_]:
        """Where the volume, smoothed by 2 mm, exceeds 8 % of its range."""
        smooth = ndimage.gaussian_filter(self.voxels, [2 / step for step in self.spacing_mm])
        return np.asarray(smooth > 0.08 * self.peak)


@dataclass(frozen=True)
class Slices:
    """Thick slices of a truth: images, depths of their centres in mm from the first plane, thickness and step in mm."""

    images: Float32
    depths_mm: NDArray[np.float64]
    thickness_mm: float
    step_mm: float


def simulate(truth: Truth, thickness_mm: float, gap_mm: float) -> Slices:
    """Slice a truth with a Gaussian profile; the first slice begins at the truth's first plane."""
    plane_mm, count = truth.spacing_mm[0], len(truth.voxels)
    planes = np.arange(count) * plane_mm
    first = (thickness_mm - plane_mm) / 2
    depths = np.arange(first, planes[-1] - first + 1e-9, thickness_mm + gap_mm)
    weights = np.exp(-4 * np.log(2) * ((planes - depths[:, None]) / thickness_mm) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    images = np.tensordot(weights, truth.voxels, axes=1).astype(np.float32)
    return Slices(images, depths, thickness_mm, thickness_mm + gap_mm)


def operator(truth: Truth, slices: Slices) -> SliceSampler:
    """Build the forward model as a user would, on the planned grid."""
    _, row_mm, column_mm = truth.spacing_mm
    positions = np.stack([np.zeros_like(slices.depths_mm), np.zeros_like(slices.depths_mm), slices.depths_mm], axis=1)
    shape = (truth.voxels.shape[1], truth.voxels.shape[2])
    profile = SliceProfile("gaussian")
    poses = SlicePoses.from_parts(positions, (0, 1, 0), (1, 0, 0), (row_mm, column_mm), shape, slices.thickness_mm, profile)
    return SliceSampler(poses, plan_grid(poses, truth.spacing_mm))


def peers(truth: Truth, slices: Slices, planes: int) -> dict[str, Callable[[], Float32]]:
    """Interpolation along the normal as scipy has it, and the same with all slices half a slice off."""
    at = np.arange(planes) * truth.spacing_mm[0]
    depths, unit = slices.depths_mm, np.eye(len(slices.depths_mm))
    held = np.clip(at, depths[0], depths[-1])

    def linear(where: NDArray[Any]) -> NDArray[np.float64]:
        return np.stack([np.interp(where, depths, row) for row in unit], axis=1)

    nearest = unit[np.abs(at[:, None] - depths).argmin(axis=1)]
    places = ((at - depths[0]) / slices.step_mm)[None]
    b_spline = np.stack([ndimage.map_coordinates(row, places, order=3, mode="nearest") for row in unit], axis=1)
    matrices = {
        "nearest": nearest,
        "linear": linear(at),
        "cubic (scipy)": CubicSpline(depths, unit)(held),
        "B-spline (scipy)": b_spline,
        "linear, half-slice bug": linear(at - slices.step_mm / 2),
    }

    def applied(matrix: NDArray[np.float64]) -> Callable[[], Float32]:
        return lambda: np.tensordot(matrix.astype(np.float32), slices.images, axes=1)

    return {name: applied(matrix) for name, matrix in matrices.items()}


def ours(A: SliceSampler, y: torch.Tensor, name: str) -> Float32:
    """Run one of our methods with its default settings."""
    method = methods.get(name)
    x: torch.Tensor = method.run(A, y, method.settings(), silent)
    return x.numpy()


def measure(truth: Truth, thickness_mm: float, gap_mm: float) -> Iterator[dict[str, object]]:
    """Yield one row per method."""
    slices = simulate(truth, thickness_mm, gap_mm)
    A, y = operator(truth, slices), torch.from_numpy(slices.images)
    planes = A.domain[0]
    target, mask = truth.voxels[:planes], truth.head()[:planes]
    middle = tuple(slice(n // 4, n - n // 4) for n in target.shape)
    runs = peers(truth, slices, planes) | {name: lambda name=name: ours(A, y, name) for name in OURS}
    for name, run in runs.items():
        began = time.perf_counter()
        x = run()
        seconds = time.perf_counter() - began
        yield {
            "volume": truth.name,
            "thickness_mm": thickness_mm,
            "gap_mm": gap_mm,
            "method": name,
            "psnr_db": psnr(x, target, truth.peak, mask),
            "ssim": ssim(x[middle], target[middle], truth.peak, mask[middle]),
            "residual": residual(A, y, torch.from_numpy(x)).relative,
            "seconds": seconds,
        }


def verdicts(rows: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    """Compare every case that has a promise with it."""
    table = {(r["volume"], r["thickness_mm"], r["gap_mm"], r["method"]): r for r in rows}
    for (volume, thickness, gap, method), row in table.items():
        if method != "consistent_spline" or (thickness, gap) not in REACH_DB:
            continue
        gain = float(str(row["psnr_db"])) - float(str(table[volume, thickness, gap, "cubic (scipy)"]["psnr_db"]))
        wanted = REACH_DB[int(str(thickness)), int(str(gap))]
        left = float(str(row["residual"]))
        yield {
            "volume": volume,
            "case_mm": f"{thickness}/{gap}",
            "gain_db": gain,
            "wanted_db": wanted,
            "residual": left,
            "reached": gain >= wanted and left < LARGEST_RESIDUAL,
        }


def mni(data: Path) -> Truth:
    """Return the ICBM 2009a T1 template, 1 mm, cropped to the brain."""
    image = nibabel.Nifti1Image.from_filename(data / "volumes" / "mni152_2009a_t1_1mm.nii.gz")
    voxels = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    return Truth("MNI 2009a T1, 1 mm", _cropped(voxels), (1.0, 1.0, 1.0))


def mr_thin(data: Path) -> Truth:
    """Return a T1 head scanned at 0.67 mm, cropped to the head, every second row and column."""
    voxels, spacing = _read_thin(data)
    return Truth("T1 head, 0.67 mm", _cropped(voxels)[:, ::2, ::2], (spacing[0], 2 * spacing[1], 2 * spacing[2]))


def mr_1mm(data: Path) -> Truth:
    """Return the same head as a 1 mm scan would show it: smoothed to 1 mm, then resampled."""
    voxels, spacing = _read_thin(data)
    sigma = [1 / (2 * np.sqrt(2 * np.log(2))) / step for step in spacing]
    smooth = ndimage.gaussian_filter(voxels, sigma)
    shape = [int(n * step) for n, step in zip(voxels.shape, spacing, strict=True)]
    scale = [1 / step for step in spacing]
    offset = [0.5 / step - 0.5 for step in spacing]
    fine = ndimage.affine_transform(smooth, scale, offset, tuple(shape), np.float32, order=3, mode="nearest")
    return Truth("T1 head, 1 mm", _cropped(fine), (1.0, 1.0, 1.0))


TRUTHS: dict[str, Callable[[Path], Truth]] = {"mni": mni, "mr1": mr_1mm, "mr067": mr_thin}


def _read_thin(data: Path) -> tuple[Float32, tuple[float, float, float]]:
    with zipfile.ZipFile(data / "dicom" / "mr_t1_0667mm.zip") as archive:
        members = [archive.read(name) for name in archive.namelist() if not name.endswith("/")]
    images = [pydicom.dcmread(io.BytesIO(member), force=True) for member in members]
    images = [image for image in images if "PixelData" in image]
    across, down = np.reshape(np.asarray(images[0].ImageOrientationPatient, dtype=np.float64), (2, 3))
    depths = [float(np.cross(across, down) @ np.asarray(i.ImagePositionPatient, dtype=np.float64)) for i in images]
    order = np.argsort(depths)
    step = float(np.mean(np.diff(np.sort(depths))))
    row_mm, column_mm = (float(v) for v in images[0].PixelSpacing)
    return np.stack([images[k].pixel_array for k in order]).astype(np.float32), (step, row_mm, column_mm)


def _cropped(voxels: Float32) -> Float32:
    """Keep the box around everything above a tenth of the range, and 8 voxels more."""
    bright = np.argwhere(ndimage.uniform_filter(voxels, 5) > 0.1 * np.percentile(voxels, 99.9))
    low, high = np.maximum(bright.min(axis=0) - 8, 0), bright.max(axis=0) + 9
    return np.ascontiguousarray(voxels[low[0] : high[0], low[1] : high[1], low[2] : high[2]])


def main() -> int:
    """Print the table and the promises; return 1 where one is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows as JSON to this file")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", choices=sorted(TRUTHS), action="append", help="only this volume; may be repeated")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name in options.only or TRUTHS:
        truth = TRUTHS[name](options.data)
        print(f"\n{truth.name}: {truth.voxels.shape}, PSNR range {truth.peak:.1f}, {truth.head().mean():.0%} in the head mask")
        print(f"{'mm':>5} {'method':24} {'PSNR dB':>8} {'SSIM':>6} {'residual':>9} {'s':>6}")
        for thickness, gap in CASES_MM:
            for row in measure(truth, thickness, gap):
                rows.append(row)
                numbers = f"{row['psnr_db']:8.2f} {row['ssim']:6.3f} {row['residual']:9.2e} {row['seconds']:6.2f}"
                print(f"{f'{thickness}/{gap}':>5} {row['method']:24} {numbers}", flush=True)
    promises = list(verdicts(rows))
    print("\nconsistent_spline over cubic (scipy):")
    for promise in promises:
        kept = "reached" if promise["reached"] else "NOT REACHED"
        gain = f"{promise['gain_db']:+.2f} dB (wanted {promise['wanted_db']:+.1f}), residual {promise['residual']:.1e}"
        print(f"  {promise['volume']:20} {promise['case_mm']:>4} mm  {gain}: {kept}")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "promises": promises}, indent=1), encoding="utf-8")
    return 0 if all(promise["reached"] for promise in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
