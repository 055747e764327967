"""What the gate says to a file whose structure is wrong, each with the repaired file beside it."""

from __future__ import annotations

import io
import struct
import time

import pydicom
import pytest
from pydantic import ValidationError

from medrecon.core.errors import DicomError
from medrecon.safety.gate import GatedFile, gate
from medrecon.safety.limits import Limits
from tests import makers_dicom_bytes as make

NOT_A_SYNTAX = "1.2.3.4"
VIDEO = "1.2.840.10008.1.2.4.102"


def code_of(data: bytes, limits: Limits | None = None) -> str:
    """The code of the error that the gate raises."""
    with pytest.raises(DicomError) as caught:
        gate(data, limits or Limits())
    return caught.value.code


def passes(data: bytes, limits: Limits | None = None) -> GatedFile:
    gated = gate(data, limits or Limits())
    assert gated is not None
    return gated


@pytest.mark.parametrize("syntax", [make.EXPLICIT, make.IMPLICIT, make.BIG, make.DEFLATED])
def test_every_native_syntax_shows_the_same_image(syntax: str) -> None:
    pixels = struct.pack(f"{'>' if syntax == make.BIG else '<'}24H", *range(24))
    gated = passes(make.image(pixels=pixels, syntax=syntax))
    assert (gated.rows, gated.columns, gated.frames, gated.bits_allocated, gated.bits_stored) == (4, 6, 1, 16, 12)
    assert gated.pixel_offset is not None
    assert gated.data[gated.pixel_offset :][: gated.pixel_length] == pixels
    assert not gated.encapsulated
    assert gated.tail_bytes == 0


@pytest.mark.parametrize("syntax", [make.EXPLICIT, make.IMPLICIT, make.BIG, make.DEFLATED])
def test_pydicom_reads_the_header_that_the_gate_hands_on(syntax: str) -> None:
    gated = passes(make.image(pixels=bytes(48), syntax=syntax))
    parsed = pydicom.dcmread(io.BytesIO(gated.header), force=True)
    assert (parsed.Rows, parsed.Columns, parsed.BitsStored) == (4, 6, 12)
    assert "PixelData" not in parsed


@pytest.mark.parametrize("length", [5000, 0x7FFFFFFF, 0xFFFFFFFE])
@pytest.mark.parametrize("vr", [b"UN", b"OB", b"SQ"])
def test_a_length_beyond_the_end_is_refused(length: int, vr: bytes) -> None:
    lying = make.element(0x00091001, vr, make.item(b""), length)
    assert code_of(make.file(make.header() + lying)) == "DCM-LENGTH"
    passes(make.file(make.header() + make.element(0x00091001, vr, make.item(b""))))


@pytest.mark.parametrize("syntax", [make.EXPLICIT, make.IMPLICIT, make.BIG])
def test_a_short_length_beyond_the_end_is_refused(syntax: str) -> None:
    assert (
        code_of(make.file(make.header(syntax=syntax) + make.element(0x00400000, b"LO", b"ab", 60000, syntax), syntax))
        == "DCM-LENGTH"
    )
    passes(make.file(make.header(syntax=syntax) + make.element(0x00400000, b"LO", b"ab", syntax=syntax), syntax))


def test_a_length_beyond_the_end_can_be_allowed_by_name() -> None:
    ugly = make.file(make.header() + make.element(0x00082112, b"SQ", make.item(b""), 40))
    assert code_of(ugly) == "DCM-LENGTH"
    assert "length-cut" in passes(ugly, Limits(length_beyond_end=True)).notes


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_file_that_ends_inside_an_element_header_is_refused(cut: int) -> None:
    whole = make.file(make.header() + make.element(0x00400000, b"UT", b""))
    assert code_of(whole[:-cut]) == "DCM-LENGTH"
    passes(whole)


def test_a_few_zero_bytes_behind_the_last_element_are_padding() -> None:
    passes(make.file(make.header() + bytes(5)))
    assert code_of(make.file(make.header() + b"\0\0\1\0\0")) == "DCM-LENGTH"


@pytest.mark.parametrize("form", ["undefined", "defined", "implicit", "unknown"])
@pytest.mark.parametrize("depth", [65, 300, 5000])
def test_sequences_nested_too_deep_are_refused_without_recursion(form: str, depth: int) -> None:
    syntax = make.IMPLICIT if form == "implicit" else make.EXPLICIT
    if depth == 5000 and form in ("defined", "unknown"):
        depth = 1000  # a defined length cannot name more than is there, and making it is quadratic
    deep = make.nested(depth, syntax, defined=form in ("defined", "unknown"), vr=b"UN" if form == "unknown" else b"SQ")
    assert code_of(make.file(make.header(syntax=syntax) + deep, syntax)) == "DCM-DEPTH"
    shallow = make.nested(64, syntax, defined=form in ("defined", "unknown"), vr=b"UN" if form == "unknown" else b"SQ")
    passes(make.file(make.header(syntax=syntax) + shallow, syntax))


