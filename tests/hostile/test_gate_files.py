"""Every file that we have, hostile, bad or good, goes through loading, gate, decoder and parser without harm."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from medrecon.core.errors import DicomError, InputError
from medrecon.safety.gate import gate, load
from medrecon.safety.limits import Limits
from tests import makers_dicom_bytes as make

ROOT = Path(__file__).resolve().parents[2]
SECONDS, GROWTH = 2.0, 300 << 20


def sweep(folder: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Send a folder through a process of its own; return how each file ended, and the growth of memory in bytes."""
    command = [sys.executable, "-m", "tests.hostile.sweep_files", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    *files, last = map(json.loads, run.stdout.splitlines())
    return {entry["file"]: entry for entry in files}, last["growth_bytes"]


@pytest.fixture(scope="module")
def hostile(shared_data: Path) -> tuple[dict[str, dict[str, Any]], int]:
    return sweep(shared_data / "hostile_dicom")


def test_one_process_survives_all_hostile_files_in_time_and_memory(hostile: tuple[dict[str, dict[str, Any]], int]) -> None:
    files, growth = hostile
    assert len(files) == 356  # 355 files and their manifest
    assert max(entry["seconds"] for entry in files.values()) < SECONDS
    assert growth < GROWTH


def test_the_sweep_would_notice_a_slow_file_and_a_large_one(tmp_path: Path) -> None:
    (tmp_path / "large.dcm").write_bytes(bytes(32 << 20))
    files, growth = sweep(tmp_path)
    assert files["large.dcm"]["ending"] == "none"
    assert growth > 16 << 20


@pytest.mark.parametrize(
    ("prefix", "codes"),
    [
        ("BASELINE", {"pixels"}),
        ("TC0261", {"pixels"}),
        ("TC0263", {"pixels"}),
        ("TC0265", {"DCM-DEPTH"}),
        ("TC0285", {"DCM-PIXELS"}),
        ("TC0287", {"DCM-PIXELS"}),
        ("TC0289", {"DCM-PIXELS"}),
        ("TC0291", {"DCM-PIXELS"}),
        ("TC0293", {"DCM-PIXELS"}),
        ("TC0341", {"DCM-PIXELS"}),
        ("TC0299", {"DCM-BITS"}),
        ("TC0305", {"DCM-BITS"}),
        ("TC0317", {"DCM-BITS"}),
        ("TC0321", {"DCM-DECODE"}),
        ("TC0325", {"DCM-DECODE"}),
        ("TC0339", {"DCM-LIMIT"}),
        ("TC0343", {"pixels"}),
        ("TC0345", {"DCM-LENGTH", "DCM-PARSE"}),
        ("TC0347", {"DCM-LENGTH", "DCM-PARSE"}),
        ("TC0385", {"none"}),
        ("TC0395", {"DCM-LENGTH"}),
        ("TC0397", {"DCM-LENGTH"}),
        ("TC0401", {"DCM-CODEC"}),
        ("TC0675", {"DCM-LENGTH"}),
        ("TC0681", {"DCM-LENGTH"}),
        ("TC0687", {"DCM-LENGTH"}),
    ],
)
def test_the_named_hostile_files_end_as_agreed(
    hostile: tuple[dict[str, dict[str, Any]], int], prefix: str, codes: set[str]
) -> None:
    (entry,) = [entry for name, entry in hostile[0].items() if name.startswith(prefix)]
    assert entry["ending"] in codes


def test_every_real_scan_passes(shared_data: Path) -> None:
    files, _ = sweep(shared_data / "dicom")
    endings = {name: entry["ending"] for name, entry in files.items()}
    assert set(endings.values()) <= {"pixels", "no pixels", "none"}
    not_dicom = {name for name, ending in endings.items() if ending == "none"}
    assert {Path(name).suffix for name in not_dicom} <= {".nii", ".json", ".zip", ".bval", ".bvec", ".gz"}
    assert sum(ending == "pixels" for ending in endings.values()) >= 200


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("MR_small_padded.dcm", 128),
        ("image_dfl.dcm", 0),
        ("MR_small.dcm", 0),
        ("MR_small_bigendian.dcm", 0),
        ("CT_small.dcm", 0),
        ("liver_1frame.dcm", 0),
        ("rtdose.dcm", 0),
        ("SC_rgb_small_odd_big_endian.dcm", 0),
        ("SC_ybr_full_422_uncompressed.dcm", 0),
        ("JPEG2000-embedded-sequence-delimiter.dcm", 0),
        ("J2K_pixelrep_mismatch.dcm", 0),
        ("examples_palette.dcm", 0),
    ],
)
def test_ugly_but_legal_files_pass(name: str, tail: int) -> None:
    gated = gate(load(shipped(name)))
    assert gated is not None
    assert gated.has_pixels
    assert gated.tail_bytes == tail


