"""Decoding of compressed pixels in a child process with limits: a decoder that crashes, hangs or swells harms nobody.

One child serves a whole series, as a start with numpy and pydicom costs a quarter of a second. It gets nothing but the
encapsulated pixels and the numbers that the gate has checked, and answers with bytes whose count the gate has computed;
nothing that it says is trusted beyond that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import DicomError
from medrecon.core.words import counted
from medrecon.safety.gate import GatedFile
from medrecon.safety.limits import Limits, refuse_volume
from medrecon.safety.syntaxes import COMPRESSED

_CHILD = Path(__file__).with_name("_decode_child.py")
_PREFIX = struct.Struct(">QQ")
_MOST_ANSWER = 1024
_SECONDS_TO_LEAVE = 5
_STOPPED_BY_SYSTEM = {int(getattr(signal, name)) for name in ("SIGXCPU", "SIGKILL") if hasattr(signal, name)}
_DEFAULT = Limits()
_AGAIN = "Export the file again, uncompressed (Explicit VR Little Endian) if the archive can."


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """One file whose pixels are to be decoded.

    Parameters
    ----------
    file : GatedFile
        With encapsulated pixels, as the gate gave it.
    number : int
        The file's number in the listing, for messages; 0 for none.
    """

    file: GatedFile
    number: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the answer: (frames, rows, columns), for colour with the samples as a last axis."""
        return self.file.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the answer, from BitsAllocated and PixelRepresentation."""
        return np.dtype(f"<{'ui'[self.file.pixel_representation]}{self.file.bits_allocated // 8}")


def decode(jobs: Sequence[DecodeJob], limits: Limits = _DEFAULT) -> list[NDArray[Any]]:
    """Decode the compressed pixels of a series in one child process.

    Applied are only the corrections without which the stored values would be wrong: unused high bits are cleared or
    filled with the sign (BitsStored), the sign of JPEG 2000 and JPEG-LS values follows PixelRepresentation, and planes of
    colour become the last axis. Rescale, padding and photometric interpretation are the caller's.

    Returns
    -------
    list of integer arrays
        One per job, in order, of the job's shape and dtype.

    Raises
    ------
    MemoryBudgetError
        ``MEM-VOLUME`` before anything is decoded.
    DicomError
        ``DCM-CODEC`` where no decoder is installed, ``DCM-LIMIT`` beyond time or memory, ``DCM-PIXELS`` where frames are
        missing, ``DCM-DECODE`` where the decoder fails, crashes, or answers with anything but what was asked.
    """
    if not jobs:
        return []
    for job in jobs:
        if not job.file.encapsulated:
            raise DicomError("DCM-DECODE", f"{_named(job)} has no compressed pixels.", "Read its pixels directly.")
    refuse_volume(sum(job.file.decoded_bytes for job in jobs), limits)
    with _Child(jobs, limits) as child:
        return [child.decode(job) for job in jobs]


class _Child:
    """The running child, and a thread that ends it when it takes too long."""

    def __init__(self, jobs: Sequence[DecodeJob], limits: Limits) -> None:
        self._limits = limits
        self._address_bytes = _address_bytes(jobs, limits)
        command = [sys.executable, "-P", "-B", str(_CHILD), str(self._address_bytes), str(limits.child_seconds * (len(jobs) + 1))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )
        self._watch = _Watch(self._process, limits.child_seconds, None if _has_address_limit() else self._address_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        for pipe in self._pipes():
            with contextlib.suppress(OSError):  # a dead child's pipe may refuse its last flush
                pipe.close()
        if not self._gone(_SECONDS_TO_LEAVE):
            self._process.kill()
            self._process.wait()
        self._watch.stop()

    def decode(self, job: DecodeJob) -> NDArray[Any]:
        """Send one file and receive its frames."""
        stored = np.empty(job.shape, dtype=job.dtype)
        self._watch.restart()
        self._ask(job)
        for frame in stored:
            self._receive(job, memoryview(frame).cast("B"))
            self._watch.restart()
        return stored

    def _pipes(self) -> Iterator[IO[bytes]]:
        yield from (pipe for pipe in (self._process.stdin, self._process.stdout) if pipe is not None)

    def _ask(self, job: DecodeJob) -> None:
        requests, _ = self._pipes()
        header = json.dumps(_request(job)).encode()
        start = job.file.pixel_offset or 0
        pixels = memoryview(job.file.data)[start : start + job.file.pixel_length]
        try:
            requests.write(_PREFIX.pack(len(header), len(pixels)) + header)
            requests.write(pixels)
            requests.flush()
        except OSError as error:
            raise self._ended(job) from error

    def _receive(self, job: DecodeJob, frame: memoryview) -> None:
        _, answers = self._pipes()
        line = answers.readline(_MOST_ANSWER)
        if not line.endswith(b"\n"):
            raise _nonsense(job) if len(line) == _MOST_ANSWER else self._ended(job)
        _check_answer(line, job)
        got = 0
        while got < len(frame):
            count = answers.readinto(frame[got:])  # type: ignore[attr-defined]  # a buffered reader has it, IO[bytes] does not say so
            if not count:
                raise self._ended(job)
            got += count

    def _gone(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)
        return self._process.returncode is not None

    def _ended(self, job: DecodeJob) -> DicomError:
        """Say why the child is gone."""
        self._gone(_SECONDS_TO_LEAVE)
        where, code = _named(job), self._process.returncode
        if self._watch.verdict:
            return DicomError("DCM-LIMIT", f"decoding {where} took more than {self._watch.verdict}.", _AGAIN)
        if code is not None and -code in _STOPPED_BY_SYSTEM:
            return DicomError("DCM-LIMIT", f"decoding {where} was stopped by the system (signal {-code}).", _AGAIN)
        if code is None:
            return _nonsense(job)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return DicomError("DCM-DECODE", f"the decoder of {where} {how}.", _AGAIN)


class _Watch:
    """Ends a process that gives no frame in time, or, where the system cannot bound memory, grows too large."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float, most_bytes: int | None) -> None:
        self.verdict = ""
        self._process, self._seconds, self._most_bytes = process, seconds, most_bytes
        self._stop = threading.Event()
        self.restart()
        self._thread = threading.Thread(target=self._run, name="medrecon-decode-watch", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """Give the process its full time again."""
        self._deadline = time.monotonic() + self._seconds

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(min(0.25, self._seconds / 4)):
            if time.monotonic() > self._deadline:
                self.verdict = f"{self._seconds} seconds"
            elif self._most_bytes is not None and _resident_bytes(self._process.pid) > self._most_bytes:
                self.verdict = f"{self._most_bytes} bytes of memory"
            if self.verdict:
                self._process.kill()
                return


def _request(job: DecodeJob) -> dict[str, object]:
    """Return what the child must know of a file: numbers that the gate has checked, and no text from the header."""
    file = job.file
    options = {
        "rows": file.rows,
        "columns": file.columns,
        "number_of_frames": file.frames,
        "samples_per_pixel": file.samples_per_pixel,
        "bits_allocated": file.bits_allocated,
        "bits_stored": file.bits_stored,
        "pixel_representation": file.pixel_representation,
        "planar_configuration": file.planar_configuration,
        "photometric_interpretation": file.photometric or ("MONOCHROME2" if file.samples_per_pixel == 1 else "RGB"),
        "pixel_keyword": "PixelData",
    }
    return {"syntax": file.transfer_syntax_uid, "frames": file.frames, "dtype": job.dtype.str, "options": options}


def _check_answer(line: bytes, job: DecodeJob) -> None:
    """Raise for every answer but a frame."""
    where = _named(job)
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise _nonsense(job) from error
    problem = answer.get("error") if isinstance(answer, dict) else "decoder"
    if problem is None:
        return
    if problem == "codec":
        name, package = COMPRESSED[job.file.transfer_syntax_uid]
        raise DicomError("DCM-CODEC", f"no decoder for {name} is installed.", f"Install it: pip install {package}")
    if problem == "memory":
        raise DicomError("DCM-LIMIT", f"decoding {where} takes more memory than the child may have.", _AGAIN)
    if problem == "frames":
        raise DicomError("DCM-PIXELS", f"{where} announces {counted(job.file.frames, 'frame')} and holds fewer.", _AGAIN)
    raise DicomError("DCM-DECODE", f"the compressed pixels of {where} cannot be decoded.", _AGAIN)


def _nonsense(job: DecodeJob) -> DicomError:
    return DicomError("DCM-DECODE", f"the decoder of {_named(job)} answered with something else than a frame.", _AGAIN)


def _named(job: DecodeJob) -> str:
    return f"file {job.number}" if job.number else "a file"


def _address_bytes(jobs: Sequence[DecodeJob], limits: Limits) -> int:
    """Return the memory that the child may have: room for one frame of the largest file in all its stages."""
    largest = max(job.file.decoded_bytes // job.file.frames + job.file.pixel_length for job in jobs)
    return limits.child_base_bytes + limits.child_factor * largest


def _environment() -> dict[str, str]:
    """Return our environment with one thread for each numerical library: every thread maps memory of its own."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


def _has_address_limit() -> bool:
    return sys.platform.startswith("linux")


def _resident_bytes(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
