"""Run a plan on a Dask cluster and keep the ledger.

One task is one study. Tasks may run twice and may be killed: results appear whole or not at all, and a study counts
as finished only when its row is committed after its files were read back and hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from medrecon.batch.ledger import LEDGER_NAME, Ledger, Row
from medrecon.batch.plan import Plan, Study, is_finished
from medrecon.batch.work import Job, Outcome, work
from medrecon.core.errors import ExitCode, OutputError, UsageError
from medrecon.core.findings import Verdict, judge
from medrecon.result import RECORD_NAME
from medrecon.safety.atomic import replacing, sweep

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

SUMMARY_NAME = "summary.json"
_LOCK_NAME = ".lock"
_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Summary:
    """How every study of a batch ended, and how many were finished before."""

    rows: tuple[Row, ...]
    skipped: int

    @property
    def finished(self) -> int:
        """Number of studies that this batch finished."""
        return sum(row.state == "finished" for row in self.rows)

    @property
    def failed(self) -> int:
        """Number of series without a result: failed or refused."""
        return len(self.rows) - self.finished

    def as_json(self) -> dict[str, object]:
        """Return the summary as plain data: the content of ``summary.json``."""
        counts = {"finished": self.finished, "finished_before": self.skipped, "failed": self.failed}
        return {**counts, "studies": [asdict(row) for row in self.rows]}


def run_batch(plan: Plan, scheduler: str = "local", workers: int = 1) -> Summary:
    """Run every study that the plan says to run, and write ``summary.json``.

    Raises
    ------
    UsageError
        ``BATCH-LOCKED`` where another batch works on the same output, ``BATCH-SCHEDULER`` where it cannot be reached.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    with _locked(plan):
        _sweep(plan)
        ledger, rows = Ledger(plan.out / LEDGER_NAME), list[Row]()
        for row in itertools.chain(_refused(plan), _run(plan, scheduler, workers)):
            ledger.put(row)
            rows.append(row)
            log.info("%d of %d: %s %s %s", len(rows), len(plan.studies), row.series_id, row.state, row.code)
        summary = Summary(tuple(sorted(rows, key=lambda row: row.series_id)), plan.count("done"))
        with replacing(plan.out / SUMMARY_NAME) as scratch:
            scratch.write_text(json.dumps(summary.as_json(), indent=1), encoding="utf-8")
    return summary


def _refused(plan: Plan) -> Iterator[Row]:
    """Rows of what is not even tried: refused series, and entries that could not be read at all."""
    for study in plan.studies:
        if study.action == "refused":
            grave = next(f for f in study.series.findings if judge([f], plan.options.allow) is Verdict.REFUSED)
            yield Row(study.series.id, plan.job_hash, "refused", grave.code, grave.fact, str(Verdict.REFUSED), ended_utc=_now())
    for entry in plan.unreadable:
        yield Row(f"entry-{entry.number}", plan.job_hash, "failed", entry.code, entry.fact, ended_utc=_now())


def _run(plan: Plan, scheduler: str, workers: int) -> Iterator[Row]:
    """Run what is to be run on the cluster; yield a row as soon as a study has ended."""
    from distributed import as_completed

    studies = [study for study in plan.studies if study.action == "run"]
    if not studies:
        return
    with _client(scheduler, min(workers, len(studies))) as client:
        threads = max(1, (os.cpu_count() or 1) // workers)
        futures = {
            client.submit(work, _job(s, plan, threads), key=f"study-{s.series.id}", pure=False, retries=0): s for s in studies
        }
        for future in as_completed(futures):
            yield _row(_outcome(future, futures[future]), plan)


def _outcome(future: Future, study: Study) -> Outcome:
    """Return the task's answer; a worker that died under it is a failure of this study only."""
    if future.status == "finished":
        outcome: Outcome = future.result()
        return outcome
    return Outcome(study.series.id, int(ExitCode.UNEXPECTED), "RUN-KILLED", "the worker died under this study", 0.0)


def _row(outcome: Outcome, plan: Plan) -> Row:
    """Turn an outcome into a row; what claims to be finished is read back and hashed first."""
    if outcome.exit_code != ExitCode.OK:
        return Row(
            outcome.series_id, plan.job_hash, "failed", outcome.code, outcome.fact, seconds=outcome.seconds, ended_utc=_now()
        )
    record = (plan.out / outcome.series_id / RECORD_NAME).read_bytes()
    record_hash = hashlib.sha256(record).hexdigest()
    if not is_finished(plan.out, outcome.series_id, record_hash):
        fact = "the files on disk do not have the hashes that the run wrote down"
        return Row(outcome.series_id, plan.job_hash, "failed", "OUT-HASH", fact, seconds=outcome.seconds, ended_utc=_now())
    verdict = str(json.loads(record)["verdict"])
    return Row(outcome.series_id, plan.job_hash, "finished", "", "", verdict, record_hash, outcome.seconds, _now())


def _job(study: Study, plan: Plan, threads: int) -> Job:
    return Job(
        path=str(study.unit.resolve()),
        series_id=study.series.id,
        out=str(plan.out.resolve()),
        config_yaml=plan.config_for(study.series.kind, study.series.reader).to_yaml(),
        allow=plan.options.allow,
        formats=plan.formats,
        threads=threads,
        limit_s=_LIMIT_S,
    )


@contextlib.contextmanager
def _client(scheduler: str, workers: int) -> Iterator[Client]:
    """Connect to a cluster on this machine, reachable from this machine only, or to a scheduler that runs already."""
    from distributed import Client, LocalCluster

    if scheduler != "local":
        try:
            with Client(scheduler, timeout=10) as client:
                yield client
        except OSError as error:
            hint = "Check the address, or use --scheduler local."
            raise UsageError("BATCH-SCHEDULER", f"no Dask scheduler answers at {scheduler}", hint) from error
        return
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextlib.contextmanager
def _locked(plan: Plan) -> Iterator[None]:
    """Hold the output folder; the kernel frees the lock when we are killed."""
    lock = FileLock(plan.out / _LOCK_NAME, timeout=0)
    try:
        with lock:
            yield
    except Timeout as error:
        raise UsageError(
            "BATCH-LOCKED", "another batch works on this output folder", "Wait for it, or choose another folder."
        ) from error


def _sweep(plan: Plan) -> None:
    """Remove what killed runs left half-written."""
    try:
        for folder in [plan.out, *(path for path in plan.out.iterdir() if path.is_dir() and path.name.startswith("series-"))]:
            sweep(folder)
    except OSError as error:
        raise OutputError(
            "OUT-WRITE", f"the output folder cannot be tidied ({type(error).__name__})", "Check its permissions."
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
