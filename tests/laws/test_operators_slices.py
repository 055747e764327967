"""Laws that hold for every model of slices, whichever path computes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medrecon.core.errors import GeometryError
from medrecon.core.output_grid import plan_grid
from medrecon.operators import _general_cpu, _general_reference, _separable
from medrecon.operators._slice_geometry import slice_geometry
from medrecon.operators.linear import LinearOperator
from medrecon.operators.slice_sampler import SlicePath, SliceSampler
from tests.makers_slices import Case, padding_mask, parallel_poses, sampler_cases, turned

CASES = sampler_cases()
EVERY_PATH = [
    pytest.param(c, p, id=f"{c}-{p}") for c in CASES for p in (("separable", "general") if c.separable else ("general",))
]


def random(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adjoint_gap(A: LinearOperator) -> float:
    """How far <Ax, y> is from <x, A*y>, relative to |Ax||y|; zero for a true adjoint."""
    x, y = random(A.domain, 1), random(A.range, 2)
    Ax, Aty = A.forward(x), A.adjoint(y)
    assert Ax.shape == y.shape
    assert Aty.shape == x.shape
    return float(((Ax * y).sum() - (x * Aty).sum()).abs() / (Ax.norm() * y.norm()))


class _LateAdjoint(SliceSampler):
    """An adjoint that is off by one plane."""

    def adjoint(self, y: Tensor) -> Tensor:
        return super().adjoint(y).roll(1, dims=0)


@pytest.mark.parametrize(("case", "path"), EVERY_PATH)
def test_adjoint_moves_across_the_inner_product(case: Case, path: SlicePath) -> None:
    assert adjoint_gap(case.make(path)) < 1e-12


def test_the_adjoint_check_fails_on_an_adjoint_that_is_one_plane_off() -> None:
    A = CASES[0].make("auto")
    assert adjoint_gap(_LateAdjoint(A.poses, A.grid)) > 1e-3


@pytest.mark.parametrize("case", [c for c in CASES if c.separable], ids=str)
def test_both_paths_give_the_same_numbers(case: Case) -> None:
    separable, general = case.make("separable"), case.make("general")
    x, y = random(separable.domain), random(separable.range)
    assert (separable.path, general.path) == ("separable", "general")
    assert (separable.forward(x) - general.forward(x)).abs().max() < 1e-10
    assert (separable.adjoint(y) - general.adjoint(y)).abs().max() < 1e-10
    assert np.array_equal(separable.seen, general.seen)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiled_loops_give_the_numbers_of_plain_torch(case: Case) -> None:
    A = case.make("general")
    geometry = slice_geometry(A.poses, A.grid)
    x, y = random(A.domain), random(A.range)
    assert (_general_cpu.forward(geometry, x) - _general_reference.forward(geometry, x)).abs().max() < 1e-10
    assert (_general_cpu.adjoint(geometry, y) - _general_reference.adjoint(geometry, y)).abs().max() < 1e-10
    assert np.abs(_general_cpu.seen(geometry) - _general_reference.seen(geometry)).max() < 1e-10


@pytest.mark.parametrize("case", [c for c in CASES if c.separable], ids=str)
def test_taps_in_compiled_loops_give_the_numbers_of_dense_products(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    A = case.make("separable")
    x, y = random(A.domain), random(A.range)
    images, volume = A.forward(x), A.adjoint(y)
    monkeypatch.setattr(_separable, "_is_compiled", lambda _: False)  # as on a GPU
    assert (A.forward(x) - images).abs().max() < 1e-12
    assert (A.adjoint(y) - volume).abs().max() < 1e-12


def test_the_check_between_paths_fails_on_a_thickness_one_percent_off() -> None:
    right = SliceSampler(parallel_poses(), CASES[0].make("auto").grid)
    wrong = SliceSampler(parallel_poses(thickness_mm=4.04), right.grid, path="general")
    x = random(right.domain)
    assert (right.forward(x) - wrong.forward(x)).abs().max() > 1e-4


@pytest.mark.parametrize(("case", "path"), EVERY_PATH)
def test_a_constant_volume_gives_that_constant_in_every_used_pixel(case: Case, path: SlicePath) -> None:
    A = case.make(path)
    y = A.forward(torch.full(A.domain, 7.25, dtype=torch.float64))
    seen = torch.from_numpy(A.seen)
    assert A.seen.any()
    assert (y[seen] - 7.25).abs().max() < 1e-12
    assert (y[~seen] == 0).all()


@pytest.mark.parametrize(("case", "path"), EVERY_PATH)
def test_the_model_is_linear(case: Case, path: SlicePath) -> None:
    A = case.make(path)
    a, b = random(A.domain, 3), random(A.domain, 4)
    assert torch.allclose(A.forward(2 * a - 3 * b), 2 * A.forward(a) - 3 * A.forward(b), atol=1e-12)


@pytest.mark.parametrize(("case", "path"), EVERY_PATH)
def test_single_precision_agrees_with_double(case: Case, path: SlicePath) -> None:
    A = case.make(path)
    x = random(A.domain)
    y = A.forward(x.float())
    assert y.dtype == torch.float32
    assert (y - A.forward(x)).abs().max() < 2e-5


@pytest.mark.parametrize("path", ["separable", "general"])
def test_autograd_differentiates_with_the_exact_adjoint_and_twice(path: SlicePath) -> None:
    poses = parallel_poses(2, (0, 0.4, 2), 2, shape=(3, 4))
    A = SliceSampler(poses, plan_grid(poses), path=path)
    x = random(A.domain).requires_grad_()
    assert torch.autograd.gradcheck(A, (x,))
    assert torch.autograd.gradgradcheck(lambda v: A(v) ** 2, (x,))


@pytest.mark.parametrize(("case", "path"), EVERY_PATH)
def test_column_sums_are_zero_exactly_where_no_used_pixel_looks(case: Case, path: SlicePath) -> None:
    A = case.make(path)
    weights = A.weights_per_voxel()
    one_by_one = sum(A.adjoint(_only(A.range, k)) for k in range(A.range[0]))
    assert weights.dtype == torch.float32
    assert torch.allclose(weights.double(), torch.as_tensor(one_by_one), atol=1e-5)
    x = torch.where(weights > 0, 0.0, 1e6).double()
    assert (A.forward(x) == 0).all(), "a voxel without weight must not be seen by any pixel"


def _only(shape: tuple[int, int, int], k: int) -> Tensor:
    y = torch.zeros(shape, dtype=torch.float64)
    y[k] = 1
    return y


def test_padding_is_neither_given_nor_taken() -> None:
    A = next(c for c in CASES if c.name == "padding").make("auto")
    mask = torch.from_numpy(padding_mask())
    y = random(A.range)
    assert (A.forward(random(A.domain))[~mask] == 0).all()
    assert torch.equal(A.adjoint(y), A.adjoint(torch.where(mask, y, 1e9)))


def test_slices_oblique_to_the_grid_refuse_the_separable_path() -> None:
    A = CASES[0].make("auto")
    with pytest.raises(GeometryError, match="SLC-OBLIQUE"):
        SliceSampler(turned(A.poses, 10), A.grid, path="separable")


def test_a_mask_or_stack_of_another_size_is_refused() -> None:
    A = CASES[0].make("auto")
    with pytest.raises(GeometryError, match="SCAN-SHAPE"):
        SliceSampler(A.poses, A.grid, measured=np.ones((1, 2, 3), dtype=np.bool_))
    with pytest.raises(GeometryError, match="SCAN-SHAPE"):
        SliceSampler(A.poses, A.grid, stack=np.zeros(99, dtype=np.int64))


def test_a_volume_of_another_shape_is_refused_and_not_broadcast() -> None:
    A = CASES[0].make("auto")
    with pytest.raises(ValueError, match="must have shape"):
        A.forward(torch.zeros(1, 1, 1))


def test_chosen_images_keep_their_rows_of_the_model() -> None:
    A = next(c for c in CASES if c.name == "padding").make("auto")
    x = random(A.domain)
    assert torch.allclose(A.take([4, 1]).forward(x), A.forward(x)[[4, 1]], atol=1e-12)
