"""The X-ray transform: laws on random geometries, closed forms, and every back end against the reference."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from medrecon.core.errors import GeometryError, MemoryBudgetError, UsageError
from medrecon.core.grid import Grid
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators import _xray_backends as backends
from medrecon.operators._xray_rays import Rays, vertical_axis
from medrecon.operators.linear import LinearOperator
from medrecon.operators.xray_plan import plan_xray
from medrecon.operators.xray_transform import XRayTransform
from tests.makers_xray import ball, centred_grid, lettered, project_box, random_geometry, shepp_logan

KINDS = ["parallel", "parallel upright", "cone", "cone upright", "curved", "curved upright", "helical upright"]
CPU = [*(("reference", kind) for kind in KINDS), *(("cpu", kind) for kind in KINDS)]


def transform(kind: str, rng: np.random.Generator, backend: backends.BackendName = "auto") -> XRayTransform:
    return XRayTransform(*random_geometry(rng, kind), backend=backend)


def adjoint_gap(A: LinearOperator, dtype: torch.dtype) -> float:
    """How far <Ax, y> is from <x, A*y>, relative to |Ax||y|; zero for a true adjoint."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(shape, generator=generator, dtype=dtype) for shape in (A.domain, A.range))
    Ax, Aty = A.forward(x), A.adjoint(y)
    assert Ax.shape == y.shape
    assert Aty.shape == x.shape
    assert Ax.dtype == Aty.dtype == dtype
    gap = (Ax.double() * y.double()).sum() - (x.double() * Aty.double()).sum()
    return float(gap.abs() / (Ax.double().norm() * y.double().norm()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_adjoint_of_the_float64_reference_is_exact(kind: str, rng: np.random.Generator) -> None:
    for _ in range(3):
        assert adjoint_gap(transform(kind, rng), torch.float64) < 1e-12


@pytest.mark.parametrize(("backend", "kind"), CPU)
def test_the_adjoint_of_every_back_end_is_exact_in_float32(
    backend: backends.BackendName, kind: str, rng: np.random.Generator
) -> None:
    for _ in range(5):
        assert adjoint_gap(transform(kind, rng, backend), torch.float32) < 1e-5


class _Unmatched(XRayTransform):
    """A back projector that forgets the ray lengths, as unmatched pairs do."""

    def adjoint(self, y: Tensor) -> Tensor:
        return super().adjoint(y / (1 + 0.2 * torch.rand(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)))


def test_the_adjoint_check_fails_on_an_unmatched_pair(rng: np.random.Generator) -> None:
    assert adjoint_gap(_Unmatched(*random_geometry(rng, "cone")), torch.float64) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_loops_give_the_numbers_of_the_reference(kind: str, rng: np.random.Generator) -> None:
    for _ in range(5):
        A = transform(kind, rng, "cpu")
        truth = dataclasses.replace(A, backend="reference")
        x, y = (torch.from_numpy(rng.standard_normal(shape)) for shape in (A.domain, A.range))
        for got, true in ((A.forward(x.float()), truth.forward(x)), (A.adjoint(y.float()), truth.adjoint(y))):
            assert float((got - true).norm() / true.norm()) < 1e-5


@pytest.mark.parametrize("pitch_mm", [0.2, 0.7, 1.0, 1.9, 4.0, 9.0])
def test_rows_much_finer_or_coarser_than_voxels_change_nothing_about_that(pitch_mm: float, rng: np.random.Generator) -> None:
    views = ViewGeometry.cone([0.3, 2.0], 300, 500, Detector((90, 7), (pitch_mm, 2.0)), offset_v_mm=0.37)
    A = XRayTransform(views, centred_grid(41, 1.0), backend="cpu")
    x, y = (torch.from_numpy(rng.standard_normal(shape)) for shape in (A.domain, A.range))
    truth = dataclasses.replace(A, backend="reference")
    for got, true in ((A.forward(x.float()), truth.forward(x)), (A.adjoint(y.float()), truth.adjoint(y))):
        assert float((got - true).norm() / true.norm()) < 3e-5


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_ball_projects_to_the_chords_through_it(backend: backends.BackendName) -> None:
    phantom = ball(40.0, (3, -4, 5))
    views = ViewGeometry.cone(np.linspace(0, 2 * np.pi, 7, endpoint=False), 300, 550, Detector((24, 31), (4.9, 5.1)))
    errors = []
    for n in (24, 48):
        grid = centred_grid(n, 96 / n, (3, -4, 5))
        got = XRayTransform(views, grid, backend=backend).forward(torch.from_numpy(phantom.voxels(grid, samples=4)))
        errors.append(float((got - torch.from_numpy(phantom.project(views))).abs().mean()))
    assert errors[0] < 1.0
    assert errors[1] < errors[0] / 2.5


def rtk_quality(got: Tensor, true: Tensor) -> tuple[float, float]:
    """RTK's two numbers: mean absolute error, and PSNR with a peak of 255."""
    error = (got - true).double()
    return float(error.abs().mean()), 20 * np.log10(255) - 10 * np.log10(float((error**2).mean()))


@pytest.mark.parametrize("source_inside", [False, True])
def test_a_box_of_ones_projects_within_rtks_tolerance(source_inside: bool) -> None:
    """rtkforwardprojectiontest, cases 1 and 2: 64^3 voxels of 4 mm, 45 views; only what lies beyond the source counts."""
    if source_inside:
        angles = np.radians(np.arange(-45.0, 45.0, 2))
        views = ViewGeometry.cone(angles, 47.6 / np.cos(angles), 1000, Detector((64, 64), (4.0, 4.0)))
    else:
        views = ViewGeometry.cone(np.radians(np.arange(0, 360, 8)), 500, 1000, Detector((64, 64), (4.0, 4.0)))
    got = XRayTransform(views, centred_grid(64, 4.0)).forward(torch.ones(64, 64, 64))
    mean, psnr = rtk_quality(got, torch.from_numpy(project_box(views, 128.0)))
    assert mean < 1.28
    assert psnr > 44


@pytest.mark.parametrize("case", ["outer source", "cylindrical detector", "inner source"])
def test_shepp_logan_projects_within_rtks_tolerance(case: str) -> None:
    """rtkforwardprojectiontest, cases 3 to 5: 128^3 voxels of 2 mm sampled at their centres, mean < 1.28, PSNR > 44."""
    detector = Detector((64, 64), (4.0, 4.0), 600.0 if case == "cylindrical detector" else None)
    views = ViewGeometry.cone(np.radians(np.arange(0, 360, 8)), 120 if case == "inner source" else 500, 1000, detector)
    phantom, grid = shepp_logan(128.0), centred_grid(128, 2.0)
    got = XRayTransform(views, grid).forward(torch.from_numpy(phantom.voxels(grid)))
    mean, psnr = rtk_quality(got, torch.from_numpy(phantom.project(views)))
    assert mean < 1.28
    assert psnr > 44


def test_a_ray_along_a_box_is_as_long_as_the_box() -> None:
    """A ray through the middle of 10 voxels of 2 mm and value 3 integrates to 60, whatever the axis."""
    grid = Grid.from_parts((11, 11, 11), (2, 2, 2), (-10, -10, -10))
    box = torch.zeros(grid.shape)
    box[:, :, :] = 3.0
    views = ViewGeometry.parallel([0.0, np.pi / 2, np.pi], Detector((1, 1), (1, 1)))
    np.testing.assert_allclose(XRayTransform(views, grid).forward(box).flatten(), 3.0 * 22)


def test_parallel_views_all_hold_the_whole_mass() -> None:
    """Helgason-Ludwig of order zero."""
    phantom, grid = shepp_logan(20.0), centred_grid(50, 1.0)
    x = torch.from_numpy(phantom.voxels(grid, samples=2))
    views = ViewGeometry.parallel(np.linspace(0, np.pi, 11), Detector((80, 120), (0.5, 0.5)))
    mass = XRayTransform(views, grid).forward(x).sum(dim=(1, 2)) * 0.25
    np.testing.assert_allclose(mass, float(x.sum()), rtol=2e-3)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_moving_the_volume_equals_moving_source_and_detector_back(
    backend: backends.BackendName, kind: str, rng: np.random.Generator
) -> None:
    A = transform(kind, rng, backend)
    motion = np.eye(4)
    motion[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    motion[:3, :3] *= np.linalg.det(motion[:3, :3])
    motion[:3, 3] = rng.uniform(-20, 20, 3)
    moved = dataclasses.replace(A, views=A.views.moved(np.linalg.inv(motion)))
    moved_volume = dataclasses.replace(A, grid=Grid(A.grid.shape, motion @ A.grid.to_lps_mm))
    x = torch.from_numpy(rng.standard_normal(A.domain))
    x = x if backend == "reference" else x.float()
    torch.testing.assert_close(moved.forward(x), moved_volume.forward(x), rtol=1e-4, atol=1e-4 if backend == "cpu" else 1e-9)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_order_and_direction_of_the_volumes_axes_do_not_matter(
    backend: backends.BackendName, rng: np.random.Generator
) -> None:
    views, grid = random_geometry(rng, "cone upright")
    x = torch.from_numpy(rng.standard_normal(grid.shape)).float()
    relabel = np.eye(4)[[2, 0, 1, 3]]  # new index (a, b, c) is old (c, a, b) ...
    other = Grid((grid.shape[1], grid.shape[2], grid.shape[0]), grid.to_lps_mm @ relabel)
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = other.shape[1] - 1  # ... with the second axis reversed
    mirrored = Grid(other.shape, other.to_lps_mm @ flip)
    got = XRayTransform(views, mirrored, backend=backend).forward(x.permute(1, 2, 0).flip(1))
    torch.testing.assert_close(got, XRayTransform(views, grid, backend=backend).forward(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turn_deg", [0.0, 45.0])
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_turned_or_mirrored_grid_holds_the_same_object(turn_deg: float, mirror: float) -> None:
    phantom = ball(12.0, (4, -3, 2))
    angle = np.radians(turn_deg)
    turn = np.array([[0, np.sin(angle), np.cos(angle)], [0, np.cos(angle), -np.sin(angle)], [mirror, 0, 0]])
    grid = Grid.from_parts((40, 40, 40), (1, 1, 1), turn @ np.full(3, -19.5), turn)
    views = ViewGeometry.cone([0.0, 1.0, 2.5], 100, 150, Detector((40, 40), (1.5, 1.5)))
    got = XRayTransform(views, grid).forward(torch.from_numpy(phantom.voxels(grid, samples=3)))
    true = torch.from_numpy(phantom.project(views))
    assert float((got - true).abs().mean()) < 0.12
    assert float((got.flip(2) - true).abs().mean()) > 2


def test_reversing_rotation_and_columns_gives_the_exact_mirror_image(rng: np.random.Generator) -> None:
    """The mirror trap: g'(t, u) = g(-t, -u) is the scan of the mirrored object, and no blur tells it."""
    angles = np.array([0.2, 0.9, 2.2, 4.0])
    grid, detector = centred_grid(15, 1.1), Detector((9, 13), (1.7, 1.9))
    x = torch.from_numpy(rng.standard_normal(grid.shape))
    there = XRayTransform(ViewGeometry.cone(angles, 60, 90, detector), grid)
    back = XRayTransform(ViewGeometry.cone(-angles, 60, 90, detector), grid)
    torch.testing.assert_close(back.forward(x.flip(2)).flip(2), there.forward(x), rtol=1e-9, atol=1e-9)
    assert float((back.forward(x).flip(2) - there.forward(x)).norm()) > 1


@pytest.mark.parametrize(
    "views",
    [
        ViewGeometry.cone(np.linspace(0, 6, 24), 200, 300, Detector((48, 64), (1.5, 1.5)), offset_u_mm=4, tilt_rad=0.05),
        ViewGeometry.cone(np.linspace(6, 0, 24), 200, 300, Detector((48, 64), (1.5, 1.5), 300.0)),
        ViewGeometry.parallel(np.linspace(0, 3, 24), Detector((48, 64), (1.0, 1.0)), offset_u_mm=0.25),
        ViewGeometry.helical(
            np.linspace(0, 12, 24), 200, 300, Detector((48, 64), (1.5, 1.5), 300.0), pitch_mm_per_turn=10, z0_mm=-9
        ),
        ViewGeometry.c_arm(np.linspace(-100, 100, 24), np.linspace(-20, 20, 24), 200, 300, Detector((64, 48), (1.5, 1.5))),
        ViewGeometry.from_matrices(
            -ViewGeometry.cone(np.linspace(0, 6, 24), 200, 300, Detector((48, 64), (1.5, 1.5))).matrices(),
            Detector((48, 64), (1.5, 1.5)),
        ),
    ],
    ids=["cone", "curved cone turning back", "parallel", "helical", "c-arm", "from matrices"],
)
def test_text_is_never_mirrored_and_stands_upright(views: ViewGeometry) -> None:
    """What is reconstructed from a lettered phantom's exact projections is that phantom and none of its mirror images."""
    phantom, grid = lettered(dot_mm=2.0, distance_mm=14.0), centred_grid(48, 1.0)
    truth, y = torch.from_numpy(phantom.voxels(grid)), torch.from_numpy(phantom.project(views))
    A = XRayTransform(views, grid)
    x = least_squares(A, y, steps=6)
    assert min(leaning(x, truth).values()) > 0.15
    assert leaning(x.flip(2), truth)[(2,)] < -0.15


def least_squares(A: LinearOperator, y: Tensor, steps: int) -> Tensor:
    """Conjugate gradients on the normal equations, written out for the tests."""
    x, residual = torch.zeros(A.domain), y
    gradient = direction = A.adjoint(residual)
    for _ in range(steps):
        image = A.forward(direction)
        step = (gradient**2).sum() / (image**2).sum()
        x, residual = x + step * direction, residual - step * image
        before, gradient = gradient, A.adjoint(residual)
        direction = gradient + (gradient**2).sum() / (before**2).sum() * direction
    return x


def leaning(x: Tensor, truth: Tensor) -> dict[tuple[int, ...], float]:
    """From +0.5, as the truth, to -0.5, as its mirror image: where x stands, for each of the seven mirror images."""
    found = {}
    for dims in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        difference = truth - truth.flip(dims)
        found[dims] = float((difference * x).sum() / (difference**2).sum())
    return found


def test_views_may_come_in_any_order_with_their_geometry(rng: np.random.Generator) -> None:
    A = transform("cone", rng)
    order = [3, 0, 4, 2, 1]
    x, y = (torch.from_numpy(rng.standard_normal(shape)) for shape in (A.domain, A.range))
    torch.testing.assert_close(A.subset(order).forward(x), A.forward(x)[order])
    torch.testing.assert_close(A.subset(order).adjoint(y[order]), A.adjoint(y))
    torch.testing.assert_close(A.take(1, 3).forward(x), A.forward(x)[1:3])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_batches_channels_and_strides_are_only_a_matter_of_layout(
    backend: backends.BackendName, rng: np.random.Generator
) -> None:
    A = transform("curved upright", rng, backend)
    x = torch.from_numpy(rng.standard_normal((2, 3, *A.domain)).astype(np.float32))
    y = A.forward(x)
    assert y.shape == (2, 3, *A.range)
    torch.testing.assert_close(y[1, 2], A.forward(x[1, 2].clone()))
    strided = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(A.forward(strided), y)
    torch.testing.assert_close(A.adjoint(y)[0, 1], A.adjoint(y[0, 1].clone()))
    assert A.forward(x[0, 0].half()).dtype == torch.float16


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_gradient_of_a_misfit_is_the_adjoint_of_the_residual(backend: backends.BackendName, rng: np.random.Generator) -> None:
    A = transform("cone upright", rng, backend)
    x = torch.from_numpy(rng.standard_normal(A.domain).astype(np.float32)).requires_grad_()
    y = torch.from_numpy(rng.standard_normal(A.range).astype(np.float32))
    (gradient,) = torch.autograd.grad(0.5 * ((A(x) - y) ** 2).sum(), x)
    torch.testing.assert_close(gradient, A.adjoint(A.forward(x.detach()) - y))


def test_masked_rays_give_nothing_and_receive_nothing(rng: np.random.Generator) -> None:
    measured = torch.from_numpy(rng.random((5, 9, 13)) < 0.7)
    A = dataclasses.replace(transform("cone", rng), measured=measured)
    x, y = (torch.from_numpy(rng.standard_normal(shape)) for shape in (A.domain, A.range))
    assert not A.forward(x)[~measured].any()
    torch.testing.assert_close(A.adjoint(y), A.adjoint(torch.where(measured, y, 1e6)))
    assert adjoint_gap(A, torch.float64) < 1e-12
    with pytest.raises(GeometryError, match="PRJ-SHAPE"):
        dataclasses.replace(A, measured=measured[:4])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind", ["cone", "cone upright", "parallel upright"])
def test_streamed_in_slabs_and_blocks_gives_the_same_numbers(
    backend: backends.BackendName, kind: str, rng: np.random.Generator
) -> None:
    views, _ = random_geometry(rng, kind)
    grid = Grid.from_parts((40, 11, 9), (0.5, 1.3, 1.2), (-10, -6, -5))
    views = views.take(np.arange(40) % 5)
    whole = XRayTransform(views, grid, backend=backend)
    cut = dataclasses.replace(whole, memory_bytes=30_000)
    plan = cut.plan()
    assert len(list(plan.slabs())) > 1
    assert len(list(plan.blocks())) > 1
    assert plan.working_bytes <= 30_000
    x, y = (torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in (whole.domain, whole.range))
    for a, b in ((cut.forward(x), whole.forward(x)), (cut.adjoint(y), whole.adjoint(y))):
        assert float((a - b).norm() / b.norm()) < 1e-6


def test_a_job_that_cannot_be_cut_small_enough_is_refused_before_it_begins() -> None:
    with pytest.raises(MemoryBudgetError, match="MEM-BUDGET"):
        plan_xray((512, 512, 512), (720, 768, 1024), budget_bytes=1_000_000)
    plan = plan_xray((512, 512, 512), (720, 768, 1024), budget_bytes=2_000_000_000)
    assert "slab" in str(plan)
    assert "MiB beside the data" in str(plan)
    assert sum(last - first for first, last in plan.slabs()) == 512
    assert sum(last - first for first, last in plan.blocks()) == 720


@pytest.mark.parametrize("kind", ["cone", "cone upright"])
def test_the_same_input_gives_the_same_bytes_for_any_number_of_threads(kind: str, rng: np.random.Generator) -> None:
    A = transform(kind, rng, "cpu")
    x, y = (torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in (A.domain, A.range))
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append((A.forward(x), A.adjoint(y)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_a_wrong_shape_is_refused_with_both_shapes(rng: np.random.Generator) -> None:
    A = transform("cone", rng)
    with pytest.raises(GeometryError, match=r"PRJ-SHAPE.*\[7, 11, 8\].*\(7, 11, 9\)"):
        A.forward(torch.zeros(7, 11, 8))
    with pytest.raises(GeometryError, match="PRJ-SHAPE"):
        A.adjoint(torch.zeros(5, 9, 12))


class _Wrong(backends.Reference):
    """A back end that is one percent off."""

    def forward(self, rays: Rays, x: Tensor) -> Tensor:
        return 1.01 * super().forward(rays, x)


def test_a_back_end_that_disagrees_is_not_used_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    backends.distrust.cache_clear()
    monkeypatch.setattr(backends, "_load", lambda _: _Wrong())
    A = transform("cone", rng)
    x = torch.from_numpy(rng.standard_normal(A.domain).astype(np.float32))
    with caplog.at_level(logging.WARNING):
        got = A.forward(x)
        A.forward(x)
    torch.testing.assert_close(got, dataclasses.replace(A, backend="reference").forward(x))
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "1.0e-02 away from the reference" in caplog.text
    with pytest.raises(UsageError, match="XRAY-BACKEND"):
        dataclasses.replace(A, backend="cpu").forward(x)
    backends.distrust.cache_clear()


def test_a_back_end_whose_package_is_missing_falls_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    def missing(name: str) -> backends.Backend:
        raise ModuleNotFoundError(name)

    backends.distrust.cache_clear()
    monkeypatch.setattr(backends, "_load", missing)
    A = transform("parallel", rng)
    with caplog.at_level(logging.WARNING):
        A.forward(torch.zeros(A.domain))
    assert "ModuleNotFoundError while it was tried" in caplog.text
    backends.distrust.cache_clear()


def test_the_environment_forces_a_back_end(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    A = transform("cone", rng)
    x = torch.from_numpy(rng.standard_normal(A.domain).astype(np.float32))
    monkeypatch.setenv("MEDRECON_XRAY_BACKEND", "reference")
    assert torch.equal(A.forward(x), dataclasses.replace(A, backend="reference").forward(x))
    monkeypatch.setenv("MEDRECON_XRAY_BACKEND", "fastest")
    with pytest.raises(UsageError, match="XRAY-BACKEND"):
        A.forward(x)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_the_tiny_problem_of_the_self_check_is_of_its_kind(kind: str) -> None:
    wanted = backends.Kind("parallel" in kind, "curved" in kind, kind.endswith("upright"))
    views, grid = backends.tiny_problem(wanted)
    rays = Rays.of(views, grid)
    assert backends.Kind(views.is_parallel, views.is_curved, vertical_axis(rays) is not None) == wanted
    assert all(n % 2 for n in (*grid.shape, *views.shape))
