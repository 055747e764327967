"""Denoise a volume by total variation: one step of every method that wants few and sharp edges.

The gradient is per millimetre, scaled to the finest spacing, so that voxels of any shape are treated alike. The dual
variables are kept, so that a few inner iterations suffice from one call to the next. Beck and Teboulle 2009, IEEE
Trans. Image Process. 18, 2419.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor


@dataclass(eq=False)
class TotalVariation:
    """The sum over voxels of the length of the gradient, and its proximal map.

    Parameters
    ----------
    spacing_mm : (slice, row, column)
    nonnegative : bool
        Whether the proximal map also keeps the volume from falling below 0.
    upper : float, optional
        Value above which the proximal map lets no voxel rise.
    shares : (slice, row, column)
        What differences along each axis count beside what their distance makes of them.
    """

    spacing_mm: tuple[float, float, float]
    nonnegative: bool = True
    upper: float | None = None
    shares: tuple[float, float, float] = (1.0, 1.0, 1.0)
    _dual: list[Tensor] = field(default_factory=list)

    @property
    def weights(self) -> tuple[float, ...]:
        """What differences along each axis count."""
        finest = min(self.spacing_mm)
        return tuple(share * finest / spacing for share, spacing in zip(self.shares, self.spacing_mm, strict=True))

    def value(self, x: Tensor) -> float:
        """Return the total variation of a volume."""
        return float(_length(self._differences(x)).sum(dtype=torch.float64))

    def gradient(self, x: Tensor, smoothing: float) -> Tensor:
        """Return the gradient of the total variation, its corner at 0 rounded off below `smoothing`."""
        differences = self._differences(x)
        length = _length(differences).square_().add_(smoothing**2).sqrt_()
        return self._divergence([d.div_(length) for d in differences], torch.empty_like(x)).neg_()

    def prox(self, z: Tensor, strength: float, iterations: int) -> Tensor:
        """Return the x that minimises ``1/2 ||x - z||^2 + strength * TV(x)``, nearly, going on from the last call.

        Parameters
        ----------
        z : (slices, rows, columns) Tensor
        strength : float
        iterations : int
            Inner iterations.
        """
        if strength <= 0:
            return self._bounded(z.clone())
        if not self._dual:
            self._dual = [torch.zeros_like(z) for _ in range(3)]
        step = 1 / (4 * sum(w * w for w in self.weights) * strength)
        ahead, momentum, x = [p.clone() for p in self._dual], 1.0, torch.empty_like(z)
        if z.device.type == "cpu" and z.dtype == torch.float32:
            return self._compiled_prox(z.contiguous(), strength, step, ahead, x, iterations)
        for _ in range(iterations):
            moved = self._differences(self._primal(z, strength, ahead, x))
            for d, p in zip(moved, ahead, strict=True):
                d.mul_(step).add_(p)
            length = _length(moved).clamp_(min=1)
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            for k, d in enumerate(moved):
                torch.lerp(self._dual[k], d.div_(length), 1 + (momentum - 1) / following, out=ahead[k])
            self._dual, momentum = moved, following
        return self._primal(z, strength, self._dual, x)

    def _compiled_prox(self, z: Tensor, strength: float, step: float, ahead: list[Tensor], x: Tensor, iterations: int) -> Tensor:
        """Do the same on the CPU in two compiled loops; `torch` in the loop above is what they are held to."""
        from medrecon.methods._tv_prox_cpu import arrays, ascend, write_primal
        from medrecon.operators._general_cpu import in_threads

        dual, leading, planes = arrays(self._dual), arrays(ahead), len(z)
        bounds = (0.0 if self.nonnegative else -math.inf, math.inf if self.upper is None else self.upper)
        slices, rows, columns = self.weights
        primal_weights, dual_weights = ((slices * k, rows * k, columns * k) for k in (strength, step))
        primal = partial(write_primal, z.numpy())
        momentum = 1.0
        for _ in range(iterations):
            in_threads(partial(primal, leading, primal_weights, bounds, x.numpy()), planes)
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            further = 1 + (momentum - 1) / following
            in_threads(partial(ascend, x.numpy(), dual, leading, dual_weights, further), planes)
            momentum = following
        in_threads(partial(primal, dual, primal_weights, bounds, x.numpy()), planes)
        return x

    def _primal(self, z: Tensor, strength: float, dual: list[Tensor], into: Tensor) -> Tensor:
        self._divergence(dual, into).mul_(strength).add_(z)
        return self._bounded(into)

    def _bounded(self, x: Tensor) -> Tensor:
        """Bring a volume between its bounds, in place."""
        if self.nonnegative or self.upper is not None:
            x.clamp_(min=0 if self.nonnegative else None, max=self.upper)
        return x

    def _differences(self, x: Tensor) -> list[Tensor]:
        """Forward differences along each axis, 0 at its end."""
        found = []
        for axis, weight in enumerate(self.weights):
            d, inner = torch.zeros_like(x), x.shape[axis] - 1
            torch.sub(x.narrow(axis, 1, inner), x.narrow(axis, 0, inner), out=d.narrow(axis, 0, inner))
            found.append(d.mul_(weight))
        return found

    def _divergence(self, fields: list[Tensor], into: Tensor) -> Tensor:
        """Write minus the transpose of `_differences`."""
        into.zero_()
        for axis, (weight, p) in enumerate(zip(self.weights, fields, strict=True)):
            inner = p.shape[axis] - 1
            into.narrow(axis, 0, inner).add_(p.narrow(axis, 0, inner), alpha=weight)
            into.narrow(axis, 1, inner).sub_(p.narrow(axis, 0, inner), alpha=weight)
        return into


def _length(differences: list[Tensor]) -> Tensor:
    total = differences[0].square()
    for d in differences[1:]:
        total.addcmul_(d, d)
    return total.sqrt_()
