"""The compiled loop of `EdgeDescent`: one pass over the volume, with three planes of scratch per thread.

It holds no Python object and releases the interpreter's lock; each call writes its own planes, so that any number of
threads gives the same bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medrecon.operators._general_cpu import compiled

Floats = NDArray[np.float32]


@compiled
def advance(
    x: Floats,
    before: Floats,
    first: int,
    last: int,
    weights: tuple[float, float, float],
    delta: float,
    momentum: float,
    length: float,
) -> None:
    """Set ``before = x + momentum * (x - before) - length * gradient(x)`` in the planes from `first` to before `last`."""
    planes, rows, columns = x.shape
    w0, w1, w2 = np.float32(weights[0]), np.float32(weights[1]), np.float32(weights[2])
    m, s = np.float32(momentum), np.float32(length)
    ahead = np.zeros((rows, columns), np.float32)
    here = np.zeros((rows, columns), np.float32)
    behind = np.zeros((rows, columns), np.float32)
    if first > 0:
        _allow(x, first - 1, w0, w1, w2, delta, ahead)
    _allow(x, first, w0, w1, w2, delta, here)
    inflow = np.empty(columns, np.float32)
    for i in range(first, last):
        if i + 1 < planes:
            _allow(x, i + 1, w0, w1, w2, delta, behind)
        for r in range(rows):
            inflow[:] = 0
            if i > 0:
                _exchange(x[i, r], x[i - 1, r], here[r], ahead[r], w0, inflow)
            if i + 1 < planes:
                _exchange(x[i, r], x[i + 1, r], here[r], behind[r], w0, inflow)
            if r > 0:
                _exchange(x[i, r], x[i, r - 1], here[r], here[r - 1], w1, inflow)
            if r + 1 < rows:
                _exchange(x[i, r], x[i, r + 1], here[r], here[r + 1], w1, inflow)
            _exchange(x[i, r, 1:], x[i, r, :-1], here[r, 1:], here[r, :-1], w2, inflow[1:])
            _exchange(x[i, r, :-1], x[i, r, 1:], here[r, :-1], here[r, 1:], w2, inflow[:-1])
            for c in range(columns):
                before[i, r, c] = x[i, r, c] + m * (x[i, r, c] - before[i, r, c]) + s * inflow[c]
        ahead, here, behind = here, behind, ahead


@compiled
def _exchange(own: Floats, other: Floats, allow: Floats, other_allow: Floats, weight: np.float32, inflow: Floats) -> None:
    """Add what one line of voxels receives from its neighbours."""
    half = np.float32(0.5) * weight
    for c in range(len(own)):
        inflow[c] += half * (allow[c] + other_allow[c]) * (other[c] - own[c])


@compiled
def _allow(x: Floats, i: int, w0: np.float32, w1: np.float32, w2: np.float32, delta: float, into: Floats) -> None:
    """Write 1 / sqrt(delta^2 + half the squared slopes) of one plane."""
    planes, rows, columns = x.shape
    least = np.float32(delta * delta)
    for r in range(rows):
        line = into[r]
        line[:] = least
        if i > 0:
            _add_square(x[i, r], x[i - 1, r], w0, line)
        if i + 1 < planes:
            _add_square(x[i, r], x[i + 1, r], w0, line)
        if r > 0:
            _add_square(x[i, r], x[i, r - 1], w1, line)
        if r + 1 < rows:
            _add_square(x[i, r], x[i, r + 1], w1, line)
        _add_square(x[i, r, 1:], x[i, r, :-1], w2, line[1:])
        _add_square(x[i, r, :-1], x[i, r, 1:], w2, line[:-1])
        for c in range(columns):
            line[c] = np.float32(1) / np.sqrt(line[c])


@compiled
def _add_square(own: Floats, other: Floats, weight: np.float32, into: Floats) -> None:
    half = np.float32(0.5) * weight
    for c in range(len(own)):
        d = other[c] - own[c]
        into[c] += half * d * d
