"""What a derived DICOM object takes over from its source: patient, study and a few facts of the acquisition.

The source is a DICOM JSON model of attributes that are constant over all source images. Nothing is invented: a value
that is missing, or that DICOM does not allow, is left out, and the attributes that must be there all the same are
written empty. Values are patient text; none of them may reach a message or a file name.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import format_number_as_ds, validate_value

Header = Mapping[str, Any]

#: Must be present, if only empty (DICOM type 2).
PATIENT_REQUIRED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY_REQUIRED = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")

PATIENT = (
    *PATIENT_REQUIRED,
    "IssuerOfPatientID",
    "PatientBirthTime",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
)
STUDY = (
    *STUDY_REQUIRED,
    "StudyInstanceUID",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSexNeutered",
    "TimezoneOffsetFromUTC",
    "LongitudinalTemporalInformationModified",
)
SERIES = ("BodyPartExamined", "Laterality", "ImageLaterality", "PatientPosition")
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
ACQUISITION = ("AcquisitionDate", "AcquisitionTime", "AcquisitionNumber", "ContrastBolusAgent", "ContrastBolusRoute")

#: Body parts of PS3.16 Annex L that a body has once: they may have no laterality, all others must have one.
_UNPAIRED = frozenset(
    """
    ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS COCCYX
    COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART ILEUM ILIUM JAW JEJUNUM LARYNX
    LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS
    PHARYNX PROSTATE RECTUM SCALP SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA TSPINE URETER
    URETHRA UTERUS VAGINA VULVA WHOLEBODY
    """.split()  # noqa: SIM905 (a table)
)
_ENUMERATED: Mapping[str, frozenset[str]] = {
    "PatientSex": frozenset({"M", "F", "O"}),
    "PatientSexNeutered": frozenset({"ALTERED", "UNALTERED"}),
    "PatientIdentityRemoved": frozenset({"YES", "NO"}),
    "LongitudinalTemporalInformationModified": frozenset({"UNMODIFIED", "MODIFIED", "REMOVED"}),
    "Laterality": frozenset({"L", "R"}),
    "ImageLaterality": frozenset({"L", "R", "U", "B"}),
    "PatientPosition": frozenset(f"{end}{side}" for end in ("HF", "FF") for side in ("P", "S", "DR", "DL"))
    | {"LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL", "PFDR", "PFDL"},
    "LossyImageCompression": frozenset({"00", "01"}),
    "BurnedInAnnotation": frozenset({"YES", "NO"}),
    "MRAcquisitionType": frozenset({"2D", "3D"}),
    "ScanningSequence": frozenset({"SE", "IR", "GR", "EP", "RM"}),
    "SequenceVariant": frozenset({"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"}),
}
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_ASCII_TERMS = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})
_DATES = frozenset({"DA", "TM"})
_LONG_TEXT = frozenset({"LT", "ST", "UT"})
_MOST_NESTING = 4


def inherit(header: Header, keywords: Iterable[str]) -> Dataset:
    """Return the named attributes as far as the source has them and DICOM allows their values."""
    result = Dataset()
    for keyword in keywords:
        _copy(header, keyword, result, _MOST_NESTING)
    return result


def first(header: Header, keyword: str) -> str:
    """Return the first value of an attribute as text; empty where there is none or it is not allowed."""
    value = inherit(header, [keyword]).get(keyword)
    value = value[0] if isinstance(value, MultiValue) else value
    return "" if value is None else str(value)


def numbers(header: Header, keyword: str) -> tuple[float, ...]:
    """Return the values of a numeric attribute; empty where there are none."""
    value = inherit(header, [keyword]).get(keyword)
    return () if value is None else tuple(float(v) for v in (value if isinstance(value, MultiValue) else [value]))


def is_uid(text: str) -> bool:
    """Whether a text has the form of a DICOM identifier."""
    return bool(text) and _allowed("", "UI", text)


def require(dataset: Dataset, keywords: Iterable[str]) -> None:
    """Add what is missing of the attributes that must be present, empty."""
    for keyword in keywords:
        if keyword not in dataset:
            setattr(dataset, keyword, None)


def settle_laterality(image: Dataset) -> None:
    """Leave the laterality out where the body part has none or the image has its own; write it empty where it is not known."""
    if image.get("BodyPartExamined") in _UNPAIRED or "ImageLaterality" in image:
        image.pop("Laterality", None)
    else:
        require(image, ("Laterality",))


def declare_character_set(dataset: Dataset, header: Header) -> None:
    """Declare the source's character set where it can hold every text of `dataset`, UTF-8 where it cannot."""
    terms = ["" if term is None else str(term) for term in _values(header, "SpecificCharacterSet")]
    texts = list(_texts(dataset))
    if all(text.isascii() for text in texts) and set(terms) <= _ASCII_TERMS:
        return
    if not terms or not set(terms) <= set(python_encoding) or not all(_holds(terms, text) for text in texts):
        terms = ["ISO_IR 192"]
    dataset.SpecificCharacterSet = terms


