"""Preprocessing against closed forms, against algotom, and on real beamline data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import medrecon as mr
from medrecon.core.errors import GeometryError, InputError, UsageError
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.preprocess.bad_pixels import fill_bad_pixels, find_bad_pixels
from medrecon.preprocess.beam_hardening import WaterPolynomial, fit_water
from medrecon.preprocess.centre_of_rotation import find_axis
from medrecon.preprocess.flat_field import flat_field
from medrecon.preprocess.line_integrals import to_line_integrals
from medrecon.preprocess.logarithm import attenuation
from medrecon.preprocess.noise import add_noise, noisy_counts
from medrecon.preprocess.rings import RingMethod, remove_rings
from medrecon.preprocess.scatter import subtract_constant_scatter, subtract_kernel_scatter
from tests import makers_projections as makers


def smooth(shape: tuple[int, int, int] = (40, 6, 64), radius: float = 15.0) -> NDArray[np.float32]:
    """Line integrals of a disc that moves from side to side."""
    view, _, column = np.indices(shape)
    middle = shape[2] / 2 + 10 * np.sin(2 * np.pi * view / shape[0])
    chords: NDArray[np.float32] = (1.5 / radius * np.sqrt(np.maximum(radius**2 - (column - middle) ** 2, 0))).astype(np.float32)
    return chords


# -- flat field and logarithm --------------------------------------------------------------------------------------------


def test_flat_and_dark_field_leave_the_transmission_of_the_object_alone() -> None:
    p = smooth()
    gain, dark = np.linspace(500, 900, 64), 30.0
    done = flat_field(dark + gain * np.exp(-p), np.broadcast_to(dark + gain, (3, 6, 64)), np.full((6, 64), dark))
    np.testing.assert_allclose(attenuation(done.pixels)[0], p, atol=1e-5)
    assert done.valid.all()
    assert (
        np.abs(attenuation(flat_field(dark + gain * np.exp(-p), dark + np.broadcast_to(gain, (6, 64))).pixels)[0] - p).max()
        > 0.01
    )


def test_dead_pixels_are_marked_and_a_beam_that_was_off_is_refused() -> None:
    flat = np.full((6, 64), 500.0)
    flat[2, 3] = 10.0
    done = flat_field(np.full((4, 6, 64), 200.0), flat, 10.0)
    assert np.argwhere(~done.valid).tolist() == [[2, 3]]
    assert np.isfinite(done.pixels).all()
    for off in (np.zeros((6, 64)), np.full((6, 64), np.nan)):
        with pytest.raises(InputError) as raised:
            flat_field(np.ones((4, 6, 64)), off)
        assert raised.value.code == "PRJ-FLAT"
    with pytest.raises(InputError) as raised:
        flat_field(np.ones((4, 6, 64)), np.ones((6, 63)))
    assert raised.value.code == "PRJ-SHAPE"


def test_the_logarithm_is_exact_where_enough_came_through_and_finite_where_nothing_did() -> None:
    t = np.array([[[1.0, 0.5, 1e-6, 0.0, -0.1, np.nan]]], dtype=np.float32)
    values, seen = attenuation(t, floor=1e-3)
    np.testing.assert_allclose(values[0, 0, :2], [0, np.log(2)], atol=1e-6)
    np.testing.assert_allclose(values[0, 0, 2:5], -np.log(1e-3), rtol=1e-6)
    assert seen[0, 0].tolist() == [True, True, True, True, True, False]


def test_the_tangent_below_the_knee_keeps_the_mean_of_faint_noise_nearer_than_a_floor_does(rng: np.random.Generator) -> None:
    t = 0.01 + 0.004 * rng.standard_normal((1, 100, 100)).astype(np.float32)
    knee = float(attenuation(t, floor=1e-4, knee=0.01)[0].mean())
    assert abs(knee - -np.log(0.01)) < 0.5 * abs(float(attenuation(t, floor=1e-4)[0].mean()) - -np.log(0.01)) + 0.1
    step = np.array([[[0.01 - 1e-6, 0.01 + 1e-6]]])
    assert abs(float(np.diff(attenuation(step, knee=0.01)[0])[0, 0, 0])) < 1e-3
    with pytest.raises(UsageError):
        attenuation(t, floor=0.1, knee=0.01)


def test_counts_need_an_open_beam_and_line_integrals_stay_as_they_are() -> None:
    views = ViewGeometry.parallel(np.linspace(0, np.pi, 40, endpoint=False), Detector((6, 64), (1, 1)))
    p = smooth()
    counts = ProjectionScan(1000 * np.exp(-p), views, Measured.COUNTS)
    with pytest.raises(InputError) as raised:
        to_line_integrals(counts)
    assert raised.value.code == "PRJ-FLAT"
    np.testing.assert_allclose(to_line_integrals(counts, open_beam=1000.0).pixels, p, atol=1e-5)
    done = ProjectionScan(p, views)
    assert to_line_integrals(done) is done


# -- bad pixels and rings ------------------------------------------------------------------------------------------------


def test_dead_hot_and_flickering_pixels_are_found_and_no_others(rng: np.random.Generator) -> None:
    p = smooth((40, 24, 64)) + 0.01 * rng.standard_normal((40, 24, 64)).astype(np.float32)
    assert not find_bad_pixels(p).any()
    bad = p.copy()
    bad[:, 3, 5], bad[:, 10, 40] = 0.7, 30.0
    bad[:, 17, 30] += 3 * rng.standard_normal(40)
    bad[4, 20, 20] = np.nan
    found = find_bad_pixels(bad)
    assert {tuple(at) for at in np.argwhere(found)} == {(3, 5), (10, 40), (17, 30), (20, 20)}
    filled = fill_bad_pixels(bad, found)
    assert np.abs(filled - p)[:, found].max() < 0.25  # the disc's edge rises by 0.4 from one column to the next
    np.testing.assert_array_equal(filled[:, ~found], p[:, ~found])


def striped(rng: np.random.Generator, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A sinogram without and with stripes of a width."""
    p = smooth((90, 2, 256), radius=80.0)
    p = p + 0.002 * rng.standard_normal(p.shape).astype(np.float32)
    stripes = np.zeros(256, np.float32)
    for first in (20, 100, 130, 150):
        stripes[first : first + width] = 0.2
    return p, p + stripes


