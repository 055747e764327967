"""A ZIP of a folder, unpacked into a temporary folder that goes when nobody needs it any more.

Member names are never used as paths: members become numbered files. Sizes are compared with limits before and while
inflating; archives inside the archive are not opened.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import re
import shutil
import stat
import struct
import tempfile
import weakref
import zipfile
import zlib
from pathlib import Path

from medrecon.core.errors import InputError
from medrecon.core.reading import ListedFile, Skipped
from medrecon.safety.limits import Limits

_STEP = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Unpacked:
    """A temporary folder that is removed when this object is collected, closed, or the program ends."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="medrecon-"))
        self.close = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def is_zip(head: bytes) -> bool:
    """Whether a file begins as ZIP archives do."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def unpack(path: Path, limits: Limits) -> tuple[Unpacked, list[ListedFile], list[Skipped]]:
    """Unpack the members of a ZIP as numbered files, in the order of their names.

    Raises
    ------
    InputError
        ``ZIP-DAMAGED``, ``ZIP-ENCRYPTED``, ``ZIP-LIMIT`` for too many, too large or too densely packed members,
        ``ZIP-SPACE`` where the temporary folder's disk cannot hold them.
    """
    _refuse_large_directory(path, limits)
    try:
        archive = zipfile.ZipFile(path)
    except (*_DAMAGE, ValueError, OverflowError, OSError) as error:
        raise InputError("ZIP-DAMAGED", "the ZIP archive is damaged.", "Make the archive again.") from error
    with archive, contextlib.ExitStack() as undo:
        members = sorted((m for m in archive.infolist() if not m.is_dir()), key=lambda m: m.filename)
        unpacked = Unpacked()
        undo.callback(unpacked.close)
        _refuse(members, path.stat().st_size, shutil.disk_usage(unpacked.folder).free, limits)
        files: list[ListedFile] = []
        skipped: list[Skipped] = []
        for number, member in enumerate(members, start=1):
            result = _unpack_one(archive, member, number, unpacked.folder)
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                files.append(result)
        undo.pop_all()
        return unpacked, files, skipped


def _unpack_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, number: int, folder: Path) -> ListedFile | Skipped:
    """Write one member under its number; never more bytes than the directory of the archive announces for it."""
    if stat.S_ISLNK(member.external_attr >> 16):
        return Skipped(number, "link inside the ZIP", "INP-LINK")
    target = folder / f"{number:06d}{_suffix(member.filename)}"
    try:
        with archive.open(member) as source, target.open("xb") as sink:
            written = 0
            while piece := source.read(_STEP):
                written += len(piece)
                if written > member.file_size:
                    return Skipped(number, "ZIP member longer than announced", "ZIP-MEMBER")
                sink.write(piece)
    except _DAMAGE:
        target.unlink(missing_ok=True)
        return Skipped(number, "damaged ZIP member", "ZIP-MEMBER")
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise _no_space(member.file_size, 0) from error
        raise InputError("ZIP-DAMAGED", f"member {number} of the ZIP could not be unpacked.", "Unpack it by hand.") from error
    return ListedFile(number, target, member.filename)


def _refuse(members: list[zipfile.ZipInfo], size: int, free: int, limits: Limits) -> None:
    """Refuse what the archive's own directory already shows to be too much."""
    if any(member.flag_bits & 0x1 for member in members):
        raise InputError("ZIP-ENCRYPTED", "the ZIP archive is encrypted.", "Unpack it with its password and name the folder.")
    if any(member.compress_type not in _METHODS for member in members):
        raise InputError("ZIP-DAMAGED", "the ZIP archive is packed in a way that is not known here.", "Unpack it by hand.")
    largest = max((member.file_size for member in members), default=0)
    total = sum(member.file_size for member in members)
    allowed = max(limits.inflate_free_bytes, limits.inflate_ratio * size)
    if len(members) > limits.folder_files or largest > limits.file_bytes or total > allowed:
        raise InputError(
            "ZIP-LIMIT",
            f"the ZIP of {size} bytes claims {len(members)} files and {total} bytes, the largest of {largest} bytes.",
            f"Allowed are {limits.folder_files} files and {allowed} bytes; where you trust it, unpack it by hand.",
        )
    if total > free // 2:
        raise _no_space(total, free)


def _no_space(needed: int, free: int) -> InputError:
    return InputError(
        "ZIP-SPACE",
        f"unpacking needs {needed} bytes on the disk of temporary files, of which half of {free} may be used.",
        "Free some space, let TMPDIR name another disk, or unpack the archive by hand and name the folder.",
    )


def _suffix(name: str) -> str:
    """Keep a harmless suffix, as some libraries choose their decoder by it."""
    match = re.search(r"(\.nii)?\.[a-z0-9]{1,8}$", name.lower())
    return match.group() if match else ""


def _refuse_large_directory(path: Path, limits: Limits) -> None:
    """Look at the size of the archive's directory, which `zipfile` reads into memory as a whole, before it does."""
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - 65_557))  # end record of 22 bytes, comment of at most 65 535
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        raise InputError("ZIP-DAMAGED", "the ZIP archive has no end: it is cut or damaged.", "Copy or make it again.")
    size = struct.unpack_from("<I", tail, at + 12)[0]
    if size == 0xFFFFFFFF:  # ZIP64 keeps the real number in a record in front
        wide = tail.rfind(b"PK\x06\x06", 0, at)
        size = struct.unpack_from("<Q", tail, wide + 40)[0] if wide >= 0 and wide + 48 <= len(tail) else length
    if size > limits.header_bytes:
        raise InputError(
            "ZIP-LIMIT", f"the directory of the ZIP takes {size} bytes, {limits.header_bytes} are allowed.", "Unpack it by hand."
        )
