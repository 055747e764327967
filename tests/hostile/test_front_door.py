"""No file takes much time or memory on its way through `find` and `read`, whatever it claims."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.makers_dicom import make_series

ROOT = Path(__file__).resolve().parents[2]
SECONDS, BYTES = 2.0, 300 << 20


def swept(*roots: Path) -> dict[str, dict[str, Any]]:
    """Send files and folders through a process of its own; return by path what each took."""
    command = [sys.executable, "-m", "tests.hostile.sweep_series", *map(str, roots)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    return {entry["name"]: entry for entry in map(json.loads, run.stdout.splitlines())}


def test_no_hostile_or_bad_file_takes_two_seconds_or_300_mb(shared_data: Path) -> None:
    taken = swept(shared_data / "hostile_dicom", shared_data / "dicom" / "known_bad")
    assert len(taken) > 380
    assert max(entry["seconds"] for entry in taken.values()) < SECONDS
    assert max(entry["bytes"] for entry in taken.values()) < BYTES


def test_a_file_that_inflates_without_end_is_stopped_before_it_takes_300_mb(tmp_path: Path) -> None:
    (bomb,) = make_series(tmp_path / "bomb", shape=(1, 8, 8), transfer_syntax=DeflatedExplicitVRLittleEndian)
    data = bomb.read_bytes()
    start = 132 + 12 + int.from_bytes(data[140:144], "little")  # behind the file meta group
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    plain = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:])
    bomb.write_bytes(data[:start] + packer.compress(plain + bytes(1 << 30)) + packer.flush())
    taken = swept(tmp_path / "bomb")[bomb.name]
    assert taken["ending"] == "nothing found"
    assert taken["seconds"] < SECONDS
    assert taken["bytes"] < BYTES


def test_the_sweep_notices_what_a_large_series_takes(tmp_path: Path) -> None:
    make_series(tmp_path / "large", shape=(16, 1024, 1024), padding=0)
    taken = swept(tmp_path / "large")["large"]
    assert taken["ending"] == "read"
    assert taken["bytes"] > 16 << 22  # the float32 values alone
