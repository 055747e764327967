"""Holes between measured voxels, bridged along sticks, as IGSIO does it.

A hole gets a value where a straight line through it meets measured voxels on both sides, so that nothing grows outwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool3d

#: One of each pair of opposite directions to the 26 neighbours.
DIRECTIONS = (
    *((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    *((0, 1, 1), (1, 0, 1), (1, 1, 0), (0, -1, 1), (-1, 0, 1), (-1, 1, 0)),
    *((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)),
)
_HOLES_AT_ONCE = 1 << 20
_EQUAL = 1e-6  # relative difference up to which two sticks are as long as each other


@dataclass(frozen=True)
class Sticks:
    """How holes are bridged.

    Parameters
    ----------
    spacing_mm : (slice, row, column)
    gap_mm : float
        Longest distance between the two measured voxels.
    igsio_steps : int
        Instead of `gap_mm` as many steps as IGSIO allows, in whichever direction, and its integer arithmetic; 0 for not.
    """

    spacing_mm: tuple[float, float, float]
    gap_mm: float
    igsio_steps: int = 0

    def step_mm(self, direction: tuple[int, int, int]) -> float:
        """Return the length of one step."""
        return float(np.linalg.norm(np.multiply(direction, self.spacing_mm)))

    def most_steps(self, direction: tuple[int, int, int]) -> int:
        """Return how many steps lie between the ends of a stick, at most."""
        return self.igsio_steps or int(self.gap_mm / self.step_mm(direction) + _EQUAL)

    def between(self, ahead: Tensor, behind: Tensor, steps_ahead: Tensor, steps_behind: Tensor) -> Tensor:
        """Return the value between two ends."""
        if self.igsio_steps:
            share = (steps_behind + 1) / (steps_ahead + steps_behind + 1)
            return torch.floor(share * ahead + (1 - share) * behind)
        return (steps_behind * ahead + steps_ahead * behind) / (steps_ahead + steps_behind)


def fill(x: Tensor, known: Tensor, sticks: Sticks, tick: Callable[[float], None]) -> Tensor:
    """Fill holes of `x` in place along the shortest stick, the mean of several equal ones; return which were filled.

    Parameters
    ----------
    x : (slices, rows, columns) Tensor
    known : (slices, rows, columns) bool Tensor
    sticks : Sticks

    Returns
    -------
    (slices, rows, columns) bool Tensor
    """
    filled = torch.zeros_like(known)
    holes = torch.nonzero(_near(known, sticks) & ~known)
    for first in range(0, len(holes), _HOLES_AT_ONCE):
        some = holes[first : first + _HOLES_AT_ONCE]
        values, found = _bridged(x, known, some, sticks)
        place = tuple(some[found].T)
        x[place], filled[place] = values[found], True
        tick(min(1.0, (first + _HOLES_AT_ONCE) / len(holes)))
    return filled


def _near(known: Tensor, sticks: Sticks) -> Tensor:
    """Voxels that a stick can reach from a known one."""
    near = known[None, None].float()
    for axis in range(3):
        reach = max((sticks.most_steps(d) for d in DIRECTIONS if d[axis]), default=0)
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * reach + 1, reach
        near = max_pool3d(near, kernel, stride=1, padding=padding)
    return near[0, 0] > 0


def _bridged(x: Tensor, known: Tensor, holes: Tensor, sticks: Sticks) -> tuple[Tensor, Tensor]:
    """Return the value of every hole (n, 3), and whether any stick bridges it."""
    best = x.new_full((len(holes),), float("inf"))
    total, count = torch.zeros_like(best), torch.zeros_like(best)
    for direction in DIRECTIONS:
        which, value, length = _sticks_along(x, known, holes, direction, sticks)
        equal = (length - best[which]).abs() <= _EQUAL * length
        better = ~equal & (length < best[which])
        total[which] = torch.where(better, value, total[which] + value * equal)
        count[which] = torch.where(better, 1.0, count[which] + equal)
        best[which] = torch.where(better, length, best[which])
    mean = total / count.clamp_min(1)
    return (mean.floor() if sticks.igsio_steps else mean), count > 0


def _sticks_along(
    x: Tensor, known: Tensor, holes: Tensor, direction: tuple[int, int, int], sticks: Sticks
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which holes one direction bridges, with which values, and the lengths of the sticks in mm."""
    most = sticks.most_steps(direction)
    ahead, steps_ahead = _look(x, known, holes, direction, most - 1)
    which = torch.nonzero(steps_ahead)[:, 0]
    back = (-direction[0], -direction[1], -direction[2])
    behind, steps_behind = _look(x, known, holes[which], back, most - 1)
    ends = (steps_behind > 0) & (steps_ahead[which] + steps_behind <= most)
    which, behind, steps_behind = which[ends], behind[ends], steps_behind[ends]
    length = (steps_ahead[which] + steps_behind + 1) * sticks.step_mm(direction)
    return which, sticks.between(ahead[which], behind, steps_ahead[which], steps_behind), length


def _look(x: Tensor, known: Tensor, holes: Tensor, direction: tuple[int, int, int], most: int) -> tuple[Tensor, Tensor]:
    """Go from holes in one direction; return the first known value and after how many steps it came, 0 for never."""
    strides = torch.tensor(x.stride(), device=x.device)
    start, step = (holes * strides).sum(dim=1), int(sum(d * s for d, s in zip(direction, x.stride(), strict=True)))
    values, steps = x.new_zeros(len(holes)), torch.zeros(len(holes), dtype=x.dtype, device=x.device)
    room = _room(holes, direction, tuple(x.shape))
    flat, flags = x.view(-1), known.view(-1)
    open_ = torch.arange(len(holes), device=x.device)
    for done in range(1, most + 1):
        open_ = open_[room[open_] >= done]
        place = start[open_] + done * step
        hit = flags[place]
        values[open_[hit]], steps[open_[hit]] = flat[place[hit]], float(done)
        open_ = open_[~hit]
    return values, steps


def _room(holes: Tensor, direction: tuple[int, int, int], shape: tuple[int, ...]) -> Tensor:
    """How many steps stay inside the volume, (n,)."""
    sides = [
        (size - 1 - holes[:, axis]) if d > 0 else holes[:, axis]
        for axis, (d, size) in enumerate(zip(direction, shape, strict=True))
        if d
    ]
    return torch.stack(sides).amin(dim=0)
