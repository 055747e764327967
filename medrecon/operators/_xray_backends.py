"""Which implementation computes an X-ray transform, and why one may be trusted.

Before a fast back end is used for a kind of geometry it must agree with the reference on a tiny problem of that kind:
odd sizes, offsets, and a tilt where the kind allows it. If it does not, or cannot run, the reference is used and the
log says why, once. ``MEDRECON_XRAY_BACKEND`` forces a back end.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from medrecon.core.errors import UsageError
from medrecon.core.grid import Grid
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators import _xray_reference
from medrecon.operators._xray_rays import Rays, vertical_axis

BackendName = Literal["auto", "reference", "cpu", "cuda"]

#: Greatest error relative to the reference, forward and adjoint, at which a back end is trusted.
TOLERANCE = 1e-4

log = logging.getLogger(__name__)


class Backend(Protocol):
    """What every implementation offers: a module with these two functions."""

    def forward(self, rays: Rays, x: Tensor) -> Tensor:
        """Integrate (batch, slices, rows, columns) to (batch, views, rows, columns)."""

    def adjoint(self, rays: Rays, y: Tensor) -> Tensor:
        """Spread (batch, views, rows, columns) to (batch, slices, rows, columns)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What distinguishes geometries for a back end: each kind is checked by itself."""

    parallel: bool
    curved: bool
    vertical: bool


def choose(wanted: BackendName, device: torch.device, dtype: torch.dtype, views: ViewGeometry, grid: Grid) -> Backend:
    """Return the implementation for this device, precision and geometry.

    Raises
    ------
    UsageError
        ``XRAY-BACKEND`` where a back end is asked for by name that cannot be used here.
    """
    name = settle(wanted, device, dtype)
    if name == "reference":
        return Reference()
    kind = Kind(views.is_parallel, views.is_curved, vertical_axis(Rays.of(views, grid)) is not None)
    reason = distrust(name, str(device), kind)
    if not reason:
        return _load(name)
    if wanted == name:
        raise UsageError("XRAY-BACKEND", f"the X-ray back end {name!r} cannot be used: {reason}", "Use backend='auto'.")
    return Reference()


class Reference:
    """The plain torch implementation behind the interface of the others."""

    def forward(self, rays: Rays, x: Tensor) -> Tensor:
        """Integrate along all rays."""
        return _xray_reference.forward(_xray_reference.RayTensors.of(rays, x.device), x)

    def adjoint(self, rays: Rays, y: Tensor) -> Tensor:
        """Spread along all rays."""
        return _xray_reference.adjoint(_xray_reference.RayTensors.of(rays, y.device), y)


@functools.lru_cache(maxsize=64)
def distrust(name: str, device: str, kind: Kind) -> str:
    """Return why a back end cannot be used for a kind of geometry on a device, or an empty string; logged once."""
    try:
        error = disagreement(_load(name), torch.device(device), kind)
    except failures() as failure:
        reason = f"{type(failure).__name__} while it was tried"
        log.debug("back end %s failed", name, exc_info=True)
    else:
        reason = "" if error < TOLERANCE else f"it is {error:.1e} away from the reference"
    if reason:
        log.warning("X-ray back end %s is not used on %s for %s: %s", name, device, kind, reason)
    return reason


def disagreement(backend: Backend, device: torch.device, kind: Kind) -> float:
    """Return the greater relative difference from the reference, of forward and adjoint, on a tiny problem."""
    views, grid = tiny_problem(kind)
    rays, generator = Rays.of(views, grid), torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, *shape, generator=generator) for shape in (grid.shape, views.shape))
    truth = Reference()
    pairs = (
        (backend.forward(rays, x.to(device)), truth.forward(rays, x.double())),
        (backend.adjoint(rays, y.to(device)), truth.adjoint(rays, y.double())),
    )
    return max(float((got.cpu().double() - true).norm() / true.norm()) for got, true in pairs)


def tiny_problem(kind: Kind) -> tuple[ViewGeometry, Grid]:
    """Return odd-sized views and grid with offsets, and a tilt where columns need not be vertical."""
    detector = Detector((9, 13), (2.1, 1.7), curve_radius_mm=70.0 if kind.curved else None)
    angles = np.array([0.1, 0.9, 2.0, 3.3, 4.1])
    tilt = 0.0 if kind.vertical else 0.1
    if kind.parallel:
        views = ViewGeometry.parallel(
            angles, detector, offset_u_mm=1.3, offset_v_mm=-0.8, in_plane_rad=tilt, tilt_rad=tilt, slant_rad=0.05
        )
    else:
        views = ViewGeometry.cone(
            angles, 50.0, 70.0, detector, offset_u_mm=1.3, offset_v_mm=-0.8, in_plane_rad=tilt, tilt_rad=tilt, slant_rad=0.05
        )
    return views, Grid.from_parts((7, 11, 9), (1.3, 1.1, 1.2), (-5.1, -5.4, -3.7))


def failures() -> tuple[type[Exception], ...]:
    """Return what a back end that cannot run here may raise: its package is missing, or its compiler gives up."""
    found: list[type[Exception]] = [ImportError, RuntimeError, OSError, AttributeError]
    for module, name in (("numba.core.errors", "NumbaError"), ("triton.errors", "TritonError")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def free_memory_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    from medrecon.safety import limits

    return limits.free_memory_bytes()


def settle(wanted: BackendName, device: torch.device, dtype: torch.dtype) -> str:
    """Return the back end's name: as asked for, as the environment says, or the fast one of the device."""
    name = os.environ.get("MEDRECON_XRAY_BACKEND", wanted) if wanted == "auto" else wanted
    if name not in get_args(BackendName):
        raise UsageError("XRAY-BACKEND", f"there is no X-ray back end called {name[:40]!r}", "Known: auto, reference, cpu, cuda.")
    if name in ("cpu", "cuda") and name != device.type:
        raise UsageError("XRAY-BACKEND", f"the back end {name!r} does not compute on the device {str(device)!r}")
    if name != "auto":
        return name
    return "reference" if dtype == torch.float64 or device.type not in ("cpu", "cuda") else device.type


def _load(name: str) -> Backend:
    """Import a fast back end; what it needs is imported with it."""
    modules = {"cpu": "medrecon.operators._xray_cpu", "cuda": "medrecon.operators._xray_triton"}
    module: Backend = importlib.import_module(modules[name])
    return module
