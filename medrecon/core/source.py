"""Where data came from: enough to prove it and to write a derived DICOM series, and nothing that is printed.

The header of the source lives here because a derived series must carry the patient and study it belongs to. It is
kept out of ``repr``; no message, log line or file name may use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class SourceInstance:
    """One source image: the object it came from and, in multi-frame objects, the frame (from 1)."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a scan or a volume came from.

    Parameters
    ----------
    reader : str
        Name of the reader, such as ``dicom``; empty for data made in memory.
    series_id : str
        Our own short name of the series, made from a hash.
    modality : str
        ``CT``, ``MR``, ... or empty.
    file_hashes : tuple of str
        SHA-256 of every file, in the order of the listing.
    instances : tuple of SourceInstance
        One per slice where the source is DICOM, in slice order.
    header : mapping
        DICOM JSON model of the attributes that are constant over all source images, without pixels. Patient text.
    """

    reader: str = ""
    series_id: str = ""
    modality: str = ""
    file_hashes: tuple[str, ...] = ()
    instances: tuple[SourceInstance, ...] = ()
    header: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def briefly(self, most_instances: int = 64) -> Source:
        """Return the source without its list of images where that is longer: each image of a derived series would carry it."""
        return self if len(self.instances) <= most_instances else replace(self, instances=())

    @property
    def frame_of_reference_uid(self) -> str:
        """The frame of reference of the source, or an empty string."""
        values = self.header.get("00200052", {}).get("Value", [])
        return str(values[0]) if values else ""
