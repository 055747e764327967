"""Write a surface as a DICOM Encapsulated STL object, which an archive keeps beside the images it was made from.

The STL inside is binary, in the LPS millimetres of the source's frame of reference, which the object names; the unit
stands in the object too. Each surface is a series of its own, so that a list of series shows what there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedSTLStorage

from medrecon.core.mesh import Surface
from medrecon.core.source import Source
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers import _dicom_common as common
from medrecon.writers import _dicom_inherit as inherited
from medrecon.writers._stl import stl_bytes

WRITES = "surface"
TARGET = "surface-{name}.dcm"

_SOURCE_IMAGE = common.Code("121324", "DCM", "Source image")
_TITLES: Mapping[str, common.Code] = {
    "CT": common.Code("85040-4", "LN", "CT 3D CAM model"),
    "MR": common.Code("85041-2", "LN", "MR 3D CAM model"),
    "US": common.Code("129018", "DCM", "US 3D CAM model"),
}


def write(surface: Surface, target: Path, context: WriteContext) -> None:
    """Write a surface as one Encapsulated STL object.

    Parameters
    ----------
    surface : Surface
        In LPS mm; its name goes into the series description and the document title.
    context : WriteContext
        With `source`, whose patient, study and frame of reference the object keeps.

    Raises
    ------
    OutputError
        Those of `medrecon.safety.atomic.replacing`.
    """
    document = stl_bytes(surface)
    source = context.source
    identity = common.identify(source, context, f"surface {surface.name}", _content(document))
    made = common.begin(source, identity, context, f"{surface.name} surface")
    made.update(_document(surface, document))
    made.ConceptNameCodeSequence = _TITLES[source.modality].as_sequence() if source.modality in _TITLES else []
    made.update(_origin(source))
    made = common.finish(made, source, identity, 1, EncapsulatedSTLStorage)
    with replacing(target) as scratch:
        scratch.write_bytes(common.encode(made))


def _document(surface: Surface, document: bytes) -> Dataset:
    """Fill the document, equipment and 3D model modules; dates stay empty, since no clock is read."""
    made = Dataset()
    made.Modality = "M3D"
    made.DeviceSerialNumber = common.VERSION  # required; software has no other number of its own
    made.ContentDate = made.ContentTime = made.AcquisitionDateTime = None
    made.DocumentTitle = common.plain_text(f"{surface.name} surface, {common.LABEL}", 1024)
    made.MIMETypeOfEncapsulatedDocument = "model/stl"
    made.MeasurementUnitsCodeSequence = common.MILLIMETRE.as_sequence()
    made.ContentDescription = common.plain_text(f"{surface.name}, LPS mm")
    made.EncapsulatedDocumentLength = len(document)
    made.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    return made


def _origin(source: Source) -> Dataset:
    """Refer to the source images, and to their series as the common instance reference module wants it."""
    made = Dataset()
    references = common.references(source.instances, _SOURCE_IMAGE)
    if not references:
        return made
    for reference in references:
        reference.pop("ReferencedFrameNumber", None)  # whole objects are named here
    made.SourceInstanceSequence = references
    series = inherited.first(source.header, "SeriesInstanceUID")
    if series:
        item = Dataset()
        item.SeriesInstanceUID = series
        item.ReferencedInstanceSequence = [_bare(reference) for reference in references]
        made.ReferencedSeriesSequence = [item]
    return made


def _bare(reference: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
        reference.ReferencedSOPClassUID,
        reference.ReferencedSOPInstanceUID,
    )
    return item


def _content(document: bytes) -> Iterator[bytes]:
    yield document
