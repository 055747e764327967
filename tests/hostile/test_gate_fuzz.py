"""Random damage to good files: the gate lets through what a parser bears, or says no with a code, and nothing else."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable

import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medrecon.core.errors import DicomError
from medrecon.safety.gate import GatedFile, gate
from tests import makers_dicom_bytes as make
from tests.hostile.sweep_files import REFUSALS

Gate = Callable[[bytes], GatedFile | None]

NUMBERS = [0, 1, 2, 0x7F, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]
SEEDS = [
    make.image(),
    make.image(syntax=make.IMPLICIT, before=make.nested(3, make.IMPLICIT)),
    make.image(syntax=make.BIG),
    make.image(syntax=make.DEFLATED, before=make.nested(3, defined=True)),
    make.image(before=make.nested(4) + make.nested(3, vr=b"UN", defined=True)),
    make.image({make.FRAMES: b"2 "}, bytes(96), before=make.element(0x00091001, b"UN", make.item(b"\1" * 12))),
    make.compressed([make.rle([bytes(24), bytes(24)])] * 2, make.RLE, {make.FRAMES: b"2 "}),
    make.compressed([b"\xff\x4f\xff\x51" + bytes(60)], make.JPEG_2000, end=False),
    make.header(syntax=make.IMPLICIT) + make.element(make.PIXELS, b"", bytes(48), syntax=make.IMPLICIT),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with one to six places overwritten, cut out, doubled, spliced, or set to a telling number."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(128 if data[128:132] == b"DICM" else 0, max(len(data) - 1, 128)))
        kind = draw(st.sampled_from(["byte", "short", "long", "cut", "end", "double", "splice"]))
        if kind == "byte":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind in ("short", "long"):
            number = draw(st.sampled_from(NUMBERS))
            data[at : at + 4] = (
                struct.pack("<I", number) if kind == "long" else struct.pack("<H", number & 0xFFFF) + data[at + 2 : at + 4]
            )
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "end":
            del data[at:]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 60))]
        else:
            other = draw(st.sampled_from(SEEDS))
            data[at:at] = other[draw(st.integers(128, len(other) - 1)) :][:60]
    return bytes(data)


def complaint(judge: Gate, data: bytes) -> str:
    """What is wrong with the gate's answer, in words; empty where nothing is."""
    try:
        gated = judge(data)
    except DicomError as error:
        return "" if error.code.startswith("DCM-") else f"a code of another family: {error.code}"
    except Exception as error:  # noqa: BLE001 (whatever it is, it should not have come)
        return f"an exception of another family: {type(error).__name__}"
    if gated is None:
        return ""
    if gated.has_pixels and (gated.pixel_offset or 0) + gated.pixel_length > len(gated.data):
        return "pixels beyond the end"
    whole_samples = gated.bits_allocated > 1 and gated.photometric != "YBR_FULL_422"
    if gated.has_pixels and not gated.encapsulated and whole_samples and gated.decoded_bytes != gated.pixel_length:
        return "a shape that is not that of the bytes"
    return complaint_of_the_parser(gated)


def complaint_of_the_parser(gated: GatedFile) -> str:
    """Parse what the gate lets through; pydicom may refuse it, but it may not be overrun by it, nor see another size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = pydicom.dcmread(io.BytesIO(gated.header), force=True)
            for _ in parsed.iterall():
                pass
            size = (parsed.get("Rows"), parsed.get("Columns"))
    except RecursionError:
        return "the parser ran out of stack"
    except REFUSALS:
        return ""
    if gated.has_pixels and all(isinstance(n, int) for n in size) and size != (gated.rows, gated.columns):
        return f"the parser sees {size}, the gate {(gated.rows, gated.columns)}"
    return ""


@settings(max_examples=300, deadline=2000)
@given(damaged())
@example(b"")
@example(bytes(128) + b"DICM")
def test_no_damage_makes_the_gate_answer_otherwise_than_agreed(data: bytes) -> None:
    assert complaint(gate, data) == ""


def crashes(data: bytes) -> GatedFile | None:
    struct.unpack_from("<I", data, len(data))
    return None


def lets_anything_through(data: bytes) -> GatedFile:
    return GatedFile(
        data, make.EXPLICIT, len(data), rows=1, columns=1, samples_per_pixel=1, bits_allocated=16, pixel_offset=len(data)
    )


@pytest.mark.parametrize("bad_gate", [crashes, lets_anything_through])
def test_the_invariant_finds_a_bad_gate(bad_gate: Gate) -> None:
    assert any(complaint(bad_gate, seed) for seed in SEEDS)


def test_all_seeds_are_good_files() -> None:
    assert all(gate(seed) is not None for seed in SEEDS)
