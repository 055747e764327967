"""Volumes against NIfTI files that another program made: same voxels, same place.

Real series have the files that their makers published with them; made series are converted by dcm2niix in the test, which
is right in these cases (it is not for tilted ones). nibabel reads the references. Two index grids show the same volume when
one maps onto the other by swapping and reversing axes alone; then the voxels must be equal one by one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from medrecon.core.progress import silent
from medrecon.core.reading import ListedFile, ReadOptions
from medrecon.core.scans import SliceScan
from medrecon.readers import dicom
from tests.makers_dicom import AXIAL, CORONAL, SAGITTAL, make_enhanced, make_mosaic, make_series

Float64 = NDArray[np.float64]
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
OPTIONS = ReadOptions()


def scans_of(*paths: Path) -> list[SliceScan]:
    infos, _ = dicom.find([ListedFile(k, path) for k, path in enumerate(sorted(paths), start=1)], OPTIONS)
    return [dicom.read(info, OPTIONS, silent) for info in infos]


def reference(path: Path) -> tuple[Float64, Float64]:
    image = nibabel.Nifti1Image.from_filename(path)
    return np.asarray(image.get_fdata(), dtype=np.float64), np.asarray(image.affine, dtype=np.float64)


def on_grid_of(scan: SliceScan, affine: Float64, shape: tuple[int, ...]) -> Float64:
    """Return the scan's voxels in the index order of a RAS affine; fail where the two grids are not the same place."""
    poses = scan.poses.to_lps_mm
    own = poses[0].copy()
    own[:3, 0] = (poses[-1] - poses[0])[:3, 3] / (len(poses) - 1)
    mapping = np.linalg.inv(RAS_FROM_LPS @ own) @ affine
    turns = np.round(mapping[:3, :3])
    axes = np.abs(turns).argmax(axis=0)
    np.testing.assert_allclose(mapping[:3, :3], turns, atol=2e-3)
    assert sorted(axes) == [0, 1, 2]
    assert tuple(scan.pixels.shape[axis] for axis in axes) == shape
    sizes = np.asarray(shape)
    corners = np.stack(np.meshgrid(*([0, size - 1] for size in sizes), indexing="ij"), -1).reshape(-1, 3)
    there = corners @ affine[:3, :3].T + affine[:3, 3]
    expected = np.zeros((8, 3))
    for k, axis in enumerate(axes):
        forward = turns[axis, k] > 0
        expected[:, axis] = corners[:, k] if forward else sizes[k] - 1 - corners[:, k]
    here = expected @ (RAS_FROM_LPS @ own)[:3, :3].T + (RAS_FROM_LPS @ own)[:3, 3]
    np.testing.assert_allclose(here, there, atol=0.01)
    voxels = scan.pixels.transpose(axes)
    flips = tuple(slice(None, None, 1 if turns[axis, k] > 0 else -1) for k, axis in enumerate(axes))
    return np.asarray(voxels[flips], dtype=np.float64)


@pytest.mark.parametrize(("name", "ref"), [("12bitUnsigned", 2), ("12bitUnsigned_0x0F0F", 3), ("12bitSigned_0x0F0F", 4)])
def test_twelve_bits_with_and_without_sign_give_the_reference_values(shared_data: Path, name: str, ref: int) -> None:
    (scan,) = scans_of(shared_data / "dicom/signed_12bit/In" / f"{name}.dcm")
    voxels, affine = reference(shared_data / "dicom/signed_12bit/Ref" / f"{ref}.nii")
    np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape), voxels)


def test_the_signed_series_reaches_both_ends_of_twelve_bits(shared_data: Path) -> None:
    (scan,) = scans_of(shared_data / "dicom/signed_12bit/In/12bitSigned_0x0F0F.dcm")
    assert (scan.pixels.min(), scan.pixels.max()) == (-2048, 2047)


def test_the_voxel_check_fails_on_the_reference_of_another_sign(shared_data: Path) -> None:
    (scan,) = scans_of(shared_data / "dicom/signed_12bit/In/12bitSigned_0x0F0F.dcm")
    voxels, affine = reference(shared_data / "dicom/signed_12bit/Ref/3.nii")
    assert (on_grid_of(scan, affine, voxels.shape) != voxels).any()


@pytest.mark.parametrize("number", range(1, 10))
def test_every_transfer_syntax_gives_the_same_mosaic(shared_data: Path, number: int) -> None:
    (scan,) = scans_of(shared_data / "dicom/transfer_syntaxes/In" / f"{number}.dcm")
    voxels, affine = reference(shared_data / "dicom/transfer_syntaxes/Ref" / f"{number}.nii")
    np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape), voxels)


