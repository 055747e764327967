"""The ledger of a batch: which study ended how, in SQLite beside the results.

"Finished" means a committed row whose hash agrees with the files; a file without a row does not count. One process
writes the ledger. It holds series ids, codes, hashes and times, and no text from a header.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medrecon.core.errors import OutputError

LEDGER_NAME = "ledger.sqlite"
_TABLE = """
CREATE TABLE IF NOT EXISTS studies (
    series_id TEXT NOT NULL, job_hash TEXT NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL, fact TEXT NOT NULL,
    verdict TEXT NOT NULL, record_hash TEXT NOT NULL, seconds REAL NOT NULL, ended_utc TEXT NOT NULL,
    PRIMARY KEY (series_id, job_hash)
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Row:
    """How one study ended.

    Parameters
    ----------
    series_id : str
    job_hash : str
        Over configuration, reading options and formats: another job on the same series has its own row.
    state : str
        ``finished``, ``failed`` or ``refused``.
    code, fact : str
        Error code and fact; empty where it finished.
    verdict : str
    record_hash : str
        SHA-256 of the study's ``run.json``, which holds the hashes of all other files.
    seconds : float
    ended_utc : str
    """

    series_id: str
    job_hash: str
    state: str
    code: str = ""
    fact: str = ""
    verdict: str = ""
    record_hash: str = ""
    seconds: float = 0.0
    ended_utc: str = ""


class Ledger:
    """Rows by series and job, each committed and synced before `put` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connection() as connection:
            connection.execute(_TABLE)

    def put(self, row: Row) -> None:
        """Commit a row, replacing the older one of the same series and job."""
        values = tuple(getattr(row, name) for name in Row.__slots__)
        with self._connection() as connection:
            connection.execute(f"INSERT OR REPLACE INTO studies VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608 (only marks)

    def get(self, series_id: str, job_hash: str) -> Row | None:
        """Return the row of a series and job."""
        names = ", ".join(Row.__slots__)
        query = f"SELECT {names} FROM studies WHERE series_id = ? AND job_hash = ?"  # noqa: S608 (our own column names)
        with self._connection() as connection:
            found = connection.execute(query, (series_id, job_hash)).fetchone()
        return None if found is None else Row(*found)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open, work in one transaction, close. The rollback journal is kept: WAL does not work on network file systems."""
        try:
            connection = sqlite3.connect(self._path, timeout=10.0, isolation_level="IMMEDIATE")
            try:
                connection.execute("PRAGMA synchronous = FULL")
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            hint = "Check the permissions of the output folder, and that no other program holds the ledger."
            raise OutputError("LED-LOCKED", "the ledger of this output folder cannot be opened or written", hint) from error
        except sqlite3.DatabaseError as error:
            hint = f"Move {LEDGER_NAME} away; studies are then done again, and nothing finished is lost."
            raise OutputError("LED-DAMAGED", "the ledger of this output folder is damaged", hint) from error
