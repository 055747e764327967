"""What all DICOM objects made here share: stable identifiers, references to the source, equipment, and their encoding.

The identifiers follow from the source and the settings, and no clock is read: the same input and the same settings
give the same bytes, so that a second run replaces the first one in an archive instead of standing beside it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, ExplicitVRLittleEndian, generate_uid

from medrecon.core.source import Source, SourceInstance
from medrecon.writers import WriteContext
from medrecon.writers import _dicom_inherit as inherited

MAKER = "medrecon"
VERSION = metadata.version(MAKER)
LABEL = "research use"
_LONG, _SHORT = 64, 16
_MOST_FRAMES = 9000  # more numbers do not fit into the 64 kB of their element; the whole object is named then


@dataclass(frozen=True, slots=True)
class Code:
    """A concept of a coding scheme."""

    value: str
    scheme: str
    meaning: str

    def as_sequence(self) -> list[Dataset]:
        """Return the value of a code sequence that holds this code."""
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = self.value, self.scheme, self.meaning
        return [item]


ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
MILLIMETRE = Code("mm", "UCUM", "mm")
PER_MILLIMETRE = Code("/mm", "UCUM", "/mm")
NO_UNITS = Code("1", "UCUM", "no units")


@dataclass(frozen=True, slots=True)
class Identity:
    """The identifiers of one made series.

    Parameters
    ----------
    study, frame_of_reference : UID
        Those of the source, where it has them.
    series : UID
        New, and the same for the same source, settings and kind of output.
    """

    study: UID
    frame_of_reference: UID
    series: UID

    def instance(self, number: int) -> UID:
        """Return the identifier of the object with this number (from 1)."""
        return _stable_uid(self.series, "instance", str(number))


def identify(source: Source, context: WriteContext, kind: str, content: Iterable[bytes]) -> Identity:
    """Derive the identifiers of a series.

    Parameters
    ----------
    kind : str
        What is written, such as ``volume``, with all that two outputs of one run may differ in.
    content : iterable of bytes
        The data themselves; only used where the source or the settings are not known.
    """
    known = [f"{i.sop_instance_uid}/{i.frame or ''}" for i in source.instances] or list(source.file_hashes)
    made_of = known if known and context.settings_hash else [*known, _digest(content)]
    origin = known or made_of
    study = inherited.first(source.header, "StudyInstanceUID") or _stable_uid("study", *origin)
    source_series = inherited.first(source.header, "SeriesInstanceUID")
    frame = inherited.first(source.header, "FrameOfReferenceUID") or _stable_uid("frame", study, source_series, *origin)
    series = _stable_uid("series", kind, context.method, context.settings_hash, VERSION, *made_of)
    return Identity(UID(study), UID(frame), series)


def begin(source: Source, identity: Identity, context: WriteContext, description: str) -> Dataset:
    """Return the attributes that every object here begins with: patient, study, series, frame of reference, equipment."""
    header = source.header
    made = inherited.inherit(header, [*inherited.PATIENT, *inherited.STUDY, "ProtocolName", "PositionReferenceIndicator"])
    inherited.require(made, [*inherited.PATIENT_REQUIRED, *inherited.STUDY_REQUIRED, "PositionReferenceIndicator"])
    if made.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in made:
        made.DeidentificationMethod = made.get("DeidentificationMethod") or "Not stated by the source"
    made.StudyInstanceUID, made.SeriesInstanceUID = identity.study, identity.series
    made.FrameOfReferenceUID = identity.frame_of_reference
    made.SeriesNumber = _series_number(source)
    made.SeriesDescription = f"{plain_text(description, _LONG - len(LABEL) - 1)} {LABEL}".strip()
    made.Manufacturer, made.ManufacturerModelName, made.SoftwareVersions = MAKER, MAKER, VERSION
    made.ContentQualification = "RESEARCH"
    made.BurnedInAnnotation = inherited.first(header, "BurnedInAnnotation") or "NO"
    made.ContributingEquipmentSequence = [*_scanner(source), _ourselves(context)]
    if context.invented:
        made.SyntheticData = "YES"
    return made


def finish(made: Dataset, source: Source, identity: Identity, number: int, sop_class: UID) -> Dataset:
    """Add what identifies one object and says how its text is written."""
    made.SOPClassUID, made.SOPInstanceUID, made.InstanceNumber = sop_class, identity.instance(number), number
    inherited.declare_character_set(made, source.header)
    return made


def references(instances: Iterable[SourceInstance], purpose: Code) -> list[Dataset]:
    """Return one item for each source object, with the frames that were used of it."""
    frames: dict[tuple[str, str], list[int]] = {}
    for instance in instances:
        used = frames.setdefault((instance.sop_class_uid, instance.sop_instance_uid), [])
        used.extend([] if instance.frame is None else [instance.frame])
    items = []
    for (sop_class, sop_instance), used in frames.items():
        if not (inherited.is_uid(sop_class) and inherited.is_uid(sop_instance)):
            continue
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        if 0 < len(used) <= _MOST_FRAMES:
            item.ReferencedFrameNumber = used
        item.PurposeOfReferenceCodeSequence = purpose.as_sequence()
        items.append(item)
    return items


def encode(made: Dataset) -> bytes:
    """Return a data set as the bytes of a DICOM file, explicit little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = f"{MAKER}_{VERSION}"[:_SHORT].upper()
    made.file_meta = meta
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def frozen(made: Dataset) -> Dataset:
    """Return the data set with its values already encoded: what stays untouched is copied, not encoded, from then on."""
    return dcmread(BytesIO(encode(made)))


def plain_text(text: str, most: int = _LONG) -> str:
    """Return text that every character set and every value representation for text can hold."""
    return re.sub(r"[^A-Za-z0-9 .,:;()+/_-]", "_", text).strip()[:most].strip()


def describe(context: WriteContext, *more: str) -> str:
    """Return in words what was done, with what, and how far to trust it."""
    parts = [
        f"{MAKER} {VERSION}" + (f", method {context.method}" if context.method else ""),
        f"settings {context.settings_hash[:16]}" if context.settings_hash else "",
        f"verdict {context.verdict}",
        "some voxels were inferred by a learned method, not measured" if context.invented else "",
        *more,
        f"{LABEL}, not for diagnosis",
    ]
    return plain_text("; ".join(part for part in parts if part), 1024)


def _stable_uid(*entropy: str) -> UID:
    """Make a UID of its own for each list of texts; lengths are hashed too, so that no two lists run together."""
    return generate_uid(entropy_srcs=[f"{len(text)}:{text}" for text in entropy])


def _digest(content: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    return digest.hexdigest()


def _series_number(source: Source) -> int:
    """Return a hundred times the source's number plus one: close to it in a list, and telling that it is derived."""
    number = inherited.first(source.header, "SeriesNumber")
    return 100 * int(number) + 1 if number and 0 <= int(number) < 10_000_000 else 1


def _scanner(source: Source) -> list[Dataset]:
    """Name the equipment that made the source, where it is known."""
    known = (
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "StationName",
        "InstitutionName",
        "InstitutionalDepartmentName",
    )
    item = inherited.inherit(source.header, known)
    if not item.get("Manufacturer"):
        return []
    item.PurposeOfReferenceCodeSequence = ACQUISITION_EQUIPMENT.as_sequence()
    return [item]


def _ourselves(context: WriteContext) -> Dataset:
    item = Dataset()
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = MAKER, MAKER, VERSION
    item.ContributionDescription = describe(context)
    item.PurposeOfReferenceCodeSequence = PROCESSING_EQUIPMENT.as_sequence()
    return item