@pytest.mark.parametrize(("method", "width", "size"), [("sorting", 1, 5), ("large", 1, 5), ("large", 4, 11)])
def test_stripes_are_taken_out_of_a_sinogram(method: RingMethod, width: int, size: int, rng: np.random.Generator) -> None:
    p, dirty = striped(rng, width)
    cleaned = remove_rings(dirty, method, size)
    assert np.abs(cleaned - p).mean() < 0.4 * np.abs(dirty - p).mean()
    assert np.abs(remove_rings(dirty, method, size=2) - p).mean() > 0.4 * np.abs(dirty - p).mean()  # too narrow a median


def test_columns_that_answer_as_their_neighbours_keep_their_values(rng: np.random.Generator) -> None:
    _, dirty = striped(rng, 4)
    changed = (remove_rings(dirty, "large", 11) != dirty).any(axis=(0, 1))
    assert changed[100:104].all()
    assert changed.mean() < 0.35
    assert (remove_rings(dirty, "sorting", 11) != dirty).any(axis=(0, 1)).mean() > 0.6


def test_sorting_gives_what_algotom_gives(rng: np.random.Generator) -> None:
    removal = pytest.importorskip("algotom.prep.removal", reason="algotom is not installed (extra `peers`)")
    _, dirty = striped(rng, 2)
    for row in range(2):
        theirs = removal.remove_stripe_based_sorting(dirty[:, row], size=9, dim=1)
        np.testing.assert_allclose(remove_rings(dirty, "sorting", 9)[:, row], theirs, atol=1e-6)