def test_implicit_sequences_of_defined_length_are_walked_too() -> None:
    deep = make.nested(300, make.IMPLICIT, defined=True)
    assert code_of(make.file(make.header(syntax=make.IMPLICIT) + deep, make.IMPLICIT)) == "DCM-DEPTH"
    passes(make.file(make.header(syntax=make.IMPLICIT) + make.nested(60, make.IMPLICIT, defined=True), make.IMPLICIT))


def test_a_sequence_without_end_is_refused() -> None:
    body = make.item(make.element(0x00080060, b"CS", b"CT") + make.item_end(), make.UNDEFINED)
    assert code_of(make.file(make.header() + make.element(0x00082112, b"SQ", body, make.UNDEFINED))) == "DCM-DEPTH"
    passes(make.file(make.header() + make.element(0x00082112, b"SQ", body + make.sequence_end(), make.UNDEFINED)))


def test_an_item_without_end_is_refused() -> None:
    body = make.item(make.element(0x00080060, b"CS", b"CT"), make.UNDEFINED)
    assert code_of(make.file(make.header() + make.element(0x00082112, b"SQ", body, make.UNDEFINED))) == "DCM-DEPTH"


@pytest.mark.parametrize(
    "stray", [make.item(b""), make.item_end(), make.sequence_end()], ids=["item", "item-end", "sequence-end"]
)
def test_a_delimiter_outside_any_sequence_is_refused(stray: bytes) -> None:
    assert code_of(make.image(before=stray)) == "DCM-PARSE"
    passes(make.image())


def test_a_sequence_that_holds_no_items_is_refused() -> None:
    no_item = make.element(0x00080060, b"CS", b"CTCT")
    assert code_of(make.file(make.header() + make.element(0x00082112, b"SQ", no_item))) == "DCM-PARSE"


def test_a_private_value_that_only_looks_like_a_sequence_is_a_value() -> None:
    looks_like = make.item(b"\x01\x02\x03\x04\x05\x06\x07\x08\x09", 500)
    passes(
        make.file(
            make.header(syntax=make.IMPLICIT) + make.element(0x00091001, b"", looks_like, syntax=make.IMPLICIT), make.IMPLICIT
        )
    )
    passes(make.file(make.header() + make.element(0x00091001, b"UN", looks_like)))


def test_a_private_value_that_looks_like_a_sequence_without_end_is_a_value() -> None:
    looks_like = make.item(make.element(0x00080060, b"CS", b"CT"), make.UNDEFINED)
    passes(make.file(make.header() + make.element(0x00091001, b"UN", looks_like)))


def test_a_flood_of_meta_elements_is_refused() -> None:
    one = make.element(0x00020013, b"SH", b"x ")
    flood = bytes(128) + b"DICM" + one * 2000 + make.meta(make.EXPLICIT) + make.header()
    assert code_of(flood) == "DCM-LIMIT"
    passes(bytes(128) + b"DICM" + one * 20 + make.meta(make.EXPLICIT) + make.header())


@pytest.mark.parametrize("syntax", [make.EXPLICIT, make.IMPLICIT])
def test_the_most_elements_that_may_be_are_walked_in_time(syntax: str) -> None:
    crowd = make.file(make.element(0x00091001, b"LO", b"", syntax=syntax) * 2_000_001, syntax)
    begin = time.process_time()
    assert code_of(crowd) == "DCM-LIMIT"
    assert time.process_time() - begin < 2


def test_implicit_items_within_an_explicit_file_are_followed() -> None:
    inside = make.element(0x00080060, b"", b"CT", syntax=make.IMPLICIT)
    passes(make.file(make.header() + make.element(0x00091001, b"UN", make.item(inside) + make.sequence_end(), make.UNDEFINED)))


def test_too_many_elements_are_refused() -> None:
    few = Limits(elements=1000)
    crowd = [make.element(0x00090000 + n, b"LO", b"") for n in range(2000)]
    assert code_of(make.file(b"".join(crowd)), few) == "DCM-LIMIT"
    inside = make.element(0x00082112, b"SQ", make.item(b"".join(crowd)))
    assert code_of(make.file(inside), few) == "DCM-LIMIT"
    assert code_of(make.file(make.element(0x00082112, b"SQ", make.item(b"") * 2000)), few) == "DCM-LIMIT"
    passes(make.file(b"".join(crowd[:900])), few)


def test_too_many_fragments_are_refused() -> None:
    assert code_of(make.compressed([b""] * 2000, make.JPEG_2000), Limits(elements=1000)) == "DCM-LIMIT"
    passes(make.compressed([b"ab"] * 900, make.JPEG_2000), Limits(elements=1000))


def test_a_single_value_and_a_whole_header_have_limits() -> None:
    small = Limits(value_bytes=1000, header_bytes=3000)
    assert code_of(make.file(make.element(0x00091001, b"OB", bytes(1001))), small) == "DCM-LIMIT"
    many = [make.element(0x00091001 + n, b"OB", bytes(900)) for n in range(4)]
    assert code_of(make.file(b"".join(many)), small) == "DCM-LIMIT"
    passes(make.file(b"".join(many[:3])), small)


