"""ZIP archives: read like the folder they hold, and nothing inside can leave the temporary folder or fill the machine."""

from __future__ import annotations

import gc
import stat
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import medrecon as mr
from medrecon.core.errors import InputError
from medrecon.core.scans import SliceScan
from medrecon.core.volume import Volume
from medrecon.readers import _archive
from medrecon.safety.limits import Limits
from tests.makers_volumes import DIRECTIONS, gap_mm, marked, seen_by_us, true_places, write_nibabel


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, to look into."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def member(tmp_path: Path) -> bytes:
    """A good volume file."""
    write_nibabel(marked(), tmp_path / "member.nii")
    block = (tmp_path / "member.nii").read_bytes()
    (tmp_path / "member.nii").unlink()
    return block


def packed(path: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, block in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, block)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        mr.read(path)
    return raised.value.code


def test_a_zip_is_read_like_its_folder(tmp_path: Path, member: bytes) -> None:
    write_nibabel(marked(DIRECTIONS[20]), tmp_path / "other.nii.gz")
    members = {"study/a.nii": member, "study/deeper/b.nii.gz": (tmp_path / "other.nii.gz").read_bytes(), "study/readme": b"text"}
    (tmp_path / "folder" / "study" / "deeper").mkdir(parents=True)
    for name, block in members.items():
        (tmp_path / "folder" / name).write_bytes(block)
    zipped, folder = mr.find(packed(tmp_path / "a.zip", members)), mr.find(tmp_path / "folder")
    assert {info.id for info in zipped} == {info.id for info in folder}
    assert [(one.what, one.code) for one in zipped.skipped] == [("text", "INP-OTHER")]
    for info in zipped:
        volume = mr.read(tmp_path / "a.zip", info)
        assert isinstance(volume, Volume)
        directions = DIRECTIONS[20] if not volume.grid.same_place(marked().grid) else None
        assert gap_mm(seen_by_us(volume), true_places(directions)) < 1e-4


def test_the_unpacked_files_live_as_long_as_a_series_that_needs_them(tmp_path: Path, temporary: Path, member: bytes) -> None:
    listing = mr.find(packed(tmp_path / "a.zip", {"a.nii": member}))
    info = listing[0]
    del listing
    gc.collect()
    assert len(list(temporary.iterdir())) == 1
    assert isinstance(mr.read(tmp_path / "a.zip", info), Volume)
    del info
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_behind_by_reading_or_by_failing(tmp_path: Path, temporary: Path, member: bytes) -> None:
    assert isinstance(mr.read(packed(tmp_path / "a.zip", {"a.nii": member})), Volume)
    assert refusal(packed(tmp_path / "b.zip", {"a.nii": member[:-10]})) == "VOL-CUT"
    assert refusal(packed(tmp_path / "c.zip", {"a.txt": b"text"})) == "INP-NONE"
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "../evil.nii",
        "/etc/evil.nii",
        "C:\\evil.nii",
        "a/../../evil.nii",
        "..\\evil.nii",
        "CON",
        "x" * 300,
        "a\nb $(id).nii",
        "é/ü.nii",
    ],
)
def test_names_of_members_steer_no_path(name: str, tmp_path: Path, temporary: Path, member: bytes) -> None:
    before = {path for path in tmp_path.rglob("*") if temporary not in path.parents}
    listing = mr.find(packed(tmp_path / "a.zip", {name: member}))
    assert len(listing) == 1
    folder = next(temporary.iterdir())
    assert [path.name for path in folder.iterdir()] in (["000001.nii"], ["000001"])
    assert {path for path in tmp_path.rglob("*") if temporary not in path.parents} == before | {tmp_path / "a.zip"}


def test_a_link_inside_is_not_made(tmp_path: Path, temporary: Path, member: bytes) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        if info.filename == "link.nii":
            info.external_attr = (stat.S_IFLNK | 0o777) << 16

    path = packed(tmp_path / "a.zip", {"a.nii": member, "link.nii": b"/etc/passwd"}, link)
    listing = mr.find(path)
    assert len(listing) == 1
    assert [(one.number, one.code) for one in listing.skipped] == [(2, "INP-LINK")]
    assert not any(found.is_symlink() for found in temporary.rglob("*"))


def test_an_encrypted_archive_is_refused(tmp_path: Path, member: bytes) -> None:
    path = packed(tmp_path / "a.zip", {"a.nii": member})
    block = bytearray(path.read_bytes())
    good = bytes(block)
    block[6] |= 1  # the flag in front of the member
    block[block.rindex(b"PK\x01\x02") + 8] |= 1  # and in the directory
    path.write_bytes(block)
    assert refusal(path) == "ZIP-ENCRYPTED"
    path.write_bytes(good)
    assert isinstance(mr.read(path), Volume)


