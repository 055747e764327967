"""From stored bits to real values: rescale, padding, sign, foreign bits, inversion and unit, on series with known values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medrecon.core.errors import CancelledError, MedreconError
from medrecon.core.findings import Verdict
from medrecon.core.progress import silent
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo
from medrecon.core.scans import SliceScan
from medrecon.core.volume import Quantity
from medrecon.readers import dicom
from tests.makers_dicom import make_enhanced, make_series, plan_series, write

OPTIONS = ReadOptions()
SHAPE = (4, 10, 12)


def found(paths: Iterable[Path]) -> SeriesInfo:
    (info,) = dicom.find([ListedFile(k, path) for k, path in enumerate(paths, start=1)], OPTIONS)[0]
    return info


def scan_of(paths: Iterable[Path]) -> SliceScan:
    return dicom.read(found(paths), OPTIONS, silent)


def codes(scan: SliceScan) -> set[str]:
    return {finding.code for finding in scan.findings}


def test_every_slice_is_rescaled_by_its_own_slope_and_intercept(tmp_path: Path, rng: np.random.Generator) -> None:
    raw = rng.integers(0, 4000, SHAPE)
    slopes, intercepts = [1.0, 2.5, 0.244, 1.28], [-1024.0, 0.0, 7.5, -500.0]
    scan = scan_of(make_series(tmp_path, shape=SHAPE, stored=raw, slope=slopes, intercept=intercepts))
    truth = raw * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    np.testing.assert_allclose(scan.pixels, truth, rtol=1e-6, atol=1e-3)


def test_the_rescale_check_fails_on_one_slope_for_all(tmp_path: Path, rng: np.random.Generator) -> None:
    raw = rng.integers(1000, 4000, SHAPE)
    scan = scan_of(make_series(tmp_path, shape=SHAPE, stored=raw, slope=[1.0, 2.0, 1.0, 1.0], intercept=0.0))
    assert np.abs(scan.pixels - raw).max() > 500


def test_water_is_0_and_air_is_minus_1000_in_hounsfield_units(tmp_path: Path) -> None:
    values = np.full(SHAPE, -1000.0)
    values[:, 3:6, 3:6] = 0
    scan = scan_of(make_series(tmp_path, shape=SHAPE, pixels=values, slope=0.5, intercept=-1024))
    np.testing.assert_array_equal(scan.pixels, values)
    assert scan.quantity is Quantity.HOUNSFIELD


def test_a_ct_that_is_not_said_to_be_in_hounsfield_units_is_not_called_so(tmp_path: Path) -> None:
    def unspecified(image: Dataset, _: int) -> None:
        image.RescaleType = "US"

    def unscaled(image: Dataset, _: int) -> None:
        del image.RescaleSlope, image.RescaleIntercept, image.RescaleType

    for name, change in (("us", unspecified), ("none", unscaled)):
        scan = scan_of(make_series(tmp_path / name, shape=SHAPE, change=change))
        assert scan.quantity is Quantity.ARBITRARY
        assert "DCM-UNITS" in codes(scan)


def test_a_ct_that_is_1024_too_high_is_noticed_and_not_called_hounsfield(tmp_path: Path) -> None:
    shape = (6, 32, 32)
    values = plan_series(shape=shape).values
    too_high = scan_of(make_series(tmp_path / "a", shape=shape, pixels=values + 1024, intercept=0))
    right = scan_of(make_series(tmp_path / "b", shape=shape, pixels=values))
    assert ("DCM-HU1024" in codes(too_high), too_high.quantity) == (True, Quantity.ARBITRARY)
    assert ("DCM-HU1024" in codes(right), right.quantity) == (False, Quantity.HOUNSFIELD)


def test_padding_is_marked_before_rescaling_and_nothing_else_is(tmp_path: Path, rng: np.random.Generator) -> None:
    raw = rng.integers(100, 4000, SHAPE)
    raw[:, 0, :] = 7
    scan = scan_of(make_series(tmp_path, shape=SHAPE, stored=raw, padding=7, slope=2.0))
    assert scan.measured is not None
    np.testing.assert_array_equal(scan.measured, raw != 7)


def test_a_range_of_padding_reaches_to_its_limit(tmp_path: Path, rng: np.random.Generator) -> None:
    def limited(image: Dataset, _: int) -> None:
        image.add_new("PixelPaddingRangeLimit", "US", 20)

    raw = rng.integers(0, 60, SHAPE)
    scan = scan_of(make_series(tmp_path, shape=SHAPE, stored=raw, padding=10, change=limited))
    assert scan.measured is not None
    np.testing.assert_array_equal(scan.measured, (raw < 10) | (raw > 20))


def test_padding_written_without_its_sign_is_understood(tmp_path: Path) -> None:
    def unsigned(image: Dataset, _: int) -> None:
        image.add_new("PixelPaddingValue", "US", 65536 - 2000)

    raw = np.full(SHAPE, 50)
    raw[:, :2] = -2000
    scan = scan_of(make_series(tmp_path, shape=SHAPE, stored=raw, signed=True, intercept=0, change=unsigned))
    assert scan.measured is not None
    np.testing.assert_array_equal(scan.measured, raw == 50)


def test_without_padding_every_pixel_counts_as_measured_and_constant_corners_are_noted(tmp_path: Path) -> None:
    shape = (4, 20, 20)
    values = np.full(shape, 40.0)
    values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1] = -1024, -1024, -1024, -1024
    scan = scan_of(make_series(tmp_path, shape=shape, pixels=values))
    assert scan.measured is None
    assert "DCM-CORNERS" in codes(scan)


@pytest.mark.parametrize("signed", [False, True])
def test_only_the_stored_bits_count_and_the_sign_stands_in_the_highest(tmp_path: Path, signed: bool) -> None:
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 4096 - (2048 if signed else 0)

    def with_overlay(image: Dataset, k: int) -> None:
        image.PixelData = ((values[k].astype(np.int64) & 0x0FFF) | 0xA000).astype("<u2").tobytes()

    how = {"shape": SHAPE, "stored": values, "bits_stored": 12, "signed": signed, "intercept": 0}
    scan = scan_of(make_series(tmp_path, change=with_overlay, **how))  # type: ignore[arg-type]  # mixed keyword values
    np.testing.assert_array_equal(scan.pixels, values)


def test_the_bit_check_fails_where_foreign_bits_are_taken_for_values(tmp_path: Path) -> None:
    values = np.full(SHAPE, 5)

    def with_overlay(image: Dataset, _: int) -> None:
        image.PixelData = (np.full(SHAPE[1:], 5 | 0xF000)).astype("<u2").tobytes()

    scan = scan_of(make_series(tmp_path, shape=SHAPE, stored=values, intercept=0, change=with_overlay))  # 16 bits stored
    assert (scan.pixels != values).all()


@pytest.mark.parametrize("bits", [8, 32])
def test_other_widths_of_pixels_are_read(tmp_path: Path, bits: int) -> None:
    raw = np.arange(np.prod(SHAPE)).reshape(SHAPE) * (1 if bits == 8 else 65537) % (2**bits)

    def wide(image: Dataset, k: int) -> None:
        image.BitsAllocated = image.BitsStored = bits
        image.HighBit = bits - 1
        image.PixelData = raw[k].astype(f"<u{bits // 8}").tobytes()

    scan = scan_of(make_series(tmp_path, shape=SHAPE, intercept=0, change=wide))
    np.testing.assert_allclose(scan.pixels, raw, rtol=1e-7)


def test_monochrome1_is_inverted_and_recorded(tmp_path: Path) -> None:
    def inverted(image: Dataset, _: int) -> None:
        image.PhotometricInterpretation = "MONOCHROME1"

    raw = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    how = {"shape": SHAPE, "stored": 4095 - raw, "bits_stored": 12, "intercept": 0}
    for modality in ("CT", "MR"):
        scan = scan_of(make_series(tmp_path / modality, modality=modality, change=inverted, **how))  # type: ignore[arg-type]
        np.testing.assert_array_equal(scan.pixels, raw)
        assert "DCM-INVERTED" in codes(scan)
        assert scan.quantity is Quantity.ARBITRARY


SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_all_lossless_transfer_syntaxes_give_the_same_scan(tmp_path: Path, syntax: str, signed: bool) -> None:
    how = {"shape": SHAPE, "signed": signed, "intercept": 0 if signed else -1024}
    plain = scan_of(make_series(tmp_path / "plain", transfer_syntax=ExplicitVRLittleEndian, **how))  # type: ignore[arg-type]
    other = scan_of(make_series(tmp_path / "other", transfer_syntax=syntax, **how))  # type: ignore[arg-type]
    np.testing.assert_array_equal(other.pixels, plain.pixels)
    np.testing.assert_array_equal(other.poses.to_lps_mm, plain.poses.to_lps_mm)
    assert other.source.file_hashes != plain.source.file_hashes


def test_baseline_jpeg_of_8_bits_is_read_within_its_loss(tmp_path: Path) -> None:
    shape = (3, 32, 32)
    smooth = np.broadcast_to(np.linspace(10, 240, 32), shape).round()

    def eight(image: Dataset, k: int) -> None:
        image.BitsAllocated = image.BitsStored = 8
        image.HighBit = 7
        image.PixelData = smooth[k].astype(np.uint8).tobytes()

    paths = make_series(tmp_path, shape=shape, modality="MR", intercept=0, transfer_syntax="1.2.840.10008.1.2.4.50", change=eight)
    np.testing.assert_allclose(scan_of(paths).pixels, smooth, atol=4)


def test_compressed_frames_of_one_object_are_read_in_order(tmp_path: Path) -> None:
    plan = make_enhanced(tmp_path / "plain", volumes=[{"time": 1}, {"time": 2, "offset": 9}])
    write(dcmread(tmp_path / "plain"), tmp_path / "rle", RLELossless)
    infos, _ = dicom.find([ListedFile(1, tmp_path / "rle")], OPTIONS)
    assert [info.parts for info in infos] == [("time 1",), ("time 2",)]
    for info, offset in zip(infos, (0, 9), strict=True):
        np.testing.assert_array_equal(dicom.read(info, OPTIONS, silent).pixels, plan.values + offset)


def test_reading_tells_its_progress_and_can_be_cancelled(tmp_path: Path) -> None:
    info = found(make_series(tmp_path))
    told: list[float] = []
    dicom.read(info, OPTIONS, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0

    def stop(share: float) -> None:
        if share > 0.2:
            raise CancelledError("RUN-CANCELLED", "stop")

    with pytest.raises(CancelledError):
        dicom.read(info, OPTIONS, stop)


def test_a_zero_filled_series_says_what_was_measured(tmp_path: Path) -> None:
    def filled(image: Dataset, _: int) -> None:
        image.AcquisitionMatrix = [0, 12, 8, 0]

    info = found(make_series(tmp_path, shape=(4, 16, 12), modality="MR", intercept=0, change=filled))
    (finding,) = (one for one in info.findings if one.code == "DCM-ZEROFILL")
    assert finding.verdict is Verdict.WARN
    assert finding.numbers["measured_mm"] == [2.0, 1.0]


def test_what_all_images_agree_in_is_kept_for_derived_series_and_nothing_else(tmp_path: Path) -> None:
    def private(image: Dataset, k: int) -> None:
        image.private_block(0x0011, "SOMEBODY", create=True).add_new(1, "LO", "secret")
        image.add_new(0x60003000, "OW", b"\0" * 32)
        image.WindowCenter = 40 + k

    source = scan_of(make_series(tmp_path, change=private)).source
    assert source.header["00100010"]["Value"] == [{"Alphabetic": "POISON^NAME"}]
    assert source.header["0020000D"]["vr"] == "UI"
    assert {"00180060", "00080060", "00200052", "00185100"} <= set(source.header)
    assert not {"7FE00010", "60003000", "00281050", "00200013", "00080018", "00111001", "00110010"} & set(source.header)
    assert source.reader == "dicom"
    assert len(source.file_hashes) == len(source.instances) == 8


def test_loss_and_burned_in_text_of_a_single_image_are_inherited_by_all(tmp_path: Path) -> None:
    def compressed(image: Dataset, k: int) -> None:
        image.LossyImageCompression, image.BurnedInAnnotation = ("01", "YES") if k == 5 else ("00", "NO")
        if k == 5:
            image.LossyImageCompressionRatio, image.LossyImageCompressionMethod = "8", "ISO_10918_1"

    header = scan_of(make_series(tmp_path, change=compressed)).source.header
    assert [header[tag]["Value"] for tag in ("00282110", "00282112", "00282114")] == [["01"], [8.0], ["ISO_10918_1"]]
    assert header["00280301"]["Value"] == ["YES"]


def test_the_check_of_inherited_loss_fails_where_no_image_was_compressed(tmp_path: Path) -> None:
    def plain(image: Dataset, k: int) -> None:
        image.BurnedInAnnotation = "NO"
        image.ImageComments = f"01 YES {k}"

    header = scan_of(make_series(tmp_path, change=plain)).source.header
    assert "00282110" not in header
    assert header["00280301"]["Value"] == ["NO"]


def test_an_encoding_that_always_loses_counts_as_loss_where_the_header_is_silent(tmp_path: Path) -> None:
    paths = make_series(tmp_path, shape=SHAPE)
    for path in paths:
        image = dcmread(path)
        image.compress(JPEGLSNearLossless, jls_error=1)
        assert "LossyImageCompression" not in image
        image.save_as(path)
    assert scan_of(paths).source.header["00282110"]["Value"] == ["01"]


def test_a_file_that_changed_since_it_was_listed_is_not_read(tmp_path: Path) -> None:
    paths = make_series(tmp_path)
    info = found(paths)
    paths[3].write_bytes(paths[3].read_bytes() + b"\0\0")
    with pytest.raises(MedreconError, match="DCM-CHANGED"):
        dicom.read(info, OPTIONS, silent)
    paths[3].unlink()
    with pytest.raises(MedreconError, match="INP-GONE"):
        dicom.read(info, OPTIONS, silent)
