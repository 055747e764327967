"""Each public data set is read in the form in which it is distributed, from tiny copies that are made here."""

from __future__ import annotations

import tarfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from medrecon.core.errors import InputError, UsageError
from medrecon.core.grid import Grid
from medrecon.core.reading import ReadOptions
from medrecon.core.volume import Quantity, Volume
from medrecon.training import loaders
from medrecon.training.loaders import Case
from medrecon.training.loaders._series import stacked
from tests.makers_dicom import make_series

SHAPE = (6, 16, 14)


def listed(name: str, path: Path) -> tuple[Case, ...]:
    return loaders.cases(name, path, ReadOptions())


def write_nifti(path: Path, seed: int = 0, spacing: tuple[float, float, float] = (1.2, 0.9, 0.8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).random((14, 16, 6)).astype(np.float32)
    nibabel.Nifti1Image(values, np.diag([spacing[2], spacing[1], spacing[0], 1.0])).to_filename(path)
    return path


def test_a_folder_gives_every_volume_that_can_be_used_and_leaves_out_the_others(tmp_path: Path) -> None:
    make_series(tmp_path / "p1" / "ct", shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0), seed=1)
    make_series(tmp_path / "p1" / "hole", shape=SHAPE, drop=(3,), seed=2, study=1)
    write_nifti(tmp_path / "p2" / "t1.nii.gz")
    found = listed("folder", tmp_path)
    assert sorted(case.subject for case in found) == ["p1", "p2"]
    shapes = {case.subject: case.load() for case in found}
    assert shapes["p1"].grid.shape == SHAPE
    assert shapes["p1"].spacing_mm == pytest.approx((2.0, 1.0, 1.0))
    assert shapes["p1"].quantity is Quantity.HOUNSFIELD
    assert shapes["p2"].spacing_mm == pytest.approx((1.2, 0.9, 0.8))


def test_a_stack_of_slices_keeps_its_place(tmp_path: Path) -> None:
    files = make_series(tmp_path, shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0), origin_lps_mm=(-20.0, -30.0, 10.0))
    assert len(files) == SHAPE[0]
    (case,) = listed("folder", tmp_path)
    volume = case.load()
    assert volume.grid.to_lps([0, 0, 0]) == pytest.approx([-20.0, -30.0, 10.0])
    assert volume.grid.to_lps([5, 15, 13]) == pytest.approx([-7.0, -15.0, 20.0])


def test_uneven_slices_make_no_volume(tmp_path: Path) -> None:
    make_series(tmp_path, shape=SHAPE, steps_mm=(3.0, 3.0, 3.4, 3.0, 3.0))
    (case,) = listed("folder", tmp_path)
    with pytest.raises(InputError, match=r"TRN-CASE.*one step"):
        case.load()


def test_padding_becomes_the_least_measured_value() -> None:
    from medrecon.core.scans import SliceScan

    values = np.full((5, 4, 4), 40.0, dtype=np.float32)
    values[:, 0] = -2000.0
    measured = values > -2000
    scan = SliceScan.from_volume(Volume(values, Grid.from_parts((5, 4, 4), (2, 1, 1), (0, 0, 0)), seen=measured))
    assert stacked(scan).voxels.min() == 40.0


def test_lidc_gives_the_ct_of_each_patient_and_no_radiograph(tmp_path: Path) -> None:
    root = tmp_path / "LIDC-IDRI"
    for number in (1, 2):
        make_series(root / f"LIDC-IDRI-{number:04d}" / "1.3.6.1" / "1.3.6.2", shape=SHAPE, seed=number, study=number)
    make_series(root / "LIDC-IDRI-0001" / "1.3.6.3" / "1.3.6.4", shape=(1, 16, 14), seed=9, study=9)
    for file in [file for file in root.rglob("IM*") if file.is_file()]:
        file.rename(file.with_suffix(".dcm"))
    found = listed("lidc_idri", tmp_path)
    assert [case.subject for case in found] == ["LIDC-IDRI-0001", "LIDC-IDRI-0002"]
    assert {case.load().grid.shape for case in found} == {SHAPE}


@pytest.mark.parametrize(
    ("full", "other", "patient"),
    [
        ("C002/12-23-2021-1/1.000000-Full dose images-51968", "C002/12-23-2021-1/1.000000-Low Dose Images-39882", "C002"),
        ("L067/full_3mm", "L067/quarter_3mm", "L067"),
    ],
)
def test_aapm_gives_the_images_of_full_dose_alone(full: str, other: str, patient: str, tmp_path: Path) -> None:
    for folder, seed in ((full, 1), (other, 2)):
        make_series(tmp_path / folder, shape=SHAPE, seed=seed, study=seed)
    (tmp_path / full / "readme.txt").write_text("no image")
    (case,) = listed("aapm_ct_pd", tmp_path)
    assert case.subject == patient
    assert np.array_equal(case.load().voxels, listed("folder", tmp_path / full)[0].load().voxels)


