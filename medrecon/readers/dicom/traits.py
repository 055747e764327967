"""What may tell the volumes inside one series apart: echo, component, time, b-value, acquisition and the like.

A trait is a plain value that can be compared; those that are text of the header never get into a label or a message.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from medrecon.readers.dicom.repeated import Repeated
from medrecon.readers.dicom.tags import Tags, items_of

#: Words of the standard and of vendors in ImageType, frame type or ComplexImageComponent.
_COMPONENTS: Mapping[str, str] = {
    "M": "magnitude",
    "MAGNITUDE": "magnitude",
    "P": "phase",
    "PHASE": "phase",
    "PHASE MAP": "phase",
    "R": "real",
    "REAL": "real",
    "I": "imaginary",
    "IMAGINARY": "imaginary",
}
_POSITION_POINTERS = (0x00209057, 0x00200032, 0x00201041)  # position in the stack, in the patient, along an axis
_GE_COMPONENTS = ("magnitude", "phase", "real", "imaginary")


def of_image(tags: Tags, repeated: Repeated) -> dict[str, Hashable]:
    """Return the traits of one image that are present, by name."""
    taken = _taken(tags)
    return {**repeated.once(_lasting, tags), **({"taken": taken} if taken else {})}


def _lasting(tags: Tags) -> dict[str, Hashable]:
    """Return the traits that few images of a series differ in; all but the time."""
    is_mr = tags.text_of("Modality") == "MR"
    found: dict[str, Hashable | None] = {
        "component": _component(tags) if is_mr else None,
        "echo": tags.integer_of("EchoNumbers"),
        "time": _first(tags, "TemporalPositionIndex", "TemporalPositionIdentifier"),
        "b": _b_value(tags) if is_mr else None,
        "direction": _direction(tags) if is_mr else None,
        "stack": tags.text_of("StackID") or None,
        "acquisition": _first(tags, "FrameAcquisitionNumber", "AcquisitionNumber"),
        "trigger": _first(tags, "NominalCardiacTriggerDelayTime", "TriggerTime"),
        "echo time": _first(tags, "EffectiveEchoTime", "EchoTime"),
        "inversion time": _first(tags, "InversionTime"),
        "repetition time": _first(tags, "RepetitionTime"),
        "flip angle": _first(tags, "FlipAngle"),
        "voltage": _first(tags, "KVP"),
        "kernel": tags.text_of("ConvolutionKernel") or None,
        "field of view": _first(tags, "ReconstructionDiameter"),
        "image type": _type_words(tags) or None,
        "dimensions": _dimensions(tags) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _component(tags: Tags) -> str | None:
    """Return magnitude, phase, real or imaginary; None where nothing says so."""
    said = _COMPONENTS.get(tags.text_of("ComplexImageComponent"))
    if said:
        return said
    number = tags.private_of(0x0043, 0x2F, "GEMS_PARM_01")
    if isinstance(number, int) and 0 <= number < len(_GE_COMPONENTS):
        return _GE_COMPONENTS[number]
    return next((_COMPONENTS[word] for word in _type_words(tags)[2:] if word in _COMPONENTS), None)


def _type_words(tags: Tags) -> tuple[str, ...]:
    return tags.words_of("FrameType") or tags.words_of("ImageType")


def _b_value(tags: Tags) -> float | None:
    """Return the diffusion weighting: from the standard's tag, or where Siemens, GE and Philips put it before."""
    said = _first(tags, "DiffusionBValue")
    if said is not None:
        return said
    places = ((0x0019, 0x0C, "SIEMENS MR HEADER"), (0x0043, 0x39, "GEMS_PARM_01"), (0x2001, 0x03, "Philips Imaging DD 001"))
    for group, element, creator in places:
        numbers = _plain_numbers(tags.private_of(group, element, creator))
        if numbers:
            return numbers[0] % 1e6  # GE adds 1e9 to a b-value that it calculated
    return None


def _direction(tags: Tags) -> tuple[float, ...] | None:
    said = _rounded(tags.numbers_of("DiffusionGradientOrientation"), 4)
    if said:
        return said
    numbers = _plain_numbers(tags.private_of(0x0019, 0x0E, "SIEMENS MR HEADER"))
    ge = [_plain_numbers(tags.private_of(0x0019, element, "GEMS_ACQU_01")) for element in (0xBB, 0xBC, 0xBD)]
    return _rounded(numbers, 4) or _rounded([number for one in ge for number in one[:1]], 4) or None


def _taken(tags: Tags) -> tuple[str, ...]:
    """Return when an image was taken, for putting repeats of one position in order."""
    names = (
        "FrameAcquisitionDateTime",
        "AcquisitionDateTime",
        "AcquisitionDate",
        "AcquisitionTime",
        "ContentDate",
        "ContentTime",
    )
    when = tuple(tags.text_of(name) for name in names)
    return when if any(when) else ()


def _dimensions(tags: Tags) -> tuple[float, ...]:
    """Return a frame's dimension indices without the one that counts positions."""
    values = tags.numbers_of("DimensionIndexValues")
    if not values or "DimensionIndexSequence" not in tags:
        return ()
    pointers = [item.get("DimensionIndexPointer") for item in items_of(tags.values, "DimensionIndexSequence")]
    if len(pointers) != len(values):
        return ()
    return tuple(value for value, pointer in zip(values, pointers, strict=True) if pointer not in _POSITION_POINTERS)


def _first(tags: Tags, *keywords: str) -> float | None:
    numbers = (tags.number_of(keyword) for keyword in keywords)
    return next((round(number, 4) for number in numbers if number is not None), None)


def _rounded(numbers: object, digits: int) -> tuple[float, ...]:
    return tuple(round(float(number), digits) for number in numbers) if isinstance(numbers, list | tuple) else ()


def _plain_numbers(value: object) -> tuple[float, ...]:
    """Return a private value as numbers; private tags may come as numbers, text, or bytes that say nothing."""
    if isinstance(value, bytes | bytearray) or value is None:
        return ()
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    try:
        return tuple(float(str(item)) for item in items)
    except ValueError:
        return ()
