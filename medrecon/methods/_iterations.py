"""What iterative methods share: where they start, how views are grouped, when they stop, who watches.

Half-fan and short scans need no redundancy weights here: rays measured twice simply count twice.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd, prod
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from medrecon.core.progress import Tick, silent
from medrecon.methods._noise import noise_rms

if TYPE_CHECKING:
    from medrecon.operators.xray_transform import XRayTransform

log = logging.getLogger(__name__)

Start = Literal["zero", "fdk"]
#: Is shown the volume (slices, rows, columns) after every iteration; it is the method's own and must not be changed.
Preview = Callable[[Tensor], None]

_KEPT_BYTES = 2**31  # of column sums that are kept between iterations
_VIEWS_PER_SUBSET = 8
_HALF_TURN = 2 / np.pi  # length of the mean of unit vectors all around half a turn


def unseen(_: Tensor) -> None:
    """Show nobody the volume: a `Preview` for callers who do not look."""


def part_of(tick: Tick, first: float, last: float) -> Tick:
    """Return the `Tick` of a part of the work, from one finished share to another."""
    return functools.partial(_tell, tick, first, last)


def start_from(A: XRayTransform, y: Tensor, start: Start, nonnegative: bool) -> Tensor:
    """Return the volume to begin with: zero, or a smooth FDK."""
    if start == "zero":
        return torch.zeros(A.domain, device=y.device)
    from medrecon.methods.fdk import FdkConfig, fdk

    x = fdk(A, y, FdkConfig(window="hann"), silent).to(y.device)
    return x.clamp_(min=0) if nonnegative else x


def data_of(A: XRayTransform, y: Tensor) -> Tensor:
    """Return the projections in float32, with 0 where nothing was measured."""
    y = y.float()
    return y if A.measured is None else torch.where(A.measured.to(y.device), y, 0)


def allowed_residual(A: XRayTransform, y: Tensor, stop: Literal["noise"] | float | None) -> float:
    """Return the norm of ``A x - y`` at which noise is all that is left; 0 where there is no such end.

    Parameters
    ----------
    stop : "noise", float or None
        Estimate the noise, or take its standard deviation as given, or never stop.
    """
    if stop is None:
        return 0.0
    rms = noise_rms(y, A.measured) if stop == "noise" else float(stop)
    pixels = y.numel() if A.measured is None else int(A.measured.sum())
    return float(rms * pixels**0.5)


@dataclass(eq=False)
class Subset:
    """Some of the views, with the row and column sums of their part of A.

    Parameters
    ----------
    A : XRayTransform
    y : (views, rows, columns)
    per_row : (views, rows, columns)
        1 over the sum of each row of A; 0 for rays that miss the grid.
    keep : bool
        Whether the column sums stay in memory.
    """

    A: XRayTransform
    y: Tensor
    per_row: Tensor
    keep: bool
    _per_column: Tensor | None = None

    def missed(self, x: Tensor) -> Tensor:
        """Return what the volume misses of the projections."""
        return self.y - self.A.forward(x)

    def correction(self, missed: Tensor) -> Tensor:
        """Spread what was missed evenly along each ray, and average over the rays of each voxel."""
        return self.averaged(missed * self.per_row)

    def averaged(self, values: Tensor) -> Tensor:
        """Average values of rays over the rays of each voxel, as long as they run in it; 0 where there is none."""
        if self._per_column is not None:
            return self.A.adjoint(values) * self._per_column
        both = self.A.adjoint(torch.stack([values, (self.per_row > 0).to(values)]))
        per_column = _inverse(both[1])
        if self.keep:
            self._per_column = per_column
        return both[0] * per_column


def groups_of(A: XRayTransform, y: Tensor, count: int | Literal["auto"]) -> list[tuple[XRayTransform, Tensor]]:
    """Group the views so that each group looks from all around, in an order that keeps successive ones apart."""
    views = len(A.views)
    number = max(1, min(views, views // _VIEWS_PER_SUBSET if count == "auto" else count))
    if number == 1:
        return [(A, y)]
    chosen = [list(range(first, views, number)) for first in spread_order(number)]
    return [(A.subset(which), y[which]) for which in chosen]


def subsets_of(A: XRayTransform, y: Tensor, count: int | Literal["auto"]) -> list[Subset]:
    """Return the same groups with their row sums."""
    groups = groups_of(A, y, count)
    keep = len(groups) * 4 * prod(A.domain) <= _KEPT_BYTES
    ones = torch.ones(A.domain, device=y.device)
    return [Subset(part, data, _inverse(part.forward(ones)), keep) for part, data in groups]


def column_rms(A: XRayTransform, device: torch.device) -> float:
    """Return the root mean square, over voxels, of the norm of a column of A: how strongly a voxel answers to noise.

    Estimated from one volume of random signs, as Hutchinson 1990, Commun. Stat. Simul. 19, 433 estimates traces.
    """
    signs = torch.randint(0, 2, A.domain, generator=torch.Generator().manual_seed(0)).float().mul_(2).sub_(1)
    return float(A.forward(signs.to(device)).norm() / prod(A.domain) ** 0.5)


def axis_shares(A: XRayTransform, along_rays: float) -> tuple[float, float, float]:
    """Return what differences along slices, rows and columns count, where those along the middle rays count less.

    Only of an arc below half a turn; rays from more sides have no middle. Chen, Jin, Li and Wang 2013, Phys. Med. Biol.
    58, 2119 weigh limited arcs so.
    """
    towards = A.views.towards_detector
    middle = (towards / np.linalg.norm(towards, axis=1, keepdims=True)).mean(axis=0)
    length = float(np.linalg.norm(middle))
    if length <= _HALF_TURN:
        return 1.0, 1.0, 1.0
    along = (middle / length) @ A.grid.directions
    slices, rows, columns = np.sqrt(1 - (1 - along_rays**2) * along**2)
    return float(slices), float(rows), float(columns)


def squared_norm_bound(A: XRayTransform, device: torch.device, rounds: int = 3) -> float:
    """Return an upper bound of the largest eigenvalue of ``A* A``, some per cent above it.

    For a matrix without negative entries and any positive x, no eigenvalue exceeds the largest ratio of (A* A x) to x
    (Collatz and Wielandt); the power method tightens it.
    """
    x, bound = torch.ones(A.domain, device=device), 0.0
    for _ in range(rounds):
        following = A.adjoint(A.forward(x))
        bound = float(torch.where(x > 0, following / x, 0).max())
        x = (following / following.max().clamp(min=1e-30)).clamp(min=1e-3)
    return bound


def spread_order(n: int) -> Iterator[int]:
    """Yield 0 to n - 1 so that neighbours in time are far apart: steps of the golden section that reach every number."""
    step = max(1, round(n * (5**0.5 - 1) / 2))
    while gcd(step, n) > 1:
        step += 1
    return ((k * step) % n for k in range(n))


def _inverse(sums: Tensor) -> Tensor:
    """1 over each sum, and 0 where it vanishes beside the largest."""
    return torch.where(sums > 1e-6 * sums.max(), 1 / sums, 0)


def _tell(tick: Tick, first: float, last: float, share: float) -> None:
    tick(first + (last - first) * share)
