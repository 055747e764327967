"""Compiled loops of the X-ray transform on the CPU.

They hold no Python objects and release the interpreter's lock, so that plain threads run them side by side; each call
works on its own range of views or planes, writes nothing that another call writes, and adds in a fixed order: the same
input gives the same bytes for any number of threads.

Two pairs. The vertical pair serves scans whose detector columns stand upright over the volume, the usual case: a whole
column of pixels crosses a plane of the volume along one line of voxels, so each step works on whole lines. The general
pair walks ray by ray and serves every other geometry.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from medrecon.operators import _xray_simd as simd
from medrecon.operators._xray_rays import AXIS_PREFERENCE

# What the loops take: numba compiles them for arrays of any number of dimensions.
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]
Triple = tuple[float, float, float]

F = TypeVar("F", bound=Callable[..., Any])

#: Zeros before and behind every line of pixels or voxels that is looked up: more than the taps of one lookup.
PAD_BEFORE, PAD_AFTER = 8, 8
#: Readable floats behind the last line: what a group of lanes loads and does not use.
TABLE_MARGIN = simd.TABLE_MARGIN

# What is worked on together, so that its pixels and voxels stay in the cache of one core.
_VIEWS_AT_ONCE, _COLUMNS_AT_ONCE, _PLANES_AT_ONCE = 8, 16, 8
_LANES, _WINDOW = simd.LANES, simd.WINDOW
_PREFER_1, _PREFER_2 = AXIS_PREFERENCE[1], AXIS_PREFERENCE[2]
_lerp_in_window, _lerp_singly = simd.lerp_in_window, simd.lerp_singly
_hats_of_2, _hats_of_3, _hats_of_4 = simd.hats_of_2, simd.hats_of_3, simd.hats_of_4


def compiled(function: F) -> F:
    """Compile without the interpreter's lock, and keep the machine code on disk where the system has a place for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
    try:
        dispatcher: F = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable place for the cache
        dispatcher = numba.njit(**options)(function)
    return dispatcher


@compiled
def add_lerp(into: Floats, start: int, stop: int, table: Floats, offset: float, slope: float) -> None:
    """Add ``table`` interpolated at ``offset + slope * k`` to ``into[k]`` for start <= k < stop; slope is positive."""
    if slope * (_LANES - 1) + 2 < _WINDOW:
        done = _lerp_in_window(into, start, stop, table, offset, slope)
    else:
        done = _lerp_singly(into, start, stop, table, offset, slope)
    for k in range(done, stop):
        position = offset + slope * k
        index = int(position)
        into[k] += table[index] + np.float32(position - index) * (table[index + 1] - table[index])


@compiled
def put_hats(into: Floats, start: int, stop: int, table: Floats, first: int, last: int, offset: float, slope: float) -> None:
    """Write ``sum_i table[i] * max(0, 1 - |offset + slope * i - k|)`` to ``into[k]``: the transpose of `add_lerp`.

    Only first <= i < last come near the voxels start <= k < stop; what the table holds beside them must be zero.
    """
    taps = math.ceil(2 / slope)
    if taps > 4 or (_LANES - 1) / slope + 2 + taps >= _WINDOW:
        _put_hats_one_by_one(into, start, stop, table, first, last, offset, slope)
        return
    if taps <= 2:
        done = _hats_of_2(into, start, stop, table, offset, slope)
    elif taps == 3:
        done = _hats_of_3(into, start, stop, table, offset, slope)
    else:
        done = _hats_of_4(into, start, stop, table, offset, slope)
    for k in range(done, stop):
        low = int((k - 1 - offset) / slope + 1)
        total = np.float32(0)
        for i in range(low, low + taps):
            total += table[i] * np.float32(max(0.0, 1 - abs(offset + slope * i - k)))
        into[k] = total


