"""Write a volume as a derived DICOM series: classic CT or MR images, one file per slice, in a folder.

The class of image follows from what is known. Hounsfield units, attenuation and everything from a CT scanner are CT
images; everything from an MR scanner is MR images; the rest, such as a NIfTI file of unknown origin, is secondary
capture with its position in space, since calling it CT or MR would be a guess. Slices are put in order along the
DICOM normal by choosing their order, never by mirroring them. Nothing is resampled: a sheared grid is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from medrecon.core.volume import Quantity, Volume
from medrecon.safety.atomic import replacing_folder
from medrecon.writers import WriteContext
from medrecon.writers import _dicom_common as common
from medrecon.writers import _dicom_inherit as inherited
from medrecon.writers._dicom_pixels import Coding, choose_coding
from medrecon.writers._dicom_planes import Planes, planes_of

WRITES = "volume"
TARGET = "dicom"

_SOURCE_IMAGE = common.Code("121322", "DCM", "Source image for image processing operation")
_RESAMPLING = common.Code("113085", "DCM", "Spatial resampling")
_REFORMATTING = common.Code("113072", "DCM", "Multiplanar reformatting")
_UNIT = {
    Quantity.HOUNSFIELD: common.Code("[hnsf'U]", "UCUM", "Hounsfield unit"),
    Quantity.ATTENUATION_PER_MM: common.PER_MILLIMETRE,
    Quantity.ARBITRARY: common.NO_UNITS,
}
_CT = ("KVP", "AcquisitionNumber", "ConvolutionKernel", "FilterType", "ScanOptions")
_MR = (
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "MRAcquisitionType",
    "SequenceName",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "TriggerTime",
    "EchoTrainLength",
    "EchoNumbers",
    "FlipAngle",
    "MagneticFieldStrength",
    "ImagingFrequency",
    "ImagedNucleus",
)
_GATED = frozenset({"CG", "PPG"})  # scan options that make the trigger time a required attribute
_CT_WINDOW = (40.0, 400.0)  # the usual soft tissue window, Hounsfield units
_STEEPEST_GANTRY = np.cos(np.deg2rad(30.0))  # scanners tilt no further; beyond it a plane is no axial one
_log = logging.getLogger(__name__)


def write(volume: Volume, target: Path, context: WriteContext) -> None:
    """Write a volume as a folder ``target`` of single-frame images ``slice-00001.dcm``, ordered along their normal.

    Parameters
    ----------
    volume : Volume
        With a DICOM source its patient, study and frame of reference are kept; without one patient and study are
        empty and new. Hounsfield units become int16; other values keep their whole numbers where they fit, else
        their meaning stands in the rescale slope (CT) or the real world value mapping (all). Voxels that were never
        seen hold PixelPaddingValue.

    Raises
    ------
    GeometryError
        ``VOL-SHEARED`` where the axes of the grid are not perpendicular.
    OutputError
        ``OUT-FINITE``, ``OUT-SIZE``, and those of `medrecon.safety.atomic.replacing_folder`.
    """
    planes = planes_of(volume.grid)
    coding = choose_coding(volume)
    if coding.clipped:
        _log.warning("%d voxels lie beyond what DICOM integers hold and were clipped", coding.clipped)
    identity = common.identify(volume.source, context, _kind(volume), _content(volume))
    template = common.frozen(_template(volume, planes, coding, identity, context))
    with replacing_folder(target) as folder:
        for number, k in enumerate(planes.order, start=1):
            seen = None if volume.seen is None else volume.seen[k]
            stored = coding.encode(volume.voxels[k], seen)
            template.SOPInstanceUID, template.InstanceNumber = identity.instance(number), number
            planes.place(template, number)
            template.add_new("PixelData", "OW", stored.tobytes())
            (folder / f"slice-{number:05d}.dcm").write_bytes(common.encode(template))


def _template(volume: Volume, planes: Planes, coding: Coding, identity: common.Identity, context: WriteContext) -> Dataset:
    """Everything that all slices have in common, with the identifiers of the first."""
    sop_class, source = _sop_class(volume), volume.source
    image = common.begin(source, identity, context, context.method or "volume")
    image.update(inherited.inherit(source.header, [*inherited.SERIES, *inherited.ACQUISITION, *inherited.LOSSY]))
    inherited.require(image, ("PatientPosition",))
    inherited.settle_laterality(image)
    image.Modality = _modality(sop_class, source.modality)
    image.update({CTImageStorage: _ct, MRImageStorage: _mr}.get(sop_class, _secondary)(volume, coding))
    image.ImageType = ["DERIVED", "SECONDARY", _third_image_type(sop_class, planes, source.header)]
    image.DerivationDescription = common.describe(context, f"{coding.clipped} voxels clipped" if coding.clipped else "")
    references = common.references(source.instances, _SOURCE_IMAGE)
    if references:
        image.SourceImageSequence = references
        codes = [_RESAMPLING, _REFORMATTING] if _is_reformatted(planes, source.header) else [_RESAMPLING]
        image.DerivationCodeSequence = [item for code in codes for item in code.as_sequence()]
    image.update(planes.common())
    image.update(_pixel_format(volume, coding))
    return common.finish(image, source, identity, 1, sop_class)


def _sop_class(volume: Volume) -> UID:
    """Choose the class of image that says no more than is known."""
    if volume.quantity is not Quantity.ARBITRARY or volume.source.modality == "CT":
        return CTImageStorage
    return MRImageStorage if volume.source.modality == "MR" else SecondaryCaptureImageStorage


def _modality(sop_class: UID, source_modality: str) -> str:
    """Name the kind of device behind the values, ``OT`` (other) where it is not known."""
    known = source_modality if re.fullmatch(r"[A-Z0-9_]{2,16}", source_modality) else "OT"
    return {CTImageStorage: "CT", MRImageStorage: "MR"}.get(sop_class, known)


def _third_image_type(sop_class: UID, planes: Planes, header: inherited.Header) -> str:
    """AXIAL is a term of CT; MPR says that the planes are not those of the source."""
    if sop_class == CTImageStorage and abs(planes.normal[2]) > _STEEPEST_GANTRY:
        return "AXIAL"
    return "MPR" if _is_reformatted(planes, header) else "OTHER"


def _is_reformatted(planes: Planes, header: inherited.Header) -> bool:
    """Whether the planes are turned against those of the source, where these are known."""
    cosines = inherited.numbers(header, "ImageOrientationPatient")
    if len(cosines) != 6:
        return False
    return bool(abs(np.cross(cosines[:3], cosines[3:]) @ planes.normal) < 1 - 1e-4)


def _ct(volume: Volume, coding: Coding) -> Dataset:
    """Fill the CT image module."""
    image = inherited.inherit(volume.source.header, _CT)
    inherited.require(image, ("KVP", "AcquisitionNumber"))
    image.RescaleType = "HU" if volume.quantity is Quantity.HOUNSFIELD else "US"
    _rescale(image, coding)
    return image


def _mr(volume: Volume, coding: Coding) -> Dataset:  # noqa: ARG001 (all three have the same arguments)
    """Fill the MR image module, which has no rescale slope; what differs between the source images is left empty."""
    image = inherited.inherit(volume.source.header, _MR)
    image.ScanningSequence = image.get("ScanningSequence") or "RM"
    image.SequenceVariant = image.get("SequenceVariant") or "NONE"
    inherited.require(image, ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"))
    if "IR" in image.ScanningSequence:
        inherited.require(image, ("InversionTime",))
    if image.ScanOptions and not _GATED.isdisjoint(np.atleast_1d(image.ScanOptions)):
        inherited.require(image, ("TriggerTime",))
    return image


def _secondary(volume: Volume, coding: Coding) -> Dataset:  # noqa: ARG001 (all three have the same arguments)
    """Fill the secondary capture modules, and the modality rescale where the stored integers are not the values."""
    image = Dataset()
    image.ConversionType = "WSD"
    image.SecondaryCaptureDeviceManufacturer = common.MAKER
    if not coding.is_plain:
        _rescale(image, coding)
        image.RescaleType = "US"
    return image


def _rescale(image: Dataset, coding: Coding) -> None:
    image.RescaleSlope, image.RescaleIntercept = format_number_as_ds(coding.slope), format_number_as_ds(coding.intercept)


def _pixel_format(volume: Volume, coding: Coding) -> Dataset:
    """Say what the stored integers are and what they mean."""
    image, vr = Dataset(), "SS" if coding.is_signed else "US"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = volume.grid.shape[1:]
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PixelRepresentation = int(coding.is_signed)
    if coding.padding is not None:
        image.add_new("PixelPaddingValue", vr, coding.padding)
    if not coding.is_plain:
        image.RealWorldValueMappingSequence = [_real_world(volume, coding, vr)]
    image.update(_window(volume, coding))
    return image


def _real_world(volume: Volume, coding: Coding, vr: str) -> Dataset:
    """How a stored integer becomes a value with its unit."""
    item = Dataset()
    item.LUTExplanation = item.LUTLabel = "values"
    item.add_new("RealWorldValueFirstValueMapped", vr, coding.smallest)
    item.add_new("RealWorldValueLastValueMapped", vr, coding.largest)
    item.RealWorldValueSlope, item.RealWorldValueIntercept = coding.slope, coding.intercept
    item.MeasurementUnitsCodeSequence = _UNIT[volume.quantity].as_sequence()
    return item


def _window(volume: Volume, coding: Coding) -> Dataset:
    """Choose a window: the source's or soft tissue for Hounsfield units, else what holds all but the extremes."""
    if volume.quantity is Quantity.HOUNSFIELD:
        centers, widths = (inherited.numbers(volume.source.header, f"Window{part}") for part in ("Center", "Width"))
        if centers and len(centers) == len(widths) and min(widths) >= 1:
            return inherited.inherit(volume.source.header, ("WindowCenter", "WindowWidth"))
        return _window_of(_CT_WINDOW[0], _CT_WINDOW[1])
    low, high = _spread(volume)
    if _sop_class(volume) == MRImageStorage:  # without a rescale slope the window is one of stored integers
        low, high = ((v - coding.intercept) / coding.slope for v in (low, high))
    return _window_of((low + high) / 2, max(high - low, coding.slope))


def _window_of(center: float, width: float) -> Dataset:
    image = Dataset()
    image.WindowCenter, image.WindowWidth = format_number_as_ds(float(center)), format_number_as_ds(float(width))
    if width < 1:
        image.VOILUTFunction = "LINEAR_EXACT"  # the usual function is not defined for a window narrower than 1
    return image


def _spread(volume: Volume) -> tuple[float, float]:
    """Lowest and highest value but for one in a thousand at either end, from at most about a million voxels."""
    stride = max(1, round((volume.voxels.size / 1e6) ** (1 / 3)))
    every = (slice(None, None, stride),) * 3
    values = volume.voxels[every] if volume.seen is None else volume.voxels[every][volume.seen[every]]
    low, high = np.percentile(values, (0.1, 99.9)) if values.size else (0.0, 0.0)
    return float(low), float(high)


def _kind(volume: Volume) -> str:
    """Tell this output from another one of the same source and settings: by where it stands."""
    return f"volume {volume.grid.shape} {volume.grid.to_lps_mm.tobytes().hex()}"


def _content(volume: Volume) -> Iterator[bytes]:
    yield volume.voxels.tobytes()
    yield b"" if volume.seen is None else volume.seen.tobytes()