def test_a_time_series_of_mosaics_becomes_one_volume_for_each_time(shared_data: Path) -> None:
    scans = scans_of(*(shared_data / "dicom/mosaic/In").iterdir())
    voxels, affine = reference(shared_data / "dicom/mosaic/Ref/2_ep2d_Asc.nii")
    assert len(scans) == voxels.shape[3] == 6
    for time, scan in enumerate(scans):
        np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape[:3]), voxels[..., time])


def test_one_enhanced_file_for_each_time_becomes_one_volume_for_each_time(shared_data: Path) -> None:
    scans = scans_of(*(shared_data / "dicom/enhanced/In/Siemens/XA10").iterdir())
    voxels, affine = reference(shared_data / "dicom/enhanced/Ref/Siemens_REST1_w_SMS_PF7-8_6.nii")
    assert len(scans) == voxels.shape[3] == 4
    for time, scan in enumerate(scans):
        np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape[:3]), voxels[..., time])


def test_a_sagittal_enhanced_file_without_spacing_between_slices_keeps_its_place(shared_data: Path) -> None:
    (scan,) = scans_of(*(shared_data / "dicom/enhanced_xa30_t1w/In").iterdir())
    voxels, affine = reference(shared_data / "dicom/enhanced_xa30_t1w/Ref/6_anat-T1w_acq-tfl.nii")
    np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape), voxels)


def test_one_enhanced_file_of_two_quantities_becomes_two_volumes(shared_data: Path) -> None:
    magnitude, field = scans_of(*(shared_data / "dicom/enhanced/In/Philips").iterdir())
    for scan, name, atol in ((magnitude, "e1", 1e-6), (field, "e2_fieldmaphz", 0.01)):
        voxels, affine = reference(shared_data / "dicom/enhanced/Ref" / f"Philips_WIP_B0_NS_801_{name}.nii")
        own = on_grid_of(scan, affine, voxels.shape)
        if name == "e1":  # the vendor's private factor differs from the standard's
            own, voxels = own / own.max(), voxels / voxels.max()
        np.testing.assert_allclose(own, voxels, atol=atol)


def test_two_slices_are_read_as_the_reference_has_them(shared_data: Path) -> None:
    (scan,) = scans_of(*(shared_data / "dicom/known_bad/slicecount/001").iterdir())
    voxels, affine = reference(shared_data / "dicom/known_bad/slicecount/001_ground_truth.nii.gz")
    np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape), voxels)


@pytest.fixture(scope="module")
def dcm2niix() -> str:
    """Return the converter beside this Python, or on the path."""
    program = shutil.which("dcm2niix", path=str(Path(sys.executable).parent)) or shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    return program


def converted(dcm2niix: str, folder: Path) -> list[tuple[Float64, Float64]]:
    """Return voxels and affine of what dcm2niix makes of a folder, in the order of the files' names."""
    out = folder.parent / "nifti"
    out.mkdir()
    subprocess.run([dcm2niix, "-b", "n", "-z", "n", "-f", "%e_%s", "-o", out, folder], check=True, capture_output=True)
    return [reference(path) for path in sorted(out.glob("*.nii"))]


OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE], ids=["axial", "coronal", "sagittal", "oblique"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("step", [2.5, -2.5])
def test_made_series_are_what_dcm2niix_makes_of_them(
    tmp_path: Path, dcm2niix: str, orientation: tuple[float, ...], modality: str, step: float
) -> None:
    how = {"shape": (6, 20, 16), "spacing_mm": (2.5, 0.75, 1.25), "steps_mm": [step] * 5, "orientation": orientation}
    paths = make_series(tmp_path / "in", modality=modality, intercept=-1024 if modality == "CT" else 0, **how)  # type: ignore[arg-type]
    (scan,) = scans_of(*paths)
    ((voxels, affine),) = converted(dcm2niix, tmp_path / "in")
    np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape), voxels)


@pytest.mark.parametrize("against_normal", [False, True])
@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
def test_made_mosaics_are_what_dcm2niix_makes_of_them(
    tmp_path: Path, dcm2niix: str, orientation: tuple[float, ...], against_normal: bool
) -> None:
    make_mosaic(tmp_path / "in" / "m.dcm", orientation=orientation, against_normal=against_normal)
    (scan,) = scans_of(tmp_path / "in" / "m.dcm")
    ((voxels, affine),) = converted(dcm2niix, tmp_path / "in")
    np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape), voxels)


def test_a_made_enhanced_object_is_what_dcm2niix_makes_of_it(tmp_path: Path, dcm2niix: str) -> None:
    make_enhanced(tmp_path / "in" / "e.dcm", shape=(6, 20, 16), orientation=OBLIQUE, spacing_mm=(3.0, 0.75, 1.25))
    (scan,) = scans_of(tmp_path / "in" / "e.dcm")
    ((voxels, affine),) = converted(dcm2niix, tmp_path / "in")
    np.testing.assert_array_equal(on_grid_of(scan, affine, voxels.shape), voxels)
