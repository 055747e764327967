"""The kernel of `_backprojection_triton`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _arctan(x):
    """Halve the angle twice, then a series: exact to 1e-7 up to 70 degrees."""
    y = x / (1 + tl.sqrt(1 + x * x))
    z = y / (1 + tl.sqrt(1 + y * y))
    s = z * z
    return 4 * z * (1 - s * (1 / 3 - s * (1 / 5 - s * (1 / 7 - s * (1 / 9 - s / 11)))))


@triton.jit
def backproject(
    volume, values, numbers, n1, n2, views, columns, rows, per_column, per_row,
    BEAM: tl.constexpr, UPRIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: a block of heights of one voxel column; where columns stand upright, all share one detector column."""
    place = tl.program_id(0)
    i, j = (place // n1).to(tl.float32), (place % n1).to(tl.float32)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    height = k.to(tl.float32)
    inside = k < n2
    total = tl.zeros((BLOCK,), tl.float32)
    image, f = values, numbers
    for _ in range(views):
        x = tl.load(f) * i + tl.load(f + 1) * j + tl.load(f + 3)
        depth = tl.load(f + 4) * i + tl.load(f + 5) * j + tl.load(f + 7)
        if not UPRIGHT:
            x, depth = x + tl.load(f + 2) * height, depth + tl.load(f + 6) * height
        v = tl.load(f + 8) * i + tl.load(f + 9) * j + tl.load(f + 11) + tl.load(f + 10) * height
        distance, first, second, weight = tl.load(f + 12), tl.load(f + 13), tl.load(f + 14), tl.load(f + 16)
        if BEAM != 0:  # nothing behind the source is seen
            weight = tl.where(depth > 0, weight, 0.0)
            depth = tl.where(depth > 0, depth, 1.0)
        shift = second
        u, grown, share = x + first, depth * 0 + 1, depth * 0 + weight
        if BEAM == 1:
            closeness = 1 / depth
            grown = distance * closeness
            u, share = grown * x + first, weight * closeness * closeness
        if BEAM == 2:
            a, b = x * x + depth * depth, x * first + depth * second
            root = b * b - a * (first * first + second * second - distance * distance)
            grown = (tl.sqrt(tl.maximum(root, 0.0)) - b) / a
            u = distance * _arctan((first + grown * x) / (second + grown * depth))
            share, shift = tl.where(root > 0, weight / a, 0.0), tl.load(f + 15)
        column = u * per_column + (columns - 1) * 0.5
        row = (grown * v + shift) * per_row + (rows - 1) * 0.5
        column = tl.minimum(tl.maximum(column, -2.0), columns + 1.0)
        row = tl.minimum(tl.maximum(row, -2.0), rows + 1.0)
        c, r = tl.floor(column), tl.floor(row)
        s, t = column - c, row - r
        c, r = c.to(tl.int32), r.to(tl.int32)
        left = tl.where((c >= 0) & (c < columns), (1 - s) * share, 0.0)
        right = tl.where((c >= -1) & (c < columns - 1), s * share, 0.0)
        low, high = (r >= 0) & (r < rows) & inside, (r >= -1) & (r < rows - 1) & inside
        at = image + tl.minimum(tl.maximum(c, 0), columns - 1) * rows + r
        beside = image + tl.minimum(tl.maximum(c + 1, 0), columns - 1) * rows + r
        below = left * tl.load(at, mask=low, other=0.0) + right * tl.load(beside, mask=low, other=0.0)
        above = left * tl.load(at + 1, mask=high, other=0.0) + right * tl.load(beside + 1, mask=high, other=0.0)
        total += below + t * (above - below)
        image += rows * columns
        f += 17
    at = volume + place.to(tl.int64) * n2 + k
    tl.store(at, tl.load(at, mask=inside, other=0.0) + total, mask=inside)
