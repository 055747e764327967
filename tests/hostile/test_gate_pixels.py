"""What the gate says to pixels that are not what their header announces, each with the repaired file beside it."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from medrecon.core.errors import DicomError, MemoryBudgetError
from medrecon.safety.gate import GatedFile, gate
from medrecon.safety.limits import Limits, free_memory_bytes, refuse_volume
from tests import makers_dicom_bytes as make


def code_of(data: bytes, limits: Limits | None = None) -> str:
    """The code of the error that the gate raises."""
    with pytest.raises(DicomError) as caught:
        gate(data, limits or Limits())
    return caught.value.code


def passes(data: bytes, limits: Limits | None = None) -> GatedFile:
    gated = gate(data, limits or Limits())
    assert gated is not None
    return gated


@pytest.mark.parametrize("there", [0, 1, 24, 47])
def test_missing_pixels_are_refused_with_both_counts(there: int) -> None:
    with pytest.raises(DicomError, match=f"48 bytes of pixels, and {there} are there") as caught:
        gate(make.image(pixels=bytes(there)))
    assert caught.value.code == "DCM-PIXELS"
    passes(make.image(pixels=bytes(48)))


def test_a_file_cut_within_its_pixels_is_refused() -> None:
    assert code_of(make.image()[:-10]) == "DCM-PIXELS"


def test_a_pixel_element_that_claims_more_than_the_file_has_is_refused() -> None:
    assert code_of(make.image(length=50)) == "DCM-LENGTH"


@pytest.mark.parametrize("frames", [1, 2, 9, 99])
def test_a_frame_more_than_announced_is_refused(frames: int) -> None:
    assert code_of(make.image(pixels=bytes(48 * (1 + frames)))) == "DCM-PIXELS"


@pytest.mark.parametrize("tail", [1, 2, 46, 47])
def test_a_tail_shorter_than_a_frame_is_dropped_and_noted(tail: int) -> None:
    gated = passes(make.image(pixels=bytes(48 + tail)))
    assert (gated.pixel_length, gated.tail_bytes) == (48, tail)


def test_the_padding_of_an_odd_number_of_bytes_is_no_tail() -> None:
    eight_bits = {make.ROWS: 3, make.COLUMNS: 3, make.ALLOCATED: 8, make.STORED: 8, make.HIGH_BIT: 7}
    gated = passes(make.image(eight_bits, bytes(10)))
    assert (gated.pixel_length, gated.tail_bytes) == (9, 0)


@pytest.mark.parametrize(("frames", "code"), [(b"2 ", ""), (b"3 ", "DCM-PIXELS"), (b"1 ", "DCM-PIXELS")])
def test_the_number_of_frames_must_be_that_of_the_bytes(frames: bytes, code: str) -> None:
    two = make.image({make.FRAMES: frames}, bytes(96))
    if code:
        assert code_of(two) == code
    else:
        assert passes(two).shape == (2, 4, 6)


@pytest.mark.parametrize("text", [b"1A", b"-1", b"1.0 ", b"1\\2 ", b"\xb2 ", b"9" * 40])
def test_a_number_of_frames_that_is_no_number_is_refused(text: bytes) -> None:
    assert code_of(make.image({make.FRAMES: text})) == "DCM-PARSE"


@pytest.mark.parametrize("text", [b"", b"0 ", b" 1 ", b"01", b"1\0"])
def test_ways_of_writing_one_frame_pass(text: bytes) -> None:
    assert passes(make.image({make.FRAMES: text})).frames == 1


@pytest.mark.parametrize("rows", [16_385, 65_535])
@pytest.mark.parametrize("syntax", [make.EXPLICIT, make.RLE, make.JPEG_2000])
def test_an_implausible_size_is_refused_before_memory_is_taken(rows: int, syntax: str) -> None:
    size: dict[int, int | bytes | None] = {make.ROWS: rows, make.COLUMNS: 65_535}
    bomb = make.image(size, bytes(8)) if syntax == make.EXPLICIT else make.compressed([bytes(64)], syntax, size)
    tracemalloc.start()
    try:
        assert code_of(bomb) == "DCM-LIMIT"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("syntax", [make.EXPLICIT, make.RLE, make.JPEG_2000])
def test_a_million_frames_are_refused(syntax: str) -> None:
    many: dict[int, int | bytes | None] = {make.FRAMES: b"1000000 "}
    bomb = make.image(many) if syntax == make.EXPLICIT else make.compressed([bytes(64)], syntax, many)
    assert code_of(bomb) == "DCM-LIMIT"


def test_a_frame_beyond_the_limit_is_refused() -> None:
    large: dict[int, int | bytes | None] = {
        make.ROWS: 16_384,
        make.COLUMNS: 16_384,
        make.ALLOCATED: 32,
        make.STORED: 32,
        make.HIGH_BIT: 31,
    }
    assert code_of(make.compressed([bytes(64)], make.JPEG_2000, large)) == "DCM-LIMIT"
    assert code_of(make.image(), Limits(frame_bytes=47)) == "DCM-LIMIT"
    passes(make.image(), Limits(frame_bytes=48))


def test_an_rle_bomb_is_refused_because_rle_cannot_grow_that_much() -> None:
    large: dict[int, int | bytes | None] = {make.ROWS: 16_000, make.COLUMNS: 16_000}
    assert code_of(make.compressed([bytes(64)], make.RLE, large)) == "DCM-PIXELS"
    passes(make.compressed([bytes(16_000 * 16_000 * 2 // 64)], make.RLE, large))


def test_fewer_fragments_than_frames_are_refused() -> None:
    five_thousand: dict[int, int | bytes | None] = {make.FRAMES: b"5000"}
    assert code_of(make.compressed([bytes(64)], make.RLE, five_thousand)) == "DCM-PIXELS"
    passes(make.compressed([b"ab"] * 5000, make.JPEG_2000, five_thousand))


def test_compressed_pixels_without_a_single_fragment_are_refused() -> None:
    assert code_of(make.compressed([], make.JPEG_2000)) == "DCM-PIXELS"


def test_a_fragment_cut_short_is_refused() -> None:
    whole = make.compressed([bytes(64)], make.JPEG_2000)
    assert code_of(whole[:-20]) == "DCM-PIXELS"
    passes(whole)


def test_a_missing_delimiter_behind_whole_fragments_is_only_noted() -> None:
    assert "no-delimiter" in passes(make.compressed([bytes(64)], make.JPEG_2000, end=False)).notes


def test_pixels_that_are_not_compressed_under_a_compressed_name_are_refused() -> None:
    native = make.header() + make.element(make.PIXELS, b"OW", bytes(48))
    assert code_of(make.file(native, make.JPEG_2000)) == "DCM-PARSE"
    passes(make.file(native))


def test_native_pixels_without_a_length_are_refused() -> None:
    fragments = make.item(b"") + make.item(bytes(48)) + make.sequence_end()
    assert code_of(make.file(make.header() + make.element(make.PIXELS, b"OB", fragments, make.UNDEFINED))) == "DCM-PIXELS"


@pytest.mark.parametrize("tag", [make.ROWS, make.COLUMNS, make.ALLOCATED])
def test_pixels_without_a_size_are_refused_by_the_name_of_the_tag(tag: int) -> None:
    assert code_of(make.image({tag: None})) == "DCM-TAG"
    assert code_of(make.image({tag: b""})) == "DCM-TAG"


@pytest.mark.parametrize("tag", [make.ROWS, make.COLUMNS, make.SAMPLES])
def test_an_image_without_extent_is_refused(tag: int) -> None:
    assert code_of(make.image({tag: 0})) == "DCM-PIXELS"


@pytest.mark.parametrize("tag", [make.SAMPLES, make.SIGN, make.STORED, make.PHOTOMETRIC])
def test_what_has_a_safe_default_may_be_missing(tag: int) -> None:
    passes(make.image({tag: None, make.HIGH_BIT: None}))


@pytest.mark.parametrize(
    ("allocated", "stored", "high", "sign"),
    [
        (0, 0, 0, 0),
        (3, 3, 2, 0),
        (9, 9, 8, 0),
        (24, 24, 23, 0),
        (128, 128, 127, 0),
        (16, 0, 0, 0),
        (16, 17, 16, 0),
        (16, 12, 15, 0),
        (16, 12, 20, 0),
        (16, 12, 11, 2),
        (8, 16, 15, 0),
    ],
)
def test_impossible_bits_are_refused(allocated: int, stored: int, high: int, sign: int) -> None:
    bits: dict[int, int | bytes | None] = {make.ALLOCATED: allocated, make.STORED: stored, make.HIGH_BIT: high, make.SIGN: sign}
    assert code_of(make.image(bits)) == "DCM-BITS"


@pytest.mark.parametrize(
    ("allocated", "stored", "size"), [(1, 1, 3), (8, 8, 24), (16, 12, 48), (16, 16, 48), (32, 32, 96), (64, 64, 192)]
)
def test_possible_bits_pass_with_the_bytes_that_they_take(allocated: int, stored: int, size: int) -> None:
    bits: dict[int, int | bytes | None] = {make.ALLOCATED: allocated, make.STORED: stored, make.HIGH_BIT: stored - 1}
    assert passes(make.image(bits, bytes(size + size % 2))).pixel_length == size


def test_rows_written_as_a_long_number_are_read_and_as_text_refused() -> None:
    head = make.header({make.ROWS: None})
    long = make.element(make.ROWS, b"UL", struct.pack("<I", 4))
    text = make.element(make.ROWS, b"LO", b"4   ")
    pixels = make.element(make.PIXELS, b"OW", bytes(48))
    assert passes(make.file(head + long + pixels)).rows == 4
    assert code_of(make.file(head + text + pixels)) == "DCM-PARSE"
    huge = make.element(make.ROWS, b"UL", struct.pack("<I", 0xFFFFFFFF))
    assert code_of(make.file(head + huge + pixels)) == "DCM-LIMIT"


def test_of_a_repeated_tag_the_last_one_counts_as_in_pydicom() -> None:
    twice = make.header() + make.element(make.ROWS, b"US", struct.pack("<H", 2)) + make.element(make.PIXELS, b"OW", bytes(24))
    assert passes(make.file(twice)).rows == 2


def test_a_thumbnail_in_a_sequence_is_not_the_image() -> None:
    icon = make.header({make.ROWS: 2, make.COLUMNS: 2}) + make.element(make.PIXELS, b"OW", bytes(8))
    packed = make.header() + make.element(
        make.PIXELS, b"OB", make.item(b"") + make.item(b"ab") + make.sequence_end(), make.UNDEFINED
    )
    for inside in (icon, packed):
        gated = passes(make.image(before=make.element(0x00880200, b"SQ", make.item(inside))))
        assert gated.shape == (1, 4, 6)


def test_half_sampled_colour_takes_two_thirds_of_the_bytes() -> None:
    colour: dict[int, int | bytes | None] = {make.SAMPLES: 3, make.PHOTOMETRIC: b"YBR_FULL_422", make.ALLOCATED: 8}
    colour |= {make.STORED: 8, make.HIGH_BIT: 7}
    assert passes(make.image(colour, bytes(48))).shape == (1, 4, 6, 3)
    assert code_of(make.image({**colour, make.PHOTOMETRIC: b"RGB "}, bytes(48))) == "DCM-PIXELS"


def test_pixels_of_a_kind_that_pixels_cannot_have_are_still_pixels() -> None:
    gated = passes(make.file(make.header() + make.element(make.PIXELS, b"US", bytes(48))))
    assert (gated.has_pixels, gated.pixel_length) == (True, 48)


def test_pixels_of_floating_point_are_told_apart_by_their_tag() -> None:
    bits: dict[int, int | bytes | None] = {make.ALLOCATED: 32, make.STORED: None, make.HIGH_BIT: None, make.SIGN: None}
    floats = make.file(make.header(bits) + make.element(0x7FE00008, b"OF", bytes(96)))
    assert passes(floats).pixel_tag == 0x7FE00008
    assert code_of(make.file(make.header() + make.element(0x7FE00008, b"OF", bytes(96)))) == "DCM-BITS"


def test_what_stands_behind_the_pixels_is_no_part_of_the_header() -> None:
    whole = make.image() + make.nested(300)
    gated = passes(whole)
    assert len(gated.header) < len(whole) - 48 - 300


def test_a_series_larger_than_its_share_of_the_memory_is_refused() -> None:
    with pytest.raises(MemoryBudgetError, match="MEM-VOLUME"):
        refuse_volume(501, Limits(), free_bytes=1000)
    refuse_volume(500, Limits(), free_bytes=1000)
    assert free_memory_bytes() > 1 << 20
