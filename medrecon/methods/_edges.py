"""Take a volume one step towards fewer and sharper edges: gradient descent on a total variation, in place.

Each pair of neighbours at a distance a exchanges w d / a^2, d being their difference and w the mean of what both
voxels allow, 1 / sqrt(delta^2 + half the squared slopes around the voxel). Slopes that are small beside delta are
smoothed as by diffusion, steeper ones are let be. Pairs count alike in both directions, so that a mirrored volume has the
mirrored gradient. Rudin, Osher and Fatemi 1992, Physica D 60, 259.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEP = 0.25  # of delta; with the momentum below, steps beyond 0.3 diverge
_MOMENTUM = 0.85


class EdgeDescent:
    """Heavy-ball descent on the total variation of a volume.

    Parameters
    ----------
    spacing_mm : (slice, row, column)
    delta : float
        Differences between neighbours at the finest spacing above which they count as an edge.
    floor : float
        No voxel is made darker than this.
    """

    def __init__(self, spacing_mm: tuple[float, float, float], delta: float, floor: float) -> None:
        finest = min(spacing_mm)
        slices, rows, columns = ((finest / spacing) ** 2 for spacing in spacing_mm)
        self._weights = slices, rows, columns
        self._delta = delta
        self._floor = floor
        self._before: Tensor | None = None

    def step(self, x: Tensor) -> Tensor:
        """Return the volume after `x`; `x` itself is kept for the next step, and overwritten then.

        The momentum is where `x` really went since the last step, whatever else was done to it meanwhile.
        """
        after = x.clone() if self._before is None else self._before
        if x.device.type == "cpu" and x.is_contiguous():
            self._advance_compiled(x, after)
        else:
            after.sub_(x).mul_(-_MOMENTUM).add_(x).sub_(self._gradient(x), alpha=_STEP * self._delta)
        self._before = x
        return after.clamp_(min=self._floor)

    def _advance_compiled(self, x: Tensor, before: Tensor) -> None:
        from medrecon.methods._edges_cpu import advance
        from medrecon.operators._general_cpu import in_threads

        voxels, into = x.numpy(), before.numpy()

        def work(first: int, last: int) -> None:
            advance(voxels, into, first, last, self._weights, self._delta, _MOMENTUM, _STEP * self._delta)

        in_threads(work, len(x))

    def _gradient(self, x: Tensor) -> Tensor:
        """Return the gradient, by whole-volume operations: what the compiled loop is held to, and the path of a GPU."""
        allow = torch.full_like(x, self._delta**2)
        for axis, weight in enumerate(self._weights):
            squared = torch.diff(x, dim=axis).square_().mul_(weight / 2)
            allow.narrow(axis, 0, x.shape[axis] - 1).add_(squared)
            allow.narrow(axis, 1, x.shape[axis] - 1).add_(squared)
        allow.rsqrt_()
        gradient = torch.zeros_like(x)
        for axis, weight in enumerate(self._weights):
            inner = x.shape[axis] - 1
            flow = torch.diff(x, dim=axis)
            flow.mul_(allow.narrow(axis, 0, inner) + allow.narrow(axis, 1, inner)).mul_(weight / 2)
            gradient.narrow(axis, 0, inner).sub_(flow)
            gradient.narrow(axis, 1, inner).add_(flow)
        return gradient
