"""Others read a written series back: pydicom, SimpleITK, dcm2niix and highdicom see each voxel at its place."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from medrecon.core.grid import Grid
from medrecon.core.source import Source
from medrecon.core.volume import Quantity, Volume
from medrecon.writers import dicom
from tests.makers_written_dicom import CONTEXT, files_in, indices_of, source_of, standing, turned_grid, value_at

Float64 = NDArray[np.float64]
#: What a reader makes of a folder: the values of all voxels, and where it thinks they are, (n,) and (n, 3) LPS mm.
Seen = tuple[Float64, Float64]

_FLIPS = [
    np.array(signs, dtype=np.float64) * np.eye(3)[:, list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
_GRIDS = {
    "axial": turned_grid(),
    "coronal": turned_grid(directions=np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])),
    "sagittal, left-handed": turned_grid(directions=np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])),
    "oblique": turned_grid(turn_deg=(20.0, -35.0, 50.0)),
    "oblique, left-handed": turned_grid(turn_deg=(-65.0, 15.0, 170.0), directions=np.diag([1.0, 1.0, -1.0])[:, ::-1]),
    "slices from head to foot": turned_grid(directions=np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])),
}


def _by_pydicom(folder: Path) -> Seen:
    """The formula of PS3.3 C.7.6.2.1.1, written out."""
    values, places = [], []
    for path in files_in(folder):
        image = pydicom.dcmread(path)
        across, down = np.reshape(np.array(image.ImageOrientationPatient, dtype=float), (2, 3))
        between_rows, between_columns = (float(v) for v in image.PixelSpacing)
        row, column = np.indices((image.Rows, image.Columns)).reshape(2, -1, 1)
        places.append(
            np.array(image.ImagePositionPatient, dtype=float) + across * between_columns * column + down * between_rows * row
        )
        values.append(_real_values(image).ravel())
    return np.concatenate(values), np.concatenate(places)


def _real_values(image: pydicom.Dataset) -> Float64:
    mapping = image.get("RealWorldValueMappingSequence")
    slope, intercept = (mapping[0].RealWorldValueSlope, mapping[0].RealWorldValueIntercept) if mapping else (1.0, 0.0)
    values: Float64 = image.pixel_array.astype(np.float64) * slope + intercept
    return values


def _read_by_simpleitk(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    return reader.Execute()


def _by_simpleitk(folder: Path) -> Seen:
    image = _read_by_simpleitk(folder)
    values = SimpleITK.GetArrayFromImage(image).astype(np.float64)
    columns_first = indices_of(values.shape).reshape(-1, 3)[:, ::-1].astype(np.float64)
    step = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return values.ravel(), columns_first @ step.T + image.GetOrigin()


def _by_dcm2niix(folder: Path) -> Seen:
    out = folder.parent / f"{folder.name}-nifti"
    out.mkdir()
    command = [str(Path(sys.executable).with_name("dcm2niix")), "-z", "n", "-b", "n", "-f", "out", "-o", str(out), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    written = list(out.glob("*.nii"))
    assert len(written) == 1, done.stdout + done.stderr
    image = nibabel.Nifti1Image.from_filename(written[0])
    values = np.asarray(image.dataobj, dtype=np.float64)
    assert image.affine is not None
    ras = apply_affine(image.affine, indices_of(values.shape).reshape(-1, 3))
    return values.ravel(), ras * [-1.0, -1.0, 1.0]


def _by_highdicom(folder: Path) -> Seen:
    volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in files_in(folder)])
    places = volume.map_indices_to_reference(indices_of(volume.spatial_shape).reshape(-1, 3))
    return np.asarray(volume.array, dtype=np.float64).ravel(), places


_EYES: dict[str, Callable[[Path], Seen]] = {
    "pydicom": _by_pydicom,
    "SimpleITK": _by_simpleitk,
    "dcm2niix": _by_dcm2niix,
    "highdicom": _by_highdicom,
}


def _worst_error(seen: Seen) -> float:
    """How far a value is from the one that belongs to its place; a whole number may be off by 0.5 by rounding."""
    values, places = seen
    return float(np.abs(values - value_at(places)).max())


def _mirrored(volume: Volume) -> Volume:
    return replace(volume, voxels=np.ascontiguousarray(volume.voxels[:, :, ::-1]))


@pytest.mark.parametrize("grid", _GRIDS.values(), ids=_GRIDS)
@pytest.mark.parametrize("eye", _EYES.values(), ids=_EYES)
def test_every_reader_sees_each_voxel_at_its_place(eye: Callable[[Path], Seen], grid: Grid, tmp_path: Path) -> None:
    dicom.write(standing(grid), tmp_path / "dicom", CONTEXT)
    seen = eye(tmp_path / "dicom")
    assert seen[0].size == np.prod(grid.shape)
    assert _worst_error(seen) < 0.51


@pytest.mark.parametrize("eye", _EYES.values(), ids=_EYES)
def test_the_place_check_fails_on_a_mirrored_volume(eye: Callable[[Path], Seen], tmp_path: Path) -> None:
    dicom.write(_mirrored(standing(_GRIDS["oblique"])), tmp_path / "dicom", CONTEXT)
    assert _worst_error(eye(tmp_path / "dicom")) > 10


@pytest.mark.parametrize("directions", _FLIPS, ids=lambda d: "".join("LPHRAF"[int(np.argmax([*c, *-c]))] for c in d.T))
def test_no_order_and_no_direction_of_axes_mirrors_or_moves_a_voxel(directions: Float64, tmp_path: Path) -> None:
    dicom.write(standing(turned_grid((3, 4, 2), directions=directions)), tmp_path / "dicom", CONTEXT)
    seen = _by_pydicom(tmp_path / "dicom")
    assert seen[0].size == 24
    assert _worst_error(seen) < 0.51


@pytest.mark.parametrize("modality", ["MR", ""], ids=["MR", "secondary capture"])
@pytest.mark.parametrize("eye", ["pydicom", "SimpleITK", "dcm2niix", "highdicom"])
def test_images_that_are_not_ct_keep_their_place_too(eye: str, modality: str, tmp_path: Path) -> None:
    volume = standing(_GRIDS["oblique, left-handed"], Quantity.ARBITRARY, Source(modality=modality))
    dicom.write(volume, tmp_path / "dicom", CONTEXT)
    assert _worst_error(_EYES[eye](tmp_path / "dicom")) < 0.51


def test_a_real_series_written_again_is_read_alike(shared_data: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    files = sorted((shared_data / "dicom" / "mr_sag_supine").glob("*.dcm"))[:9]  # named by number, in order
    for path in files:
        (before / path.name).symlink_to(path)
    volume = replace(Volume.from_sitk(_read_by_simpleitk(before)), source=source_of(files))
    dicom.write(volume, tmp_path / "after", CONTEXT)
    for eye in (_by_simpleitk, _by_dcm2niix):
        (values, places), (values_after, places_after) = (eye(tmp_path / name) for name in ("before", "after"))
        np.testing.assert_array_equal(values_after, values)
        np.testing.assert_allclose(places_after, places, atol=1e-3)
