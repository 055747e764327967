"""A file's first bytes settle it only as the whole file would: the law, on damaged files cut anywhere."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medrecon.core.errors import DicomError, InputError
from medrecon.safety.gate import GatedFile, gate, gate_start, load_start
from medrecon.safety.limits import Limits
from tests import makers_dicom_bytes as make
from tests.hostile.test_gate_fuzz import SEEDS, damaged

PLAIN = [seed for seed in SEEDS if seed[128:132] == b"DICM" and gate_start(seed, len(seed)) is not None]


def judged(data: bytes) -> GatedFile | None:
    try:
        return gate(data)
    except DicomError:
        return None


def contradiction(data: bytes, cut: int, size: int) -> str:
    """What a file's first `cut` bytes say of it otherwise than all of them, in words; nothing settled is no contradiction."""
    early, whole = gate_start(data[:cut], size), judged(data)
    if early is None:
        return ""
    return "" if whole is not None and replace(early, data=data) == whole else f"{early} but {whole}"


@settings(max_examples=150, deadline=2000)
@given(damaged(), st.floats(0, 1))
def test_the_start_of_a_file_says_what_the_whole_says_or_nothing(data: bytes, share: float) -> None:
    assert contradiction(data, round(share * len(data)), len(data)) == ""


def test_the_start_of_a_good_plain_file_settles_it_from_its_pixels_on() -> None:
    assert len(PLAIN) >= 4
    for data in PLAIN:
        pixels = gate(data).pixel_offset  # type: ignore[union-attr]  # a seed is good, or the line above fails
        assert pixels is not None
        settled = [gate_start(data[:cut], len(data)) is not None for cut in range(132, len(data) + 1)]
        assert settled == [cut >= pixels for cut in range(132, len(data) + 1)]


def test_the_law_fails_where_the_size_is_not_that_of_the_file() -> None:
    cut_short = PLAIN[0][:-10]
    assert contradiction(cut_short, len(cut_short), len(PLAIN[0])) != ""
    assert contradiction(cut_short, len(cut_short), len(cut_short)) == ""


@pytest.mark.parametrize("syntax", [make.RLE, make.JPEG_2000])
def test_compressed_pixels_need_the_whole_file(syntax: str) -> None:
    data = make.compressed([make.rle([bytes(24), bytes(24)])], syntax)
    assert gate(data) is not None
    assert gate_start(data, len(data)) is None


def test_only_the_start_is_read_and_the_size_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(PLAIN[0] + bytes(1 << 20))
    start, size = load_start(file)
    assert size == file.stat().st_size
    assert len(PLAIN[0]) < len(start) < size
    assert file.read_bytes().startswith(start)


def test_the_start_of_what_is_too_large_or_no_file_is_not_read(tmp_path: Path) -> None:
    file, pipe = tmp_path / "f", tmp_path / "pipe"
    file.write_bytes(bytes(2000))
    with pytest.raises(DicomError) as refused:
        load_start(file, Limits(file_bytes=1000))
    assert refused.value.code == "DCM-LIMIT"
    os.mkfifo(pipe)
    with pytest.raises(InputError) as no_file:
        load_start(pipe)
    assert no_file.value.code == "INP-KIND"
