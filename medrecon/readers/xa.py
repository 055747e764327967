"""Rotational angiography in DICOM XA: a run of a C-arm with the angles of its positioner. Experimental.

Only runs whose positioner moves are scans; other angiograms are left alone. The values are counts, so an open beam is
needed before the logarithm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medrecon.core.progress import Tick
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped

ASKED_FIRST = True
_CLASS = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.12\.1(?![.\d])")  # X-Ray Angiographic Image Storage


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file's first elements name the storage class of angiograms."""
    return head[128:132] == b"DICM" and _CLASS.search(head) is not None


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the rotational runs, one for each file."""
    from medrecon.readers import _xa

    return _xa.find(files, options)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one run; raises what it is refused for."""
    from medrecon.readers import _xa

    return _xa.read(info, options, tick)
