"""Send files through the front door, `find` and `read`, in one process, and print how each ended and what it took.

A program of its own, so that its memory is that of the files alone: ``python -m tests.hostile.sweep_series FOLDER...``
takes every file, and every folder of files, by itself. One JSON line each: seconds of processor time, decoding children
included, and the peak of resident memory above what the libraries take, read from the kernel's high-water mark, which is
set back before each where the system lets us; else it only grows, so that no file can hide behind another.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import medrecon as mr
from medrecon.core.errors import MedreconError
from medrecon.core.findings import ALLOWANCES
from tests.hostile.sweep_files import peak_bytes, processor_seconds
from tests.makers_dicom import make_series

_MARK = Path("/proc/self/clear_refs")


def ending(path: Path) -> str:
    """How a file or folder ends: ``read`` for one or more volumes, or the codes of the errors."""
    try:
        found = mr.find(path)
    except MedreconError as error:
        return error.code
    endings = set()
    for info in found:
        try:
            mr.read(path, info, allow=tuple(ALLOWANCES))
            endings.add("read")
        except MedreconError as error:
            endings.add(error.code)
    return " ".join(sorted(endings)) or "nothing found"


def named(roots: list[Path]) -> Iterator[Path]:
    """Yield every file below the folders, and every folder that holds files."""
    for root in roots:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        yield from files
        yield from sorted({path.parent for path in files})


def low_water() -> None:
    """Set the high-water mark back to what is resident now."""
    if _MARK.exists():
        try:
            _MARK.write_text("5", encoding="ascii")
        except OSError:  # not allowed in this container
            return


def main() -> None:
    """Sweep what is named on the command line, after one good series that loads all libraries."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        make_series(Path(folder) / "series", shape=(4, 8, 8))
        ending(Path(folder))
    low_water()
    base = peak_bytes()
    for path in named([Path(name) for name in sys.argv[1:]]):
        low_water()
        begin = processor_seconds()
        how = ending(path)
        entry = {"name": path.name, "ending": how, "seconds": processor_seconds() - begin, "bytes": peak_bytes() - base}
        sys.stdout.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
