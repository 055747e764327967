"""Simulated projections are those of the volume: closed forms, the round trip through files, and the text read the right way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import medrecon as mr
from medrecon.config import load_config
from medrecon.core.errors import UsageError
from medrecon.core.grid import Grid
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.reading import ReadOptions
from medrecon.core.source import Source
from medrecon.core.volume import Quantity, Volume
from medrecon.quality.truth import compare
from medrecon.simulate_projections import (
    ScannerConfig,
    attenuation_of,
    load_scanner,
    simulate_projection_file,
    simulate_projections,
)
from tests.makers_xray import ball, lettered

WATER = 0.0206
CENTRE = (10.0, -20.0, 30.0)
SMALL = {"sid_mm": 150.0, "sdd_mm": 250.0, "views": 48}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small problems: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def grid(n: int = 32, spacing_mm: float = 1.5) -> Grid:
    return Grid.from_parts((n, n, n), (spacing_mm,) * 3, np.asarray(CENTRE) - (n - 1) / 2 * spacing_mm)


def water(radius_mm: float = 18.0) -> Volume:
    """A ball of water in air, off the origin of patient space, with a name in its header."""
    voxels = 1000 * ball(radius_mm, CENTRE).voxels(grid(), 3) - 1000
    source = Source(modality="CT", header={"00100010": {"vr": "PN", "Value": [{"Alphabetic": "DOE^JANE"}]}})
    return Volume(voxels, grid(), Quantity.HOUNSFIELD, source=source)


@pytest.mark.parametrize("geometry", ["cone", "fan", "parallel", "helical"])
def test_projections_are_the_line_integrals_of_water(geometry: str) -> None:
    scan = simulate_projections(water(), ScannerConfig(geometry=geometry, curved=geometry == "helical", **SMALL))
    exact = ball(18.0, CENTRE, WATER).project(scan.views)
    assert np.abs(scan.pixels - exact).max() < 0.15  # at the rim, where one voxel's edge is a large part of the ray
    assert np.abs(scan.pixels - exact)[exact > 0.5].max() < 0.03
    assert scan.pixels.max() == pytest.approx(2 * 18 * WATER, rel=0.02)


@pytest.mark.parametrize("geometry", ["cone", "parallel"])
def test_the_detector_sees_the_whole_volume_unless_told_otherwise(geometry: str) -> None:
    full = Volume(np.zeros((32, 32, 32), np.float32), grid(), Quantity.HOUNSFIELD)
    scan = simulate_projections(full, ScannerConfig(geometry=geometry, **SMALL))
    assert scan.pixels[:, [0, -1]].max() == 0
    assert scan.pixels[:, :, [0, -1]].max() == 0
    cut = simulate_projections(full, ScannerConfig(geometry=geometry, rows=8, columns=12, **SMALL))
    assert cut.pixels.min() > 0


def test_no_name_of_the_patient_goes_along() -> None:
    assert simulate_projections(water(), ScannerConfig(**SMALL)).source == Source(modality="CT")


def test_noise_is_that_of_the_photons_and_repeats_with_its_seed() -> None:
    quiet = simulate_projections(water(), ScannerConfig(**SMALL))
    noisy, again, other = (simulate_projections(water(), ScannerConfig(photons=1e4, seed=s, **SMALL)) for s in (1, 1, 2))
    assert np.array_equal(noisy.pixels, again.pixels)
    assert not np.array_equal(noisy.pixels, other.pixels)
    air = quiet.pixels == 0
    assert float(noisy.pixels[air].std()) == pytest.approx(0.01, rel=0.05)


def test_counts_are_photons_and_need_a_number_of_them() -> None:
    scan = simulate_projections(water(), ScannerConfig(photons=1e5, counts=True, **SMALL))
    assert scan.measures is Measured.COUNTS
    assert float(np.median(scan.pixels[:, 0])) == pytest.approx(1e5, rel=0.01)
    with pytest.raises(UsageError, match="ARG-SCANNER"):
        simulate_projections(water(), ScannerConfig(counts=True))


def test_a_volume_of_unknown_meaning_is_refused_and_attenuation_is_taken_as_it_is() -> None:
    with pytest.raises(UsageError, match=r"ARG-SCANNER.*--quantity"):
        simulate_projections(Volume(np.ones((4, 4, 4), np.float32), grid(4)))
    plain = Volume(np.full((4, 4, 4), 0.03, np.float32), grid(4), Quantity.ATTENUATION_PER_MM)
    assert attenuation_of(plain, WATER) == pytest.approx(np.full((4, 4, 4), 0.03))


def test_what_was_never_seen_is_air() -> None:
    seen = np.ones((4, 4, 4), dtype=np.bool_)
    seen[0] = False
    volume = Volume(np.zeros((4, 4, 4), np.float32), grid(4), Quantity.HOUNSFIELD, seen)
    assert (attenuation_of(volume, WATER)[0] == 0).all()
    assert attenuation_of(volume, WATER)[1:] == pytest.approx(WATER)


@pytest.mark.parametrize("wrong", ["sid_mm=-1", "views=2", "photons=0", "colums=4", "arc_deg=400"])
def test_settings_that_no_scanner_has_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="CFG-VALUE"):
        load_scanner((wrong,))


def test_a_source_inside_the_patient_is_refused() -> None:
    with pytest.raises(UsageError, match="ARG-SCANNER"):
        simulate_projections(water(), ScannerConfig(sid_mm=20.0, sdd_mm=100.0))


@pytest.mark.parametrize("form", ["stack", "rtk"])
def test_a_volume_comes_back_from_its_own_projections(form: str, tmp_path: Path) -> None:
    """Both forms; RTK's isocentre is the origin, so that the volume lies off the axis there."""
    truth = water()
    truth.to_nibabel().to_filename(tmp_path / "truth.nii.gz")
    scanner = ScannerConfig(**SMALL | {"sid_mm": 300.0, "sdd_mm": 450.0})
    simulate_projection_file(
        tmp_path / "truth.nii.gz", tmp_path / "scan", scanner, form, ReadOptions(quantity=Quantity.HOUNSFIELD)
    )
    scan = mr.read(tmp_path / "scan")
    assert isinstance(scan, ProjectionScan)
    low, high = (np.asarray(CENTRE) - 20).tolist(), (np.asarray(CENTRE) + 20).tolist()
    config = load_config(
        "cbct-fast",
        None,
        ("surfaces=[]", "grid.spacing_mm=1.5", f"grid.region_lps_mm=[{low},{high}]", f"hounsfield.water_per_mm={WATER}"),
    )
    result = mr.reconstruct(scan, config)
    points = result.volume.grid.to_lps(np.moveaxis(np.indices(result.volume.grid.shape), 0, -1))
    radius = np.linalg.norm(points - CENTRE, axis=-1)
    assert abs(float(result.volume.voxels[radius < 14].mean())) < 30
    assert float(result.volume.voxels[(radius > 22) & (radius < 26)].mean()) < -850


