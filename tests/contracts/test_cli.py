"""The command line as published: commands, exit codes, stdout for results, stderr for messages, no patient text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.makers_dicom import POISON, POISON_ID, make_series

SECRETS = (POISON.split("^")[0], POISON_ID)


def medrecon(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medrecon", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def quiet_about_patients(answer: subprocess.CompletedProcess[str]) -> bool:
    return not any(secret in answer.stdout + answer.stderr for secret in SECRETS)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input") / "study"
    make_series(folder, shape=(10, 48, 40), spacing_mm=(3.0, 1.0, 1.0))
    return folder


def test_inspect_prints_the_geometry_and_the_verdict_as_json(study: Path) -> None:
    answer = medrecon("inspect", study, "--json")
    assert answer.returncode == 0, answer.stderr
    (listing,) = json.loads(answer.stdout)
    (series,) = listing["series"]
    assert series["shape"] == [10, 48, 40]
    assert series["spacing_mm"] == pytest.approx([3.0, 1.0, 1.0])
    assert quiet_about_patients(answer)


def test_inspect_shows_a_table_to_people(study: Path) -> None:
    answer = medrecon("inspect", study)
    assert answer.returncode == 0
    assert "series-" in answer.stdout
    assert quiet_about_patients(answer)


def test_run_writes_every_published_output_and_says_where(study: Path, tmp_path: Path) -> None:
    answer = medrecon("run", study, "--out", tmp_path, "--progress", "json")
    assert answer.returncode == 0, answer.stderr
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert events[-1]["event"] == "done"
    (folder,) = tmp_path.iterdir()
    names = {path.name for path in folder.iterdir()}
    assert {"volume.nii.gz", "dicom", "report.html", "run.json"} <= names
    assert any(name.startswith("surface-") and name.endswith(".stl") for name in names)
    assert quiet_about_patients(answer)
    record = (folder / "run.json").read_text()
    assert not any(secret in record + (folder / "report.html").read_text() for secret in SECRETS)


def test_run_refuses_to_replace_a_finished_result_unless_asked(study: Path, tmp_path: Path) -> None:
    assert medrecon("run", study, "--out", tmp_path, "--formats", "nifti", "--set", "surfaces=[]").returncode == 0
    again = medrecon("run", study, "--out", tmp_path, "--formats", "nifti", "--set", "surfaces=[]")
    assert again.returncode == 2
    assert "OUT-EXISTS" in again.stderr
    assert medrecon("run", study, "--out", tmp_path, "--formats", "nifti", "--set", "surfaces=[]", "--overwrite").returncode == 0


def test_spacing_and_method_can_be_chosen_on_the_command_line(study: Path, tmp_path: Path) -> None:
    arguments = ("--formats", "nifti", "--set", "surfaces=[]", "--set", "method=interpolate", "--spacing", "2")
    assert medrecon("run", study, "--out", tmp_path, *arguments).returncode == 0
    image = nibabel.Nifti1Image.from_filename(next(tmp_path.glob("*/volume.nii.gz")))
    assert np.allclose(image.header.get_zooms(), 2.0)


CODES = [
    (("inspect", "no-such-folder"), 3),
    (("run", "no-such-folder", "--out", "o"), 3),
    (("methods", "--nonsense"), 2),
    (("explain", "NO-CODE"), 2),
    (("train", "x.yaml"), 2),
    (("listen",), 2),
    (("simulate", "x.nii", "--out", "o", "--as", "stacks"), 2),
    (("simulate", "no-such-file.nii", "--out", "o", "--as", "projections"), 3),
    (("explain", "DCM-GAP"), 0),
]


@pytest.mark.parametrize(("arguments", "code"), CODES, ids=lambda v: " ".join(v) if isinstance(v, tuple) else str(v))
def test_exit_codes_are_the_documented_ones(arguments: tuple[str, ...], code: int) -> None:
    assert medrecon(*arguments).returncode == code


def test_a_series_with_a_hole_is_refused_with_exit_code_4_and_passes_when_allowed(tmp_path: Path) -> None:
    make_series(tmp_path / "hole", shape=(10, 24, 24), drop=(5,))
    arguments = ("run", tmp_path / "hole", "--out", tmp_path / "out", "--formats", "nifti", "--set", "surfaces=[]")
    refused = medrecon(*arguments)
    assert refused.returncode == 4
    assert "DCM-GAP" in refused.stderr
    assert "missing-slices" in refused.stderr
    assert medrecon(*arguments, "--allow", "missing-slices").returncode == 0
    record = json.loads(next((tmp_path / "out").glob("*/run.json")).read_text())
    assert record["verdict"] == "warn"
    assert record["provenance"]["allowed"] == ["missing-slices"]


def test_two_series_in_one_folder_are_listed_and_never_mixed(tmp_path: Path) -> None:
    make_series(tmp_path / "in" / "one", seed=1)
    make_series(tmp_path / "in" / "two", seed=2, origin_lps_mm=(0.0, 0.0, 500.0))
    answer = medrecon("run", tmp_path / "in", "--out", tmp_path / "out")
    assert answer.returncode == 2
    assert answer.stderr.count("series-") >= 2
    assert quiet_about_patients(answer)


@pytest.mark.parametrize("listing", ["methods", "presets", "doctor"])
def test_listings_are_tables_for_people_and_json_for_machines(listing: str) -> None:
    assert medrecon(listing).stdout.strip()
    assert json.loads(medrecon(listing, "--json").stdout)
