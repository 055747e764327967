"""Send every file of a folder through loading, gate, decoder and parser, in one process, and print how each ended.

A program of its own, so that its peak of memory is that of the files alone: ``python -m tests.hostile.sweep_files FOLDER``
prints one JSON line a file and a last one with the peak.
"""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import sys
import warnings
from pathlib import Path

import numpy as np
import psutil
import pydicom

from medrecon.core.errors import MedreconError
from medrecon.safety.gate import gate, load
from medrecon.safety.quarantine import DecodeJob, decode

#: What pydicom may raise on a file that it refuses; `RecursionError` and `MemoryError` are not among them.
REFUSALS = (
    pydicom.errors.InvalidDicomError,
    pydicom.errors.BytesLengthException,
    NotImplementedError,
    OSError,
    ValueError,
    RuntimeError,
    AttributeError,
    TypeError,
    KeyError,
)


def ending(path: Path) -> str:
    """How one file ends: ``none``, ``pixels``, ``no pixels``, or the code of the error."""
    try:
        gated = gate(load(path))
        if gated is None:
            return "none"
        parse(gated.header)
        if not gated.has_pixels:
            return "no pixels"
        if gated.encapsulated:
            decode([DecodeJob(gated)])
        else:
            start = gated.pixel_offset or 0
            np.frombuffer(gated.data, np.uint8, count=gated.pixel_length, offset=start)
    except MedreconError as error:
        return error.code
    return "pixels"


def parse(header: bytes) -> None:
    """Parse all that the gate lets a parser see; a refusal is an answer, a stack or a memory that overflows is not."""
    try:
        for _ in pydicom.dcmread(io.BytesIO(header), force=True).iterall():
            pass
    except RecursionError:
        raise
    except REFUSALS:
        return


def processor_seconds() -> float:
    """Time that this process and its ended children have had; unlike the clock it does not count the machine's other work."""
    return sum(os.times()[:4])


def peak_bytes() -> int:
    """Peak resident memory of this program; ``ru_maxrss`` would count the test runner that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Sweep the folder that is named on the command line."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    before = psutil.Process().memory_info().rss
    for path in sorted(p for p in Path(sys.argv[1]).rglob("*") if p.is_file()):
        begin = processor_seconds()
        how = ending(path)
        sys.stdout.write(json.dumps({"file": path.name, "ending": how, "seconds": processor_seconds() - begin}) + "\n")
    growth = peak_bytes() - before
    sys.stdout.write(json.dumps({"growth_bytes": growth}) + "\n")


if __name__ == "__main__":
    main()
