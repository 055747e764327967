"""Run the Triton kernels in Triton's interpreter and print, as JSON, how far they are from the reference.

``TRITON_INTERPRET=1`` counts when triton is imported, and would turn a GPU's kernels into Python too: so this is a
process of its own, started by `test_xray_triton`.
"""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from medrecon.core.grid import Grid
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators import _backprojection_reference as fdk_reference
from medrecon.operators import _xray_backends as backends
from medrecon.operators._backprojection_tables import DetectorTables
from medrecon.operators._xray_rays import Rays

TRANSFORMS = ["parallel", "parallel upright", "cone", "cone upright", "curved upright", "helical upright", "source inside"]
BACK_PROJECTIONS = ["parallel", "parallel upright", "cone", "cone upright", "curved", "curved upright"]


def main() -> None:
    """Print the relative errors of every case."""
    os.environ["TRITON_INTERPRET"] = "1"
    from medrecon.operators import _backprojection_triton, _xray_triton

    result = {f"transform {kind}": transform_errors(_xray_triton, kind) for kind in TRANSFORMS}
    result |= {f"fdk {kind}": fdk_error(_backprojection_triton, kind) for kind in BACK_PROJECTIONS}
    sys.stdout.write(json.dumps(result))


def small(kind: str) -> tuple[ViewGeometry, Grid]:
    """A problem that the interpreter, which runs program by program, does in seconds; the height is the rows' axis."""
    detector = Detector((5, 6), (2.2, 2.5), 90.0 if "curved" in kind else None)
    tilt = 0.0 if kind.endswith("upright") else 0.1
    row_up = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    grid = Grid.from_parts((4, 3, 5), (1.3, 1.5, 1.4), (-2.6, -2, -1.2), row_up)
    if kind == "source inside":
        return ViewGeometry.cone([0.3, 2.2], 2.0, 60, Detector((5, 6), (2, 2))), grid
    if "parallel" in kind:
        return ViewGeometry.parallel([0.3, 2.2], detector, offset_u_mm=0.7, in_plane_rad=tilt, tilt_rad=tilt), grid
    if "helical" in kind:
        return ViewGeometry.helical([0.3, 2.2], 60, 90, detector, pitch_mm_per_turn=8), grid
    return ViewGeometry.cone([0.3, 2.2], 60, 90, detector, offset_u_mm=0.7, in_plane_rad=tilt, slant_rad=0.05), grid


def transform_errors(module: ModuleType, kind: str) -> dict[str, float]:
    """Relative errors of forward and adjoint, and of the dot test; and the error if the geometry were another."""
    views, grid = small(kind)
    rays, truth, rng = Rays.of(views, grid), backends.Reference(), np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((1, *shape))) for shape in (grid.shape, views.shape))
    forward, adjoint = module.forward(rays, x.float()), module.adjoint(rays, y.float())
    gap = (forward.double() * y).sum() - (x * adjoint.double()).sum()
    other = Rays.of(views.moved(np.array([[1, 0, 0, 0.3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])), grid)
    return {
        "forward": relative_error(forward, truth.forward(rays, x)),
        "adjoint": relative_error(adjoint, truth.adjoint(rays, y)),
        "dot": float(gap.abs() / (forward.norm() * y.norm())),
        "moved": relative_error(forward, truth.forward(other, x)),
    }


def fdk_error(module: ModuleType, kind: str) -> dict[str, float]:
    """Relative error of the back projection of two blocks of one view each."""
    views, grid = small(kind)
    tables, rng = DetectorTables.of(views, grid), np.random.default_rng(0)
    filtered = torch.from_numpy(rng.standard_normal(views.shape)).float()
    results = []
    for accumulator in (module.Accumulator(tables, torch.device("cpu")), fdk_reference.Accumulator(tables, torch.device("cpu"))):
        accumulator.add(tables.take(0, 1), filtered[:1], np.array([1.5]))
        accumulator.add(tables.take(1, 2), filtered[1:], np.array([0.5]))
        results.append(accumulator.result())
    return {"volume": relative_error(results[0], results[1].double())}


def relative_error(got: Tensor, true: Tensor) -> float:
    """Norm of the difference over the norm of the truth."""
    return float((got.double() - true).norm() / true.norm())


if __name__ == "__main__":
    main()
