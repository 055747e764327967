"""Make CT and MR files whose geometry and values the test knows; the classic ones are conformant in every attribute.

Everything follows from the arguments: the same call writes the same bytes. Pixels are a body with three markers of
different size and value at the patient's left, head and front, so that no flip or turn goes unnoticed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

Float64 = NDArray[np.float64]

#: A name that must show up in no message, log line, file name or report; other free text holds its parts.
POISON = "POISON^NAME"
POISON_ID = "POISON-ID-4711"

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

#: Where the markers sit, in half extents of the body from its centre (LPS), their radius, and their value above the body's.
MARKERS: Mapping[str, tuple[tuple[float, float, float], float, float]] = {
    "left": ((0.55, 0.0, 0.0), 0.16, 400.0),
    "head": ((0.0, 0.0, 0.55), 0.22, 800.0),
    "front": ((0.0, -0.55, 0.0), 0.28, 1200.0),
}
_NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
_PYDICOM_ENCODES = {RLELossless, JPEGLSLossless}


@dataclass(frozen=True)
class SeriesPlan:
    """Geometry and values of a made series, before it is written; index k runs along the slice normal.

    Parameters
    ----------
    positions_lps_mm : (n, 3)
        ImagePositionPatient of every slice.
    orientation : six numbers
        ImageOrientationPatient.
    pixel_spacing_mm : (between rows, between columns)
    values : (n, rows, columns) float64
        What a reader must return (up to the rounding of the stored integers).
    """

    positions_lps_mm: Float64
    orientation: Float64
    pixel_spacing_mm: tuple[float, float]
    values: Float64 = field(repr=False)

    def corners_lps_mm(self) -> Float64:
        """Centres of the four corner pixels of every slice, (n, 4, 3): (0,0), (0,last), (last,0), (last,last)."""
        rows, columns = (size - 1 for size in self.values.shape[1:])
        across = self.orientation[:3] * self.pixel_spacing_mm[1]
        down = self.orientation[3:] * self.pixel_spacing_mm[0]
        steps = np.array([0 * across, columns * across, rows * down, rows * down + columns * across])
        corners: Float64 = self.positions_lps_mm[:, None] + steps
        return corners


def make_series(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (8, 32, 24),
    spacing_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
    thickness_mm: float | Sequence[float] | None = 3.0,
    modality: Literal["CT", "MR"] = "CT",
    orientation: Sequence[float] = AXIAL,
    origin_lps_mm: Sequence[float] = (-20.0, -30.0, 10.0),
    tilt_deg: float = 0.0,
    tilt_tag_deg: float | None = None,
    steps_mm: Sequence[float] | None = None,
    drop: Collection[int] = (),
    pixels: ArrayLike | None = None,
    stored: ArrayLike | None = None,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = -1024.0,
    padding: int | None = None,
    bits_stored: int = 16,
    signed: bool = False,
    transfer_syntax: str = ExplicitVRLittleEndian,
    seed: int = 0,
    study: int = 0,
    patient: str = POISON,
    first_number: int = 1,
    change: Callable[[Dataset, int], None] | None = None,
) -> list[Path]:
    """Write one classic CT or MR series and return its files in order along the slice normal.

    Parameters
    ----------
    shape : (slices, rows, columns)
    spacing_mm : (slice step along the normal, between rows, between columns)
    thickness_mm : one for all, one per slice, or None for an empty tag
    orientation : ImageOrientationPatient: direction of growing column index, then of growing row index
    tilt_deg : every slice is moved along its direction of growing row index, as a gantry tilt does, by tan(tilt) times its depth
    tilt_tag_deg : GantryDetectorTilt; absent where None, whatever the positions say
    steps_mm : n - 1 steps along the normal, in place of the even one
    drop : slices, from 0, that are not written
    pixels : real values (n, rows, columns); the marker phantom where not given
    stored : stored integers, in place of `pixels`
    slope, intercept : one for all or one per slice; an MR series with slope 1 and intercept 0 gets no such tags
    padding : PixelPaddingValue (a stored value)
    seed, study : series and study of equal numbers have equal UIDs
    first_number : InstanceNumber of the first slice
    change : called with every data set and its slice index just before it is written
    """
    plan = plan_series(
        shape=shape,
        spacing_mm=spacing_mm,
        orientation=orientation,
        origin_lps_mm=origin_lps_mm,
        tilt_deg=tilt_deg,
        steps_mm=steps_mm,
        pixels=pixels,
        modality=modality,
    )
    folder.mkdir(parents=True, exist_ok=True)
    slopes, intercepts = (np.broadcast_to(np.asarray(v, dtype=np.float64), shape[0]) for v in (slope, intercept))
    raw = _stored(plan.values, slopes, intercepts, bits_stored, signed) if stored is None else np.asarray(stored)
    paths = []
    for k in (k for k in range(shape[0]) if k not in drop):
        image = _header(modality, seed=seed, study=study, patient=patient, number=first_number + k)
        _place(image, plan, k, thickness_mm)
        _pixels(image, raw[k], bits_stored=bits_stored, signed=signed)
        _values(image, modality, float(slopes[k]), float(intercepts[k]), padding)
        if tilt_tag_deg is not None:
            image.GantryDetectorTilt = tilt_tag_deg
        if change is not None:
            change(image, k)
        paths.append(folder / f"IM{k:04d}")
        write(image, paths[-1], transfer_syntax)
    return paths


def plan_series(
    *,
    shape: tuple[int, int, int] = (8, 32, 24),
    spacing_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
    orientation: Sequence[float] = AXIAL,
    origin_lps_mm: Sequence[float] = (-20.0, -30.0, 10.0),
    tilt_deg: float = 0.0,
    steps_mm: Sequence[float] | None = None,
    pixels: ArrayLike | None = None,
    modality: str = "CT",
) -> SeriesPlan:
    """Return the geometry and the values that `make_series` writes for the same arguments."""
    iop = np.asarray(orientation, dtype=np.float64)
    normal = np.cross(iop[:3], iop[3:])
    steps = np.full(shape[0] - 1, spacing_mm[0]) if steps_mm is None else np.asarray(steps_mm, dtype=np.float64)
    depths = np.concatenate([[0.0], np.cumsum(steps)])
    direction = normal + np.tan(np.deg2rad(tilt_deg)) * iop[3:]
    positions = np.asarray(origin_lps_mm, dtype=np.float64) + depths[:, None] * direction
    plan = SeriesPlan(positions, iop, (spacing_mm[1], spacing_mm[2]), np.zeros(shape))
    values = phantom(plan, modality) if pixels is None else np.asarray(pixels, dtype=np.float64)
    return replace(plan, values=values)


def phantom(plan: SeriesPlan, modality: str = "CT") -> Float64:
    """Sample the body with its three markers at the pixels of a plan: Hounsfield units, or grey values for MR."""
    shape = plan.values.shape
    across = np.arange(shape[2])[:, None] * plan.orientation[:3] * plan.pixel_spacing_mm[1]
    down = np.arange(shape[1])[:, None] * plan.orientation[3:] * plan.pixel_spacing_mm[0]
    points = plan.positions_lps_mm[:, None, None] + down[None, :, None] + across[None, None]
    corners = plan.corners_lps_mm().reshape(-1, 3)
    low, high = corners.min(axis=0), corners.max(axis=0)
    unit = (points - (low + high) / 2) / np.maximum((high - low) / 2, 1e-6)
    body = np.linalg.norm(unit, axis=-1) < 0.9
    values = np.where(body, 40.0 + 20.0 * unit[..., 0] + 10.0 * unit[..., 2], -1000.0)
    for centre, radius, height in MARKERS.values():
        values = np.where(np.linalg.norm(unit - np.asarray(centre), axis=-1) < radius, height, values)
    grey = values if modality == "CT" else np.where(values < -900, 0.0, values + 100.0)
    return np.asarray(np.round(grey), dtype=np.float64)


def make_enhanced(
    path: Path,
    *,
    shape: tuple[int, int, int] = (5, 16, 12),
    volumes: Sequence[Mapping[str, Any]] = ({},),
    spacing_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
    thickness_mm: float = 3.0,
    modality: Literal["CT", "MR"] = "MR",
    orientation: Sequence[float] = AXIAL,
    tilt_deg: float = 0.0,
    shared: Collection[str] = ("PixelMeasures", "PlaneOrientation"),
    slopes: Sequence[float] = (),
    change: Callable[[Dataset], None] | None = None,
) -> SeriesPlan:
    """Write one enhanced multi-frame object and return the plan of its first volume.

    Parameters
    ----------
    volumes : per volume what its frames say: ``time``, ``echo_ms``, ``component``, ``b``, ``direction``, ``offset`` (added
        to the values)
    shared : functional groups that are written once for all frames; the others are written for every frame
    slopes : rescale slope of every frame of a volume, by slice; stored values are divided by it
    """
    plan = plan_series(shape=shape, spacing_mm=spacing_mm, orientation=orientation, tilt_deg=tilt_deg, modality=modality)
    image = _header(modality, seed=0, study=0, patient=POISON, number=1)
    image.SOPClassUID = EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage
    raw, frames = [], []
    for volume in volumes:
        for k in range(shape[0]):
            slope = slopes[k] if slopes else 1.0
            groups = _groups(plan, k, volume, thickness_mm, modality, slope)
            frames.append(_item(**{f"{name}Sequence": [g] for name, g in groups.items() if name not in shared}))
            raw.append(np.round((plan.values[k] + volume.get("offset", 0.0) + 1024.0) / slope))
    groups = _groups(plan, 0, {}, thickness_mm, modality, 1.0)
    image.SharedFunctionalGroupsSequence = [_item(**{f"{name}Sequence": [groups[name]] for name in shared})]
    image.PerFrameFunctionalGroupsSequence = frames
    image.NumberOfFrames = len(frames)
    _pixels(image, raw[0], bits_stored=16, signed=False)
    image.PixelData = np.stack(raw).astype("<u2").tobytes()
    if change is not None:
        change(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(image, path)
    return plan


def make_mosaic(
    path: Path,
    *,
    shape: tuple[int, int, int] = (7, 12, 10),
    spacing_mm: tuple[float, float, float] = (4.0, 2.0, 2.5),
    orientation: Sequence[float] = AXIAL,
    against_normal: bool = False,
    number: int = 1,
    offset: float = 0.0,
    change: Callable[[Dataset], None] | None = None,
) -> SeriesPlan:
    """Write one Siemens mosaic with its CSA header and return its plan, tiles in the order in which they are stored."""
    steps = [(-1.0 if against_normal else 1.0) * spacing_mm[0]] * (shape[0] - 1)
    plan = plan_series(shape=shape, spacing_mm=spacing_mm, orientation=orientation, steps_mm=steps, modality="MR")
    plan = replace(plan, values=plan.values + offset)
    side = int(np.ceil(np.sqrt(shape[0])))
    large = np.zeros((side * shape[1], side * shape[2]))
    for k, tile in enumerate(plan.values):
        row, column = k // side * shape[1], k % side * shape[2]
        large[row : row + shape[1], column : column + shape[2]] = tile
    image = _header("MR", seed=0, study=0, patient=POISON, number=number)
    image.ImageType, image.Manufacturer = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "SIEMENS"
    image.AcquisitionNumber, image.SpacingBetweenSlices = number, spacing_mm[0]
    _place(image, plan, 0, spacing_mm[0])
    beyond = np.array([large.shape[1] - shape[2], large.shape[0] - shape[1]]) / 2 * (spacing_mm[2], spacing_mm[1])
    corner = plan.positions_lps_mm[0] - beyond[0] * plan.orientation[:3] - beyond[1] * plan.orientation[3:]
    image.ImagePositionPatient = [_decimal(v) for v in corner]
    normal = np.cross(plan.orientation[:3], plan.orientation[3:]) * (-1 if against_normal else 1)
    block = image.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(
        0x10, "OB", csa_header({"NumberOfImagesInMosaic": [str(shape[0])], "SliceNormalVector": [f"{v:.8f}" for v in normal]})
    )
    _pixels(image, large, bits_stored=12, signed=False)
    if change is not None:
        change(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(image, path)
    return plan


def csa_header(tags: Mapping[str, Sequence[str]]) -> bytes:
    """Return a Siemens CSA header of version 2 with the given tags."""
    out = b"SV10\x04\x03\x02\x01" + struct.pack("<II", len(tags), 77)
    for name, items in tags.items():
        out += name.encode().ljust(64, b"\0") + struct.pack("<i4siii", len(items), b"FD\0\0", 4, max(len(items), 6), 77)
        for text in [*items, *[""] * (6 - len(items))]:
            data = text.encode() + b"\0" if text else b""
            out += struct.pack("<4i", len(data), len(data), 77, len(data)) + data.ljust((len(data) + 3) // 4 * 4, b"\0")
    return out


def _groups(
    plan: SeriesPlan, k: int, volume: Mapping[str, Any], thickness_mm: float, modality: str, slope: float
) -> dict[str, Dataset]:
    """Functional groups of one frame."""
    content = _item(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=k + 1)
    if "time" in volume:
        content.TemporalPositionIndex = volume["time"]
    component = volume.get("component", "MAGNITUDE")
    kind = _item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], ComplexImageComponent=component)
    groups = {
        "FrameContent": content,
        "PlanePosition": _item(ImagePositionPatient=[_decimal(v) for v in plan.positions_lps_mm[k]]),
        "PlaneOrientation": _item(ImageOrientationPatient=[_decimal(v) for v in plan.orientation]),
        "PixelMeasures": _item(PixelSpacing=[_decimal(v) for v in plan.pixel_spacing_mm], SliceThickness=_decimal(thickness_mm)),
        "PixelValueTransformation": _item(
            RescaleIntercept="-1024", RescaleSlope=_decimal(slope), RescaleType="HU" if modality == "CT" else "US"
        ),
        f"{modality}ImageFrameType": kind,
    }
    if "echo_ms" in volume:
        groups["MREcho"] = _item(EffectiveEchoTime=float(volume["echo_ms"]))
    if "b" in volume:
        groups["MRDiffusion"] = _item(DiffusionBValue=float(volume["b"]))
    if "direction" in volume:
        direction = _item(DiffusionGradientOrientation=[float(v) for v in volume["direction"]])
        groups["MRDiffusion"].DiffusionGradientDirectionSequence = [direction]
    return groups


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def uid(*parts: object) -> str:
    """Return a UID that depends on `parts` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def write(image: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian) -> None:
    """Write a data set as a DICOM file, compressing its pixels where the transfer syntax asks for that."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = image.SOPClassUID
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax if transfer_syntax in _NATIVE else ExplicitVRLittleEndian)
    meta.ImplementationClassUID = UID(uid("medrecon tests"))
    image.file_meta = meta
    if transfer_syntax in _PYDICOM_ENCODES:
        image.compress(transfer_syntax, generate_instance_uid=False)
    elif transfer_syntax == ExplicitVRBigEndian and image.BitsAllocated == 16 and "PixelData" in image:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    image.save_as(path, enforce_file_format=True)
    if transfer_syntax not in _NATIVE | _PYDICOM_ENCODES:
        _transcode(path, transfer_syntax)


def _transcode(path: Path, transfer_syntax: str) -> None:
    """Let GDCM write a native file again, with its pixels compressed as JPEG, JPEG lossless or JPEG 2000."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    done = reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(transfer_syntax)))
    change.SetInput(reader.GetImage())
    done = done and change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not (done and writer.Write()):
        raise RuntimeError(f"GDCM cannot write {transfer_syntax}")


