"""Files and folders become layers, layers become files, and other programs see the patient in the same place."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import trimesh
from medrecon_napari import preferences, reading, samples
from medrecon_napari.layers import LayerData, surface_layer
from medrecon_napari.place import apply
from medrecon_napari.reading import get_reader
from medrecon_napari.results import place_of
from medrecon_napari.writing import write_dicom, write_surface, write_volume

import medrecon as mr
from medrecon.core.errors import MedreconError, UsageError
from tests.makers_dicom import CORONAL, SAGITTAL, make_series
from tests.makers_plugin import MARKER_VALUE, ORIENTATIONS, a_surface, a_volume, make_marked_series

SHAPE = (8, 32, 24)


def opened(path: Path) -> list[LayerData]:
    reader = get_reader(str(path))
    assert reader is not None
    return reader(str(path))


def test_a_folder_a_zip_and_one_image_of_it_open_the_same_series(tmp_path: Path) -> None:
    files = make_series(tmp_path / "series")
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
    for path in (tmp_path / "series", tmp_path / "series.zip", files[3]):
        [(data, arguments, kind)] = opened(path)
        assert kind == "image"
        assert data.shape == SHAPE
        assert arguments["name"].startswith("CT series-")
    names = {opened(path)[0][1]["name"] for path in (tmp_path / "series", tmp_path / "series.zip", files[3])}
    assert len(names) == 1


def test_a_folder_without_scans_is_left_to_other_readers(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(tmp_path / "notes.txt")) is None
    make_series(tmp_path / "deep" / "down")
    assert get_reader(str(tmp_path)) is not None


def test_a_file_without_an_ending_is_known_by_its_content(tmp_path: Path) -> None:
    image = make_series(tmp_path)[0]
    assert get_reader(str(image)) is not None
    (tmp_path / "IM9999").write_bytes(b"\0" * 200)
    assert get_reader(str(tmp_path / "IM9999")) is None


def test_several_series_open_as_several_layers_of_which_the_first_is_seen(tmp_path: Path) -> None:
    for seed, orientation in enumerate((ORIENTATIONS["axial"], CORONAL, SAGITTAL)):
        make_series(tmp_path / str(seed), seed=seed, orientation=orientation)
    layers = opened(tmp_path)
    assert [arguments.get("visible", True) for _, arguments, _ in layers] == [True, False, False]


def test_more_series_than_a_window_can_show_are_a_choice(tmp_path: Path) -> None:
    for seed in range(9):
        make_series(tmp_path / str(seed), seed=seed, shape=(3, 8, 8))
    with pytest.raises(UsageError) as caught:
        opened(tmp_path)
    assert caught.value.code == "NAP-MANY"


def test_a_refused_series_says_why_and_what_to_do(tmp_path: Path) -> None:
    make_series(tmp_path, drop=(3,))
    with pytest.raises(MedreconError) as caught:
        opened(tmp_path)
    assert caught.value.code == "DCM-GAP"
    assert "missing-slices" in str(caught.value)
    assert "POISON" not in str(caught.value)


def test_a_refused_series_beside_a_good_one_is_told_of(tmp_path: Path) -> None:
    make_series(tmp_path / "good")
    make_series(tmp_path / "bad", seed=1, drop=(3,))
    layers, refused = reading.open_path(tmp_path)
    assert len(layers) == 1
    assert "DCM-GAP" in refused[0]
    assert "POISON" not in refused[0]


def test_a_single_image_of_nothing_is_refused(tmp_path: Path) -> None:
    image = make_series(tmp_path, shape=(1, 8, 8))[0]
    with pytest.raises(MedreconError) as caught:
        opened(image)
    assert caught.value.code == "DCM-FEW"


@pytest.mark.parametrize(
    ("name", "ending"),
    [*((name, ".nii.gz") for name in ORIENTATIONS), ("sagittal, doubly oblique", ".nrrd"), ("coronal", ".mha")],
)
def test_a_marker_that_was_opened_and_saved_is_where_the_scanner_saw_it(name: str, ending: str, tmp_path: Path) -> None:
    make_marked_series(tmp_path / "series", ORIENTATIONS[name])
    data, arguments, _ = opened(tmp_path / "series")[0]
    written = write_volume(str(tmp_path / f"saved{ending}"), data, arguments)
    assert np.abs(marker_in_file(Path(written[0])) - marker_of_series(tmp_path / "series")).max() < 1e-2


def test_the_marker_check_fails_for_layer_data_that_were_mirrored(tmp_path: Path) -> None:
    make_marked_series(tmp_path / "series", ORIENTATIONS["axial"])
    data, arguments, _ = opened(tmp_path / "series")[0]
    write_volume(str(tmp_path / "saved.nii.gz"), data[:, :, ::-1], arguments)
    assert np.abs(marker_in_file(tmp_path / "saved.nii.gz") - marker_of_series(tmp_path / "series")).max() > 20


def marker_of_series(folder: Path) -> np.ndarray:
    """Where pydicom, by the standard's formula, has the middle of the marker in LPS mm."""
    places = []
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        rows, columns = np.nonzero(
            image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept) > MARKER_VALUE - 1
        )
        across, down = (np.asarray(image.ImageOrientationPatient[at : at + 3], dtype=float) for at in (0, 3))
        steps = np.outer(columns * image.PixelSpacing[1], across) + np.outer(rows * image.PixelSpacing[0], down)
        places.append(np.asarray(image.ImagePositionPatient, dtype=float) + steps)
    middle: np.ndarray = np.concatenate(places).mean(axis=0)
    return middle


