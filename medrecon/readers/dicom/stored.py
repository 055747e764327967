"""Stored values of a file: the bytes of its frames, and the integers that they mean.

Native values are taken straight from the bytes whose place the gate has checked; compressed ones are decoded in the
quarantine. Bits that do not belong to a value are removed and its sign is set; nothing is rescaled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import DicomError
from medrecon.readers.dicom.headers import StoredFile
from medrecon.safety import gate, quarantine
from medrecon.safety.limits import Limits
from medrecon.safety.syntaxes import EXPLICIT_BIG


def load(file: StoredFile, limits: Limits) -> bytes:
    """Read a whole file again.

    Raises
    ------
    InputError
        Where it cannot be read any more.
    DicomError
        ``DCM-CHANGED`` where it is not the file that was listed.
    """
    data = gate.load(file.path, limits)
    if len(data) != file.byte_count:
        raise _changed(file)
    return data


def plain(file: StoredFile, data: bytes, limits: Limits) -> bytes:
    """Return the bytes in which the pixels stand: those of the file, inflated where it is deflated."""
    return regated(file, data, limits).data if "deflated" in file.layout.notes else data


def regated(file: StoredFile, data: bytes, limits: Limits) -> gate.GatedFile:
    """Pass a file through the gate again; what a decoder gets is what was checked in this moment."""
    gated = gate.gate(data, limits)
    if gated is None or (gated.shape, gated.transfer_syntax_uid) != (file.layout.shape, file.layout.transfer_syntax_uid):
        raise _changed(file)
    return gated


def frame_bytes(data: bytes, file: StoredFile, frame: int) -> memoryview:
    """Return the bytes of one native frame."""
    layout = file.layout
    size = layout.pixel_length // layout.frames
    start = (layout.pixel_offset or 0) + frame * size
    return memoryview(data)[start : start + size]


def native_frames(data: bytes, file: StoredFile) -> NDArray[Any]:
    """Return the native values of a file, (frames, rows, columns), without copying them where all their bits count."""
    layout = file.layout
    kind = "f" if layout.pixel_tag != 0x7FE00010 else "i" if layout.pixel_representation else "u"
    order = ">" if layout.transfer_syntax_uid == EXPLICIT_BIG else "<"
    dtype = np.dtype(f"{order}{kind}{layout.bits_allocated // 8}")
    count = layout.frames * layout.rows * layout.columns
    raw = np.frombuffer(data, dtype=dtype, count=count, offset=layout.pixel_offset or 0)
    return _without_foreign_bits(raw.reshape(layout.shape), file)


def frames_of(files: Sequence[StoredFile], limits: Limits) -> list[NDArray[Any]]:
    """Return the stored values of whole files, each (frames, rows, columns); compressed ones share one child process."""
    compressed = [file for file in files if file.layout.encapsulated]
    jobs = [quarantine.DecodeJob(regated(file, load(file, limits), limits), file.number) for file in compressed]
    decoded = dict(zip((file.number for file in compressed), quarantine.decode(jobs, limits), strict=True))
    return [
        decoded[file.number] if file.number in decoded else native_frames(plain(file, load(file, limits), limits), file)
        for file in files
    ]


def _without_foreign_bits(raw: NDArray[Any], file: StoredFile) -> NDArray[Any]:
    """Shift out what stands above the stored bits, such as overlays, and extend the sign; the gate knows where they stand."""
    layout = file.layout
    if raw.dtype.kind == "f" or layout.bits_stored == layout.bits_allocated:
        return raw
    foreign = layout.bits_allocated - layout.bits_stored
    low, high = (
        (-1 << layout.bits_stored - 1, (1 << layout.bits_stored - 1) - 1)
        if raw.dtype.kind == "i"
        else (0, (1 << layout.bits_stored) - 1)
    )
    if low <= raw.min() and raw.max() <= high:
        return raw
    shifted: NDArray[Any] = (raw.astype(raw.dtype.newbyteorder("=")) << foreign) >> foreign
    return shifted


def _changed(file: StoredFile) -> DicomError:
    return DicomError("DCM-CHANGED", f"file {file.number} is not what it was when it was listed.", "List the folder again.")