def _copy(header: Header, keyword: str, target: Dataset, nesting: int) -> None:
    tag = tag_for_keyword(keyword)
    values = _values(header, keyword)
    if tag is None or not values:
        return
    vr = dictionary_VR(tag)
    if vr == "SQ":
        items = [_item(value, nesting - 1) for value in values if isinstance(value, Mapping)] if nesting else []
        if any(len(item) for item in items):
            setattr(target, keyword, [item for item in items if len(item)])
        return
    texts = [_text(vr, value) for value in values]
    if dictionary_VM(tag) == "1" and len(texts) > 1:
        return
    if all(text is not None and _allowed(keyword, vr, text) for text in texts):
        setattr(target, keyword, texts if len(texts) > 1 else texts[0])


def _item(model: Header, nesting: int) -> Dataset:
    """One item of a sequence, with the standard attributes that it holds."""
    item = Dataset()
    for key in model:
        keyword = _keyword(key)
        if keyword:
            _copy(model, keyword, item, nesting)
    return item


def _keyword(key: str) -> str:
    try:
        return keyword_for_tag(int(key, 16))
    except ValueError:
        return ""


def _values(model: Header, keyword: str) -> list[Any]:
    tag = tag_for_keyword(keyword)
    element = model.get(f"{tag:08X}") if tag is not None else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    return list(values) if isinstance(values, list | tuple) else []


def _text(vr: str, value: object) -> str | None:
    """One value of the JSON model as DICOM writes it, or None where it cannot be written."""
    if vr == "PN" and isinstance(value, Mapping):
        groups = [str(value.get(name) or "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    if vr == "DS" and isinstance(value, int | float) and math.isfinite(value):
        return format_number_as_ds(float(value))
    return None if value is None or isinstance(value, bool | Mapping | list | tuple) else str(value)


def _allowed(keyword: str, vr: str, text: str) -> bool:
    """Whether DICOM allows this value: form and length of its VR, no control characters, one of its enumerated values."""
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        return False
    if (vr in _DATES and "-" in text) or (vr not in _LONG_TEXT and "\\" in text):  # a range of dates; a second value
        return False
    try:
        validate_value(vr, text, config.RAISE)
    except ValueError:
        return False
    return text in _ENUMERATED.get(keyword, {text})


def _texts(dataset: Dataset) -> Iterator[str]:
    """Every text of a dataset and its items that the character set applies to."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in _TEXT_VRS and element.value:
            values = element.value if isinstance(element.value, MultiValue) else [element.value]
            yield from (part for value in values for part in str(value).split("="))


def _holds(terms: list[str], text: str) -> bool:
    """Whether one of the declared character sets holds this text."""
    return any(_holds_alone(term, text) for term in terms)


def _holds_alone(term: str, text: str) -> bool:
    if text.isascii():
        return True
    if term in _ASCII_TERMS:
        return False  # the library decodes undeclared text as Latin 1, which DICOM does not allow to be written back
    if term.endswith("IR 13"):
        return all(character.isascii() or "\uff61" <= character <= "\uff9f" for character in text)
    try:
        text.encode(python_encoding[term])
    except UnicodeEncodeError:
        return False
    return True
