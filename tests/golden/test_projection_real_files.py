"""Real measurements through the readers, judged by the libraries of the formats themselves and by what was measured before."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.io import loadmat

import medrecon as mr
from medrecon.core.errors import InputError
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.preprocess.line_integrals import to_line_integrals


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Path:
    return shared_data / "projections"


def read(path: Path, **options: object) -> ProjectionScan:
    scan = mr.read(path, **options)  # type: ignore[arg-type]  # any option
    assert isinstance(scan, ProjectionScan)
    return scan


def test_tooth_is_divided_by_its_own_flats_and_darks(real: Path) -> None:
    scan = read(real / "tomopy" / "tooth.h5", spacing_mm=(1, 0.01, 0.01))
    with h5py.File(real / "tomopy" / "tooth.h5") as file:
        data, white, dark = (file[f"exchange/data{kind}"][()].astype(np.float64) for kind in ("", "_white", "_dark"))
        theta = file["exchange/theta"][()]
    expected = (data - dark.mean(axis=0)) / (white.mean(axis=0) - dark.mean(axis=0))
    np.testing.assert_allclose(scan.pixels, np.maximum(expected, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.cos(scan.views.angles_rad), np.cos(np.radians(theta)), atol=1e-9)
    assert scan.measures is Measured.TRANSMISSION


def test_the_beamlines_nexus_has_3001_projections_among_its_3201_frames(real: Path, tmp_path: Path) -> None:
    """The master file links to files in a folder beside it; the one with the angles is missing, and is made here."""
    shutil.copy(real / "httomo" / "k11-18014.nxs", tmp_path / "k11-18014.nxs")
    (tmp_path / "k11-18014").mkdir()
    shutil.copy(real / "httomo" / "k11-18014-imaging.h5", tmp_path / "k11-18014" / "k11-18014-imaging.h5")
    path = tmp_path / "k11-18014.nxs"
    with pytest.raises(InputError) as raised:
        read(path, spacing_mm=(1, 0.01, 0.01))
    assert raised.value.code == "PRJ-LINK"
    angles = np.concatenate([np.full(100, 90.0), 90 + 0.06 * np.arange(3001), np.full(100, 270.0)])
    with h5py.File(tmp_path / "k11-18014" / "k11-18014-pcompPanda.h5", "w") as file:
        file["entry/gts_theta.value/gts_theta.value"] = angles
    scan = read(path, spacing_mm=(1, 0.01, 0.01))
    assert scan.pixels.shape == (3001, 22, 26)
    with h5py.File(real / "httomo" / "k11-18014-imaging.h5") as file:
        frames = file["entry/detector/detector"][()].astype(np.float64)
    with h5py.File(path) as file:
        keys = file["entry/instrument/imaging/image_key"][()]
    flat, dark = frames[keys == 1].mean(axis=0), frames[keys == 2].mean(axis=0)
    expected = np.maximum((frames[keys == 0] - dark) / np.where(flat > dark, flat - dark, np.inf), 0)
    np.testing.assert_allclose(scan.pixels, expected, rtol=1e-4, atol=1e-5)
    assert np.degrees(scan.views.angles_rad[0]) == pytest.approx(90.0)


@pytest.mark.parametrize(
    ("name", "first", "views"), [("tb_subsample_90", 75, 181), ("tb_subsample", 42, 61), ("solid_disc_subsample73", 181, 61)]
)
def test_helsinki_files_of_both_versions_are_read(name: str, first: float, views: int, real: Path) -> None:
    path = real / "htc2022" / f"{name}.mat"
    scan = read(path)
    if name.startswith("tb"):
        data = loadmat(path, struct_as_record=False, squeeze_me=True)["CtDataLimited"]
        sinogram = data.sinogram
    else:  # version 7.3, which is HDF5
        with h5py.File(path) as file:
            sinogram = file["CtDataLimited/sinogram"][()].T
    np.testing.assert_allclose(scan.pixels[:, 0], sinogram, rtol=1e-6)
    assert scan.pixels.shape == (views, 1, 560)
    assert np.degrees(scan.views.angles_rad[0]) == pytest.approx(first)
    assert scan.views.source_detector_mm[0] == pytest.approx(553.74)
    assert "PRJ-FEW" in {finding.code for finding in scan.findings}


def test_the_xradia_chip_is_read_with_its_shifts(real: Path) -> None:
    import olefile

    path = real / "tomopy" / "txrm_test_chip_tomo.txrm"
    scan = read(path)
    assert scan.pixels.shape == (7, 256, 256)
    assert scan.views.is_parallel
    with olefile.OleFileIO(path) as ole:
        image = np.frombuffer(ole.openstream("ImageData1/Image3").read(), "<u2").reshape(256, 256)
        shifts = np.frombuffer(ole.openstream("Alignment/X-Shifts").read(), "<f4")
    np.testing.assert_array_equal(scan.pixels[2], image)
    moved = np.einsum("ki,ki->k", scan.views.centres_lps_mm - scan.views.isocentre, scan.views.u)
    np.testing.assert_allclose(moved - moved.mean(), (shifts - shifts.mean()) * 0.00015579, atol=1e-6)


def write_yaml(folder: Path, content: dict[str, object]) -> Path:
    path = folder / "scan.yaml"
    path.write_text(yaml.safe_dump({"format": "medrecon projections", **content}, sort_keys=False), encoding="utf-8")
    return path


def test_savu_tiffs_with_flats_darks_and_a_file_of_angles_are_read(real: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(real / "savu_24737", tmp_path / "savu")
    pitch = {"row_pitch_mm": 0.01, "column_pitch_mm": 0.01}
    geometry = {"kind": "parallel", "angles_deg": {"file": "angles.txt", "skip": [10, 10]}}
    content = {"images": "tiffs/raw_*.tiff", "open_beam": "flat_00001.tiff", "dark": "dark_00001.tiff", "measures": "counts"}
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    folder.chmod(0o755)
    scan = read(write_yaml(folder, content | {"detector": pitch, "geometry": geometry}))
    assert scan.pixels.shape == (91, 135, 160)
    assert scan.measured is not None
    assert int((~scan.measured[0]).sum()) == 1  # the one pixel whose flat equals its dark
    integrals = to_line_integrals(scan)
    assert np.isfinite(integrals.pixels).all()
    assert integrals.measured is not None
    assert float(integrals.pixels[integrals.measured].mean()) > 0


def test_the_curved_fan_of_a_simulator_is_read_from_raw_floats(real: Path, tmp_path: Path) -> None:
    shutil.copy(real / "xcist" / "CatSimLogo_2048.prep", tmp_path / "logo.prep")
    pixels: NDArray[np.float32] = np.fromfile(real / "xcist" / "CatSimLogo_2048.prep", "<f4").reshape(1000, 900)
    content: dict[str, object] = {
        "images": "logo.prep",
        "raw": {"views": 1000, "dtype": "float32"},
        "detector": {"rows": 1, "columns": 900, "row_pitch_mm": 1.0, "column_pitch_mm": 1.0, "curve_radius_mm": 950.0},
        "geometry": {
            "kind": "cone",
            "angles_deg": {"first": 0.0, "step": -0.36},
            "sid_mm": 540.0,
            "sdd_mm": 950.0,
            "offset_u_mm": 0.25,
        },
    }
    scan = read(write_yaml(tmp_path, content))
    np.testing.assert_array_equal(scan.pixels[:, 0], pixels)
    assert scan.views.is_curved
    assert scan.findings == ()