@compiled
def _put_hats_one_by_one(
    into: Floats, start: int, stop: int, table: Floats, first: int, last: int, offset: float, slope: float
) -> None:
    """Do the same entry by entry of the table, for processors without permutation and for many entries per voxel."""
    for k in range(start, stop):
        into[k] = 0
    for i in range(first, last):
        position = offset + slope * i
        below = math.floor(position)
        share = np.float32(position - below)
        if below >= start and below < stop:
            into[below] += (np.float32(1) - share) * table[i]
        if below + 1 >= start and below + 1 < stop:
            into[below + 1] += share * table[i]


@compiled
def project_columns(
    volume: Floats, out: Floats, across: bool, chosen: Flags, pixels: Doubles, steps: Doubles, row_step: Doubles, parallel: bool
) -> None:
    """Add to every chosen detector column what the planes of the volume give it.

    Parameters
    ----------
    volume : (first, second, heights) float32
    out : (views, columns, rows) float32
        Sums of interpolated voxels, still without the length of the ray.
    across : bool
        False: planes of constant first index, True: of constant second index.
    chosen : (views, columns) bool
        Columns whose rays run mainly across those planes.
    pixels, steps : (views, columns, 3) float64
        Pixel of row 0, and the step from it to the source, in volume indices (first, second, height).
    row_step : (views,) float64
        Height between rows, positive.
    """
    main, lateral = (1, 0) if across else (0, 1)
    heights, rows = volume.shape[2], out.shape[2]
    line = np.zeros(PAD_BEFORE + heights + PAD_AFTER + TABLE_MARGIN, np.float32)
    for block in range(0, out.shape[0], _VIEWS_AT_ONCE):
        for tile in range(0, out.shape[1], _COLUMNS_AT_ONCE):
            for k in range(volume.shape[main]):
                for view in range(block, min(block + _VIEWS_AT_ONCE, out.shape[0])):
                    for c in range(tile, min(tile + _COLUMNS_AT_ONCE, out.shape[1])):
                        if not chosen[view, c]:
                            continue
                        where, z, slope = _crossing(pixels[view, c], steps[view, c], row_step[view], main, k, parallel)
                        if not -1 < where < volume.shape[lateral]:
                            continue
                        first, last = _reached(z, slope, rows, heights)
                        if first < last:
                            low, high = _touched(z, slope, first, last, heights)
                            _combine(volume, across, k, where, low, high, line)
                            add_lerp(out[view, c], first, last, line, z + PAD_BEFORE, slope)


@compiled
def _crossing(pixel: Doubles, step: Doubles, row_step: float, main: int, k: int, parallel: bool) -> tuple[float, float, float]:
    """Return where a column crosses plane k: lateral index (-2 beyond source or pixel), height of row 0, height per row."""
    t = (k - pixel[main]) / step[main]
    if not parallel and not 0 < t < 1:
        return -2.0, 0.0, 1.0
    return pixel[1 - main] + t * step[1 - main], pixel[2] + t * step[2], row_step if parallel else row_step * (1 - t)


@compiled
def _reached(z: float, slope: float, rows: int, heights: int) -> tuple[int, int]:
    """Return the rows, first and last (excluded), whose height z + slope * row lies within one voxel of the volume."""
    first = max(0, math.ceil((-1 - z) / slope))
    last = min(rows, math.floor((heights - z) / slope) + 1)
    return first, last


@compiled
def _touched(z: float, slope: float, first: int, last: int, heights: int) -> tuple[int, int]:
    """Return the voxels, first and last (excluded), that lie beside the heights of the rows first <= row < last."""
    low = max(0, math.floor(z + slope * first))
    high = min(heights, math.floor(z + slope * (last - 1)) + 2)
    return low, high


