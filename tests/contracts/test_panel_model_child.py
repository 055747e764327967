"""Child processes end when they are told to, when their parent ends, and with words when they end by themselves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from medrecon_napari.model.background import AtOnce
from medrecon_napari.model.child import Child
from medrecon_napari.model.jobs import Job, Jobs
from medrecon_napari.model.runs import RunState
from medrecon_napari.model.session import PREFIX, Session, sweep
from medrecon_napari.model.words import trouble_of

POLITE = 'import time; print(\'{"event": "ready"}\', flush=True); time.sleep(600)'
#: A child left alone would last ten minutes; how long a stop really takes is in benchmarks/panel.py.
FREEZE_S = 30.0
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {POLITE}"


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def drained(child: Child) -> tuple[list[dict[str, Any]], Any]:
    lines, events = child.follow(), []
    while True:
        try:
            events.append(next(lines))
        except StopIteration as end:
            return events, end.value


@pytest.mark.parametrize("code", [POLITE, STUBBORN], ids=["one that listens", "one that does not"])
def test_a_child_is_gone_soon_after_it_was_stopped(code: str) -> None:
    child = Child(python(code))
    lines = child.follow()
    next(lines)
    started = time.monotonic()
    child.stop()
    with pytest.raises(StopIteration):
        next(lines)
    assert time.monotonic() - started < FREEZE_S
    assert not psutil.pid_exists(child.pid) or psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_that_is_not_stopped_lives_on() -> None:
    child = Child(python(POLITE))
    next(child.follow())
    assert child.is_alive
    child.wait_stopped()
    assert not child.is_alive


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        python(
            "import sys, time\n"
            "from medrecon_napari.model.child import Child\n"
            "child = Child((sys.executable, '-c', "
            "'from medrecon.console import leash; import time; leash.hold(); time.sleep(600)'))\n"
            "print(child.pid, flush=True); time.sleep(600)"
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        if parent.stdout is None:
            raise AssertionError
        pid = int(parent.stdout.readline())
        time.sleep(1.0)  # the leash is held
        parent.kill()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_progress_comes_line_by_line_and_other_output_goes_to_the_log() -> None:
    code = "import sys; print('noise'); print('{\"event\": \"progress\", \"fraction\": 0.5}'); print('why', file=sys.stderr)"
    child = Child(python(code))
    events, ended = drained(child)
    assert events == [{"event": "progress", "fraction": 0.5}]
    assert ended.is_done
    assert {"noise", "why"} <= set(child.log)


def test_the_coded_message_of_a_child_becomes_the_trouble() -> None:
    said = "medrecon: DCM-GAP: slices 5 and 6 are 6 mm apart. Export the series again."
    trouble = trouble_of(4, ["some warning", said])
    assert trouble.code == "DCM-GAP"
    assert str(trouble) == "Slices 5 and 6 are 6 mm apart. Export the series again."


@pytest.mark.parametrize(
    ("code", "log", "wanted"), [(-9, [], "RUN-KILLED"), (1, ["Traceback"], "RUN-FAILED"), (1, [], "RUN-FAILED")]
)
def test_a_child_that_left_no_coded_message_still_becomes_one(code: int, log: list[str], wanted: str) -> None:
    assert trouble_of(code, log).code == wanted


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


def added(session: Session, code: str, background: Any = None) -> tuple[Jobs, Job]:
    jobs = Jobs(session, background or AtOnce())
    job = jobs.add("reconstruct", "a run", lambda folder: (*python(code), str(folder)))
    return jobs, jobs.get(job.number)


def test_a_finished_job_keeps_its_folder_and_its_answer(session: Session) -> None:
    said = "print(json.dumps({'event': 'done', 'outputs': {'x': 'y'}}))"
    code = f"import json, pathlib, sys; pathlib.Path(sys.argv[1], 'x').touch(); {said}"
    _, job = added(session, code)
    assert job.state is RunState.FINISHED
    assert (job.folder / "x").exists()
    assert job.outputs == {"x": Path("y")}


def test_a_failed_job_leaves_no_half_written_file(session: Session) -> None:
    _, job = added(session, "import pathlib, sys; pathlib.Path(sys.argv[1], '.part-1234-x').touch(); sys.exit(3)")
    assert job.state is RunState.FAILED
    assert not job.folder.exists()
    assert job.trouble is not None


def test_a_job_whose_child_is_killed_at_any_moment_fails_in_words(session: Session) -> None:
    for moment in ("0", "0.05", "0.2"):
        code = f"import os, signal, time; time.sleep({moment}); os.kill(os.getpid(), signal.{signal.SIGKILL.name})"
        _, job = added(session, code)
        assert job.state is RunState.FAILED
        assert job.trouble is not None
        assert job.trouble.code == "RUN-KILLED"


def test_a_command_that_cannot_be_started_fails_in_words(session: Session) -> None:
    jobs = Jobs(session, AtOnce())
    job = jobs.get(jobs.add("reconstruct", "a run", lambda _: ("/no/such/program",)).number)
    assert job.state is RunState.FAILED
    assert job.trouble is not None
    assert job.trouble.code == "RUN-FAILED"


def test_progress_is_thinned_to_what_a_window_can_show(session: Session) -> None:
    jobs = Jobs(session, AtOnce())
    told: list[float] = []
    jobs.changed.connect(lambda number: told.append(jobs.get(number).fraction))
    line = {"event": "progress", "stage": "read", "remaining_s": 1, "elapsed_s": 1}
    code = f"import json\nfor k in range(3000): print(json.dumps({line!r} | {{'fraction': k / 3000}}))"
    jobs.add("reconstruct", "a run", lambda _: python(code))
    assert 2 < len(told) < 100
    assert told == sorted(told)


def test_a_session_is_private_and_is_gone_when_it_is_closed(session: Session) -> None:
    assert session.folder.stat().st_mode & 0o077 == 0
    session.new_job("reconstruct")
    session.close()
    assert not session.folder.exists()


def test_what_a_killed_window_left_is_swept_and_a_living_one_is_left_alone(tmp_path: Path, session: Session) -> None:
    gone = subprocess.Popen(python("pass"))
    gone.wait()
    orphan, stranger = tmp_path / f"{PREFIX}orphan", tmp_path / f"{PREFIX}stranger"
    for folder in (orphan, stranger):
        folder.mkdir()
    (orphan / "owner.pid").write_text(str(gone.pid))
    assert sweep(tmp_path) == 1
    assert not orphan.exists()
    assert stranger.exists()
    assert session.folder.exists()


def test_clearing_never_leaves_the_session(session: Session, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    session.clear(tmp_path / "mine")
    assert (tmp_path / "mine").exists()
