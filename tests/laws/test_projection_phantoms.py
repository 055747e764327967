"""What phantoms for training must be: repeatable, different, inside the field of view, with lesions of known size."""

from __future__ import annotations

import numpy as np
import pytest

from medrecon.training.projection_phantoms import AIR_HU, Kind, draw, ended, lesion

SHAPE = (12, 48, 48)
KINDS: tuple[Kind, ...] = ("head", "chest", "shapes", "labels")


def brain() -> np.ndarray:
    """A ball of grey matter about a ball of white, 60 mm wide."""
    axes = np.meshgrid(*[np.arange(70) - 34.5] * 3, indexing="ij", sparse=True)
    far = np.sqrt(sum(axis**2 for axis in axes))
    return np.where(far < 20, 2, np.where(far < 30, 3, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_what_is_drawn(kind: Kind) -> None:
    first, again, other = (draw(kind, SHAPE, 4.0, np.random.default_rng(seed), brain()) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_body_ends_in_air_before_the_sides_and_holds_tissue(kind: Kind, seed: int) -> None:
    hounsfield = draw(kind, SHAPE, 4.0, np.random.default_rng(seed), brain())
    sides = np.concatenate(
        [hounsfield[:, edge].ravel() for edge in (0, -1)] + [hounsfield[..., edge].ravel() for edge in (0, -1)]
    )
    assert np.mean(sides > AIR_HU + 100) < 0.05
    assert np.mean(hounsfield > -200) > 0.05
    assert AIR_HU <= hounsfield.min() <= hounsfield.max() <= 3500


def test_a_head_about_a_label_map_has_bone_around_soft_tissue() -> None:
    hounsfield = draw("labels", (20, 60, 60), 3.0, np.random.default_rng(0), brain())
    middle = hounsfield[10]
    assert 0 < np.median(middle[28:32, 28:32]) < 80
    assert (middle[30] > 250).any()
    assert (middle[:, 30] > 250).any()


def test_a_lesion_adds_its_contrast_times_the_volume_of_a_ball() -> None:
    added = lesion((30, 40, 50), 1.5, (2.0, -3.0, 5.0), 12.0, 40.0)
    assert float(added.sum()) * 1.5**3 == pytest.approx(40 * 4 / 3 * np.pi * 12**3, rel=0.02)
    where = np.array(np.unravel_index(np.flatnonzero(added > 20), added.shape)).mean(axis=1)
    np.testing.assert_allclose((where - (np.array(added.shape) - 1) / 2) * 1.5, (2.0, -3.0, 5.0), atol=0.2)


def test_a_lesion_of_another_radius_fails_that_check() -> None:
    added = lesion((30, 40, 50), 1.5, (2.0, -3.0, 5.0), 11.0, 40.0)
    assert float(added.sum()) * 1.5**3 != pytest.approx(40 * 4 / 3 * np.pi * 12**3, rel=0.02)


def ends(seed: int) -> tuple[int, int]:
    """Return how many slices of a body of 40 are air, from the first on and up to the last."""
    body = ended(np.zeros((40, 3, 3), np.float32), np.random.default_rng(seed))
    inside = np.flatnonzero((body > AIR_HU).all(axis=(1, 2)))
    assert (body[inside[1] : inside[-2] + 1] == 0).all()
    return int(inside[0]), 39 - int(inside[-1])


def test_half_of_the_bodies_end_within_the_volume_with_air_over_up_to_a_quarter_at_each_end() -> None:
    gone = np.array([ends(seed) for seed in range(200)])
    assert 60 < np.sum((gone == 0).all(axis=1)) < 140
    assert gone.max() == 10
    assert set(gone[:, 0]) == set(range(11))


def test_a_phantom_is_left_as_it_is_where_its_body_ends() -> None:
    body = np.zeros((40, 3, 3), np.float32)
    for seed in range(20):
        ended(body, np.random.default_rng(seed))
    assert (body == 0).all()
