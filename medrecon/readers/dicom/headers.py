"""What is taken from one file: where its pixels are, where each of its images stands, and what may tell images apart.

Classic objects hold one image, enhanced objects one per frame, Siemens mosaics one per tile. A file that belongs to a
series but cannot be placed is kept with the reason, so that its series is refused and not read with a hole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset

from medrecon.core.errors import DicomError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.reading import ListedFile, ReadOptions, Skipped
from medrecon.core.words import counted
from medrecon.readers.dicom import mosaic, traits
from medrecon.readers.dicom.repeated import Repeated
from medrecon.readers.dicom.tags import Tags, flatten, items_of, shown
from medrecon.safety.gate import GatedFile

#: Objects whose pixels are no picture of a plane in the patient, unless they say where they stand.
_PLACELESS = (
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture, with its multi-frame kin
    "1.2.840.10008.5.1.4.1.1.1",  # computed and digital radiography, mammography
    "1.2.840.10008.5.1.4.1.1.3",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.6",
    "1.2.840.10008.5.1.4.1.1.12",  # angiography, fluoroscopy
    "1.2.840.10008.5.1.4.1.1.66",  # segmentation and other derived objects
    "1.2.840.10008.5.1.4.1.1.77",  # visible light
    "1.2.840.10008.5.1.4.1.1.481",  # radiotherapy
)
_MOST_OFF_UNIT = 1e-3  # of the length of a direction, and of the cosine between rows and columns
_FRAME_GROUPS = (
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "FrameContentSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FramePixelDataPropertiesSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRModifierSequence",
    "MRFOVGeometrySequence",
    "TemporalPositionSequence",
    "CardiacSynchronizationSequence",
    "CTXRayDetailsSequence",
    "CTReconstructionSequence",
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
_MOST_HEADER_BYTES = 4096  # of one value kept for derived series


class SeriesKey(NamedTuple):
    """What must be equal for two images to belong together; the patient only as a hash."""

    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    patient: str
    modality: str


@dataclass(frozen=True, slots=True, eq=False)
class StoredFile:
    """One file and how its pixels are written.

    Parameters
    ----------
    number : int
        In the listing, for messages.
    layout : GatedFile
        As the gate gave it, without the bytes.
    byte_count : int
        Of the file, to notice that it changed.
    inverted : bool
        Whether low stored values are shown bright (MONOCHROME1).
    """

    number: int
    path: Path = field(repr=False)
    layout: GatedFile
    byte_count: int
    inverted: bool
    sop_class_uid: str
    sop_instance_uid: str
    instance_number: int

    @property
    def many_frames(self) -> bool:
        """Whether instances are named together with a frame number."""
        return self.layout.frames > 1


class Scaling(NamedTuple):
    """From stored values to real ones; `unit` is ``HU``, another word of the standard, or empty where nothing is said."""

    slope: float
    intercept: float
    unit: str


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One picture of one plane.

    Parameters
    ----------
    frame : int
        Index in the file, from 0.
    corner : (row, column)
        First pixel of the picture inside its frame; not (0, 0) only for tiles of a mosaic.
    shape : (rows, columns)
    position_lps_mm : centre of the first pixel
    across, down : directions of growing column index and of growing row index, as the header has them
    spacing_mm : between rows, between columns
    thickness_mm : None where the header has none
    padding : lowest and highest stored value that is padding, or None
    acquired : rows and columns that were measured, or None where the header does not say
    traits : what may tell volumes of one series apart, by name
    """

    file: StoredFile
    frame: int
    corner: tuple[int, int]
    shape: tuple[int, int]
    position_lps_mm: tuple[float, ...]
    across: tuple[float, ...]
    down: tuple[float, ...]
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    scaling: Scaling
    padding: tuple[int, int] | None
    acquired: tuple[int, int] | None
    traits: Mapping[str, Hashable]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What one file holds: its images, or the refusal of the series that it belongs to.

    Parameters
    ----------
    elements : mapping of tag to pydicom's raw element
        Public values of moderate size, for the header that a derived series inherits. Patient text.
    """

    file: StoredFile
    key: SeriesKey
    series_number: int | None
    images: tuple[Image, ...] = ()
    findings: tuple[Finding, ...] = ()
    elements: Mapping[int, Any] = field(default_factory=dict, repr=False)


def contents_of(
    gated: GatedFile, listed: ListedFile, byte_count: int, options: ReadOptions, repeated: Repeated
) -> Contents | Skipped:
    """Take from a gated file of `byte_count` bytes what its series needs; `repeated` remembers the files before it.

    Raises
    ------
    DicomError
        ``DCM-PARSE`` where not even the series of the file can be told.
    """
    tags = repeated.headers.tags(gated, listed.number)
    sop_class = tags.text_of("SOPClassUID")
    reason = _no_picture(gated, sop_class, tags)
    if reason:
        return Skipped(listed.number, reason, "DCM-OTHER")
    file = stored_file(gated, listed, byte_count, tags, sop_class)
    elements = repeated.kept(tags.elements, _is_inheritable)
    known = Contents(file, repeated.once(series_key, tags), tags.integer_of("SeriesNumber"), elements=elements)
    try:
        images = _images(file, tags, options, repeated)
    except DicomError as error:
        return replace(
            known, findings=(Finding(error.code, Verdict.REFUSED, error.fact, {"file": listed.number}, hint=error.hint),)
        )
    return replace(known, images=images, findings=tuple(_notes(file, tags, options)))


def _no_picture(gated: GatedFile, sop_class: str, tags: Tags) -> str:
    """Say in words why a file is no picture of a plane in the patient; empty if it may be one."""
    if "DirectoryRecordSequence" in tags:
        return "DICOM directory"
    if not gated.has_pixels:
        return "DICOM object without pixels"
    if gated.samples_per_pixel > 1:
        return "colour image"
    if gated.photometric == "PALETTE COLOR":
        return "palette image"
    if gated.bits_allocated == 1:
        return "mask of single bits"
    placed = "ImagePositionPatient" in tags or "PerFrameFunctionalGroupsSequence" in tags
    if not placed and any(sop_class == root or sop_class.startswith(f"{root}.") for root in _PLACELESS):
        return "image without a place in the patient"
    return ""


def stored_file(gated: GatedFile, listed: ListedFile, byte_count: int, tags: Tags, sop_class: str) -> StoredFile:
    """Remember how the pixels of a file are written, without its bytes."""
    return StoredFile(
        number=listed.number,
        path=listed.path,
        layout=replace(gated, data=b""),
        byte_count=byte_count,
        inverted=gated.photometric == "MONOCHROME1",
        sop_class_uid=sop_class,
        sop_instance_uid=tags.text_of("SOPInstanceUID"),
        instance_number=tags.integer_of("InstanceNumber") or 0,
    )


def series_key(tags: Tags) -> SeriesKey:
    """Return what images of one series share."""
    who = "\n".join(tags.text_of(keyword) for keyword in ("PatientID", "PatientName", "PatientBirthDate"))
    return SeriesKey(
        study_uid=tags.text_of("StudyInstanceUID"),
        series_uid=tags.text_of("SeriesInstanceUID"),
        frame_of_reference_uid=tags.text_of("FrameOfReferenceUID"),
        patient=hashlib.sha256(who.encode("utf-8", "surrogatepass")).hexdigest(),
        modality=_word(tags.text_of("Modality")),
    )


def _word(text: str) -> str:
    """Keep a code such as ``CT``; anything that is no short code is no modality and may be text of somebody."""
    return text if len(text) <= 16 and text.isascii() and text.isalnum() and text.isupper() else ""


def _images(file: StoredFile, tags: Tags, options: ReadOptions, repeated: Repeated) -> tuple[Image, ...]:
    if "PerFrameFunctionalGroupsSequence" in tags:
        return tuple(_image(file, frame, one, options, repeated) for frame, one in enumerate(_frame_tags(file, tags.values)))
    if file.layout.frames > 1:
        raise DicomError(
            "DCM-TAG",
            f"{shown('PerFrameFunctionalGroupsSequence')} is missing in file {file.number} of {file.layout.frames} frames.",
            "Nothing says where its frames stand; export the series as single images.",
        )
    image = _image(file, 0, tags, options, repeated)
    tiles = mosaic.tiles(tags, image.shape)
    return tuple(_tile(image, tile) for tile in tiles) if tiles else (image,)


def _frame_tags(file: StoredFile, header: Dataset) -> list[Tags]:
    """Return the tags of every frame: its own functional groups win over the shared ones, these over the object's."""
    frames = items_of(header, "PerFrameFunctionalGroupsSequence")
    if len(frames) != file.layout.frames:
        raise DicomError(
            "DCM-TAG",
            f"file {file.number} describes {len(frames)} frames and holds {file.layout.frames}.",
            "Export the series again from its archive.",
        )
    items_of(header, "DimensionIndexSequence")  # converted once here, and not once per frame
    shared = [layer for item in items_of(header, "SharedFunctionalGroupsSequence") for layer in _layers(item)]
    return [Tags(flatten([*_layers(item), *shared, header]), file.number) for item in frames]


