"""Whether two files, or two images, are the same thing twice.

Files are compared only where they claim one identity, pixels only where images claim one position. Stored bytes settle
it where all are written alike; where they are not, and only then, pixels are decoded before their series is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.readers.dicom.headers import Contents, Image, StoredFile
from medrecon.readers.dicom.stored import frame_bytes, frames_of, load, plain
from medrecon.safety.limits import Limits


def without_doubles(contents: Sequence[Contents], limits: Limits) -> list[Contents]:
    """Count files of one identity once where they are equal, and refuse their series where they are not."""
    named: dict[str, list[Contents]] = {}
    for one in contents:
        named.setdefault(one.file.sop_instance_uid or f"file {one.file.number}", []).append(one)
    return [one for same in named.values() for one in (same if len(same) == 1 else _settled(same, limits))]


def fingerprints(images: Sequence[Image], limits: Limits) -> list[bytes]:
    """Return a mark for every image that is the same for images with the same pixels.

    Images of which that cannot be told, because a file is damaged or has no decoder, count as different: reading their
    series will say what is wrong.
    """
    files = {image.file.number: image.file for image in images}
    try:
        if all(_written_alike(images[0].file, file) for file in files.values()):
            return _of_stored_bytes(images, limits)
        frames = dict(zip(files, frames_of(list(files.values()), limits), strict=True))
    except MedreconError:
        return [f"image {number}".encode() for number in range(len(images))]
    return [_mark(image, _plain_bytes(frames[image.file.number][image.frame])) for image in images]


def _of_stored_bytes(images: Sequence[Image], limits: Limits) -> list[bytes]:
    """Hash the bytes of every frame, reading every file once; of compressed files those of all frames together."""
    wanted: dict[int, list[int]] = {}
    for k, image in enumerate(images):
        wanted.setdefault(image.file.number, []).append(k)
    marks = [b""] * len(images)
    for numbers in wanted.values():
        file = images[numbers[0]].file
        data = plain(file, load(file, limits), limits)
        start, size = file.layout.pixel_offset or 0, file.layout.pixel_length
        whole = memoryview(data)[start : start + size]
        for k in numbers:
            marks[k] = _mark(images[k], whole if file.layout.encapsulated else frame_bytes(data, file, images[k].frame))
    return marks


def _mark(image: Image, pixels: memoryview | bytes) -> bytes:
    """Hash pixels together with what gives them their meaning; tiles of one mosaic share their bytes."""
    digest = hashlib.sha256(repr((image.frame, image.corner, image.shape, image.scaling)).encode())
    digest.update(pixels)
    return digest.digest()


def _plain_bytes(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values, dtype=np.float64 if values.dtype.kind == "f" else np.int64).tobytes()


def _written_alike(one: StoredFile, other: StoredFile) -> bool:
    """Whether equal bytes mean equal values; two files compressed alike are taken to come from one encoder."""
    layouts = [replace(f.layout, header_length=0, pixel_offset=0, pixel_length=0, tail_bytes=0, notes=()) for f in (one, other)]
    return layouts[0] == layouts[1] and one.inverted == other.inverted


def _settled(same: Sequence[Contents], limits: Limits) -> list[Contents]:
    numbers = [one.file.number for one in same]
    if len({hashlib.sha256(load(one.file, limits)).digest() for one in same}) == 1:
        fact = f"{len(same)} files are one and the same, such as {numbers[0]} and {numbers[1]}; it counts once."
        return [replace(same[0], findings=(*same[0].findings, Finding("DCM-COPY", Verdict.OK, fact, {"files": numbers})))]
    fact = f"{len(same)} different files bear one SOPInstanceUID, such as {numbers[0]} and {numbers[1]}."
    hint = "One of them is not what it says; read the right one alone, or export the series again."
    clash = Finding("DCM-CLASH", Verdict.REFUSED, fact, {"files": numbers}, hint=hint)
    return [replace(one, findings=(*one.findings, clash)) for one in same]
