"""The integers of a written image give the values back, and padding is no value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medrecon.core.grid import Grid
from medrecon.core.source import Source
from medrecon.core.volume import Quantity, Volume
from medrecon.writers import dicom
from tests.makers_written_dicom import CONTEXT, files_in

Float64 = NDArray[np.float64]


def volume_of(
    values: NDArray[np.float32], quantity: Quantity, seen: NDArray[np.bool_] | None = None, modality: str = ""
) -> Volume:
    return Volume(values, Grid.from_parts(values.shape, (1, 1, 1), (0, 0, 0)), quantity, seen, Source(modality=modality))


def read_back(volume: Volume, folder: Path) -> tuple[Float64, NDArray[np.bool_]]:
    """Return values and what is padding, from the files alone: rescale and real world value mapping as DICOM has them."""
    dicom.write(volume, folder, CONTEXT)
    images = [pydicom.dcmread(path) for path in files_in(folder)]
    stored = np.stack([image.pixel_array for image in images]).astype(np.float64)
    padding = stored == images[0].get("PixelPaddingValue")
    mapping = images[0].get("RealWorldValueMappingSequence")
    if mapping:
        assert mapping[0].RealWorldValueFirstValueMapped <= stored[~padding].min()
        assert mapping[0].RealWorldValueLastValueMapped >= stored[~padding].max()
        stored = stored * mapping[0].RealWorldValueSlope + mapping[0].RealWorldValueIntercept
    if not mapping:
        stored = stored * float(images[0].get("RescaleSlope", 1)) + float(images[0].get("RescaleIntercept", 0))
    return stored, padding


def values_between(low: float, high: float, rng: np.random.Generator) -> NDArray[np.float32]:
    values = rng.uniform(low, high, (3, 8, 8)).astype(np.float32)
    values[0, 0, :2] = low, high
    return values


_RANGES = [
    (0, 1539.7),
    (-0.3, 1539.7),
    (-1e-7, 3e-6),
    (0.011, 0.037),
    (-5e8, 3e9),
    (1000.0, 1001.0),
    (-70000.5, -2.5),
    (0.5, 0.5),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("modality", ["MR", "CT", ""])
@pytest.mark.parametrize(("low", "high"), _RANGES)
def test_scaling_costs_less_than_half_a_32767th_of_the_range(
    low: float, high: float, modality: str, masked: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    values = values_between(low, high, rng)
    seen = rng.random(values.shape) < 0.7 if masked else None
    known = np.ones(values.shape, dtype=bool) if seen is None else seen
    known[0, 0, :2] = True
    back, padding = read_back(volume_of(values, Quantity.ARBITRARY, seen, modality), tmp_path / "dicom")
    span = float(values[known].max()) - float(values[known].min())
    assert np.abs(back - values)[known].max() <= 0.5 / 32767 * span + 1e-9 * abs(float(values.max()))
    np.testing.assert_array_equal(padding, ~known)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 4095), (-1024, 3071), (-32768, 32767), (0, 65535), (-32767, 32767), (-1, 40000), (5, 6), (7, 7), (0, 0)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_whole_numbers_that_fit_come_back_as_they_are(
    low: int, high: int, masked: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    values = rng.integers(low, high, (3, 8, 8), endpoint=True).astype(np.float32)
    values[0, 0, :2] = low, high
    seen = np.ones(values.shape, dtype=bool)
    seen[1, 2] = not masked
    back, padding = read_back(volume_of(values, Quantity.ARBITRARY, seen, "MR"), tmp_path / "dicom")
    exact = high - low < 65535 - masked
    np.testing.assert_allclose(back[seen], values[seen], atol=0 if exact else 1.0)
    np.testing.assert_array_equal(padding, ~seen)


def test_plain_whole_numbers_need_no_mapping(tmp_path: Path, rng: np.random.Generator) -> None:
    volume = volume_of(rng.integers(0, 4095, (2, 4, 4)).astype(np.float32), Quantity.ARBITRARY, None, "MR")
    dicom.write(volume, tmp_path / "dicom", CONTEXT)
    image = pydicom.dcmread(files_in(tmp_path / "dicom")[0])
    assert "RealWorldValueMappingSequence" not in image
    np.testing.assert_array_equal(image.pixel_array, volume.voxels[0])


def test_hounsfield_units_are_rounded_to_whole_ones(tmp_path: Path, rng: np.random.Generator) -> None:
    values = values_between(-1000, 3000, rng)
    back, _ = read_back(volume_of(values, Quantity.HOUNSFIELD), tmp_path / "dicom")
    np.testing.assert_array_equal(back, np.rint(values))


def test_hounsfield_units_beyond_16_bits_are_clipped_counted_and_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.zeros((2, 3, 3), dtype=np.float32)
    values[0, 0] = -50000, 40000, 32767
    back, _ = read_back(volume_of(values, Quantity.HOUNSFIELD), tmp_path / "dicom")
    np.testing.assert_array_equal(back[0, 0], [-32767, 32767, 32767])
    assert any(message.startswith("2 voxels") for message in caplog.messages)
    assert "2 voxels clipped" in pydicom.dcmread(files_in(tmp_path / "dicom")[0]).DerivationDescription


@pytest.mark.parametrize(("lowest", "air"), [(-1000, -1024), (-1024, -1025), (-3024, -3025), (500, -1024)])
def test_unseen_voxels_are_air_or_just_below_all_that_was_seen(lowest: int, air: int, tmp_path: Path) -> None:
    values = np.full((2, 3, 3), 800, dtype=np.float32)
    values[1, 1, 1] = lowest
    seen = np.ones(values.shape, dtype=bool)
    values[0, 0, 0], seen[0, 0, 0] = np.nan, False
    back, padding = read_back(volume_of(values, Quantity.HOUNSFIELD, seen), tmp_path / "dicom")
    assert back[0, 0, 0] == air
    np.testing.assert_array_equal(padding, ~seen)


def test_the_padding_check_fails_where_padding_is_a_seen_value(tmp_path: Path) -> None:
    values = np.full((2, 3, 3), -1025, dtype=np.float32)
    seen = np.ones(values.shape, dtype=bool)
    seen[0, 0, 0] = False
    dicom.write(volume_of(values, Quantity.HOUNSFIELD, seen), tmp_path / "dicom", CONTEXT)
    image = pydicom.dcmread(files_in(tmp_path / "dicom")[0])
    assert np.count_nonzero(image.pixel_array == image.PixelPaddingValue) == 1
    assert np.count_nonzero(image.pixel_array == -1025) == 8


@settings(max_examples=60)
@given(
    low=st.floats(-1e30, 1e30),
    span=st.floats(0, 1e30),
    masked=st.booleans(),
    quantity=st.sampled_from(Quantity),
)
def test_any_finite_range_has_integers_that_hold_it(low: float, span: float, masked: bool, quantity: Quantity) -> None:
    from medrecon.writers._dicom_pixels import choose_coding

    values = np.linspace(low, low + span, 18).astype(np.float32).reshape(2, 3, 3)
    seen = np.ones(values.shape, dtype=bool)
    seen[0, 0, 1] = not masked
    coding = choose_coding(volume_of(values, quantity, seen))
    stored = coding.encode(values, seen).astype(np.float64)
    if quantity is not Quantity.HOUNSFIELD:
        error = np.abs(stored * coding.slope + coding.intercept - values.astype(np.float64))[seen].max()
        assert error <= 0.5 / 32767 * max(
            float(np.ptp(values[seen].astype(np.float64))), 1e-6 * float(np.abs(values).max()), 1e-30
        )
    assert masked is False or (stored == coding.padding).sum() == 1


def test_a_narrow_window_says_that_it_is_exact(tmp_path: Path, rng: np.random.Generator) -> None:
    volume = volume_of(values_between(0.0, 0.04, rng), Quantity.ATTENUATION_PER_MM)
    dicom.write(volume, tmp_path / "dicom", CONTEXT)
    image = pydicom.dcmread(files_in(tmp_path / "dicom")[0])
    assert image.VOILUTFunction == "LINEAR_EXACT"
    assert 0.0 < image.WindowCenter < 0.04
    assert 0.0 < image.WindowWidth <= 0.04
    assert image.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "/mm"


def test_the_window_of_mr_images_is_one_of_stored_integers(tmp_path: Path, rng: np.random.Generator) -> None:
    volume = volume_of(values_between(0.0, 0.04, rng), Quantity.ARBITRARY, None, "MR")
    dicom.write(volume, tmp_path / "dicom", CONTEXT)
    image = pydicom.dcmread(files_in(tmp_path / "dicom")[0])
    assert 10_000 < image.WindowWidth < 65_536
