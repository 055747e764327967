"""The descent on total variation is held to the derivative of the sum it descends on, and to the symmetries of space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medrecon.methods._edges import EdgeDescent

SPACING_MM = (2.0, 1.0, 0.5)
DELTA = 0.3


def variation(x: np.ndarray, spacing_mm: tuple[float, float, float], delta: float) -> float:
    """Return the sum over voxels of sqrt(delta^2 + half the squared slopes to all six neighbours), voxel by voxel."""
    finest, total = min(spacing_mm), np.full(x.shape, delta**2)
    for place in np.ndindex(x.shape):
        for axis in range(3):
            for side in (-1, 1):
                there = list(place)
                there[axis] += side
                if 0 <= there[axis] < x.shape[axis]:
                    total[place] += 0.5 * ((x[tuple(there)] - x[place]) * finest / spacing_mm[axis]) ** 2
    return float(np.sqrt(total).sum())


def derivative(x: np.ndarray) -> np.ndarray:
    """Differentiate `variation` by central differences."""
    found, step = np.empty_like(x), 1e-5
    for place in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] -= step
        moved[1][place] += step
        below, above = (variation(m, SPACING_MM, DELTA) for m in moved)
        found[place] = (above - below) / (2 * step)
    return found


def first_move(x: torch.Tensor, floor: float = -1e9) -> torch.Tensor:
    """Return what one step from rest does to a volume."""
    return EdgeDescent(SPACING_MM, DELTA, floor).step(x) - x


@pytest.fixture
def volume(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((4, 5, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_goes_against_the_derivative_of_the_variation(volume: np.ndarray, dtype: torch.dtype) -> None:
    expected = derivative(volume)
    move = first_move(torch.from_numpy(volume).to(dtype)).double().numpy()
    length = -(move * expected).sum() / (expected**2).sum()
    assert length > 0
    assert np.abs(move + length * expected).max() < 1e-4 * np.abs(move).max()


def test_the_derivative_check_fails_for_spacings_in_another_order(volume: np.ndarray) -> None:
    expected = derivative(volume)
    x = torch.from_numpy(volume).float()
    move = (EdgeDescent((0.5, 1.0, 2.0), DELTA, -1e9).step(x) - x).double().numpy()
    length = -(move * expected).sum() / (expected**2).sum()
    assert np.abs(move + length * expected).max() > 0.1 * np.abs(move).max()


@pytest.mark.parametrize("shape", [(7, 9, 11), (1, 6, 5), (5, 4, 1), (2, 40, 3)])
def test_the_compiled_loop_moves_as_the_whole_volume_operations_do(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal(shape)).float()
    compiled, plain = EdgeDescent(SPACING_MM, DELTA, -0.5), EdgeDescent(SPACING_MM, DELTA, -0.5)
    a, b = x.clone(), torch.empty_strided(shape, (1, shape[0], shape[0] * shape[1])).copy_(x)
    assert not b.is_contiguous()
    for _ in range(3):
        a, b = compiled.step(a), plain.step(b)
    assert (a - b).abs().max() < 1e-5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_mirrored_volume_moves_as_the_mirror_image(volume: np.ndarray, axis: int) -> None:
    x = torch.from_numpy(volume).float()
    assert (first_move(x.flip(axis).contiguous()) - first_move(x).flip(axis)).abs().max() < 1e-6


def test_any_number_of_threads_gives_the_same_bytes(rng: np.random.Generator) -> None:
    x, before = torch.from_numpy(rng.standard_normal((13, 20, 21))).float(), torch.get_num_threads()
    moves = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        moves.append(first_move(x))
    torch.set_num_threads(before)
    assert torch.equal(moves[0], moves[1])
    assert torch.equal(moves[0], moves[2])


def test_steps_lower_the_variation_and_keep_the_mean(volume: np.ndarray) -> None:
    x = torch.from_numpy(volume).double()
    before, mean = variation(x.numpy(), SPACING_MM, DELTA), float(x.mean())
    descent = EdgeDescent(SPACING_MM, DELTA, -1e9)
    for _ in range(10):
        x = descent.step(x)
    assert variation(x.numpy(), SPACING_MM, DELTA) < 0.7 * before
    assert float(x.mean()) == pytest.approx(mean, abs=1e-6)


def test_nothing_becomes_darker_than_the_floor(volume: np.ndarray) -> None:
    x = torch.from_numpy(volume).float()
    assert float((x + first_move(x, floor=-0.2)).min()) == pytest.approx(-0.2)