def test_rings_need_views_and_a_known_method() -> None:
    p = smooth()
    for given in ((p[:3], "sorting", 5), (p, "sorting", 65), (p, "sorting", 1), (p, "plain", 5)):
        with pytest.raises(UsageError):
            remove_rings(*given)


def test_rings_of_a_real_neutron_sinogram_become_weaker(shared_data: Path) -> None:
    path = shared_data / "projections" / "sarepy" / "sinogram_360_neutron_image.tif"
    p = -np.log(np.clip(tifffile.imread(path).astype(np.float32) / 46_990, 1e-3, None))[:, None]

    def stripes(sinogram: NDArray[np.float32]) -> float:
        mean = sinogram[:, 0].mean(axis=0)
        return float(np.abs(mean[1:-1] - (mean[:-2] + mean[2:]) / 2).mean())

    assert stripes(remove_rings(p)) < 0.7 * stripes(p)


# -- beam hardening and scatter ------------------------------------------------------------------------------------------


def two_energies(depth_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """What water of some depth gives with two energies, attenuated by 0.030 and 0.018 per mm."""
    return np.asarray(-np.log(0.5 * np.exp(-0.030 * depth_mm) + 0.5 * np.exp(-0.018 * depth_mm)))


def test_the_water_polynomial_straightens_two_energies() -> None:
    depth = np.linspace(0, 300, 31)
    fitted = fit_water(depth, two_energies(depth), 0.02, degree=4)
    between = np.linspace(5, 295, 50)
    straight = fitted(two_energies(between)) / (0.02 * between)
    assert np.abs(straight - 1).max() < 0.01
    assert np.ptp(two_energies(between) / between) / 0.02 > 0.15  # the twin: uncorrected it bends by a sixth and more
    assert float(fitted(0.0)) == 0.0


def test_a_water_polynomial_is_evaluated_as_it_is_written() -> None:
    np.testing.assert_allclose(WaterPolynomial((1.0, 0.1, -0.01))(2.0), 2.0 + 0.4 - 0.08, rtol=1e-6)
    with pytest.raises(InputError):
        fit_water([1.0], [0.1], 0.02)
    with pytest.raises(InputError) as raised:
        fit_water([0, 100, 50, 10], [0.0, 1.0, 2.0, 3.0], 0.02)
    assert raised.value.code == "PRJ-VALUE"


def test_constant_scatter_is_taken_off_exactly_where_the_faintest_part_is_known() -> None:
    primary = np.full((2, 20, 20), 0.5, dtype=np.float32)
    primary[:, :3] = 0.02
    measured = primary + 0.01
    np.testing.assert_allclose(subtract_constant_scatter(measured, 0.01 / 0.03), primary, atol=1e-6)
    assert np.abs(measured - primary).max() > 0.009


def test_kernel_scatter_is_undone_where_the_kernel_is_known() -> None:
    from scipy.ndimage import gaussian_filter

    primary = np.exp(-smooth())
    measured = primary + 0.2 * gaussian_filter(primary, (0, 3, 8), mode="nearest")
    assert np.abs(subtract_kernel_scatter(measured, 0.2, (3, 8), rounds=12) - primary).max() < 1e-4
    assert np.abs(subtract_kernel_scatter(measured, 0.2, (3, 2), rounds=12) - primary).max() > 1e-3
    with pytest.raises(UsageError):
        subtract_kernel_scatter(measured, 1.0, (3, 8))


# -- noise ---------------------------------------------------------------------------------------------------------------


def test_noise_has_the_mean_and_the_variance_of_poisson_and_electronics() -> None:
    p = np.full((4, 200, 200), 1.0)
    counts = noisy_counts(p, 1000.0, electronic=5.0, seed=3)
    expected = 1000 * np.exp(-1)
    assert counts.mean() == pytest.approx(expected, rel=0.002)
    assert counts.var() == pytest.approx(expected + 25, rel=0.02)
    assert noisy_counts(p, 1000.0, seed=3).var() == pytest.approx(expected, rel=0.02)
    np.testing.assert_array_equal(counts, noisy_counts(p, 1000.0, electronic=5.0, seed=3))
    assert (counts != noisy_counts(p, 1000.0, electronic=5.0, seed=4)).any()
    noisy = add_noise(p, 1e5, seed=1)
    assert noisy.std() == pytest.approx(np.sqrt(np.e / 1e5), rel=0.02)
    with pytest.raises(UsageError):
        noisy_counts(p, 0.0)


# -- axis ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "tilt_deg"), [(0.0, 0.0), (3.25, 0.0), (-4.5, 1.0), (2.0, -2.0)])
def test_the_axis_of_a_shifted_and_tilted_detector_is_found(offset: float, tilt_deg: float) -> None:
    detector = Detector((60, 90), (1.0, 1.0))
    views = ViewGeometry.parallel(
        np.linspace(0, 2 * np.pi, 24, endpoint=False), detector, offset_u_mm=offset, in_plane_rad=np.radians(tilt_deg)
    )
    axis = find_axis(makers.phantom().project(views), views.angles_rad)
    column, row, _ = views.project(np.array([[0, 0, -10.0], [0, 0, 0], [0, 0, 10.0]]))
    slope = (column[0, 2] - column[0, 0]) / (row[0, 2] - row[0, 0])
    at_middle = column[0, 1] + slope * (29.5 - row[0, 1])
    assert axis.column == pytest.approx(at_middle, abs=0.25)
    assert axis.tilt_rad == pytest.approx(np.arctan(slope), abs=np.radians(0.4))
    if not tilt_deg:
        assert axis.offset_u_mm(90, 1.0) == pytest.approx(offset, abs=0.25)


def test_views_that_show_nothing_say_so() -> None:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    with pytest.raises(GeometryError) as raised:
        find_axis(np.zeros((12, 8, 30)), angles)
    assert raised.value.code == "PRJ-EMPTY"


def test_the_axis_needs_views_from_opposite_sides() -> None:
    views = ViewGeometry.parallel(np.linspace(0, 2, 10), Detector((20, 30), (1.0, 1.0)))
    with pytest.raises(GeometryError) as raised:
        find_axis(np.zeros(views.shape), views.angles_rad)
    assert raised.value.code == "PRJ-FEW"
    with pytest.raises(GeometryError):
        find_axis(np.zeros(views.shape), views.angles_rad[1:])


def test_the_axis_of_the_tooth_is_where_algotom_and_earlier_measurements_see_it(shared_data: Path) -> None:
    calculation = pytest.importorskip("algotom.prep.calculation", reason="algotom is not installed (extra `peers`)")
    scan = mr.read(shared_data / "projections" / "tomopy" / "tooth.h5", spacing_mm=(1, 0.01, 0.01))
    assert isinstance(scan, ProjectionScan)
    p = to_line_integrals(scan).pixels
    axis = find_axis(p, scan.views.angles_rad)
    assert axis.column == pytest.approx(float(calculation.find_center_vo(p[:, 0])), abs=1.0)
    assert axis.column == pytest.approx(296.0, abs=1.0)


def test_the_axis_of_a_full_turn_of_neutrons_is_where_it_was_measured(shared_data: Path) -> None:
    path = shared_data / "projections" / "sarepy" / "sinogram_360_neutron_image.tif"
    counts = tifffile.imread(path).astype(np.float64)
    p = -np.log(np.clip(counts / 46_990, 1e-3, None))[:, None]
    assert find_axis(p, np.linspace(0, 2 * np.pi, len(p))).column == pytest.approx(245.0, abs=1.0)