@compiled
def _combine(volume: Floats, across: bool, k: int, where: float, low: int, high: int, line: Floats) -> None:
    """Write the mix of two neighbouring lines of voxels, zero outside the volume, with zeros at both ends."""
    below = math.floor(where)
    share = where - below
    count = volume.shape[0] if across else volume.shape[1]
    left = np.float32(1 - share) if below >= 0 else np.float32(0)
    right = np.float32(share) if below + 1 < count else np.float32(0)
    i, j = max(below, 0), min(below + 1, count - 1)
    into = line[PAD_BEFORE + low : PAD_BEFORE + high]
    if across:
        _mix(into, volume[i, k, low:high], volume[j, k, low:high], left, right)
    else:
        _mix(into, volume[k, i, low:high], volume[k, j, low:high], left, right)
    if low == 0:
        line[PAD_BEFORE - 1] = 0
    if high == volume.shape[2]:
        line[PAD_BEFORE + high : PAD_BEFORE + high + 2] = 0


@compiled
def _mix(into: Floats, a: Floats, b: Floats, left: np.float32, right: np.float32) -> None:
    """Write left * a + right * b; a loop of its own, because only then is it vectorised."""
    for z in range(into.shape[0]):
        into[z] = left * a[z] + right * b[z]


@compiled
def spread_columns(
    volume: Floats,
    padded: Floats,
    across: bool,
    chosen: Flags,
    pixels: Doubles,
    steps: Doubles,
    row_step: Doubles,
    parallel: bool,
    start: int,
    stop: int,
) -> None:
    """Add to the planes start <= k < stop what the chosen columns give them: the transpose of `project_columns`.

    Parameters
    ----------
    padded : (views, columns, PAD_BEFORE + rows + PAD_AFTER) float32
        Pixels times the length of their rays, with zeros before and behind.
    """
    main, lateral = (1, 0) if across else (0, 1)
    heights, rows = volume.shape[2], padded.shape[2] - PAD_BEFORE - PAD_AFTER
    line = np.zeros(heights + TABLE_MARGIN, np.float32)
    for planes in range(start, stop, _PLANES_AT_ONCE):
        for block in range(0, padded.shape[0], _VIEWS_AT_ONCE):
            for tile in range(0, padded.shape[1], _COLUMNS_AT_ONCE):
                for view in range(block, min(block + _VIEWS_AT_ONCE, padded.shape[0])):
                    for k in range(planes, min(planes + _PLANES_AT_ONCE, stop)):
                        for c in range(tile, min(tile + _COLUMNS_AT_ONCE, padded.shape[1])):
                            if not chosen[view, c]:
                                continue
                            where, z, slope = _crossing(pixels[view, c], steps[view, c], row_step[view], main, k, parallel)
                            if not -1 < where < volume.shape[lateral]:
                                continue
                            first, last = _reached(z, slope, rows, heights)
                            if first < last:
                                low, high = _touched(z, slope, first, last, heights)
                                i, j, offset = first + PAD_BEFORE, last + PAD_BEFORE, z - slope * PAD_BEFORE
                                put_hats(line, low, high, padded[view, c], i, j, offset, slope)
                                _distribute(volume, across, k, where, low, high, line)


@compiled
def _distribute(volume: Floats, across: bool, k: int, where: float, low: int, high: int, line: Floats) -> None:
    """Add a line to the two neighbouring lines of voxels, by their share."""
    below = math.floor(where)
    share = where - below
    count = volume.shape[0] if across else volume.shape[1]
    for i, weight in ((below, np.float32(1 - share)), (below + 1, np.float32(share))):
        if 0 <= i < count:
            _add(volume[i, k, low:high] if across else volume[k, i, low:high], line[low:high], weight)


@compiled
def _add(into: Floats, values: Floats, weight: np.float32) -> None:
    """Add weight * values; a loop of its own, because only then is it vectorised."""
    for z in range(into.shape[0]):
        into[z] += weight * values[z]


