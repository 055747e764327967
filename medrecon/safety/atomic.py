"""Writes that cannot be half done.

A final name always holds a whole file. A file is written under a scratch name beside its target, flushed to the disk
and renamed; a result of several files is a folder, renamed once. Scratch names begin with ``.part-``, and an older folder
that is just being replaced with ``.old-``, so that a sweep can find what a killed process left, and bring the older
folder back where the new one had not yet its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from medrecon.core.errors import OutputError

SCRATCH_PREFIX, OLDER_PREFIX = ".part-", ".old-"
_TOKEN_DIGITS = 8
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a scratch path beside `target`; it takes the target's name only if the block succeeds.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` where the disk is full or a quota is reached, ``OUT-WRITE`` for any other failure of the system.
        The older target, if there was one, is untouched.
    """
    scratch = _beside(target, SCRATCH_PREFIX)
    try:
        with _as_output_error():
            yield scratch
            _flush(scratch, os.O_RDWR)
            scratch.replace(target)
            _flush_folder(target.parent)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield a new scratch folder beside `target`; it takes the target's name, whole, only if the block succeeds.

    An older target is moved aside first and removed last, so that at no moment a mixture of both stands there.
    """
    scratch, old = _beside(target, SCRATCH_PREFIX), _beside(target, OLDER_PREFIX)
    try:
        with _as_output_error():
            scratch.mkdir()
            yield scratch
            _flush_tree(scratch)
            if target.exists():
                target.rename(old)
            scratch.rename(target)
            _flush_folder(target.parent)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for leftover in (scratch, old):
            shutil.rmtree(leftover, ignore_errors=True)


def sweep(folder: Path) -> int:
    """Clear what killed processes left in `folder` (not below it); return how many things were cleared.

    Call it only where no other process is writing: a scratch file in use looks like one that was left. An older folder
    whose successor never got its name is put back.
    """
    left = [path for path in folder.iterdir() if path.name.startswith((SCRATCH_PREFIX, OLDER_PREFIX))] if folder.is_dir() else []
    for path in left:
        target = folder / path.name[len(OLDER_PREFIX) + _TOKEN_DIGITS + 1 :]
        if path.name.startswith(OLDER_PREFIX) and not target.exists():
            path.rename(target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return len(left)


@contextlib.contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = "Free some space or choose another output folder; nothing that was there before is lost."
            raise OutputError("OUT-SPACE", "the disk is full or a quota is reached", hint) from error
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise OutputError(
            "OUT-WRITE", f"the result could not be written ({name})", "Check the output folder's permissions."
        ) from error


def _beside(target: Path, prefix: str) -> Path:
    return target.with_name(f"{prefix}{secrets.token_hex(_TOKEN_DIGITS // 2)}-{target.name}")  # keeps .nii.gz at the end


def _flush_tree(folder: Path) -> None:
    """Make the files in a folder durable, and the names of the files in it and in its subfolders."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _flush(path, os.O_RDWR)
        elif path.is_dir():
            _flush_folder(path)
    _flush_folder(folder)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make a new name itself durable; Windows has no such call."""
    if os.name == "posix":
        _flush(folder, os.O_RDONLY)
