"""The part of the headers that a derived series inherits: what is the same in all source images, and what warns in one.

Patient text, so it goes into `Source.header` and nowhere else. Pixels, overlays, curves, private elements and large values
are left out; of enhanced objects the few acquisition values of classic ones are taken from the frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag

from medrecon.readers.dicom.headers import Contents, Image
from medrecon.readers.dicom.tags import LIBRARY_ERRORS, quiet_library

#: Classic attributes that enhanced objects keep per frame: the trait that holds them, tag and value representation.
_FROM_FRAMES: Mapping[str, tuple[str, str]] = {
    "repetition time": ("00180080", "DS"),
    "echo time": ("00180081", "DS"),
    "inversion time": ("00180082", "DS"),
    "flip angle": ("00181314", "DS"),
    "voltage": ("00180060", "DS"),
}


#: What holds for a derived image as soon as it holds for one of its sources: the value that warns, and what goes with it.
_WARNINGS: Mapping[int, tuple[str, tuple[int, ...]]] = {
    0x00282110: ("01", (0x00282112, 0x00282114)),  # compressed with loss: ratio and method
    0x00280301: ("YES", ()),  # text burned into the image
}
_LOSSY = Tag("LossyImageCompression")
_ALWAYS_LOSSY = frozenset(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"))


def common_header(contents: Sequence[Contents], images: Sequence[Image]) -> dict[str, Any]:
    """Return the DICOM JSON model of the attributes that all files agree in, and of those that warn in any of them."""
    with quiet_library():
        header = _as_json(Dataset({Tag(tag): element for tag, element in (_shared(contents) | _warning(contents)).items()}))
    if any(one.file.layout.transfer_syntax_uid in _ALWAYS_LOSSY for one in contents):
        header[f"{_LOSSY:08X}"] = {"vr": "CS", "Value": ["01"]}
    for name, (tag, kind) in _FROM_FRAMES.items():
        values = {image.traits.get(name) for image in images}
        if tag not in header and len(values) == 1 and None not in values:
            header[tag] = {"vr": kind, "Value": list(values)}
    return dict(sorted(header.items()))


def _shared(contents: Sequence[Contents]) -> dict[int, Any]:
    """Return the elements that are the same in all files; where they stand in their files does not matter."""
    first, *others = (one.elements for one in contents)
    shared = dict(first)
    for other in others:
        shared = {tag: one for tag, one in shared.items() if (two := other.get(tag)) is one or _equal(one, two)}
    return shared


def _equal(one: Any, other: Any) -> bool:  # noqa: ANN401 (raw and converted elements of pydicom)
    return other is not None and one.VR == other.VR and one.value == other.value


def _warning(contents: Sequence[Contents]) -> dict[int, Any]:
    """Return the elements that warn, from the first file that has them."""
    found: dict[int, Any] = {}
    for tag, (value, companions) in _WARNINGS.items():
        warns = next((one.elements for one in contents if _text(one.elements.get(tag)) == value), None)
        if warns is not None:
            found |= {which: warns[which] for which in (tag, *companions) if which in warns}
    return found


def _text(element: Any) -> str:  # noqa: ANN401 (raw and converted elements of pydicom)
    value = None if element is None else element.value
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip(" \0")


def _as_json(values: Dataset) -> dict[str, Any]:
    """Convert element by element: one that cannot be converted is left out, not the rest with it."""
    header: dict[str, Any] = {}
    for tag in list(values.keys()):
        try:
            element = values[tag].to_json_dict(None, 1 << 16)
        except LIBRARY_ERRORS:
            continue
        header[f"{int(tag):08X}"] = _public(element)
    return header


def _public(element: dict[str, Any]) -> dict[str, Any]:
    """Remove private and binary elements from the items of a sequence."""
    if element.get("vr") != "SQ":
        return element
    items = [{tag: _public(one) for tag, one in item.items() if _is_public(tag, one)} for item in element.get("Value", [])]
    return {**element, "Value": items}


def _is_public(tag: str, element: Mapping[str, Any]) -> bool:
    return int(tag[:4], 16) % 2 == 0 and "InlineBinary" not in element
