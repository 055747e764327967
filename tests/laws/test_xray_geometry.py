"""Gradients of line integrals to the geometry, against finite differences, and a scanner found again by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators.xray_geometry import ViewTensors, line_integrals
from medrecon.operators.xray_transform import XRayTransform
from tests.makers_xray import ball, centred_grid, random_geometry

FIELDS = {"cone": "sources_lps_mm", "curved": "sources_lps_mm", "parallel": "ray_directions"}


@pytest.mark.parametrize("kind", FIELDS)
def test_the_values_are_those_of_the_transform(kind: str, rng: np.random.Generator) -> None:
    views, grid = random_geometry(rng, kind)
    x = torch.from_numpy(rng.standard_normal(grid.shape))
    torch.testing.assert_close(line_integrals(x, ViewTensors.of(views), grid), XRayTransform(views, grid).forward(x))


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("field", ["origin", "centres_lps_mm", "u", "v"])
def test_the_gradient_to_every_vector_is_that_of_finite_differences(kind: str, field: str, rng: np.random.Generator) -> None:
    views, grid = random_geometry(rng, kind)
    name = FIELDS[kind] if field == "origin" else field
    x, weights = (torch.from_numpy(rng.standard_normal(shape)) for shape in (grid.shape, views.shape))
    tensors = ViewTensors.of(views)
    vector = getattr(tensors, name).clone().requires_grad_()
    (gradient,) = torch.autograd.grad((weights * line_integrals(x, replace(tensors, **{name: vector}), grid)).sum(), vector)
    direction, step = torch.from_numpy(rng.standard_normal(vector.shape)), 1e-7
    ends = [
        float((weights * line_integrals(x, replace(tensors, **{name: vector.detach() + s * step * direction}), grid)).sum())
        for s in (1, -1)
    ]
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def test_a_shifted_detector_is_found_by_descending_the_misfit() -> None:
    grid = centred_grid(20, 2.0)
    phantom = torch.from_numpy(ball(12.0, (3, -4, 2)).voxels(grid, samples=3)).double()
    views = ViewGeometry.cone([0.3, 1.9, 4.0], 150, 250, Detector((24, 24), (3.0, 3.0)), offset_u_mm=2.0)
    measured = line_integrals(phantom, ViewTensors.of(views), grid)
    start = ViewTensors.of(ViewGeometry.cone([0.3, 1.9, 4.0], 150, 250, Detector((24, 24), (3.0, 3.0))))
    shift = torch.zeros((), dtype=torch.float64)
    for _ in range(30):
        unknown = shift.clone().requires_grad_()
        moved = replace(start, centres_lps_mm=start.centres_lps_mm + unknown * start.u)
        misfit = ((line_integrals(phantom, moved, grid) - measured) ** 2).sum()
        (gradient,) = torch.autograd.grad(misfit, unknown)
        shift = shift - 0.5 * gradient / ((measured[:, :, 1:] - measured[:, :, :-1]) ** 2).sum() * 9
    assert float(shift) == pytest.approx(2.0, abs=1e-2)
    assert np.allclose(ViewTensors.of(views).views().centres_lps_mm, views.centres_lps_mm)
