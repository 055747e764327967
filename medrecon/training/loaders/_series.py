"""DICOM series and volume files as volumes to train on, through our own readers."""

from __future__ import annotations

from pathlib import Path

from medrecon.core.errors import InputError
from medrecon.core.findings import Verdict, judge
from medrecon.core.grid import Grid
from medrecon.core.reading import ReadOptions, SeriesInfo
from medrecon.core.scans import SliceScan
from medrecon.core.volume import Volume
from medrecon.readers import find, read

LEAST_SLICES = 4  # fewer are no volume to learn from
_EVEN = 0.02  # steps that differ by more make no volume


def usable(path: Path, options: ReadOptions) -> list[SeriesInfo]:
    """List the series at a path that are, or can be stacked to, a volume; refused ones are left out."""
    return [info for info in find(path, options) if _is_usable(info, options)]


def volume(path: Path, info: SeriesInfo, options: ReadOptions) -> Volume:
    """Read one series as a volume.

    Raises
    ------
    InputError
        ``TRN-CASE`` for slices that do not make one volume: several stacks, or uneven steps.
    MedreconError
        What the reader refuses.
    """
    found = read(path, info, options)
    if isinstance(found, Volume):
        return found
    if not isinstance(found, SliceScan):
        raise _no_volume("it holds projections")
    return stacked(found)


def largest(path: Path, options: ReadOptions) -> Volume:
    """Read the series with the most voxels below a path; raise as `volume` does, also where there is none."""
    series = usable(path, options)
    if not series:
        raise _no_volume("there is no series in it that can be used")
    return volume(path, max(series, key=lambda info: info.shape[0] * info.shape[1] * info.shape[2]), options)


def stacked(scan: SliceScan) -> Volume:
    """Return parallel, even slices as a volume, sheared where the gantry was tilted; padding gets the least measured value."""
    places = scan.poses.to_lps_mm
    steps = places[1:, :3, 3] - places[:-1, :3, 3]
    if len(scan.stacks()) > 1 or len(places) < LEAST_SLICES:
        raise _no_volume(f"it has {len(scan.stacks())} stack(s) of {len(places)} slices")
    mean = steps.mean(axis=0)
    if abs(steps - mean).max() > _EVEN * float((mean**2).sum()) ** 0.5:
        raise _no_volume("its slices do not have one step")
    affine = places[0].copy()
    affine[:3, 0] = mean
    pixels = scan.pixels
    if scan.measured is not None and scan.measured.any():
        pixels = pixels.copy()
        pixels[~scan.measured] = pixels[scan.measured].min()
    shape = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
    return Volume(pixels, Grid(shape, affine), scan.quantity, scan.measured)


def _is_usable(info: SeriesInfo, options: ReadOptions) -> bool:
    fits = info.kind in {"slices", "volume"} and info.shape[0] >= LEAST_SLICES
    return fits and judge(info.findings, options.allow) is not Verdict.REFUSED


def _no_volume(why: str) -> InputError:
    return InputError(
        "TRN-CASE", f"a case of the data set makes no volume: {why}", "It is left out; remove it to be rid of this."
    )
