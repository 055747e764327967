"""Pixels of a judged series: decoded, padding marked, rescaled image by image, in the order of the plan.

Padding is found in the stored values, before anything else touches them. A pixel that is padding is not measured.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import DicomError, GeometryError
from medrecon.core.findings import Finding, Verdict, judge, refuse
from medrecon.core.progress import Tick
from medrecon.core.reading import ReadOptions, SeriesInfo
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.source import Source, SourceInstance
from medrecon.core.volume import Quantity
from medrecon.readers.dicom import values
from medrecon.readers.dicom.headers import Image, StoredFile
from medrecon.readers.dicom.inherited import common_header
from medrecon.readers.dicom.series import Plan, describe
from medrecon.readers.dicom.stored import load, native_frames, plain, regated
from medrecon.safety import quarantine
from medrecon.safety.limits import Limits, refuse_volume

_GEOMETRY = frozenset(("DCM-GAP", "DCM-DUP", "DCM-FEW"))
_MOST_THREADS = 4
_BATCH = 128  # compressed files that one child decodes before the progress is told

#: Slice number (from 0) and image, of all images in one file.
_Wanted = Sequence[tuple[int, Image]]


def read(info: SeriesInfo, options: ReadOptions, tick: Tick, limits: Limits | None = None) -> SliceScan:
    """Read the slices of one volume; see `medrecon.readers.dicom.read`."""
    limits = limits or Limits()
    info, plan = _settled(info, options)
    refuse_volume(_needed_bytes(info, plan), limits)
    canvas = _Canvas.of(info, plan)
    hashes = _paint(canvas, plan, tick, limits)
    measured = canvas.measured
    if measured is not None and measured.all():
        measured = None
    quantity, noticed = _noticed(canvas.pixels, measured, plan)
    return SliceScan(
        pixels=canvas.pixels,
        poses=SlicePoses(plan.poses, (info.shape[1], info.shape[2]), plan.thickness_mm, plan.profile),
        quantity=quantity,
        measured=measured,
        findings=(*info.findings, *noticed),
        allowed=options.allow,
        source=_source(info, plan, hashes),
    )


def _settled(info: SeriesInfo, options: ReadOptions) -> tuple[SeriesInfo, Plan]:
    """Judge again where the options are not those of `find`; raise the first refusal that is not allowed."""
    plan = info.content
    if isinstance(plan, Plan) and plan.options != options:
        info = describe(plan.part, plan.damaged, options)
        plan = info.content
    grave = next((one for one in info.findings if judge([one], options.allow) is Verdict.REFUSED), None)
    if grave is not None:
        refuse([grave], options.allow, GeometryError if grave.code in _GEOMETRY else DicomError)
    if not isinstance(plan, Plan):
        raise DicomError("DCM-CHANGED", "the series was not found by this reader.", "List the folder again.")
    return info, plan


def _needed_bytes(info: SeriesInfo, plan: Plan) -> int:
    slices, rows, columns = info.shape
    return slices * rows * columns * (5 if _has_padding(plan) else 4)


def _has_padding(plan: Plan) -> bool:
    images = (image for stack in plan.part.slices for image in stack)
    return any(image.padding is not None or image.file.layout.pixel_tag != 0x7FE00010 for image in images)


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    """The arrays that images are written into.

    Parameters
    ----------
    pixels : (n, rows, columns) float32
    measured : (n, rows, columns) bool, or None where no image has padding
    images : (n,)
        How many images are averaged in every slice.
    """

    pixels: NDArray[np.float32]
    measured: NDArray[np.bool_] | None
    images: tuple[int, ...]

    @classmethod
    def of(cls, info: SeriesInfo, plan: Plan) -> _Canvas:
        """Allocate what the plan needs."""
        counts = tuple(len(stack) for stack in plan.part.slices)
        measured = np.ones(info.shape, dtype=np.bool_) if _has_padding(plan) else None
        return cls((np.zeros if max(counts) > 1 else np.empty)(info.shape, dtype=np.float32), measured, counts)

    def put(self, frames: NDArray[Any], wanted: _Wanted) -> None:
        """Write the images of one file."""
        for k, image in wanted:
            (row, column), (rows, columns) = image.corner, image.shape
            stored = frames[image.frame, row : row + rows, column : column + columns]
            real = self.pixels[k] if self.images[k] == 1 else np.empty(image.shape, dtype=np.float32)
            values.real_values(stored, image, real)
            padded = values.padding_of(stored, image)
            if padded is not None and self.measured is not None:
                self.measured[k] &= ~padded
                real[padded] = np.nan_to_num(real[padded])  # padding of float pixels may be no number
            if self.images[k] > 1:
                self.pixels[k] += real / self.images[k]


def _paint(canvas: _Canvas, plan: Plan, tick: Tick, limits: Limits) -> Mapping[int, str]:
    """Read every file once, write its images, and return its hash by its number."""
    wanted: dict[int, list[tuple[int, Image]]] = {file.number: [] for file in plan.files}
    for k, stack in enumerate(plan.part.slices):
        for image in stack:
            wanted[image.file.number].append((k, image))
    native = [file for file in plan.files if not file.layout.encapsulated]
    compressed = [file for file in plan.files if file.layout.encapsulated]
    hashes: dict[int, str] = {}
    averaged = max(canvas.images) > 1  # then two files write into one slice, and must not do so at once

    def paint_native(file: StoredFile) -> str:
        data = load(file, limits)
        if wanted[file.number]:
            canvas.put(native_frames(plain(file, data, limits), file), wanted[file.number])
        return hashlib.sha256(data).hexdigest()

    for file, digest in zip(native, _in_threads(paint_native, native, 1 if averaged else _MOST_THREADS), strict=True):
        hashes[file.number] = digest
        tick(len(hashes) / len(wanted))
    for start in range(0, len(compressed), _BATCH):
        batch = compressed[start : start + _BATCH]
        loaded = [(file, load(file, limits)) for file in batch]
        hashes |= {file.number: hashlib.sha256(data).hexdigest() for file, data in loaded}
        needed = [(file, regated(file, data, limits)) for file, data in loaded if wanted[file.number]]
        jobs = [quarantine.DecodeJob(gated, file.number) for file, gated in needed]
        for (file, _), frames in zip(needed, quarantine.decode(jobs, limits), strict=True):
            canvas.put(frames, wanted[file.number])
        tick(len(hashes) / len(wanted))
    return hashes


def _in_threads(work: Callable[[StoredFile], str], files: Sequence[StoredFile], most: int) -> Iterator[str]:
    """Do the work for every file, a few at a time, and yield the results in order; an error ends what has not begun."""
    threads = min(most, os.cpu_count() or 1)
    if threads == 1 or len(files) < 2:
        yield from map(work, files)
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(work, files)
        finally:
            pool.shutdown(cancel_futures=True)


def _noticed(pixels: NDArray[np.float32], measured: NDArray[np.bool_] | None, plan: Plan) -> tuple[Quantity, tuple[Finding, ...]]:
    """Return findings for which pixels are needed; a CT whose values are 1024 too high is not called Hounsfield units."""
    if plan.part.key.modality != "CT":
        return plan.quantity, ()
    shifted = values.looks_1024_too_high(pixels)
    corners = values.constant_corners(pixels) if measured is None else None
    return Quantity.ARBITRARY if shifted else plan.quantity, tuple(one for one in (shifted, corners) if one)


def _source(info: SeriesInfo, plan: Plan, hashes: Mapping[int, str]) -> Source:
    firsts = [stack[0] for stack in plan.part.slices]
    return Source(
        reader="dicom",
        series_id=info.id,
        modality=info.modality,
        file_hashes=tuple(hashes[file.number] for file in plan.files),
        instances=tuple(_instance(image) for image in firsts),
        header=common_header(plan.part.contents, firsts),
    )


def _instance(image: Image) -> SourceInstance:
    file = image.file
    return SourceInstance(file.sop_class_uid, file.sop_instance_uid, image.frame + 1 if file.many_frames else None)
