"""A batch survives bad studies, being killed and being started again; finished work is neither lost nor repeated."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medrecon.batch.ledger import LEDGER_NAME, Ledger, Row
from medrecon.batch.plan import make_plan
from medrecon.config import Choice, load_config
from medrecon.core.errors import OutputError
from medrecon.core.reading import ReadOptions
from medrecon.result import RECORD_NAME
from medrecon.writers import _projections_stack
from tests import makers_projections
from tests.makers_dicom import POISON, make_series

FORMATS = "nifti,dicom,report"
CHANGES_WITH_TIME = re.compile(r'"(started_utc|ended_utc|seconds|stages?)": ?(\{[^}]*\}|"[^"]*"|[\d.]+)')


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three good studies, and one with a slice missing."""
    root = tmp_path / "studies"
    for seed in range(3):
        make_series(root / f"study{seed}", seed=seed, study=seed)
    make_series(root / "study3", seed=3, study=3, drop=(4,))
    return root


def command(root: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "medrecon", "batch", str(root), "--out", str(out), "--formats", FORMATS, *more]


def run(root: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(root, out, *more), capture_output=True, text=True, timeout=240, check=False)


def fingerprint(out: Path) -> dict[str, str]:
    """Hash of every result file; of those that tell the time, only that they are there."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.parent != out]
    timed = {RECORD_NAME, "report.html"}
    return {
        path.relative_to(out).as_posix(): "" if path.name in timed else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.slow
def test_a_killed_batch_started_again_gives_the_same_folder_as_an_undisturbed_one(tree: Path, tmp_path: Path) -> None:
    undisturbed = run(tree, tmp_path / "calm", "--json")
    assert undisturbed.returncode == 7, undisturbed.stderr
    summary = json.loads(undisturbed.stdout)
    assert (summary["finished"], summary["failed"]) == (3, 1)

    killed = tmp_path / "killed"
    with subprocess.Popen(command(tree, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as batch:
        wait_for_one_result(killed)
        os.kill(batch.pid, signal.SIGKILL)
    finished_before = {path.name for path in killed.glob("series-*") if (path / RECORD_NAME).exists()}
    again = run(tree, killed, "--json")
    assert again.returncode == 7, again.stderr
    summary = json.loads(again.stdout)
    assert summary["finished"] + summary["finished_before"] == 3
    assert fingerprint(killed) == fingerprint(tmp_path / "calm")
    assert finished_before
    assert not list(killed.rglob(".part-*"))


def wait_for_one_result(out: Path, limit_s: float = 120.0) -> None:
    """Wait until the first study is in the ledger, so that the kill comes in the middle."""
    deadline = time.monotonic() + limit_s
    while not list(out.glob(f"series-*/{RECORD_NAME}")):
        assert time.monotonic() < deadline, "no study finished in time"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_second_run_repeats_nothing_and_a_changed_file_is_made_again(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(tree, out, "--json").returncode == 7
    before = {path: path.stat().st_mtime_ns for path in out.glob("series-*/volume.nii.gz")}
    victim = sorted(before)[0]
    victim.write_bytes(b"damaged")
    answer = json.loads(run(tree, out, "--json").stdout)
    assert (answer["finished"], answer["finished_before"]) == (1, 2)
    after = {path: path.stat().st_mtime_ns for path in before}
    assert [path for path in before if after[path] != before[path]] == [victim]


def test_the_plan_tells_what_will_be_done_and_writes_nothing(tree: Path, tmp_path: Path) -> None:
    plan = make_plan(tree, tmp_path / "out", load_config("fast"), ReadOptions(), ("nifti",))
    assert (plan.count("run"), plan.count("refused")) == (3, 1)
    assert not (tmp_path / "out").exists()
    allowed = make_plan(tree, tmp_path / "out", load_config("fast"), ReadOptions(allow=("missing-slices",)), ("nifti",))
    assert (allowed.count("run"), allowed.count("refused")) == (4, 0)
    assert POISON.split("^")[0] not in json.dumps(plan.as_json())


def test_a_damaged_ledger_is_refused_and_never_made_anew(tmp_path: Path) -> None:
    path = tmp_path / LEDGER_NAME
    ledger = Ledger(path)
    ledger.put(Row("series-1", "job", "finished", record_hash="abc"))
    found = Ledger(path).get("series-1", "job")
    assert found is not None
    assert found.record_hash == "abc"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(OutputError, match="LED-DAMAGED"):
        Ledger(path).get("series-1", "job")
    assert path.read_bytes().startswith(b"this is not")


def test_two_batches_do_not_work_on_one_output(tree: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"):
        answer = run(tree, out)
    assert answer.returncode == 2
    assert "BATCH-LOCKED" in answer.stderr
    assert POISON.split("^")[0] not in answer.stderr + answer.stdout


def test_slices_and_projections_in_one_tree_each_get_their_own_preset(tmp_path: Path) -> None:
    make_series(tmp_path / "tree" / "slices")
    views = makers_projections.cone_views()
    (tmp_path / "tree" / "scan").mkdir()
    _projections_stack.write(makers_projections.scanned(views), tmp_path / "tree" / "scan" / "cone")
    plan = make_plan(tmp_path / "tree", tmp_path / "out", Choice(), ReadOptions(), ("nifti",))
    methods = {study.series.kind: plan.config_for(study.series.kind).method for study in plan.studies}
    assert methods == {"slices": "consistent_spline", "projections": "fdk"}
    same = make_plan(tmp_path / "tree", tmp_path / "out", Choice("cbct-fast"), ReadOptions(), ("nifti",))
    assert {same.config_for(kind).method for kind in ("slices", "projections")} == {"fdk"}
    assert same.job_hash != plan.job_hash
