"""The compiled loops of `TotalVariation.prox`: each inner iteration reads and writes the volume twice, not thirty times.

They hold no Python object and release the interpreter's lock; each call writes its own planes, so that any number of
threads gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators._general_cpu import compiled

Floats = NDArray[np.float32]
Three = tuple[Floats, Floats, Floats]


def arrays(fields: Sequence[Tensor]) -> Three:
    """Return the three dual variables as arrays on the same memory."""
    first, second, third = (one.numpy() for one in fields)
    return first, second, third


@compiled
def write_primal(
    z: Floats, dual: Three, weights: tuple[float, float, float], bounds: tuple[float, float], x: Floats, first: int, last: int
) -> None:
    """Set ``x = z + weights * divergence(dual)`` between bounds, in the planes from `first` to before `last`.

    The dual variables are 0 where their axis ends.
    """
    _, rows, columns = z.shape
    w0, w1, w2 = np.float32(weights[0]), np.float32(weights[1]), np.float32(weights[2])
    low, high = np.float32(bounds[0]), np.float32(bounds[1])
    nothing = np.zeros(columns, np.float32)
    for i in range(first, last):
        for r in range(rows):
            p0, p1, p2 = dual[0][i, r], dual[1][i, r], dual[2][i, r]
            q0 = dual[0][i - 1, r] if i > 0 else nothing
            q1 = dual[1][i, r - 1] if r > 0 else nothing
            given, into = z[i, r], x[i, r]
            into[0] = min(max(given[0] + w0 * (p0[0] - q0[0]) + w1 * (p1[0] - q1[0]) + w2 * p2[0], low), high)
            for c in range(1, columns):
                total = given[c] + w0 * (p0[c] - q0[c]) + w1 * (p1[c] - q1[c]) + w2 * (p2[c] - p2[c - 1])
                into[c] = min(max(total, low), high)


@compiled
def ascend(
    x: Floats, dual: Three, ahead: Three, weights: tuple[float, float, float], momentum: float, first: int, last: int
) -> None:
    """Step from `ahead` along the weighted differences of `x`, back into the unit ball, and look further ahead."""
    planes, rows, columns = x.shape
    w0, w1, w2, m = np.float32(weights[0]), np.float32(weights[1]), np.float32(weights[2]), np.float32(momentum)
    one = np.float32(1)
    for i in range(first, last):
        for r in range(rows):
            here = x[i, r]
            below, beside = x[min(i + 1, planes - 1), r], x[i, min(r + 1, rows - 1)]
            p0, p1, p2 = dual[0][i, r], dual[1][i, r], dual[2][i, r]
            a0, a1, a2 = ahead[0][i, r], ahead[1][i, r], ahead[2][i, r]
            for c in range(columns):
                following = here[c + 1] if c + 1 < columns else here[c]
                g0 = a0[c] + w0 * (below[c] - here[c])
                g1 = a1[c] + w1 * (beside[c] - here[c])
                g2 = a2[c] + w2 * (following - here[c])
                scale = one / max(np.sqrt(g0 * g0 + g1 * g1 + g2 * g2), one)
                g0, g1, g2 = g0 * scale, g1 * scale, g2 * scale
                a0[c], a1[c], a2[c] = p0[c] + m * (g0 - p0[c]), p1[c] + m * (g1 - p1[c]), p2[c] + m * (g2 - p2[c])
                p0[c], p1[c], p2[c] = g0, g1, g2
