"""The Triton kernels against the reference: in Triton's interpreter everywhere, on the GPU where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medrecon.operators import _xray_backends as backends
from medrecon.operators.fdk_backprojection import fdk_backproject
from medrecon.operators.xray_transform import XRayTransform
from tests.gpu.xray_interpreted import BACK_PROJECTIONS, TRANSFORMS
from tests.makers_xray import random_geometry

ROOT = Path(__file__).parents[2]
Errors = dict[str, dict[str, float]]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def interpreted() -> Errors:
    """What the kernels give in Triton's interpreter, in a process of its own."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed; there are wheels for Linux on x86-64 only")
    command = [sys.executable, "-m", "tests.gpu.xray_interpreted"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    errors: Errors = json.loads(done.stdout)
    return errors


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_the_interpreted_kernels_give_the_numbers_of_the_reference(interpreted: Errors, kind: str) -> None:
    errors = interpreted[f"transform {kind}"]
    assert errors["forward"] < 1e-5
    assert errors["adjoint"] < 1e-5
    assert errors["dot"] < 1e-5
    assert errors["moved"] > 1e-2  # what a shift of 0.3 mm would make: the check can fail


@pytest.mark.parametrize("kind", BACK_PROJECTIONS)
def test_the_interpreted_fdk_kernel_gives_the_numbers_of_the_reference(interpreted: Errors, kind: str) -> None:
    assert interpreted[f"fdk {kind}"]["volume"] < 1e-5


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "kind", ["parallel", "parallel upright", "cone", "cone upright", "curved", "curved upright", "helical upright"]
)
def test_the_gpu_gives_the_numbers_of_the_reference(kind: str, rng: np.random.Generator) -> None:
    views, grid = random_geometry(rng, kind)
    A, truth = XRayTransform(views, grid, backend="cuda", device="cuda"), XRayTransform(views, grid, backend="reference")
    x, y = (torch.from_numpy(rng.standard_normal((2, *shape))) for shape in (A.domain, A.range))
    for got, true in ((A.forward(x.float()), truth.forward(x)), (A.adjoint(y.float()), truth.adjoint(y))):
        assert float((got.double() - true).norm() / true.norm()) < 1e-5
    filtered, weights = y[0].float(), rng.uniform(1, 2, len(views))
    got = fdk_backproject(views, grid, filtered.cuda(), weights, backend="cuda").cpu()
    expected = fdk_backproject(views, grid, filtered, weights, backend="reference")
    assert float((got - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", [(p, c, v) for p in (False, True) for c in (False, True) for v in (False, True)])
def test_the_gpu_passes_its_own_self_check(kind: tuple[bool, bool, bool]) -> None:
    from medrecon.operators import _xray_triton

    assert backends.disagreement(_xray_triton, torch.device("cuda"), backends.Kind(*kind)) < 1e-5


@pytest.mark.gpu
@needs_gpu
def test_data_on_the_host_are_streamed_to_the_gpu(rng: np.random.Generator) -> None:
    views, grid = random_geometry(rng, "cone upright")
    x = torch.from_numpy(rng.standard_normal(grid.shape)).float()
    whole = XRayTransform(views, grid, device="cuda").forward(x)
    cut = XRayTransform(views, grid, device="cuda", memory_bytes=6000)
    assert not cut.plan().is_whole
    assert float((cut.forward(x) - whole).norm() / whole.norm()) < 1e-6
