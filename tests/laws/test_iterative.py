"""Iterative methods give the volume back that the projections were made of, and say when noise is all that is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medrecon import methods
from medrecon.core.errors import CancelledError
from medrecon.core.progress import silent
from medrecon.core.views import Detector, ViewGeometry
from medrecon.methods._iterations import axis_shares, column_rms, groups_of, spread_order, squared_norm_bound
from medrecon.methods._noise import noise_rms
from medrecon.methods._tv_prox import TotalVariation
from medrecon.operators.xray_transform import XRayTransform
from tests.makers_xray import ball, centred_grid, random_geometry

ITERATIVE = ("sirt", "cgls", "tv", "mlem", "pocs")
DENSITY = 0.02


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scan(views: int = 32, noise: float = 0.0, **offsets: float) -> tuple[XRayTransform, Tensor, Tensor]:
    """A ball seen from all around: operator, line integrals, truth."""
    grid, phantom = centred_grid(24, 4.0), ball(30.0, (6, -4, 2), DENSITY)
    geometry = ViewGeometry.cone(np.arange(views) * 2 * np.pi / views, 600, 900, Detector((28, 36), (6.0, 6.0)), **offsets)
    y = phantom.project(geometry)
    y = y + np.float32(noise) * np.random.default_rng(0).standard_normal(y.shape, dtype=np.float32)
    return XRayTransform(geometry, grid), torch.from_numpy(y), torch.from_numpy(phantom.voxels(grid, 3))


def run(name: str, A: XRayTransform, y: Tensor, preview: Any = None, **settings: Any) -> Tensor:
    method = methods.get(name)
    x: Tensor = method.run(A, y, method.settings.model_validate(settings), silent, preview)
    return x


def error(x: Tensor, truth: Tensor) -> float:
    return float((x - truth).norm() / truth.norm())


@pytest.mark.parametrize("name", ITERATIVE)
def test_the_ball_comes_back_in_shape_and_amplitude(name: str) -> None:
    A, y, truth = scan()
    x = run(name, A, y)
    assert x.shape == A.domain
    assert x.dtype == torch.float32
    assert error(x, truth) < 0.2
    assert float(x[truth == DENSITY].mean()) == pytest.approx(DENSITY, rel=0.05)


@pytest.mark.parametrize("name", ITERATIVE)
def test_half_fans_need_no_weights(name: str) -> None:
    A, y, truth = scan(64, offset_u_mm=60.0)
    assert error(run(name, A, y), truth) < 0.25


@pytest.mark.parametrize("name", ITERATIVE)
def test_values_of_unmeasured_pixels_are_never_used(name: str) -> None:
    A, y, _ = scan(16)
    measured = torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) > 0.05
    masked = XRayTransform(A.views, A.grid, measured)
    clean, poisoned = (run(name, masked, torch.where(measured, y, bad), iterations=2) for bad in (0.0, torch.nan))
    assert torch.equal(clean, poisoned)


@pytest.mark.parametrize("name", ITERATIVE)
def test_every_iteration_is_previewed_and_a_tick_that_raises_ends_it(name: str) -> None:
    A, y, _ = scan(8)
    shown: list[Tensor] = []
    last = run(name, A, y, shown.append, iterations=3, **({} if name == "mlem" else {"stop": None}))
    assert len(shown) == 3
    assert error(shown[-1], last) < 1e-6

    def cancel(share: float) -> None:
        assert 0 <= share <= 1
        raise CancelledError("RUN-CANCELLED", "the user asked to stop")

    method = methods.get(name)
    with pytest.raises(CancelledError):
        method.run(A, y, method.settings(), cancel)


@pytest.mark.parametrize("name", ["sirt", "tv", "pocs"])
def test_attenuation_is_never_negative_unless_asked_for(name: str) -> None:
    A, y, _ = scan(noise=0.2)
    assert float(run(name, A, y).min()) >= 0
    assert float(run(name, A, y, nonnegative=False).min()) < 0


@pytest.mark.parametrize("name", ["sirt", "cgls"])
def test_it_ends_where_the_residual_is_noise(name: str) -> None:
    A, y, _ = scan(noise=0.1)
    ended, endless = ([], [])  # type: tuple[list[Tensor], list[Tensor]]
    run(name, A, y, ended.append, iterations=25)
    run(name, A, y, endless.append, iterations=25, stop=None)
    assert len(ended) < len(endless) == 25
    assert float((A.forward(ended[-1]) - y).norm()) / y.numel() ** 0.5 == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("name", ["sirt", "cgls"])
def test_starting_from_fdk_is_nearer_after_one_iteration(name: str) -> None:
    A, y, truth = scan()
    extra = {"subsets": 1, "momentum": False} if name == "sirt" else {}
    from_zero, warm = (run(name, A, y, iterations=1, start=start, stop=None, **extra) for start in ("zero", "fdk"))
    assert error(warm, truth) < 0.6 * error(from_zero, truth)


def test_conjugate_gradients_reach_the_damped_least_squares_solution() -> None:
    A = XRayTransform(*random_geometry(np.random.default_rng(2), "cone"))
    voxels = int(np.prod(A.domain))
    matrix = A.forward(torch.eye(voxels).reshape(-1, *A.domain)).reshape(voxels, -1).T.double()
    y = torch.rand(A.range, generator=torch.Generator().manual_seed(0))
    weight = 0.5 * column_rms(A, y.device) ** 2
    normal = matrix.T @ matrix + weight * torch.eye(voxels, dtype=torch.float64)
    solution = torch.linalg.solve(normal, matrix.T @ y.double().reshape(-1)).reshape(A.domain)
    assert error(run("cgls", A, y, iterations=100, damping=0.5, stop=None), solution.float()) < 1e-4
    assert error(run("cgls", A, y, iterations=100, damping=0.1, stop=None), solution.float()) > 1e-2


def test_conjugate_gradients_end_before_rounding_takes_over() -> None:
    A = XRayTransform(*random_geometry(np.random.default_rng(2), "cone"))
    y = torch.rand(A.range, generator=torch.Generator().manual_seed(0))
    hundred, thousand = (run("cgls", A, y, iterations=many, damping=0.5, stop=None) for many in (100, 1000))
    assert error(thousand, hundred) < 1e-5


def test_total_variation_keeps_the_ball_and_drops_the_noise() -> None:
    A, y, truth = scan(noise=0.05)
    assert error(run("tv", A, y), truth) < 0.7 * error(run("cgls", A, y), truth)


def test_more_strength_means_less_variation_and_more_residual() -> None:
    A, y, _ = scan(noise=0.05)
    weak, strong = (run("tv", A, y, strength=strength, stop=None) for strength in (0.01, 10.0))
    variation = TotalVariation(A.grid.spacing_mm)
    assert variation.value(strong) < 0.7 * variation.value(weak)
    assert float((A.forward(strong) - y).norm()) > float((A.forward(weak) - y).norm())


def test_the_proximal_map_obeys_its_optimality_condition() -> None:
    z = torch.rand((6, 7, 8), generator=torch.Generator().manual_seed(0)).double()
    variation = TotalVariation((2.0, 1.0, 1.0), nonnegative=False)
    x = variation.prox(z, 0.1, 3000)
    # <z - x, x> = strength TV(x), and <z - x, w> <= strength TV(w) for every w
    assert float(((z - x) * x).sum()) == pytest.approx(0.1 * variation.value(x), rel=1e-3)
    for seed in range(5):
        w = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).double()
        assert float(((z - x) * w).sum()) <= 0.1 * variation.value(w)


@pytest.mark.parametrize(("nonnegative", "upper"), [(True, None), (False, None), (True, 0.7)])
def test_the_compiled_proximal_map_is_that_of_torch(nonnegative: bool, upper: float | None) -> None:
    z = torch.rand((5, 6, 7), generator=torch.Generator().manual_seed(0)) * 2 - 0.6
    compiled, torchs = (TotalVariation((2.0, 1.0, 1.5), nonnegative, upper) for _ in range(2))
    for strength in (0.05, 0.1):  # the second call goes on from the first one's dual variables
        x, expected = compiled.prox(z, strength, 5), torchs.prox(z.double(), strength, 5)
        assert float((x - expected).abs().max()) < 1e-5
    assert float((x - z).abs().max()) > 0.05
    assert x.max() <= (upper or 2)
    assert bool((x < 0).any()) != nonnegative


def test_an_upper_bound_helps_where_few_views_leave_the_values_open() -> None:
    A, y, truth = scan(6)
    free, bounded = (run("tv", A, y, upper_per_mm=upper) for upper in (None, float(truth.max())))
    assert float(bounded.max()) <= float(truth.max())
    assert error(bounded, truth) < error(free, truth)


def test_differences_along_the_middle_rays_of_a_limited_arc_count_less_and_of_a_whole_turn_alike() -> None:
    def operator(arc_deg: float, middle_deg: float) -> XRayTransform:
        angles = np.radians(middle_deg + np.linspace(-arc_deg / 2, arc_deg / 2, 13))
        return XRayTransform(ViewGeometry.parallel(angles, Detector((8, 8), (1.0, 1.0))), centred_grid(8, 1.0))

    assert axis_shares(operator(40, 0), 0.25) == pytest.approx((1, 0.25, 1))  # rays from front to back, along rows' direction
    assert axis_shares(operator(40, 90), 0.25) == pytest.approx((1, 1, 0.25))
    assert axis_shares(operator(40, 45), 0.25) == pytest.approx((1, np.sqrt(0.53125), np.sqrt(0.53125)))
    assert axis_shares(operator(40, 90), 1.0) == (1, 1, 1)
    assert axis_shares(operator(330, 90), 0.25) == (1, 1, 1)


def test_a_step_is_denoised_by_the_closed_form() -> None:
    z = torch.zeros(1, 1, 20)
    z[..., 10:] = 1.0
    x = TotalVariation((1.0, 1.0, 1.0)).prox(z, 0.5, 2000)  # each side moves by strength over its length
    expected = torch.where(z > 0.5, 0.95, 0.05)
    assert float((x - expected).abs().max()) < 1e-3


def test_the_noise_is_judged_from_the_projections_alone() -> None:
    geometry = ViewGeometry.cone(np.arange(12) * 0.5, 600, 900, Detector((96, 128), (1.7, 1.7)))
    exact = torch.from_numpy(ball(30.0, density=0.05).project(geometry))
    sigma = 0.02 * torch.exp(exact / 2)
    noisy = exact + sigma * torch.randn(exact.shape, generator=torch.Generator().manual_seed(0))
    assert noise_rms(noisy) == pytest.approx(float(sigma.square().mean()) ** 0.5, rel=0.1)
    assert noise_rms(exact) < 0.3 * noise_rms(noisy)


def test_the_bound_of_the_norm_lies_above_it_and_not_far() -> None:
    A, _, _ = scan(12)
    x = torch.randn(A.domain, generator=torch.Generator().manual_seed(0))
    for _ in range(30):
        x = A.adjoint(A.forward(x / x.norm()))
    assert float(x.norm()) <= squared_norm_bound(A, x.device) < 1.3 * float(x.norm())


def test_the_size_of_a_column_is_estimated_from_random_signs() -> None:
    A, _, _ = scan(6)
    chosen = torch.randperm(int(np.prod(A.domain)), generator=torch.Generator().manual_seed(0))[:200]
    columns = torch.zeros(200, int(np.prod(A.domain)))
    columns[torch.arange(200), chosen] = 1
    exact = A.forward(columns.reshape(-1, *A.domain)).square().sum(dim=(1, 2, 3)).mean().sqrt()
    assert column_rms(A, columns.device) == pytest.approx(float(exact), rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 7, 12, 40])
def test_subsets_come_in_an_order_that_visits_each_once(n: int) -> None:
    assert sorted(spread_order(n)) == list(range(n))


def test_subsets_share_out_all_views() -> None:
    A, y, _ = scan(30)
    groups = groups_of(A, y, 4)
    assert sum(len(part.views) for part, _ in groups) == 30
    assert all(part.range == tuple(data.shape) for part, data in groups)
