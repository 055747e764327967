"""The back projection of analytic reconstruction: every voxel looks its value up in every filtered view.

This is not the adjoint of `XRayTransform`: it interpolates on the detector, weighs by distance, and has the scale that
the inversion formula needs. Feldkamp, Davis and Kress 1984, J. Opt. Soc. Am. A 1, 612.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Float64, Grid
from medrecon.core.views import ViewGeometry
from medrecon.operators import _backprojection_reference as reference
from medrecon.operators._backprojection_tables import DetectorTables
from medrecon.operators._xray_backends import TOLERANCE, BackendName, Kind, failures, settle, tiny_problem

log = logging.getLogger(__name__)


class FdkBackProjector:
    """Accumulate ``f(x) = sum_k w_k / D_k(x)^2 q_k(u_k(x), v_k(x))`` from blocks of filtered views.

    D is the depth of x in front of the source along the detector's normal (flat detector), its distance from the
    source across v (curved), or 1 (parallel beam). The projections q are interpolated bilinearly, with zero beside the
    detector.

    Parameters
    ----------
    views : ViewGeometry
    grid : Grid
    device : str
        Where to compute.
    backend : str
        ``auto``, ``reference``, ``cpu`` or ``cuda``.
    """

    def __init__(self, views: ViewGeometry, grid: Grid, device: str = "cpu", backend: BackendName = "auto") -> None:
        if views.is_parallel and views.is_curved:
            raise GeometryError("PRJ-GEOM", "a parallel beam on a curved detector has no FDK back projection", "Rebin it first.")
        self._tables = DetectorTables.of(views, grid)
        self._accumulator = _accumulator(self._tables, views, torch.device(device), backend)

    def add(self, first: int, filtered: Tensor, weights: ArrayLike) -> None:
        """Add consecutive views.

        Parameters
        ----------
        first : int
            Number of the first of these views.
        filtered : (views, rows, columns)
        weights : (views,)
            Flat or curved detector: half the angular gap in radians times the squared source-isocentre distance for a
            full circle. Parallel beam: the angular gap for half a turn.
        """
        weights = np.asarray(weights, dtype=np.float64)
        if tuple(filtered.shape) != (len(weights), *self._tables.detector_shape) or first + len(weights) > len(self._tables):
            raise GeometryError(
                "PRJ-SHAPE",
                f"filtered views of shape {list(filtered.shape)} with {len(weights)} weights do not fit view {first + 1} of"
                f" {len(self._tables)} on a detector of {list(self._tables.detector_shape)}",
            )
        self._accumulator.add(self._tables.take(first, first + len(weights)), filtered, weights)

    def result(self) -> Tensor:
        """Return the volume (slices, rows, columns), float32."""
        return self._accumulator.result()


def fdk_backproject(
    views: ViewGeometry,
    grid: Grid,
    filtered: Tensor,
    weights: ArrayLike,
    device: str | None = None,
    backend: BackendName = "auto",
) -> Tensor:
    """Back project all filtered views (views, rows, columns) at once; see `FdkBackProjector`."""
    projector = FdkBackProjector(views, grid, device or str(filtered.device), backend)
    projector.add(0, filtered, weights)
    return projector.result()


class _Accumulator(Protocol):
    def add(self, tables: DetectorTables, filtered: Tensor, weights: Float64) -> None: ...

    def result(self) -> Tensor: ...


def _accumulator(tables: DetectorTables, views: ViewGeometry, device: torch.device, backend: BackendName) -> _Accumulator:
    """Make the accumulator of the fastest back end that agrees with the reference."""
    name = settle(backend, device, torch.float32)
    if name != "reference":
        kind = Kind(views.is_parallel, views.is_curved, tables.vertical_axis() is not None)
        if not _distrust(name, str(device), kind):
            return _load(name, tables, device)
    return reference.Accumulator(tables, device)


@functools.lru_cache(maxsize=64)
def _distrust(name: str, device: str, kind: Kind) -> str:
    """Return why a back end cannot be used, or an empty string; logged once."""
    views, grid = tiny_problem(kind)
    tables, filtered = DetectorTables.of(views, grid), torch.randn(views.shape, generator=torch.Generator().manual_seed(0))
    weights = np.linspace(1, 2, len(views))
    try:
        truth, fast = reference.Accumulator(tables, torch.device("cpu")), _load(name, tables, torch.device(device))
        for accumulator in (truth, fast):
            accumulator.add(tables, filtered, weights)
        error = float((fast.result().cpu() - truth.result()).norm() / truth.result().norm())
    except failures() as failure:
        reason = f"{type(failure).__name__} while it was tried"
    else:
        reason = "" if error < TOLERANCE else f"it is {error:.1e} away from the reference"
    if reason:
        log.warning("FDK back end %s is not used on %s for %s: %s", name, device, kind, reason)
    return reason


def _load(name: str, tables: DetectorTables, device: torch.device) -> _Accumulator:
    modules = {"cpu": "medrecon.operators._backprojection_cpu", "cuda": "medrecon.operators._backprojection_triton"}
    accumulator: _Accumulator = importlib.import_module(modules[name]).Accumulator(tables, device)
    return accumulator