@compiled
def scale_by_length(
    pixels_of_rays: Floats, step: Doubles, row_step: Doubles, to_mm: Doubles, across: Flags, parallel: bool
) -> None:
    """Multiply every pixel by the length in mm of its ray between two planes, in place.

    Parameters
    ----------
    pixels_of_rays : (views, columns, rows) float32
    step : (views, columns, 3) float64
        From the pixel of row 0 to the source.
    row_step : (views,) float64
    to_mm : (3, 3) float64
        From volume indices (first, second, height) to mm.
    across : (views, columns) bool
    """
    for view in range(pixels_of_rays.shape[0]):
        for c in range(pixels_of_rays.shape[1]):
            main = 1 if across[view, c] else 0
            drop = 0.0 if parallel else row_step[view]
            values = pixels_of_rays[view, c]
            for r in range(values.shape[0]):
                values[r] *= np.float32(
                    _length_mm((step[view, c, 0], step[view, c, 1], step[view, c, 2] - r * drop), main, to_mm)
                )


@compiled
def project_rays(
    volume: Floats,
    strides: Integers,
    sizes: Integers,
    out: Floats,
    columns: Doubles,
    row_step: Doubles,
    origins: Doubles,
    to_mm: Doubles,
    parallel: bool,
) -> None:
    """Integrate along every ray of any geometry.

    Parameters
    ----------
    volume : (voxels,) float32
        With a margin of one voxel of zeros on all sides.
    strides, sizes : (3,) int
        Of the volume with its margin, and its sizes without it.
    out : (views, rows, columns) float32
    columns : (views, columns, 3), row_step, origins : (views, 3) float64
        As in `Rays`.
    to_mm : (3, 3) float64
    """
    for view in range(out.shape[0]):
        for r in range(out.shape[1]):
            for c in range(out.shape[2]):
                p, e = _ray(columns, row_step, origins, view, r, c, parallel)
                main = _main_axis(e)
                a, b = _others(main)
                slope_a, slope_b = e[a] / e[main], e[b] / e[main]
                at_a, at_b = p[a] - p[main] * slope_a, p[b] - p[main] * slope_b
                first, last = _planes(p[main], e[main], sizes[main], parallel)
                first, last = _clip(at_a, slope_a, sizes[a], first, last)
                first, last = _clip(at_b, slope_b, sizes[b], first, last)
                total = np.float32(0)
                for k in range(first, last):
                    x, y = at_a + k * slope_a, at_b + k * slope_b
                    if not (-1 < x < sizes[a] and -1 < y < sizes[b]):
                        continue  # the clipped range may be one too long at either end
                    i, j = int(x + 1), int(y + 1)
                    u, v = np.float32(x + 1 - i), np.float32(y + 1 - j)
                    at = (k + 1) * strides[main] + i * strides[a] + j * strides[b]
                    low = volume[at] + v * (volume[at + strides[b]] - volume[at])
                    at += strides[a]
                    high = volume[at] + v * (volume[at + strides[b]] - volume[at])
                    total += low + u * (high - low)
                out[view, r, c] = total * np.float32(_length_mm(e, main, to_mm))


@compiled
def spread_rays(
    volume: Floats,
    strides: Integers,
    sizes: Integers,
    values: Floats,
    main: int,
    columns: Doubles,
    row_step: Doubles,
    origins: Doubles,
    parallel: bool,
    start: int,
    stop: int,
) -> None:
    """Add to the planes start <= k < stop of one axis what the rays along it give them: the transpose of `project_rays`.

    Parameters
    ----------
    values : (views, rows, columns) float32
        Pixels times the length of their rays; zero where another axis is the main one.
    """
    a, b = _others(main)
    for view in range(values.shape[0]):
        for r in range(values.shape[1]):
            for c in range(values.shape[2]):
                value = values[view, r, c]
                if value == 0:
                    continue
                p, e = _ray(columns, row_step, origins, view, r, c, parallel)
                slope_a, slope_b = e[a] / e[main], e[b] / e[main]
                at_a, at_b = p[a] - p[main] * slope_a, p[b] - p[main] * slope_b
                first, last = _planes(p[main], e[main], sizes[main], parallel)
                for k in range(max(first, start), min(last, stop)):
                    x, y = at_a + k * slope_a, at_b + k * slope_b
                    if -1 < x < sizes[a] and -1 < y < sizes[b]:
                        i, j = int(x + 1), int(y + 1)
                        u, v = np.float32(x + 1 - i), np.float32(y + 1 - j)
                        at = (k + 1) * strides[main] + i * strides[a] + j * strides[b]
                        volume[at] += (1 - u) * (1 - v) * value
                        volume[at + strides[b]] += (1 - u) * v * value
                        at += strides[a]
                        volume[at] += u * (1 - v) * value
                        volume[at + strides[b]] += u * v * value


