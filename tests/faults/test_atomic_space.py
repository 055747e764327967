"""A write that the system refuses is one coded error, and what was there before is still there."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from medrecon.core.errors import OutputError
from medrecon.safety.atomic import replacing, replacing_folder

# A writer that may write one megabyte a file and tries two; without the handler the system would kill it.
CHILD = """
import pathlib, resource, signal, sys
from medrecon.core.errors import OutputError
from medrecon.safety.atomic import replacing, replacing_folder

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
target = pathlib.Path(sys.argv[1])
try:
    if sys.argv[2] == "file":
        with replacing(target) as scratch:
            scratch.write_bytes(bytes(int(sys.argv[3])))
    else:
        with replacing_folder(target) as scratch:
            (scratch / "a").write_bytes(bytes(10))
            (scratch / "b").write_bytes(bytes(int(sys.argv[3])))
except OutputError as error:
    print(error.code)
else:
    print("written")
"""


def write(target: Path, kind: str, size: int) -> str:
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(target), kind, str(size)], capture_output=True, text=True, check=True, timeout=60
    )
    return run.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the file size")
def test_a_file_over_the_quota_leaves_the_older_one(tmp_path: Path) -> None:
    target = tmp_path / "result.nii.gz"
    target.write_bytes(b"old")
    assert write(target, "file", 2 << 20) == "OUT-SPACE"
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    assert write(target, "file", 1 << 20) == "written"
    assert target.stat().st_size == 1 << 20


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the file size")
def test_a_folder_over_the_quota_leaves_the_older_one(tmp_path: Path) -> None:
    target = tmp_path / "dicom"
    target.mkdir()
    (target / "old").write_bytes(b"old")
    assert write(target, "folder", 2 << 20) == "OUT-SPACE"
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]
    assert write(target, "folder", 1 << 20) == "written"
    assert sorted(path.name for path in target.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "OUT-SPACE"),
        (errno.EDQUOT, "OUT-SPACE"),
        (errno.EIO, "OUT-WRITE"),
        (errno.EACCES, "OUT-WRITE"),
        (None, "OUT-WRITE"),
    ],
)
def test_every_refusal_of_the_system_is_one_code(tmp_path: Path, number: int | None, code: str) -> None:
    refusal = OSError() if number is None else OSError(number, "no", "DOE^JOHN.nii")
    for writing in (replacing, replacing_folder):
        target = tmp_path / "target"
        with pytest.raises(OutputError) as caught, writing(target):
            raise refusal
        assert caught.value.code == code
        assert "DOE" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="OUT-SPACE"), replacing(tmp_path / "target"):
        (tmp_path / "full").write_bytes(b"x")
    (tmp_path / "full").unlink()
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_caller_passes_unchanged_and_leaves_nothing(tmp_path: Path) -> None:
    for writing in (replacing, replacing_folder):
        with pytest.raises(KeyError), writing(tmp_path / "target"):
            raise KeyError("mine")
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="OUT-WRITE"), replacing(tmp_path / "target"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_output_folder_is_an_error_with_the_name_of_the_error_only(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="ENOENT") as caught, replacing(tmp_path / "DOE" / "target") as scratch:
        scratch.write_bytes(b"x")
    assert "DOE" not in str(caught.value)


def test_the_scratch_file_keeps_its_extension_and_stands_beside_the_target(tmp_path: Path) -> None:
    with replacing(tmp_path / "volume.nii.gz") as scratch:
        assert scratch.name.endswith(".nii.gz")
        assert scratch.parent == tmp_path
        scratch.write_bytes(b"whole")
    assert (tmp_path / "volume.nii.gz").read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1
