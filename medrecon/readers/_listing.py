"""Which files are there, in a stable order, and what the junk among them is.

A folder is walked without following links out of it and without ever waiting: only regular files are opened. What
cannot be opened is listed as skipped, not lost.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from medrecon.core.errors import InputError
from medrecon.core.reading import ListedFile, Skipped
from medrecon.safety.limits import Limits

#: How much of a file `claims` gets to see.
HEAD_BYTES = 512

_NO_FOLDER = "unreadable folder"
_KINDS = (
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip file"),
    (b"7z\xbc\xaf\x27\x1c", "archive"),
    (b"Rar!", "archive"),
    (b"MZ", "executable"),
    (b"\x7fELF", "executable"),
    (b"\xcf\xfa\xed\xfe", "executable"),
    (b"\xca\xfe\xba\xbe", "executable"),
    (b"\x89PNG", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"BM", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"%PDF", "PDF document"),
    (b"SQLite format 3", "database"),
    (b"\x89HDF", "HDF5 file"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed file and its first bytes."""

    file: ListedFile
    head: bytes = field(repr=False)


class NotRegularError(OSError):
    """What stands there is no regular file: a pipe, a socket or a device."""


def list_folder(root: Path, limits: Limits) -> tuple[list[Entry], list[Skipped]]:
    """List the regular files below `root`, sorted, numbered from 1, each real file once.

    Raises
    ------
    InputError
        ``INP-LIMIT`` for more entries than `limits` allows.
    """
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    known: set[Path] = set()
    inside = root.resolve()
    for number, (path, problem) in enumerate(_walk(inside, limits.folder_files), start=1):
        if problem or path in known:
            code = "INP-UNREADABLE" if problem == _NO_FOLDER else "INP-LINK"
            skipped.append(Skipped(number, problem or "second link to one file", code))
            continue
        known.add(path)
        looked = look_at(ListedFile(number, path))
        if isinstance(looked, Skipped):
            skipped.append(looked)
        else:
            entries.append(looked)
    return entries, skipped


def look_at(file: ListedFile) -> Entry | Skipped:
    """Read the first bytes of a file, or say why it is skipped."""
    try:
        with open_regular(file.path) as stream:
            head = stream.read(HEAD_BYTES)
    except NotRegularError:
        return Skipped(file.number, "pipe, socket or device", "INP-KIND")
    except FileNotFoundError:
        return Skipped(file.number, "gone since it was listed", "INP-GONE")
    except OSError:
        return Skipped(file.number, "unreadable file", "INP-UNREADABLE")
    return Entry(file, head) if head else Skipped(file.number, "empty file", "INP-EMPTY")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device raises `NotRegularError` and is never waited for."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise NotRegularError
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # swapped between the two calls
        os.close(descriptor)
        raise NotRegularError
    return os.fdopen(descriptor, "rb")


def kind_of(head: bytes) -> str:
    """Say in a word or two what a file that no reader claims seems to be."""
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "web page"
    return "other data" if b"\x00" in head or not _is_text(head) else "text"


def _walk(root: Path, most: int) -> Iterator[tuple[Path, str]]:
    """Yield the real path of every entry that is no folder, or a problem in words; files before folders."""
    pending, seen = [root], 0
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as scan:
                found = sorted(itertools.islice(scan, most + 1), key=lambda entry: os.fsencode(entry.name))
        except OSError:
            yield folder, _NO_FOLDER
            continue
        seen += len(found)
        if seen > most:
            hint = "Name the folder of one study, or raise the limit folder_files."
            raise InputError("INP-LIMIT", f"the folder holds more than {most} files and folders.", hint)
        pending.extend(Path(entry.path) for entry in reversed(found) if entry.is_dir(follow_symlinks=False))
        for entry in found:
            if entry.is_symlink():
                yield _behind_link(Path(entry.path), root)
            elif not entry.is_dir(follow_symlinks=False):
                yield Path(entry.path), ""


def _behind_link(path: Path, root: Path) -> tuple[Path, str]:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # dangling; a loop is a RuntimeError up to Python 3.12
        return path, "link to nowhere"
    if not target.is_relative_to(root):
        return path, "link out of the folder"
    return (target, "link to a folder") if target.is_dir() else (target, "")


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", errors="ignore")
    return len(text) >= 0.9 * len(head) and all(c.isprintable() or c.isspace() for c in text)