def marker_in_file(path: Path) -> np.ndarray:
    """Where SimpleITK has the middle of the marker in LPS mm."""
    image = SimpleITK.ReadImage(str(path))
    index = np.argwhere(SimpleITK.GetArrayViewFromImage(image) > MARKER_VALUE - 1).mean(axis=0)[::-1]
    return np.asarray(image.TransformContinuousIndexToPhysicalPoint(index.tolist()))


def test_a_dicom_series_is_written_into_the_patients_study(tmp_path: Path) -> None:
    make_marked_series(tmp_path / "series", ORIENTATIONS["coronal, doubly oblique"])
    data, arguments, _ = opened(tmp_path / "series")[0]
    [written] = write_dicom(str(tmp_path / "derived.dcm"), data, arguments)
    assert Path(written).name == "derived"
    assert np.abs(marker_of_series(Path(written)) - marker_of_series(tmp_path / "series")).max() < 1e-2
    source, derived = (pydicom.dcmread(next(Path(folder).iterdir())) for folder in (tmp_path / "series", written))
    assert derived.StudyInstanceUID == source.StudyInstanceUID
    assert derived.SeriesInstanceUID != source.SeriesInstanceUID
    assert derived.PatientID == source.PatientID


TETRAHEDRON = a_surface(
    np.array([[0.0, 0, 0], [30, 0, 0], [0, 20, 0], [0, 0, 10]]), [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], "bone"
)
OBLIQUE_VIEW = a_volume(
    np.zeros((4, 5, 6)),
    mr.Grid.from_parts((4, 5, 6), (2, 1, 1), (5, 6, 7), np.linalg.qr(np.arange(9.0).reshape(3, 3) + np.eye(3))[0]),
)


@pytest.mark.parametrize("ending", [".stl", ".ply", ".obj", ".vtp", ".3mf", ".glb"])
def test_a_surface_that_was_shown_and_saved_has_its_vertices_in_lps(ending: str, tmp_path: Path) -> None:
    from medrecon_napari.layers import scan_layers

    frame = place_of(scan_layers(OBLIQUE_VIEW)[0]).world_from_lps()
    data, arguments, _ = surface_layer(TETRAHEDRON, frame, {"role": "surface"}, "bone")
    assert np.abs(data[0] - TETRAHEDRON.vertices_lps_mm).max() > 1
    [written] = write_surface(str(tmp_path / f"bone{ending}"), data, arguments)
    if ending in (".stl", ".ply", ".obj"):
        mesh = trimesh.load_mesh(written)
        assert mesh.volume == pytest.approx(30 * 20 * 10 / 6, rel=1e-4)
        assert sorted(map(tuple, np.round(mesh.vertices, 3).tolist())) == sorted(map(tuple, TETRAHEDRON.vertices_lps_mm.tolist()))
    assert Path(written).stat().st_size > 100


def test_a_layer_that_knows_no_place_is_not_written(tmp_path: Path) -> None:
    stranger: Mapping[str, Any] = {"name": "camera", "metadata": {}}
    for write, data in ((write_volume, np.zeros((2, 3, 4))), (write_dicom, np.zeros((2, 3, 4))), (write_surface, TETRAHEDRON)):
        with pytest.raises(UsageError) as caught:
            write(str(tmp_path / "out.nii.gz"), data, stranger)
        assert caught.value.code == "NAP-PLACE"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "series")
    data, arguments, _ = opened(tmp_path / "series")[0]
    with pytest.raises(UsageError) as caught:
        write_volume(str(tmp_path / "out.png"), data, arguments)
    assert caught.value.code == "ARG-ENDING"


def test_a_nifti_goes_through_the_window_unchanged(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    nibabel.Nifti1Image(values, affine).to_filename(tmp_path / "in.nii")
    data, arguments, _ = opened(tmp_path / "in.nii")[0]
    write_volume(str(tmp_path / "out.nii.gz"), data, arguments)
    out = nibabel.load(tmp_path / "out.nii.gz")
    for index in np.ndindex(*out.shape):
        place = apply(out.affine, index)
        before = np.rint(apply(np.linalg.inv(affine), place)).astype(int)
        assert out.dataobj[index] == values[tuple(before)]


def test_the_samples_open_with_their_truth_beneath() -> None:
    for sample, modality in ((samples.mr_brain, "MR"), (samples.ct_head, "CT")):
        truth, slices = sample()
        assert slices[1]["name"].startswith(modality)
        assert truth[1]["visible"] is False
        assert truth[1]["contrast_limits"] == slices[1]["contrast_limits"]


def test_a_missing_sample_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(samples.VARIABLE, str(tmp_path))
    with pytest.raises(MedreconError) as caught:
        samples.mr_brain()
    assert caught.value.code == "NAP-SAMPLE"
    assert samples.VARIABLE in caught.value.hint
    shutil.copytree(Path(mr.__file__).parents[1] / "sample_data" / "mr_brain_thick", tmp_path / "mr_brain_thick")
    assert len(samples.mr_brain()) == 2


def test_the_preferences_begin_as_the_manifest_says() -> None:
    assert preferences.hide_identity() is True
    assert preferences.radiological() is True
    assert preferences.preset() == "fast"
    assert preferences.device() == "auto"