def test_an_archive_packed_in_an_unknown_way_is_refused(tmp_path: Path, member: bytes) -> None:
    path = packed(tmp_path / "a.zip", {"a.nii": member})
    block = bytearray(path.read_bytes())
    at = block.rindex(b"PK\x01\x02") + 10
    block[at : at + 2] = struct.pack("<H", 9)
    path.write_bytes(block)
    assert refusal(path) == "ZIP-DAMAGED"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, temporary: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.nii": bytes(100 << 20)})
    started = time.monotonic()
    assert refusal(path) == "ZIP-LIMIT"
    assert time.monotonic() - started < 1
    assert list(temporary.iterdir()) == []


def test_a_dense_but_small_archive_is_read(tmp_path: Path) -> None:
    write_nibabel(Volume(np.zeros((64, 64, 64), np.float32), marked().grid.crop((0, 0, 0), (64, 64, 64))), tmp_path / "a.nii")
    path = packed(tmp_path / "a.zip", {"a.nii": (tmp_path / "a.nii").read_bytes()})
    assert path.stat().st_size < 10_000
    assert isinstance(mr.read(path), Volume)


def test_a_member_that_is_longer_than_announced_is_left_out(tmp_path: Path, member: bytes) -> None:
    path = packed(tmp_path / "a.zip", {"a.nii": member, "b.nii": member})
    block = bytearray(path.read_bytes())
    at = block.rindex(b"PK\x01\x02") + 24
    block[at : at + 4] = struct.pack("<I", 100)
    path.write_bytes(block)
    listing = mr.find(path)
    assert len(listing) == 1
    assert [(one.number, one.code) for one in listing.skipped] == [(2, "ZIP-MEMBER")]


def test_a_damaged_member_is_left_out_and_the_others_are_used(tmp_path: Path, member: bytes) -> None:
    path = packed(tmp_path / "a.zip", {"a.nii": member, "b.nii": member + b"tail"})
    block = bytearray(path.read_bytes())
    block[60] ^= 0xFF  # inside the first member's deflated bytes
    path.write_bytes(block)
    listing = mr.find(path)
    assert len(listing) == 1
    assert [(one.number, one.code) for one in listing.skipped] == [(1, "ZIP-MEMBER")]


def test_archives_inside_are_not_opened(tmp_path: Path, member: bytes) -> None:
    inner = packed(tmp_path / "inner.zip", {"a.nii": member}).read_bytes()
    listing = mr.find(packed(tmp_path / "a.zip", {"inner.zip": inner}))
    assert list(listing) == []
    assert [one.what for one in listing.skipped] == ["ZIP archive"]


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
def test_a_cut_archive_is_refused(kept: float, tmp_path: Path, member: bytes) -> None:
    path = packed(tmp_path / "a.zip", {"a.nii": member})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert refusal(path) == "ZIP-DAMAGED"
    path.write_bytes(whole)
    assert isinstance(mr.read(path), Volume)


def test_too_many_members_or_too_large_a_directory_are_refused(tmp_path: Path, temporary: Path, member: bytes) -> None:
    path = packed(tmp_path / "a.zip", {f"{number}.nii": member for number in range(5)})
    for limits in (Limits(folder_files=4), Limits(header_bytes=100), Limits(file_bytes=100)):
        with pytest.raises(InputError, match="ZIP-LIMIT"):
            _archive.unpack(path, limits)
    assert list(temporary.iterdir()) == []
    unpacked, files, skipped = _archive.unpack(path, Limits(folder_files=5))
    assert (len(files), skipped) == (5, [])
    unpacked.close()
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_said_before_unpacking(tmp_path: Path, member: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {"a.nii": member})
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=len(member)))
        assert refusal(path) == "ZIP-SPACE"
    assert isinstance(mr.read(path), Volume)


def test_any_changed_byte_of_a_zip_ends_in_a_listing_or_a_code(tmp_path: Path, temporary: Path, member: bytes) -> None:
    path = packed(tmp_path / "a.zip", {"a.nii": member, "b.txt": b"text"})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        block = bytearray(whole)
        for at in rng.integers(0, len(block), size=3):
            block[at] = rng.integers(256)
        path.write_bytes(block)
        try:
            outcomes.add(f"{len(mr.find(path))} found")
        except InputError as error:
            outcomes.add(error.code)
    assert {"0 found", "1 found", "ZIP-DAMAGED"} <= outcomes
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_zipped_dicom_folder_is_found_and_read(shared_data: Path, temporary: Path) -> None:
    path = shared_data / "dicom" / "mr_t1_0667mm.zip"
    info = mr.find(path)[0]
    assert info.shape == (384, 384, 274)
    scan = mr.read(path, info)
    assert isinstance(scan, SliceScan)
    assert scan.pixels.shape == (384, 384, 274)
    del info, scan
    gc.collect()
    assert list(temporary.iterdir()) == []