def _stored(values: Float64, slopes: Float64, intercepts: Float64, bits: int, signed: bool) -> NDArray[np.int64]:
    """Return the integers that come back as `values` after rescaling, clipped to what the bits can hold."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    raw = np.round((values - intercepts[:, None, None]) / slopes[:, None, None])
    return np.clip(raw, low, high).astype(np.int64)


def _header(modality: str, *, seed: int, study: int, patient: str, number: int) -> Dataset:
    """Everything about patient, study, series and equipment; free text is poisoned with the patient's name."""
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY", "OTHER"]
    image.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    image.SOPInstanceUID = uid("instance", study, seed, modality, number)
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = "20200102"
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "101112"
    image.AccessionNumber = image.StudyID = "4711"
    image.Modality = modality
    image.Manufacturer, image.ManufacturerModelName = "medrecon tests", "maker"
    image.DeviceSerialNumber, image.SoftwareVersions = "1", "1"
    image.ReferringPhysicianName = patient
    image.StudyDescription = image.SeriesDescription = image.ProtocolName = patient.replace("^", " ")
    image.PatientName, image.PatientID = patient, POISON_ID
    image.PatientBirthDate, image.PatientSex = "19500101", "O"
    image.PatientPosition, image.BodyPartExamined = "HFS", "HEAD"
    image.StudyInstanceUID = uid("study", study)
    image.SeriesInstanceUID = uid("series", study, seed, modality)
    image.FrameOfReferenceUID = uid("frame", study)
    image.PositionReferenceIndicator = ""
    image.SeriesNumber, image.AcquisitionNumber, image.InstanceNumber = seed + 1, 1, number
    image.update(_acquisition(modality))
    return image