def _layers(groups: Dataset) -> list[Dataset]:
    layers = [item for name in _FRAME_GROUPS for item in items_of(groups, name)[:1]]
    directions = [item for layer in layers for item in items_of(layer, "DiffusionGradientDirectionSequence")[:1]]
    return [*directions, *layers]


def _image(file: StoredFile, frame: int, tags: Tags, options: ReadOptions, repeated: Repeated) -> Image:
    shape = (file.layout.rows, file.layout.columns)
    across, down = repeated.once(_directions, tags)
    return Image(
        file=file,
        frame=frame,
        corner=(0, 0),
        shape=shape,
        position_lps_mm=tags.need_floats("ImagePositionPatient", 3),
        across=across,
        down=down,
        spacing_mm=_pixel_spacing(tags, options),
        thickness_mm=_thickness(tags),
        scaling=repeated.once(_scaling, tags),
        padding=_padding(tags, file.layout),
        acquired=repeated.once(_acquired, tags),
        traits=traits.of_image(tags, repeated),
    )


def _tile(mosaic_image: Image, tile: mosaic.Tile) -> Image:
    """Return one tile as an image of its own; the mosaic's position is that of the whole large picture."""
    across, down = np.asarray(mosaic_image.across), np.asarray(mosaic_image.down)
    between_rows, between_columns = mosaic_image.spacing_mm
    outside = [whole - one for whole, one in zip(mosaic_image.shape, tile.shape, strict=True)]
    first = mosaic_image.position_lps_mm + across * between_columns * outside[1] / 2 + down * between_rows * outside[0] / 2
    normal = np.cross(across, down)
    position = first + normal / np.linalg.norm(normal) * tile.depth_mm
    return replace(mosaic_image, corner=tile.corner, shape=tile.shape, position_lps_mm=tuple(float(v) for v in position))


