"""Laws of simulated slices: a symmetric profile does not move a linear ramp, a constant stays constant, noise is as told."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError, UsageError
from medrecon.core.grid import Grid
from medrecon.core.profile import ProfileKind
from medrecon.core.scans import SliceScan
from medrecon.core.source import Source
from medrecon.core.volume import Quantity, Volume
from medrecon.simulate import simulate_file, simulate_slices

SLOPE = np.array([0.7, -0.4, 1.3])  # of the ramp, per mm LPS


def ramp(directions: NDArray[np.float64] | None = None, shape: tuple[int, int, int] = (40, 22, 26)) -> Volume:
    grid = Grid.from_parts(shape, (1.0, 1.5, 1.25), (-11.0, 7.0, 30.0), directions)
    index = np.moveaxis(np.indices(shape), 0, -1)
    return Volume((grid.to_lps(index) @ SLOPE).astype(np.float32), grid)


def expected(scan: SliceScan) -> NDArray[np.float64]:
    """Value of the ramp at every pixel centre."""
    rows, columns = scan.poses.image_shape
    pixel = np.stack(np.meshgrid([0.0], np.arange(rows), np.arange(columns), [1.0], indexing="ij"), axis=-1)[0, :, :, 0]
    return np.asarray(np.einsum("nij,rcj->nrci", scan.poses.to_lps_mm[:, :3], pixel) @ SLOPE)


def worst(scan: SliceScan, values: NDArray[np.float64]) -> float:
    """Largest error in the inner slices, where the profile is not cut off, away from the edge of the pixels."""
    inner = (slice(2, -2), slice(8, -8), slice(3, -3))
    return float(np.abs(scan.pixels - values)[inner].max())


AXES = np.eye(3)[:, ::-1]
TURNED = [AXES[:, list(order)] * signs for order in itertools.permutations(range(3)) for signs in ((1, 1, 1), (-1, 1, -1))]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("directions", TURNED, ids=lambda d: str(d.tolist()))
def test_every_pixel_of_a_ramp_holds_the_value_at_its_own_place(directions: NDArray[np.float64], axis: int) -> None:
    scan = simulate_slices(ramp(directions, (30, 28, 29)), 2.0, 0.5, axis=axis)
    assert worst(scan, expected(scan)) < 0.02
    assert (np.diff(scan.poses.depths_mm) > 0).all()


@pytest.mark.parametrize("profile", ["gaussian", "bell", "triangle", "box", "slab"])
@pytest.mark.parametrize("tilt_deg", [0.0, 17.0, -12.0])
def test_a_ramp_survives_every_profile_and_tilt(profile: ProfileKind, tilt_deg: float) -> None:
    scan = simulate_slices(ramp(), 3.0, 0.0, profile, tilt_deg=tilt_deg)
    assert worst(scan, expected(scan)) < 0.05  # less than a twentieth of a voxel: the profile is integrated over whole planes


def test_the_ramp_check_fails_when_a_slice_stands_half_a_thickness_off() -> None:
    scan = simulate_slices(ramp(), 3.0)
    assert worst(scan, expected(scan) + 1.5 * float(SLOPE @ scan.poses.normals[0])) > 0.5


def test_a_constant_stays_constant_to_the_ends() -> None:
    volume = ramp().with_voxels(np.full((40, 22, 26), 7.0, dtype=np.float32))
    scan = simulate_slices(volume, 4.0, 1.0)
    assert scan.pixels == pytest.approx(7.0, abs=1e-5)


def test_as_many_slices_as_fit_are_taken(rng: np.random.Generator) -> None:
    for _ in range(50):
        thickness, gap = float(rng.uniform(1, 6)), float(rng.uniform(-0.5, 2))
        scan = simulate_slices(ramp(), thickness, gap)
        assert len(scan.poses) == int(40 // (thickness + gap))
        assert np.diff(scan.poses.depths_mm) == pytest.approx(thickness + gap)
        middle = ramp().grid.to_lps([19.5, 10.5, 12.5]) @ scan.poses.normals[0]
        assert scan.poses.depths_mm.mean() == pytest.approx(middle)


def test_a_tilted_gantry_steps_along_the_table_and_not_along_its_normal() -> None:
    poses = simulate_slices(ramp(), 3.0, tilt_deg=17.0).poses
    step = poses.to_lps_mm[1, :3, 3] - poses.to_lps_mm[0, :3, 3]
    assert np.degrees(np.arccos(step @ poses.normals[0] / np.linalg.norm(step))) == pytest.approx(17.0)
    assert step == pytest.approx([0, 0, 3.0 / np.cos(np.deg2rad(17.0))])


def test_noise_has_the_standard_deviation_and_the_seed_that_were_asked_for() -> None:
    clean, noisy, again, other = (simulate_slices(ramp(), 2.0, noise=n, seed=s) for n, s in ((0, 0), (5, 1), (5, 1), (5, 2)))
    assert (noisy.pixels - clean.pixels).std() == pytest.approx(5, rel=0.05)
    assert np.array_equal(noisy.pixels, again.pixels)
    assert not np.array_equal(noisy.pixels, other.pixels)


def test_what_the_volume_never_saw_is_not_measured() -> None:
    volume = ramp()
    seen = np.ones(volume.grid.shape, dtype=bool)
    seen[:, :6] = False
    scan = simulate_slices(Volume(volume.voxels, volume.grid, Quantity.HOUNSFIELD, seen), 4.0)
    assert scan.measured is not None
    assert not scan.measured[:, :6].any()
    assert scan.measured[:, 6:].all()
    assert (scan.pixels[:, :6] == -1024).all()
    assert scan.poses.profile.kind == "bell"


def test_simulated_slices_carry_no_patient() -> None:
    volume = ramp()
    source = Source("dicom", "series-0", "MR", ("00",), (), {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "DOE^JANE"}]}})
    scan = simulate_slices(Volume(volume.voxels, volume.grid, source=source), 4.0)
    assert scan.source == Source(modality="MR")


@pytest.mark.parametrize(
    "wrong", [{"thickness_mm": 0}, {"thickness_mm": 2, "gap_mm": -2}, {"noise": float("nan")}, {"axis": 3}, {"tilt_deg": 80}]
)
def test_a_scan_that_no_scanner_makes_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="ARG-SCANNER"):
        simulate_slices(ramp(), **wrong)  # type: ignore[arg-type]  # one argument at a time


def test_a_volume_thinner_than_a_slice_is_refused() -> None:
    with pytest.raises(GeometryError, match="GRID-SHORT"):
        simulate_slices(ramp(), 41.0)


def test_a_simulated_file_is_a_series_that_others_read_at_the_same_place(tmp_path: Path) -> None:
    grid = ramp().grid
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.to_lps_mm[:, [2, 1, 0, 3]]
    values = np.rint(ramp().voxels * 10).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), tmp_path / "v.nii.gz")
    out = simulate_file(tmp_path / "v.nii.gz", tmp_path / "series", thickness_mm=4.0, gap_mm=1.0)
    files = sorted(out.iterdir())
    assert len(files) == 8
    assert {float(pydicom.dcmread(file).SliceThickness) for file in files} == {4.0}
    image = SimpleITK.ReadImage([str(file) for file in files])
    assert image.GetSpacing() == pytest.approx((1.25, 1.5, 5.0))
    at = (5, 6, 4)
    point = np.array(image.TransformIndexToPhysicalPoint(at))
    assert image[at] == pytest.approx(10 * point @ SLOPE, abs=1.0)
