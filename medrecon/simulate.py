"""Measures a volume as a scanner would: thick slices with gaps, a tilted gantry and noise, for tests and training.

The slices come from the forward model that reconstruction inverts, so a result on simulated slices flatters; the
series in ``sample_data/`` are made by code of their own for that reason. No patient text of the volume's source is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medrecon.core.errors import GeometryError, UsageError
from medrecon.core.grid import Float64, Grid
from medrecon.core.profile import ProfileKind, SliceProfile
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.source import Source
from medrecon.core.volume import OUTSIDE_VALUE, Quantity, Volume

_STEEPEST_TILT_DEG = 60.0


def simulate_slices(
    volume: Volume,
    thickness_mm: float = 5.0,
    gap_mm: float = 0.0,
    profile: ProfileKind | None = None,
    axis: int = 0,
    noise: float = 0.0,
    seed: int = 0,
    tilt_deg: float = 0.0,
) -> SliceScan:
    """Measure a volume in parallel thick slices.

    Parameters
    ----------
    volume : Volume
    thickness_mm, gap_mm : float
        Slices follow each other every ``thickness_mm + gap_mm`` along their normal; a negative gap makes them overlap.
    profile : str, optional
        Bell for Hounsfield units, Gaussian for everything else where not given.
    axis : int
        Index axis of the volume across the slices; the pixels lie as the voxels do along the other two.
    noise : float
        Standard deviation of Gaussian noise, in the volume's unit.
    seed : int
        Of the noise.
    tilt_deg : float
        Gantry tilt about the rows of pixels: the slices lean, their centres still step along `axis`.

    Returns
    -------
    SliceScan
        As many whole steps as fit into the volume, centred, ordered along their normal. A pixel that a slice only sees
        outside the volume, or where the volume itself was not seen, is not measured.

    Raises
    ------
    UsageError
        ``ARG-SCANNER`` for a thickness, step, noise, tilt or axis that no scanner has.
    GeometryError
        ``GRID-SHORT`` where not even one slice fits.
    """
    import torch

    from medrecon.operators.slice_sampler import SliceSampler

    _check(thickness_mm, gap_mm, noise, axis, tilt_deg)
    kind = profile or ("bell" if volume.quantity is Quantity.HOUNSFIELD else "gaussian")
    poses = plan_slices(volume.grid, thickness_mm, gap_mm, SliceProfile(kind), axis, tilt_deg)
    A = SliceSampler(poses, volume.grid)
    pixels = A.forward(torch.tensor(volume.voxels)).numpy()
    measured = A.seen
    if volume.seen is not None:
        measured = measured & (A.forward(torch.tensor(volume.seen, dtype=torch.float32)).numpy() > 0.5)
    if noise:
        pixels = pixels + np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32) * np.float32(noise)
    pixels = np.where(measured, pixels, np.float32(OUTSIDE_VALUE[volume.quantity]))
    return SliceScan(pixels, poses, volume.quantity, None if measured.all() else measured, source=_anonymous(volume))


def plan_slices(
    grid: Grid, thickness_mm: float, gap_mm: float, profile: SliceProfile, axis: int = 0, tilt_deg: float = 0.0
) -> SlicePoses:
    """Place as many slices as fit into a grid, centred in it; see `simulate_slices`."""
    row_axis, column_axis = (a for a in range(3) if a != axis)
    along, down, across = (grid.directions[:, a] for a in (axis, row_axis, column_axis))
    normal = np.cross(across, down)
    if normal @ along < 0:
        along = -along  # slices are counted along their normal
    normal, down = _lean(normal, down, np.deg2rad(tilt_deg))
    step = (thickness_mm + gap_mm) / float(normal @ along)
    count = int(np.floor(grid.shape[axis] * grid.spacing_mm[axis] / step + 1e-6))
    if count < 1:
        extent = grid.shape[axis] * grid.spacing_mm[axis]
        raise GeometryError(
            "GRID-SHORT", f"the volume is {extent:.3g} mm long there, a step is {step:.3g} mm", "Choose thinner slices."
        )
    shape, spacing = (grid.shape[row_axis], grid.shape[column_axis]), (grid.spacing_mm[row_axis], grid.spacing_mm[column_axis])
    corner = grid.to_lps((np.asarray(grid.shape) - 1) / 2)
    corner = corner - (shape[0] - 1) / 2 * spacing[0] * down - (shape[1] - 1) / 2 * spacing[1] * across
    positions = corner + (np.arange(count) - (count - 1) / 2)[:, None] * step * along
    return SlicePoses.from_parts(positions, down, across, spacing, shape, thickness_mm, profile)


def simulate_file(
    volume: Path,
    out: Path,
    *,
    thickness_mm: float = 5.0,
    gap_mm: float = 0.0,
    profile: ProfileKind | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> Path:
    """Measure a volume file and write the slices as a DICOM series into the folder `out`, which is returned.

    Raises
    ------
    UsageError
        ``ARG-INPUT`` where `volume` holds slices and not a volume; those of `simulate_slices`.
    """
    from pydicom import dcmread
    from pydicom.valuerep import format_number_as_ds

    from medrecon.readers import read
    from medrecon.safety.atomic import replacing_folder
    from medrecon.writers import WriteContext, dicom

    known = read(volume)
    if not isinstance(known, Volume):
        raise UsageError("ARG-INPUT", "slices can be simulated from a volume only", "Give a NIfTI, NRRD or MetaImage file.")
    scan = simulate_slices(known, thickness_mm, gap_mm, profile, noise=noise, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(out) as folder:
        whole = folder / "whole"
        dicom.write(_stacked(scan), whole, WriteContext(method="simulate"))
        for file in sorted(whole.iterdir()):
            image = dcmread(file)
            image.SliceThickness = format_number_as_ds(float(thickness_mm))  # the writer takes slices to be without a gap
            image.save_as(folder / file.name)
            file.unlink()
        whole.rmdir()
    return out


def _check(thickness_mm: float, gap_mm: float, noise: float, axis: int, tilt_deg: float) -> None:
    wrong = [
        text
        for is_wrong, text in (
            (not 0 < thickness_mm < 1e3, f"a thickness of {thickness_mm} mm"),
            (not 0 < thickness_mm + gap_mm < 1e3, f"a step of {thickness_mm + gap_mm} mm"),
            (not 0 <= noise < np.inf, f"noise of {noise}"),
            (axis not in (0, 1, 2), f"axis {axis}"),
            (not abs(tilt_deg) <= _STEEPEST_TILT_DEG, f"a tilt of {tilt_deg} degrees"),
        )
        if is_wrong
    ]
    if wrong:
        raise UsageError("ARG-SCANNER", f"no scanner has {wrong[0]}", "Thickness and step are positive, noise is not negative.")


def _lean(normal: Float64, down: Float64, angle_rad: float) -> tuple[Float64, Float64]:
    """Turn a slice about its rows of pixels."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return cos * normal + sin * down, cos * down - sin * normal


def _anonymous(volume: Volume) -> Source:
    """Keep the modality and nothing else of where the volume came from: the slices are not the patient's images."""
    return Source(modality=volume.source.modality)


def _stacked(scan: SliceScan) -> Volume:
    """Return the slices of an untilted scan as a volume of thick voxels."""
    first = scan.poses.to_lps_mm[0]
    depths = scan.poses.depths_mm
    affine = first.copy()
    affine[:3, 0] *= depths[1] - depths[0] if len(depths) > 1 else scan.poses.thickness_mm[0]
    count, rows, columns = scan.pixels.shape
    return Volume(scan.pixels, Grid((count, rows, columns), affine), scan.quantity, scan.measured, scan.source)