def test_pixels_and_documents_are_not_counted_as_header() -> None:
    small = Limits(value_bytes=1000, header_bytes=3000)
    passes(make.image({make.ROWS: 100, make.COLUMNS: 100}, bytes(20000)), small)
    passes(make.file(make.header() + make.element(0x00420011, b"OB", bytes(9000))), small)


@pytest.mark.parametrize("syntax", [NOT_A_SYNTAX, VIDEO])
def test_a_syntax_that_is_not_on_the_list_is_refused(syntax: str) -> None:
    assert code_of(make.file(make.header(), syntax)) == "DCM-CODEC"
    passes(make.file(make.header()))


def test_no_header_text_is_repeated_in_a_message() -> None:
    with pytest.raises(DicomError) as caught:
        gate(make.file(make.header(), "DOE^JOHN"))
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 9_999_999, 400])
def test_a_meta_group_longer_than_the_file_is_refused(claimed: int) -> None:
    assert code_of(make.file(make.header(), group_length=claimed)) == "DCM-LENGTH"


@pytest.mark.parametrize("claimed", [0, 1, 20])
def test_a_meta_group_length_that_is_merely_wrong_is_ignored(claimed: int) -> None:
    passes(make.file(make.header(), group_length=claimed))


def test_a_meta_element_of_an_unknown_kind_is_refused() -> None:
    whole = make.file(make.header())
    assert code_of(whole.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x10\x00ZZ")) in ("DCM-LENGTH", "DCM-PARSE")
    passes(whole)


def test_implicit_data_under_an_explicit_name_are_read_as_what_they_are() -> None:
    mislabelled = bytes(128) + b"DICM" + make.meta(make.EXPLICIT) + make.header(syntax=make.IMPLICIT)
    pixels = make.element(make.PIXELS, b"", bytes(48), syntax=make.IMPLICIT)
    gated = passes(mislabelled + pixels)
    assert gated.rows == 4
    assert "other-syntax" in gated.notes


def test_a_missing_syntax_is_guessed_and_noted() -> None:
    body = make.header() + make.element(make.PIXELS, b"OW", bytes(48))
    gated = passes(bytes(128) + b"DICM" + body)
    assert gated.transfer_syntax_uid == make.EXPLICIT
    assert "no-syntax" in gated.notes


def test_nothing_behind_the_preamble_is_refused() -> None:
    assert code_of(bytes(128) + b"DICM") == "DCM-LENGTH"


@pytest.mark.parametrize("syntax", [make.EXPLICIT, make.IMPLICIT])
def test_a_data_set_without_preamble_is_read_where_all_of_it_makes_sense(syntax: str) -> None:
    body = make.header(syntax=syntax) + make.element(make.PIXELS, b"OW", bytes(48), syntax=syntax)
    gated = passes(body)
    assert gated.rows == 4
    assert "no-preamble" in gated.notes
    assert gate(body[:60]) is None


@pytest.mark.parametrize(
    "junk",
    [b"", b"\0", b"MZ" + bytes(500), b"PK\3\4" + bytes(500), b"\xff\xd8\xff\xe0" + bytes(500), b"<html>" * 99, bytes(4096)],
    ids=["empty", "one byte", "program", "zip", "jpeg", "html", "zeros"],
)
def test_what_is_not_dicom_is_nothing(junk: bytes) -> None:
    assert gate(junk) is None


def test_a_program_in_the_preamble_changes_nothing() -> None:
    program = make.image().replace(bytes(128), b"MZ" + bytes(126), 1)
    assert passes(program).rows == 4


def test_a_memoryview_is_judged_like_bytes() -> None:
    assert passes(make.image()) == gate(memoryview(make.image()))


def test_a_deflated_bomb_ends_at_the_limit_and_a_deflated_image_passes() -> None:
    bomb = make.file(make.header() + make.element(0x00091001, b"OB", bytes(100 << 20)), make.DEFLATED)
    begin = time.process_time()
    assert code_of(bomb) == "DCM-LIMIT"
    assert time.process_time() - begin < 2
    passes(make.image(syntax=make.DEFLATED))


@pytest.mark.parametrize(("damage", "code"), [("cut", "DCM-LENGTH"), ("flip", "DCM-PARSE")])
def test_damaged_deflate_data_are_refused(damage: str, code: str) -> None:
    whole = make.image(pixels=bytes(range(48)), syntax=make.DEFLATED)
    start = 132 + len(make.meta(make.DEFLATED))
    broken = whole[:-9] if damage == "cut" else whole[:start] + b"\xff" * 40
    assert code_of(broken) == code


def test_the_same_answer_comes_again() -> None:
    lying = make.file(make.header() + make.element(0x00091001, b"UN", b"", 5000))
    with pytest.raises(DicomError) as first:
        gate(lying)
    with pytest.raises(DicomError) as second:
        gate(lying)
    assert str(first.value) == str(second.value)


def test_limits_are_frozen_and_each_has_a_reason() -> None:
    assert all(field.description for field in Limits.model_fields.values())
    with pytest.raises(ValidationError):
        setattr(Limits(), "nesting", 1000)  # noqa: B010 (mypy would refuse the assignment, and so must pydantic)
