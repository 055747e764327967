"""Hounsfield units follow from what water and air attenuate: the definition, its inverse, and the published table of water."""

from __future__ import annotations

import numpy as np
import pytest

from medrecon.core.errors import UsageError
from medrecon.core.hounsfield import HounsfieldCalibration, Origin, water_per_mm


def test_water_is_zero_air_is_minus_a_thousand_and_twice_water_a_thousand() -> None:
    calibration = HounsfieldCalibration(0.02)
    assert calibration.to_hounsfield([0.02, 0.0, 0.04]) == pytest.approx([0, -1000, 1000], abs=1e-3)


def test_air_that_attenuates_is_still_minus_a_thousand() -> None:
    calibration = HounsfieldCalibration(0.021, 0.001)
    assert calibration.to_hounsfield([0.021, 0.001, 0.011]) == pytest.approx([0, -1000, -500], abs=1e-3)


def test_going_to_hounsfield_units_and_back_changes_nothing(rng: np.random.Generator) -> None:
    calibration = HounsfieldCalibration(0.0195, 1e-4)
    hounsfield = rng.uniform(-1000, 3000, 100)
    assert calibration.to_hounsfield(calibration.to_attenuation(hounsfield)) == pytest.approx(hounsfield, abs=0.01)


def test_there_is_nothing_below_air() -> None:
    assert HounsfieldCalibration(0.02).to_attenuation([-1024.0, -3000.0]) == pytest.approx([0, 0])


#: Of NIST's table, cm2/g, two lines; and at 70 keV, between the lines, as XCOM computes it.
@pytest.mark.parametrize(("kev", "per_cm", "within"), [(60, 0.2059, 1e-9), (100, 0.1707, 1e-9), (70, 0.1929, 0.01)])
def test_the_attenuation_of_water_is_the_published_one(kev: float, per_cm: float, within: float) -> None:
    assert water_per_mm(kev) == pytest.approx(per_cm / 10, rel=within)


def test_water_attenuates_less_at_higher_energies() -> None:
    assert np.all(np.diff([water_per_mm(kev) for kev in np.geomspace(10, 1000, 50)]) < 0)


def test_two_points_fix_the_scale_and_more_are_fitted() -> None:
    two = HounsfieldCalibration.from_samples([0.0201, 0.0003], [0, -1000])
    assert (two.water_per_mm, two.air_per_mm) == pytest.approx((0.0201, 0.0003))
    assert two.origin is Origin.MEASURED
    exact = HounsfieldCalibration(0.019, 0.0002)
    hounsfield = np.array([-1000.0, -100.0, 0.0, 300.0, 950.0])
    fitted = HounsfieldCalibration.from_samples(exact.to_attenuation(hounsfield), hounsfield)
    assert (fitted.water_per_mm, fitted.air_per_mm) == pytest.approx((0.019, 0.0002), rel=1e-4)


def test_of_water_alone_air_is_taken_as_nothing() -> None:
    one = HounsfieldCalibration.from_samples([0.0198], [0])
    assert (one.water_per_mm, one.air_per_mm) == pytest.approx((0.0198, 0), abs=1e-9)


@pytest.mark.parametrize(("water", "air"), [(0.0, 0.0), (-0.02, 0.0), (0.02, 0.03), (float("nan"), 0.0), (0.02, float("inf"))])
def test_water_that_attenuates_no_more_than_air_is_refused(water: float, air: float) -> None:
    with pytest.raises(UsageError, match="HU-VALUE"):
        HounsfieldCalibration(water, air)


@pytest.mark.parametrize(("mu", "hu"), [([0.02, 0.021], [0, 0]), ([0.02], [0, 1]), ([], []), ([0.0, 0.02], [0, -1000])])
def test_samples_that_fix_no_rising_line_are_refused(mu: list[float], hu: list[float]) -> None:
    with pytest.raises(UsageError, match="HU-VALUE"):
        HounsfieldCalibration.from_samples(mu, hu)


@pytest.mark.parametrize("kev", [5.0, 2000.0, float("nan")])
def test_energies_beyond_the_table_are_refused(kev: float) -> None:
    with pytest.raises(UsageError, match="HU-VALUE"):
        HounsfieldCalibration.from_energy(kev)
