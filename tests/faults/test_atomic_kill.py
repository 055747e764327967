"""A final name holds a whole old file or a whole new one, wherever the writing process is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medrecon.safety.atomic import OLDER_PREFIX, SCRATCH_PREFIX, sweep

# A writer that kills itself, with no chance to clean up, just before its nth call into the system.
CHILD = """
import os, pathlib, signal, sys
from medrecon.safety.atomic import replacing, replacing_folder

target, kind, deadly = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
calls = 0

def watched(function):
    def call(*args, **named):
        global calls
        calls += 1
        if calls == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **named)
    return call

for name in ("fsync", "rename", "replace", "mkdir", "open", "write", "rmdir", "unlink"):
    setattr(os, name, watched(getattr(os, name)))

def put(path):
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    for _ in range(4):
        os.write(file, b"new!" * 1000)
    os.close(file)

if kind == "file":
    with replacing(target) as scratch:
        put(scratch)
elif kind == "folder":
    with replacing_folder(target) as scratch:
        put(scratch / "a")
        (scratch / "sub").mkdir()
        put(scratch / "sub" / "b")
else:
    put(target)
"""
OLD, NEW = b"old", b"new!" * 4000
MOST_CALLS = 60


def write(target: Path, kind: str, deadly: int) -> bool:
    """Run the writer; return whether it was killed."""
    run = subprocess.run([sys.executable, "-c", CHILD, str(target), kind, str(deadly)], timeout=60, check=False)
    assert run.returncode in (0, -signal.SIGKILL)
    return run.returncode != 0


def content(target: Path) -> dict[str, bytes]:
    """Every file under a final name, by its path."""
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


WHOLE = {"file": ({".": OLD}, {".": NEW}), "folder": ({"a": OLD, "sub/b": OLD}, {"a": NEW, "sub/b": NEW})}
WHOLE["naive"] = WHOLE["file"]


def make_old(target: Path, kind: str) -> None:
    if kind == "folder":
        (target / "sub").mkdir(parents=True)
        (target / "a").write_bytes(OLD)
        (target / "sub" / "b").write_bytes(OLD)
    else:
        target.write_bytes(OLD)


def mixtures(folder: Path, kind: str, older: bool) -> list[dict[str, bytes]]:
    """Kill the writer before each of its calls in turn; return what stood under the name that was neither old nor new."""
    allowed = [WHOLE[kind][1], WHOLE[kind][0] if older else {}]
    wrong = []
    for deadly in range(1, MOST_CALLS):
        target = folder / str(deadly) / "result.nii.gz"
        target.parent.mkdir()
        if older:
            make_old(target, kind)
        killed = write(target, kind, deadly)
        sweep(target.parent)
        if content(target) not in allowed or len(list(target.parent.iterdir())) > 1:
            wrong.append(content(target))
        if not killed:
            return wrong
    pytest.fail(f"the writer needs more than {MOST_CALLS} calls")


@pytest.mark.parametrize("older", [True, False], ids=["replacing an older one", "new"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_the_old_or_the_new_and_after_a_sweep_nothing_else(tmp_path: Path, kind: str, older: bool) -> None:
    assert mixtures(tmp_path, kind, older) == []


def test_the_check_finds_a_writer_that_writes_onto_the_final_name(tmp_path: Path) -> None:
    assert mixtures(tmp_path, "naive", older=True) != []


def test_a_sweep_clears_leftovers_and_touches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "result.nii.gz").write_bytes(NEW)
    (tmp_path / "part-of-a-study").mkdir()
    (tmp_path / f"{SCRATCH_PREFIX}01234567-result.nii.gz").write_bytes(b"half")
    (tmp_path / f"{SCRATCH_PREFIX}01234567-dicom").mkdir()
    (tmp_path / f"{SCRATCH_PREFIX}01234567-dicom" / "half").write_bytes(b"half")
    (tmp_path / f"{OLDER_PREFIX}01234567-result.nii.gz").write_bytes(OLD)
    assert sweep(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-of-a-study", "result.nii.gz"]
    assert (tmp_path / "result.nii.gz").read_bytes() == NEW
    assert sweep(tmp_path) == 0
    assert sweep(tmp_path / "not there") == 0


def test_a_sweep_does_not_follow_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(OLD)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{SCRATCH_PREFIX}01234567-x").symlink_to(precious, target_is_directory=True)
    assert sweep(tmp_path / "out") == 1
    assert (precious / "file").read_bytes() == OLD