@pytest.mark.parametrize("name", ["test-SR.dcm", "rtplan.dcm", "UN_sequence.dcm", "priv_SQ.dcm", "dicomdirtests/DICOMDIR"])
def test_objects_without_pixels_pass_as_what_they_are(name: str) -> None:
    gated = gate(load(shipped(name)))
    assert gated is not None
    assert not gated.has_pixels
    assert gated.header == gated.data


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("MR_truncated.dcm", "DCM-PIXELS"),
        ("nested_priv_SQ.dcm", "DCM-TAG"),
        ("badVR.dcm", "DCM-PARSE"),
        ("rtplan_truncated.dcm", "DCM-LENGTH"),
    ],
)
def test_damaged_files_that_pydicom_ships_are_refused(name: str, code: str) -> None:
    with pytest.raises(DicomError) as caught:
        gate(load(shipped(name)))
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["no_meta.dcm", "zipMR.gz"])
def test_what_cannot_be_told_to_be_dicom_is_skipped(name: str) -> None:
    assert gate(load(shipped(name))) is None


def shipped(name: str) -> Path:
    """A test file that pydicom ships."""
    folder, _, base = name.rpartition("/")
    path = get_testdata_file(base if not folder else "DICOMDIR", download=False)
    assert isinstance(path, str)
    return Path(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "DOE")
    begin = time.perf_counter()
    assert code_of(tmp_path / "DOE") == "INP-KIND"
    assert time.perf_counter() - begin < 1


def test_devices_sockets_and_folders_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "DOE"))
        assert code_of(tmp_path / "DOE") == "INP-KIND"
    assert code_of(tmp_path) == "INP-KIND"
    assert code_of(Path("/dev/zero")) == "INP-KIND"


def test_a_file_that_is_gone_or_unreadable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of(tmp_path / "DOE^GONE") == "INP-GONE"
    (tmp_path / "DOE").write_bytes(make.image())
    assert load(tmp_path / "DOE") == make.image()

    def refuse(*_: object) -> int:
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "open", refuse)
    assert code_of(tmp_path / "DOE") == "INP-UNREADABLE"


def test_an_empty_file_loads_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert gate(load(tmp_path / "empty")) is None


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10 << 30)  # a sparse file: reading it would take 10 GiB
    assert code_of(tmp_path / "large") == "DCM-LIMIT"
    (tmp_path / "small").write_bytes(bytes(100))
    assert code_of(tmp_path / "small", Limits(file_bytes=99)) == "DCM-LIMIT"
    assert len(load(tmp_path / "small", Limits(file_bytes=100))) == 100


def test_no_open_file_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(bytes(100))
    before = len(list(Path("/dev/fd").iterdir()))
    load(tmp_path / "one")
    code_of(tmp_path)
    assert len(list(Path("/dev/fd").iterdir())) == before


def code_of(path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load(path, limits or Limits())
    assert "DOE" not in str(caught.value)
    return caught.value.code
