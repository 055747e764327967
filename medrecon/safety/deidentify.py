"""Take the patient out of what a written DICOM object copies from its source.

The basic profile of PS3.15 Annex E, for the attributes that our writers know: what stays is a short list of technical
facts, everything else goes, so that an attribute added to a writer later stays out until somebody puts it on the list.
Identifiers and the patient's number are replaced by keyed hashes: two exports of one study still belong together, and
without this machine's secret nobody gets back to the original. Pixels are not touched: a head can be recognised by its
face, and text burned into an image stays there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from medrecon.core.source import Source, SourceInstance
from medrecon.safety.text import keyed_id, machine_secret

Header = Mapping[str, Any]

#: Technical facts that name nobody; none of them is in the table of PS3.15 Annex E.
KEPT = (
    "Modality",
    "BodyPartExamined",
    "Laterality",
    "ImageLaterality",
    "PatientPosition",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "SeriesNumber",
    "AcquisitionNumber",
    "PositionReferenceIndicator",
    "ImageOrientationPatient",
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "WindowCenter",
    "WindowWidth",
    "KVP",
    "ConvolutionKernel",
    "FilterType",
    "ScanOptions",
    "ScanningSequence",
    "SequenceVariant",
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
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_METHOD = "Basic profile, PS3.15 Annex E, for the attributes copied"


def deidentified(source: Source, secret: bytes | None = None) -> Source:
    """Return a source without its patient: technical facts, replaced identifiers, and the statement that this was done.

    Parameters
    ----------
    secret : bytes, optional
        By default the machine's own, see `medrecon.safety.text.machine_secret`.

    Raises
    ------
    OutputError
        ``ID-SECRET`` where the machine's secret can be neither read nor made.
    """
    key = machine_secret() if secret is None else secret
    kept = {tag: source.header[tag] for tag in map(_tag, KEPT) if tag in source.header}
    header = {**kept, **_pseudonyms(source.header, key), **_statement()}
    instances = tuple(SourceInstance(one.sop_class_uid, _uid(one.sop_instance_uid, key), one.frame) for one in source.instances)
    return replace(source, header=header, instances=instances, file_hashes=())


def _pseudonyms(header: Header, key: bytes) -> Header:
    """Replace identifiers by others that only this machine can connect with them."""
    uids = {keyword: _uid(_text(header, keyword), key) for keyword in _UIDS if _text(header, keyword)}
    patient = keyed_id("patient", _text(header, "PatientID"), _text(header, "IssuerOfPatientID"), secret=key)
    names = {"PatientID": patient, "PatientName": {"Alphabetic": f"ANONYMOUS^{patient}"}}
    return {_tag(keyword): _element(keyword, value) for keyword, value in {**uids, **names}.items()}


def _statement() -> Header:
    """Say that and how identity was removed."""
    code = {"CodeValue": "113100", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Basic Application Confidentiality Profile"}
    said = {
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": _METHOD,
        "DeidentificationMethodCodeSequence": {_tag(keyword): _element(keyword, value) for keyword, value in code.items()},
        "LongitudinalTemporalInformationModified": "REMOVED",
    }
    return {_tag(keyword): _element(keyword, value) for keyword, value in said.items()}


def _uid(uid: str, key: bytes) -> str:
    """Return an identifier under the root for random ones (2.25), always the same one for the same original."""
    return f"2.25.{int(keyed_id('uid', uid, secret=key) + keyed_id('uid, second half', uid, secret=key), 16)}"


def _element(keyword: str, value: object) -> dict[str, Any]:
    return {"vr": dictionary_VR(keyword), "Value": [value]}


def _text(header: Header, keyword: str) -> str:
    """Return the first value of an attribute as text, empty where there is none."""
    values = header.get(_tag(keyword), {}).get("Value") or [""]
    return str(values[0] if values[0] is not None else "")


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return f"{tag:08X}"
