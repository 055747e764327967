"""The folder that holds results until they are exported: private, one subfolder per job, gone when the window closes.

Results are patient data, so none is left behind: what a window that was killed could not clear, the next one does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil

from medrecon.core.errors import OutputError

PREFIX = "medrecon-session-"
_OWNER = "owner.pid"


class Session:
    """A private folder in the system's place for temporary files.

    Parameters
    ----------
    parent : Path, optional
        The folder to make it in, by default the system's.

    Raises
    ------
    OutputError
        ``OUT-WRITE`` where it cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # only its owner may enter
            (self.folder / _OWNER).write_text(str(os.getpid()), encoding="ascii")
        except OSError as error:
            hint = "Free some space for temporary files, or let TMPDIR name another folder."
            raise OutputError("OUT-WRITE", f"no folder for results could be made ({type(error).__name__})", hint) from error
        self._jobs = 0

    def new_job(self, kind: str) -> Path:
        """Make a new folder for a job.

        Raises
        ------
        OutputError
            ``OUT-WRITE`` where it cannot be made: the disk is full, or somebody removed the session's folder.
        """
        self._jobs += 1
        folder = self.folder / f"{self._jobs:03d}-{kind}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            hint = "Free some space for temporary files and try again."
            raise OutputError("OUT-WRITE", f"no folder for the job could be made ({type(error).__name__})", hint) from error
        return folder

    def clear(self, folder: Path) -> None:
        """Remove what a cancelled or failed job left."""
        if self.folder in folder.parents:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep(parent: Path | None = None) -> int:
    """Remove the folders of windows that are gone; return how many."""
    left = 0
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_orphan(folder):
            shutil.rmtree(folder, ignore_errors=True)
            left += 1
    return left


def _is_orphan(folder: Path) -> bool:
    """Whether the process that made a folder is gone; a folder that is not ours, or just being made, is nobody's orphan."""
    try:
        return not psutil.pid_exists(int((folder / _OWNER).read_text(encoding="ascii")))
    except (OSError, ValueError):
        return False
