"""The set-ups of RTK's and ASTRA's own tests, at fewer views or slices, within those programs' tolerances or closer.

At full sampling they are measured by `benchmarks/xray_quality.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medrecon import methods
from medrecon.core.progress import silent
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators.xray_transform import XRayTransform
from tests.makers_rtk_cases import RtkCase, analytic_cases, full_turn, iterative_cases
from tests.makers_xray import box_to_the_centres, centred_grid, project_box

ANALYTIC, ITERATIVE = analytic_cases(every=32), iterative_cases()
CHOSEN = ("FDK", "FDK, skewed", "short scan", "truncated", "displaced +120 mm")
FEWER_SLICES = 1.1  # four slices hold a little less air than all 128
CHOSEN_ITERATIVE = ("OSEM, 3 iterations", "MLEM, 10 iterations", "CG, 5 iterations", "CG, curved, radius 200")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reconstructed(case: RtkCase) -> NDArray[np.float32]:
    method = methods.get(case.method)
    y = torch.from_numpy(case.projections())
    settings = method.settings.model_validate(dict(case.settings))
    voxels: NDArray[np.float32] = method.run(XRayTransform(case.views, case.grid), y, settings, silent).numpy()
    return voxels


@pytest.mark.parametrize("case", [ANALYTIC[name] for name in CHOSEN], ids=CHOSEN)
def test_analytic_reconstructions_keep_rtks_tolerances(case: RtkCase) -> None:
    error, decibel = case.errors(reconstructed(case))
    assert error < FEWER_SLICES * case.largest_error
    assert decibel > case.least_psnr_db


@pytest.mark.parametrize("case", [ITERATIVE[name] for name in CHOSEN_ITERATIVE], ids=CHOSEN_ITERATIVE)
def test_iterative_reconstructions_keep_rtks_tolerances(case: RtkCase) -> None:
    error, decibel = case.errors(reconstructed(case))
    assert error < case.largest_error
    assert decibel > case.least_psnr_db


def test_a_detector_taken_for_centred_breaks_rtks_tolerance() -> None:
    case = ANALYTIC["displaced +120 mm"]
    centred = ViewGeometry.cone(full_turn(180), 600, 1200, case.views.detector)
    method = methods.get("fdk")
    y = torch.from_numpy(case.projections())
    voxels = method.run(XRayTransform(centred, case.grid), y, method.settings(), silent).numpy()
    error, decibel = replace(case, views=centred).errors(voxels)
    assert error > FEWER_SLICES * case.largest_error
    assert decibel < case.least_psnr_db


@pytest.mark.parametrize(
    ("voxel", "pitch", "sid", "sdd", "arc"),
    [(0.8, 1.0, 500, 750, 2.0), (1.25, 0.8, 1000, 1500, 2.0), (1.0, 1.0, 500, 1000, 1.5), (1.25, 1.0, 1000, 1250, 1.5)],
)
def test_a_cube_of_ones_comes_back_as_one_at_every_scale(voxel: float, pitch: float, sid: float, sdd: float, arc: float) -> None:
    centre = -2.0 * voxel
    views = ViewGeometry.cone(np.linspace(0, arc * np.pi, 180, endpoint=False), sid, sdd, Detector((128, 128), (pitch, pitch)))
    y = torch.from_numpy(project_box(views, 5 * voxel, (centre, centre, centre)))
    method = methods.get("fdk")
    grid = centred_grid(64, voxel).crop((27, 27, 27), (5, 5, 5))
    means = [float(method.run(XRayTransform(views, grid), p, method.settings(), silent).mean()) for p in (y, 1.05 * y)]
    assert means[0] == pytest.approx(1, abs=0.02)
    assert means[1] > 1.02


def test_rtks_box_is_projected_within_rtks_tolerance_and_a_volume_of_ones_is_another_box() -> None:
    views = ViewGeometry.cone(full_turn(5) + 0.1, 500, 1000, Detector((16, 16), (16.0, 16.0)))
    A, exact = XRayTransform(views, centred_grid(64, 4.0)), project_box(views, 126.0)
    errors = [
        np.abs(A.forward(torch.from_numpy(x)).numpy() - exact)
        for x in (box_to_the_centres(64), np.ones((64, 64, 64), np.float32))
    ]
    means, decibels = zip(*((e.mean(), 20 * np.log10(255 / np.sqrt((e**2).mean()))) for e in errors), strict=True)
    assert (means[0] < 1.28, means[1] < 1.28) == (True, False)
    assert (decibels[0] > 44, decibels[1] > 44) == (True, False)