def _acquisition(modality: str) -> Dataset:
    """What the CT or MR image module asks for."""
    image = Dataset()
    if modality == "CT":
        image.KVP, image.RescaleType = 120, "HU"
        return image
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "SE", "NONE", ""
    image.MRAcquisitionType, image.EchoTime, image.EchoTrainLength, image.RepetitionTime = "2D", 20, 1, 500
    image.EchoNumbers = 1
    return image


def _place(image: Dataset, plan: SeriesPlan, k: int, thickness_mm: float | Sequence[float] | None) -> None:
    image.ImagePositionPatient = [_decimal(v) for v in plan.positions_lps_mm[k]]
    image.ImageOrientationPatient = [_decimal(v) for v in plan.orientation]
    image.PixelSpacing = [_decimal(v) for v in plan.pixel_spacing_mm]
    thickness = thickness_mm[k] if isinstance(thickness_mm, Sequence) else thickness_mm
    image.SliceThickness = None if thickness is None else _decimal(thickness)


def _pixels(image: Dataset, raw: NDArray[Any], *, bits_stored: int, signed: bool) -> None:
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = raw.shape
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, bits_stored, bits_stored - 1
    image.PixelRepresentation = int(signed)
    image.PixelData = (raw.astype(np.int64) & (2**bits_stored - 1 if not signed else 0xFFFF)).astype("<u2").tobytes()
    image["PixelData"].VR = "OW"


def _values(image: Dataset, modality: str, slope: float, intercept: float, padding: int | None) -> None:
    if modality == "CT" or (slope, intercept) != (1.0, 0.0):
        image.RescaleSlope, image.RescaleIntercept = _decimal(slope), _decimal(intercept)
        image.RescaleType = "HU" if modality == "CT" else "US"
    if padding is not None:
        image.add_new("PixelPaddingValue", "SS" if image.PixelRepresentation else "US", padding)


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters, as exact as these allow."""
    for digits in range(15, 5, -1):
        text = f"{float(value):.{digits}g}"
        if len(text) <= 16:
            return text
    return f"{float(value):.6g}"