def _directions(tags: Tags) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the directions of growing column and row index; refuse what is no pair of perpendicular unit vectors."""
    numbers = tags.need_floats("ImageOrientationPatient", 6)
    across, down = np.asarray(numbers[:3]), np.asarray(numbers[3:])
    lengths, cosine = (float(np.linalg.norm(across)), float(np.linalg.norm(down))), float(across @ down)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(cosine)) > _MOST_OFF_UNIT:
        raise DicomError(
            "DCM-ORIENT",
            f"{shown('ImageOrientationPatient')} in file {tags.number}: the directions have lengths {lengths[0]:.4f} and "
            f"{lengths[1]:.4f} and a cosine of {cosine:.4f} between them; they must be perpendicular and of length 1.",
            "Export the series again from its archive.",
        )
    return numbers[:3], numbers[3:]


def _pixel_spacing(tags: Tags, options: ReadOptions) -> tuple[float, float]:
    spacing = tags.floats("PixelSpacing", 2)
    if spacing is None and options.spacing_mm is not None:
        return options.spacing_mm[1], options.spacing_mm[2]
    rows, columns = spacing or tags.need_floats("PixelSpacing", 2)
    if min(rows, columns) <= 0:
        raise DicomError(
            "DCM-TAG",
            f"{shown('PixelSpacing')} in file {tags.number} is {rows:g} x {columns:g} mm.",
            "Export the series again from its archive.",
        )
    return rows, columns


def _thickness(tags: Tags) -> float | None:
    thickness = tags.number_of("SliceThickness")
    return thickness if thickness is not None and thickness > 0 else None


def _scaling(tags: Tags) -> Scaling:
    """Return the rescale of one image; a slope of 0 or a value that is no number is refused."""
    if "ModalityLUTSequence" in tags:
        raise DicomError(
            "DCM-RESCALE",
            f"file {tags.number} maps its values through a table.",
            "medrecon reads linear rescaling; export the series with it.",
        )
    slope, intercept = tags.floats("RescaleSlope", 1), tags.floats("RescaleIntercept", 1)
    if slope is None and intercept is None:
        return Scaling(1.0, 0.0, "")
    if slope is not None and slope[0] == 0:
        raise DicomError(
            "DCM-RESCALE", f"{shown('RescaleSlope')} in file {tags.number} is 0.", "Export the series again from its archive."
        )
    unit = tags.text_of("RescaleType").upper() or "HU"  # where the type is absent, that of CT is Hounsfield
    return Scaling(slope[0] if slope else 1.0, intercept[0] if intercept else 0.0, unit if unit in ("HU", "US") else "OTHER")


def _padding(tags: Tags, layout: GatedFile) -> tuple[int, int] | None:
    """Return the lowest and the highest stored value that is padding."""
    value, limit = tags.integer_of("PixelPaddingValue"), tags.integer_of("PixelPaddingRangeLimit")
    if value is None:
        return None
    ends = [_as_stored(end, layout) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, layout: GatedFile) -> int:
    """Undo a sign that was lost because the value was written with the other of the two possible types."""
    size = 1 << layout.bits_allocated
    if layout.pixel_representation and value >= size // 2:
        return value - size
    return value + size if not layout.pixel_representation and value < 0 else value


def _acquired(tags: Tags) -> tuple[int, int] | None:
    """Return how many rows and columns were measured, before any zero filling."""
    matrix = [round(number) for number in tags.numbers_of("AcquisitionMatrix")]
    if len(matrix) == 4:
        rows, columns = max(matrix[0], matrix[2]), max(matrix[1], matrix[3])
        return (rows, columns) if min(rows, columns) > 0 else None
    along = tags.integer_of("MRAcquisitionFrequencyEncodingSteps")
    across = tags.integer_of("MRAcquisitionPhaseEncodingStepsInPlane")
    direction = tags.text_of("InPlanePhaseEncodingDirection")
    if not along or not across or direction not in ("ROW", "COLUMN", "COL"):
        return None
    return (along, across) if direction == "ROW" else (across, along)


def _notes(file: StoredFile, tags: Tags, options: ReadOptions) -> list[Finding]:
    """Return findings on one file that do not refuse it."""
    notes = []
    if tags.odd:
        named = ", ".join(shown(keyword) for keyword in sorted(tags.odd))
        fact = f"file {file.number}: {named} cannot be understood and counts as absent."
        notes.append(Finding("DCM-PARSE", Verdict.WARN, fact, {"file": file.number}))
    if file.layout.tail_bytes:
        fact = (
            f"file {file.number}: {counted(file.layout.tail_bytes, 'byte', 'was', 'were')} dropped behind the announced pixels."
        )
        notes.append(Finding("DCM-PIXELS", Verdict.OK, fact, {"file": file.number, "tail_bytes": file.layout.tail_bytes}))
    if options.spacing_mm and not any(name in tags for name in ("PixelSpacing", "PerFrameFunctionalGroupsSequence")):
        fact = f"pixel spacing {options.spacing_mm[1]:g} x {options.spacing_mm[2]:g} mm is the caller's; the header has none."
        notes.append(Finding("DCM-OVERRIDE", Verdict.OK, fact))
    return notes


def inheritable(header: Dataset) -> dict[int, Any]:
    """Keep public elements of moderate size, as raw as they were read, for the header of a derived series."""
    return Repeated().kept({int(tag): element for tag, element in header.items()}, _is_inheritable)


def _is_inheritable(tag: int, element: Any) -> bool:  # noqa: ANN401 (raw and converted elements of pydicom)
    group = tag >> 16
    if group % 2 or group in (0x0002, 0x5200, 0x7FE0) or 0x5000 <= group <= 0x501E or 0x6000 <= group <= 0x601E:
        return False
    size = len(element.value) if isinstance(element.value, bytes | str) else 0
    return element.VR not in ("OB", "OW", "OF", "OD", "OL", "OV", "UN") and size <= _MOST_HEADER_BYTES
