"""What a Dask worker does: one study, in a child process that is the command line itself.

A crash, a hang or a lack of memory ends the child and not the worker. Only paths and plain data travel; the answer
is plain data too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from medrecon.console import leash
from medrecon.core.errors import ExitCode

_CODED = re.compile(r"^medrecon: ([A-Z0-9]+-[A-Z0-9-]+): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Job:
    """One study as plain data: the arguments of ``medrecon run``."""

    path: str
    series_id: str
    out: str
    config_yaml: str
    allow: tuple[str, ...]
    formats: tuple[str, ...]
    threads: int
    limit_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: exit code, error code and fact, seconds."""

    series_id: str
    exit_code: int
    code: str
    fact: str
    seconds: float


def work(job: Job) -> Outcome:
    """Run one study in a child and say how it ended; never raises for what happens in the child."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="medrecon-") as folder:
        config, messages = Path(folder) / "config.yaml", Path(folder) / "messages.txt"
        config.write_text(job.config_yaml, encoding="utf-8")
        exit_code = _run(_command(job, config), job, messages)
        code, fact = _reason(exit_code, messages.read_text(encoding="utf-8", errors="replace"), job)
    return Outcome(job.series_id, exit_code, code, fact, time.perf_counter() - started)


def _command(job: Job, config: Path) -> list[str]:
    command = [sys.executable, "-m", "medrecon", "run", job.path, "--out", job.out, "--series", job.series_id, "--overwrite"]
    command += ["--config", str(config), "--formats", ",".join(job.formats), "--progress", "none"]
    for name in job.allow:
        command += ["--allow", name]
    return command


def _run(command: list[str], job: Job, messages: Path) -> int:
    """Run the child on a leash: it ends with us, also when we are killed. Its messages go to a file, which cannot block it."""
    environment = os.environ | {leash.VARIABLE: "1", "OMP_NUM_THREADS": str(job.threads)}
    with (
        messages.open("wb") as stderr,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr, env=environment) as child,
    ):
        try:
            return child.wait(timeout=job.limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


def _reason(exit_code: int, messages: str, job: Job) -> tuple[str, str]:
    """Find the coded error of the child, or name what ended it."""
    if exit_code == ExitCode.OK:
        return "", ""
    coded = _CODED.search(messages)
    if coded:
        return coded.group(1), coded.group(2)
    if exit_code < 0:
        return "RUN-KILLED", f"the run was ended by signal {-exit_code} (out of memory, or over {job.limit_s:.0f} s)"
    return "RUN-FAILED", f"the run ended with exit code {exit_code}"
