"""Line integrals through a volume, and their exact adjoint: ``A`` of every X-ray scan.

One model, three back ends with the same numbers: plain torch (the reference, any device), numba on the CPU, Triton on
CUDA. A back end is used after it agreed with the reference on a small problem of the same kind. Data larger than the
working memory are streamed in slabs and blocks of views.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from medrecon.core.errors import GeometryError, MemoryBudgetError
from medrecon.core.grid import Grid
from medrecon.core.views import ViewGeometry
from medrecon.operators import _xray_backends as backends
from medrecon.operators._xray_backends import Backend, BackendName
from medrecon.operators._xray_rays import Rays
from medrecon.operators.linear import LinearOperator
from medrecon.operators.xray_plan import XRayPlan, halved, plan_xray

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class XRayTransform(LinearOperator):
    """Integrate a volume along the rays of a scan.

    ``forward`` gives, for attenuation in 1/mm, line integrals without unit; ``adjoint`` is its exact transpose, with no
    hidden factor of voxel size or angle. Both take any number of leading axes (batch, channels), any floating dtype and
    any device, and return the same. Float64 is computed in float64 by the reference; everything else in float32.

    Parameters
    ----------
    views : ViewGeometry
    grid : Grid
        Any direction matrix, also oblique or mirrored.
    measured : (views, rows, columns) bool tensor, optional
        Rays that count; the others give 0 and receive nothing.
    backend : str
        ``auto``, ``reference``, ``cpu`` or ``cuda``.
    device : str, optional
        Where to compute; where the data are, if not given. Data on the CPU are streamed to a GPU named here.
    memory_bytes : int, optional
        What may be used beside the data; half of what is free where not given.
    """

    views: ViewGeometry
    grid: Grid
    measured: Tensor | None = None
    backend: BackendName = "auto"
    device: str | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.measured is not None and tuple(self.measured.shape) != self.range:
            raise GeometryError(
                "PRJ-SHAPE", f"the mask has shape {list(self.measured.shape)}, the projections {list(self.range)}"
            )

    @property
    def domain(self) -> tuple[int, int, int]:
        """Shape of the volume: (slices, rows, columns)."""
        return self.grid.shape

    @property
    def range(self) -> tuple[int, int, int]:
        """Shape of the projections: (views, rows, columns)."""
        return self.views.shape

    def forward(self, x: Tensor) -> Tensor:
        """Return line integrals (..., views, rows, columns) of volumes (..., slices, rows, columns)."""
        volumes = self._batched(x, self.domain, "volume")
        return self._masked(self._stream(volumes, _project)).reshape(*x.shape[:-3], *self.range)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the transpose applied to projections (..., views, rows, columns): (..., slices, rows, columns)."""
        projections = self._masked(self._batched(y, self.range, "projections"))
        return self._stream(projections, _spread).reshape(*y.shape[:-3], *self.domain)

    def take(self, first: int, last: int) -> XRayTransform:
        """Return the operator of a range of views, as ordered subsets need it."""
        return self.subset(list(range(first, last)))

    def subset(self, which: list[int]) -> XRayTransform:
        """Return the operator of the chosen views, in that order."""
        measured = None if self.measured is None else self.measured[which]
        return dataclasses.replace(self, views=self.views.take(which), measured=measured)

    def plan(self, batch: int = 1, device: str | None = None) -> XRayPlan:
        """Say how one application will be cut, and what memory it takes."""
        where = torch.device(device or self.device or "cpu")
        budget = self.memory_bytes if self.memory_bytes is not None else backends.free_memory_bytes(where) // 2
        return plan_xray(self.domain, self.range, budget, batch, str(where))

    def _batched(self, tensor: Tensor, shape: tuple[int, int, int], what: str) -> Tensor:
        if tuple(tensor.shape[-3:]) != shape:
            raise GeometryError("PRJ-SHAPE", f"the {what} have shape {list(tensor.shape)}, the operator takes (..., {shape})")
        return tensor.detach().reshape(prod(tensor.shape[:-3]), *shape)

    def _masked(self, y: Tensor) -> Tensor:
        return y if self.measured is None else y * self.measured.to(y.device)

    def _stream(self, given: Tensor, work: Callable[[_Job], Tensor]) -> Tensor:
        """Work through slabs and blocks; on a full GPU halve the slab and begin again."""
        device = torch.device(self.device) if self.device else given.device
        plan: XRayPlan | None = self.plan(len(given), str(device))
        backend = backends.choose(self.backend, device, given.dtype, self.views, self.grid)
        while plan is not None:
            if not plan.is_whole:
                log.info("%s", plan)
            try:
                return work(_Job(self.views, self.grid, given, plan, backend, device))
            except torch.cuda.OutOfMemoryError:
                plan = halved(plan)
            torch.cuda.empty_cache()  # outside the except block, whose traceback would hold the tensors
        raise MemoryBudgetError("MEM-BUDGET", "the GPU's memory is too small for the smallest slab", "Compute on the CPU.")


@dataclass(frozen=True, eq=False)
class _Job:
    """One application: the volumes or projections given, how the work is cut and who computes."""

    views: ViewGeometry
    grid: Grid
    given: Tensor
    plan: XRayPlan
    backend: Backend
    device: torch.device

    def slabs(self) -> Iterator[tuple[slice, Rays]]:
        """Yield every slab of slices with the rays in its index coordinates."""
        for first, last in self.plan.slabs():
            part = self.grid.crop((first, 0, 0), (last - first, *self.grid.shape[1:]))
            yield slice(first, last), Rays.of(self.views, part)

    def put(self, tensor: Tensor) -> Tensor:
        """Bring a part of the data to where it is computed, in the precision in which it is."""
        dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        return tensor.to(self.device, dtype)


def _project(job: _Job) -> Tensor:
    """Return the projections, slab after slab: each adds its part of the line integrals."""
    if job.plan.is_whole:
        return job.backend.forward(Rays.of(job.views, job.grid), job.put(job.given)).to(job.given)
    y = job.given.new_empty((len(job.given), *job.views.shape))
    for slab, rays in job.slabs():
        x = job.put(job.given[:, slab])
        for first, last in job.plan.blocks():
            part = job.backend.forward(rays.take(first, last), x).to(y)
            target = y[:, first:last]
            target.copy_(part) if slab.start == 0 else target.add_(part)
    return y


def _spread(job: _Job) -> Tensor:
    """Return the volumes, slab after slab: each gathers from all blocks of views."""
    if job.plan.is_whole:
        return job.backend.adjoint(Rays.of(job.views, job.grid), job.put(job.given)).to(job.given)
    x = job.given.new_empty((len(job.given), *job.grid.shape))
    for slab, rays in job.slabs():
        parts = (
            job.backend.adjoint(rays.take(first, last), job.put(job.given[:, first:last])) for first, last in job.plan.blocks()
        )
        total = next(parts)
        for part in parts:
            total += part
        x[:, slab] = total.to(x)
    return x