def test_the_command_line_simulates_inspects_runs_and_compares(tmp_path: Path) -> None:
    """A text phantom with R and L, through files only, compared with the truth; the mirrored truth must be far worse."""
    there = np.eye(4)
    there[:3, 3] = CENTRE
    voxels = 1500 * lettered(2.4, 10.0).moved(there).voxels(grid(44, 0.8), 2) - 1000
    truth = Volume(voxels, grid(44, 0.8), Quantity.HOUNSFIELD)
    truth.to_nibabel().to_filename(tmp_path / "truth.nii.gz")
    simulated = ("--as", "projections", "--quantity", "hounsfield", "--views", "60", "--set", "sid_mm=150", "--set", "sdd_mm=250")
    medrecon("simulate", tmp_path / "truth.nii.gz", "--out", tmp_path / "scan", *simulated)
    ((series,),) = (listing["series"] for listing in json.loads(medrecon("inspect", tmp_path / "scan", "--json")))
    assert (series["kind"], series["verdict"], series["geometry"]["beam"]) == ("projections", "ok", "cone")
    assert series["geometry"]["recommended_spacing_mm"] == pytest.approx(0.8)
    settings = (
        "--set",
        "surfaces=[]",
        "--set",
        f"hounsfield.water_per_mm={WATER}",
        "--quantity",
        "hounsfield",
        "--formats",
        "nifti",
    )
    shown = medrecon("run", tmp_path / "scan", "--out", tmp_path / "out", "--truth", tmp_path / "truth.nii.gz", *settings)
    assert "of the measured projections" in shown
    (folder,) = (tmp_path / "out").iterdir()
    closeness = json.loads((folder / "run.json").read_text())["metrics"]["psnr_db"]
    result = mr.read(folder / "volume.nii.gz")
    assert isinstance(result, Volume)
    mirrored = compare(result, truth.with_voxels(voxels[:, :, ::-1])).psnr_db
    assert closeness > 12
    assert closeness > mirrored + 4


def medrecon(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "medrecon", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
