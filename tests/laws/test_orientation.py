"""A marker stays where it is in the patient, through every library and every file, however the volume stands.

The eyes are nibabel, SimpleITK and MONAI; the truth is worked out step by step from the definition.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from medrecon import readers, writers
from medrecon.core.volume import Quantity, Volume
from tests.makers_volumes import (
    DIRECTIONS,
    STANDING,
    gap_mm,
    marked,
    seen_by_monai,
    seen_by_nibabel,
    seen_by_sitk,
    seen_by_us,
    sheared,
    true_places,
    write_nibabel,
)

EXACT_MM = 1e-9
FLOAT32_MM = 1e-4  # NIfTI keeps its affine in 32 bits

every_way_of_standing = pytest.mark.parametrize("directions", DIRECTIONS, ids=STANDING)
CONTEXT = writers.WriteContext()


def mirrored(volume: Volume) -> Volume:
    """The mistake that must be seen: voxels turned round, the place kept."""
    return dataclasses.replace(volume, voxels=volume.voxels[:, :, ::-1])


@every_way_of_standing
def test_libraries_see_the_markers_where_they_are(directions: NDArray[np.float64]) -> None:
    volume, true = marked(directions), true_places(directions)
    assert gap_mm(seen_by_nibabel(volume.to_nibabel()), true) < FLOAT32_MM
    assert gap_mm(seen_by_sitk(volume.to_sitk()), true) < EXACT_MM
    assert gap_mm(seen_by_monai(volume.to_metatensor()), true) < EXACT_MM


@every_way_of_standing
def test_sform_and_qform_both_hold_the_place(directions: NDArray[np.float64]) -> None:
    image, true = marked(directions).to_nibabel(), true_places(directions)
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        assert gap_mm(seen_by_nibabel(image, affine), true) < FLOAT32_MM


@every_way_of_standing
def test_the_way_back_gives_the_same_volume(directions: NDArray[np.float64]) -> None:
    volume = marked(directions)
    for back in (
        Volume.from_sitk(volume.to_sitk()),
        Volume.from_nibabel(volume.to_nibabel()),
        Volume.from_metatensor(volume.to_metatensor()),
    ):
        assert back.grid.same_place(volume.grid, FLOAT32_MM)
        assert np.array_equal(back.voxels, volume.voxels)
        assert back.seen is None


@every_way_of_standing
def test_files_of_ours_stand_right_in_other_programs(directions: NDArray[np.float64], tmp_path: Path) -> None:
    volume, true = marked(directions), true_places(directions)
    for name in ("nifti", "nrrd", "mha"):
        writer = writers.get(name)
        writer.write(volume, tmp_path / writer.target, CONTEXT)
        assert gap_mm(seen_by_sitk(SimpleITK.ReadImage(str(tmp_path / writer.target))), true) < FLOAT32_MM
    assert gap_mm(seen_by_nibabel(nibabel.load(tmp_path / "volume.nii.gz")), true) < FLOAT32_MM


@every_way_of_standing
def test_files_of_other_programs_are_read_at_their_place(directions: NDArray[np.float64], tmp_path: Path) -> None:
    volume, true = marked(directions), true_places(directions)
    write_nibabel(volume, tmp_path / "a.nii")
    image = SimpleITK.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.grid.origin_lps_mm.tolist())
    image.SetDirection(np.ascontiguousarray(directions[:, ::-1]).ravel().tolist())
    for name in ("b.nrrd", "c.mha", "d.nii.gz"):
        SimpleITK.WriteImage(image, str(tmp_path / name))
    for name in ("a.nii", "b.nrrd", "c.mha", "d.nii.gz"):
        found = readers.read(tmp_path / name)
        assert isinstance(found, Volume)
        assert gap_mm(seen_by_us(found), true) < FLOAT32_MM


@pytest.mark.parametrize("directions", [DIRECTIONS[5], DIRECTIONS[50]], ids=["upright", "oblique"])
def test_monai_loads_our_nifti_as_our_metatensor(directions: NDArray[np.float64], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own, about decoders that are not there
        from monai.transforms import LoadImage

        load = LoadImage(image_only=True, ensure_channel_first=True)
    volume = marked(directions)
    writers.get("nifti").write(volume, tmp_path / "volume.nii.gz", CONTEXT)
    loaded = load(tmp_path / "volume.nii.gz")
    ours = volume.to_metatensor()
    assert gap_mm(seen_by_monai(loaded), true_places(directions)) < FLOAT32_MM
    assert loaded.shape == ours.shape
    assert np.array_equal(np.asarray(loaded), np.asarray(ours))
    assert np.abs(np.asarray(loaded.affine - ours.affine)).max() < 1e-5
    assert loaded.meta["space"] == ours.meta["space"]
    assert list(loaded.meta["spatial_shape"]) == list(ours.meta["spatial_shape"])
    assert Volume.from_metatensor(loaded).grid.same_place(volume.grid)


def test_every_eye_sees_that_a_mirrored_volume_is_wrong(tmp_path: Path) -> None:
    wrong, true = mirrored(marked()), true_places()
    assert gap_mm(seen_by_nibabel(wrong.to_nibabel()), true) > 1
    assert gap_mm(seen_by_sitk(wrong.to_sitk()), true) > 1
    assert gap_mm(seen_by_monai(wrong.to_metatensor()), true) > 1
    writers.get("nifti").write(wrong, tmp_path / "volume.nii.gz", CONTEXT)
    assert gap_mm(seen_by_sitk(SimpleITK.ReadImage(str(tmp_path / "volume.nii.gz"))), true) > 1
    found = readers.read(tmp_path / "volume.nii.gz")
    assert isinstance(found, Volume)
    assert gap_mm(seen_by_us(found), true) > 1


def test_a_left_marker_of_a_real_head_is_left_in_every_format(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "volumes" / "ct_example.nii.gz"
    volume = readers.read(source)
    assert isinstance(volume, Volume)
    reference = SimpleITK.ReadImage(str(source))
    corner = np.asarray(reference.TransformIndexToPhysicalPoint((200, 40, 3)))
    value = reference[200, 40, 3]
    for name in ("nifti", "nrrd", "mha"):
        writer = writers.get(name)
        writer.write(volume, tmp_path / writer.target, CONTEXT)
        written = SimpleITK.ReadImage(str(tmp_path / writer.target))
        assert written.EvaluateAtPhysicalPoint(corner.tolist()) == pytest.approx(value, abs=1e-3)
    flipped = dataclasses.replace(volume, voxels=volume.voxels[:, :, ::-1])
    writers.get("nifti").write(flipped, tmp_path / "volume.nii.gz", CONTEXT)
    wrong = SimpleITK.ReadImage(str(tmp_path / "volume.nii.gz"))
    assert np.abs(SimpleITK.GetArrayViewFromImage(wrong) - volume.voxels).max() > 100


def test_a_sheared_volume_keeps_its_shear_in_the_sform_and_has_no_qform(tmp_path: Path) -> None:
    volume = sheared()
    writers.get("nifti").write(volume, tmp_path / "volume.nii.gz", CONTEXT)
    image = nibabel.load(tmp_path / "volume.nii.gz")
    assert int(image.header["qform_code"]) == 0
    assert int(image.header["sform_code"]) == 1
    third = image.affine[:3, 2]
    assert np.allclose(third, [0, 3.0 * np.tan(np.deg2rad(18.5)), 3.0], atol=1e-6)  # full length, towards the front in RAS
    found = readers.read(tmp_path / "volume.nii.gz")
    assert isinstance(found, Volume)
    assert found.grid.same_place(volume.grid)
    writers.get("nifti").write(marked(), tmp_path / "volume.nii.gz", CONTEXT)
    assert int(nibabel.load(tmp_path / "volume.nii.gz").header["qform_code"]) == 1


def test_the_quantity_comes_back_from_every_format(tmp_path: Path) -> None:
    for quantity in Quantity:
        for name in ("nifti", "nrrd", "mha"):
            writer = writers.get(name)
            writer.write(marked(quantity=quantity), tmp_path / writer.target, CONTEXT)
            found = readers.read(tmp_path / writer.target)
            assert isinstance(found, Volume)
            assert found.quantity is quantity