def test_ixi_is_read_from_its_archives_and_beside_them(tmp_path: Path) -> None:
    names = ("IXI002-Guys-0828-T1.nii.gz", "IXI012-HH-1211-T1.nii.gz", "IXI002-Guys-0828-DTI-00.nii.gz")
    for seed, name in enumerate(names):
        write_nifti(tmp_path / "made" / name, seed)
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "IXI-T1.tar", "w") as tar:
        for name in names:
            tar.add(tmp_path / "made" / name, arcname=f"./{name}")
    write_nifti(tmp_path / "set" / "IXI002-Guys-0828-T2.nii.gz", 5)
    found = listed("ixi", tmp_path / "set")
    assert [(case.key[-9:-7], case.subject) for case in found] == [("T1", "IXI002"), ("T2", "IXI002"), ("T1", "IXI012")]
    made = nibabel.Nifti1Image.from_filename(tmp_path / "made" / names[1]).get_fdata()
    assert np.allclose(np.sort(found[2].load().voxels, axis=None), np.sort(made, axis=None))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "IXI-T1.tar").write_bytes(b"this is no archive" * 100)
    with pytest.raises(InputError, match=r"TRN-DATA.*damaged"):
        listed("ixi", tmp_path)


def write_lodopab(folder: Path, number: int, count: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).random((count, 26, 26)).astype(np.float32)
    with h5py.File(folder / f"ground_truth_train_{number:03d}.hdf5", "w") as file:
        file["data"] = values
    return values


def test_lodopab_gives_attenuation_per_mm_slice_by_slice_with_its_patients(tmp_path: Path) -> None:
    values = write_lodopab(tmp_path / "ground_truth_train", 0)
    write_lodopab(tmp_path / "ground_truth_train", 1)
    (tmp_path / "patient_ids_rand_train.csv").write_text("\n".join(["7", "7", "3", *["5"] * 125, "8", "8", "9"]) + "\n")
    with h5py.File(tmp_path / "ground_truth_test_000.hdf5", "w") as file:
        file["data"] = values
    found = listed("lodopab", tmp_path)
    assert [case.subject for case in found] == ["7", "7", "3", "8", "8", "9"]
    volume = found[2].load()
    assert volume.quantity is Quantity.ATTENUATION_PER_MM
    assert volume.voxels == pytest.approx(values[2:3] * 0.08135858, rel=1e-6)
    assert volume.spacing_mm == pytest.approx((10.0, 10.0, 10.0))


def test_lodopab_of_another_shape_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "ground_truth_train_000.hdf5", "w") as file:
        file["data"] = np.zeros((3, 26, 25), dtype=np.float32)
    with pytest.raises(InputError, match=r"TRN-DATA.*\[3, 26, 25\]"):
        listed("lodopab", tmp_path)


FASTMRI_HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>640</x><y>368</y><z>1</z></matrixSize>
<fieldOfView_mm><x>280</x><y>162.2</y><z>4.5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>20</x><y>16</y><z>1</z></matrixSize>
<fieldOfView_mm><x>10.0</x><y>12.0</y><z>4.5</z></fieldOfView_mm></reconSpace></encoding></ismrmrdHeader>"""


def write_fastmri(path: Path, patient: str, image: str = "reconstruction_rss", header: str = FASTMRI_HEADER) -> None:
    with h5py.File(path, "w") as file:
        file["kspace"] = np.zeros((7, 20, 16), dtype=np.complex64)
        file["ismrmrd_header"] = header.encode()
        file[image] = np.random.default_rng(0).random((7, 20, 16)).astype(np.float32)
        file.attrs["patient_id"] = patient


def test_fastmri_gives_magnitudes_with_the_voxel_size_of_their_header(tmp_path: Path) -> None:
    write_fastmri(tmp_path / "file1000001.h5", "abc")
    write_fastmri(tmp_path / "file1000002.h5", "abc", "reconstruction_esc")
    write_fastmri(tmp_path / "file1000003.h5", "def", "something_else")
    found = listed("fastmri", tmp_path)
    assert [case.subject for case in found] == ["abc", "abc"]
    volume = found[0].load()
    assert volume.grid.shape == (7, 20, 16)
    assert volume.spacing_mm == pytest.approx((4.5, 0.5, 0.75))


def test_fastmri_without_a_voxel_size_is_left_out_and_never_guessed(tmp_path: Path) -> None:
    write_fastmri(tmp_path / "file1.h5", "abc", header="<ismrmrdHeader/>")
    with pytest.raises(InputError, match="TRN-CASE"):
        listed("fastmri", tmp_path)[0].load()


@pytest.mark.parametrize("name", loaders.names())
def test_a_folder_without_the_data_set_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("nothing here")
    with pytest.raises(InputError, match=f"TRN-DATA.*{name}"):
        listed(name, tmp_path)
    with pytest.raises(InputError, match="TRN-DATA"):
        listed(name, tmp_path / "missing")


def test_an_unknown_loader_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ARG-NAME.*fastmri"):
        listed("fastmr", tmp_path)
