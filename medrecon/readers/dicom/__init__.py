"""DICOM: classic series, enhanced multi-frame objects and Siemens mosaics, as slices that know where they stand.

A file passes the gate, its header is parsed (`headers`), series are put together and taken apart into volumes (`split`),
each is judged by its positions (`geometry`, `series`), and only what is not refused has its pixels read (`slices`).
Poses come from ImagePositionPatient and ImageOrientationPatient alone, one for every slice; nothing is resampled, turned
or dropped in silence. No message holds text from a header.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medrecon.core.progress import Tick
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.scans import SliceScan

_HEADERLESS = (b"\x02\x00", b"\x08\x00")  # group 0002 or 0008, little endian


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (by content alone; names say nothing)
    """Whether the first bytes look like DICOM: the mark after a preamble, or a data set that begins at once."""
    if head[128:132] == b"DICM":
        return True
    return head[:2] in _HEADERLESS and head[3:4] == b"\x00" and len(head) >= 16


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the volumes in DICOM files, judged by their headers, and the files that belong to none."""
    from medrecon.readers.dicom import series

    return series.find(files, options)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> SliceScan:
    """Read the slices of one volume.

    Raises
    ------
    GeometryError
        The first refusal of its geometry that is not allowed: ``DCM-GAP``, ``DCM-DUP``, ``DCM-FEW``.
    DicomError
        The first refusal of its files, or what decoding them raises.
    MemoryBudgetError
        ``MEM-VOLUME`` before anything is decoded.
    """
    from medrecon.readers.dicom import slices

    return slices.read(info, options, tick)


def expand(path: Path) -> list[Path] | None:
    """Return the files that a DICOMDIR refers to, None for any other file.

    Raises
    ------
    DicomError
        ``DCM-ESCAPE`` where it refers to anything outside its folder; nothing there is opened.
    """
    from medrecon.readers.dicom import dicomdir

    return dicomdir.referenced_files(path)