@compiled
def lengths_along(
    out: Floats, main: int, columns: Doubles, row_step: Doubles, origins: Doubles, to_mm: Doubles, parallel: bool
) -> bool:
    """Write every ray's length in mm between two planes of one axis, or zero if another axis is its main one.

    Returns whether there is a ray along this axis.
    """
    found = False
    for view in range(out.shape[0]):
        for r in range(out.shape[1]):
            for c in range(out.shape[2]):
                _, e = _ray(columns, row_step, origins, view, r, c, parallel)
                mine = _main_axis(e) == main
                out[view, r, c] = np.float32(_length_mm(e, main, to_mm)) if mine else np.float32(0)
                found = found or mine
    return found


@compiled
def _ray(
    columns: Doubles, row_step: Doubles, origins: Doubles, view: int, r: int, c: int, parallel: bool
) -> tuple[Triple, Triple]:
    """Return a pixel's position and its step towards the source, as two triples."""
    p = (
        columns[view, c, 0] + r * row_step[view, 0],
        columns[view, c, 1] + r * row_step[view, 1],
        columns[view, c, 2] + r * row_step[view, 2],
    )
    o = (origins[view, 0], origins[view, 1], origins[view, 2])
    return p, (o if parallel else (o[0] - p[0], o[1] - p[1], o[2] - p[2]))


@compiled
def _main_axis(e: Triple) -> int:
    """Return the axis along which a step is longest, the last one of equals."""
    x, y, z = abs(e[0]), abs(e[1]) * _PREFER_1, abs(e[2]) * _PREFER_2
    if x > y and x > z:
        return 0
    return 1 if y > z else 2


@compiled
def _others(axis: int) -> tuple[int, int]:
    """Return the two other axes."""
    return (1 if axis == 0 else 0), (1 if axis == 2 else 2)


@compiled
def _length_mm(e: Triple, main: int, to_mm: Doubles) -> float:
    """Return the length of a ray between two planes."""
    x = to_mm[0, 0] * e[0] + to_mm[0, 1] * e[1] + to_mm[0, 2] * e[2]
    y = to_mm[1, 0] * e[0] + to_mm[1, 1] * e[1] + to_mm[1, 2] * e[2]
    z = to_mm[2, 0] * e[0] + to_mm[2, 1] * e[1] + to_mm[2, 2] * e[2]
    return math.sqrt(x * x + y * y + z * z) / abs(e[main])


@compiled
def _planes(p: float, e: float, size: int, parallel: bool) -> tuple[int, int]:
    """Return the planes, first and last (excluded), between pixel and source; all of them for a parallel beam."""
    if parallel:
        return 0, size
    low, high = min(p, p + e), max(p, p + e)
    first, last = math.floor(max(low, -1.0)) + 1, math.ceil(min(high, float(size)))
    return first, last


@compiled
def _clip(at: float, slope: float, size: int, first: int, last: int) -> tuple[int, int]:
    """Narrow a range of planes to those at which at + slope * k lies within a voxel of the volume, or a little more."""
    if abs(slope) < 1e-12:
        return (first, last) if -1 < at < size else (0, 0)
    low, high = (-1 - at) / slope, (size - at) / slope
    if low > high:
        low, high = high, low
    low, high = max(low, -1.0), min(high, float(last + 1))
    return max(first, math.floor(low)), min(last, math.ceil(high) + 1)
