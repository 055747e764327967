"""Compiled loops of the FDK back projection on the CPU; see `_xray_cpu_kernels` for what they have in common."""

from __future__ import annotations

import math

import numpy as np

from medrecon.operators._xray_cpu_kernels import PAD_AFTER, PAD_BEFORE, TABLE_MARGIN, Doubles, Floats, add_lerp, compiled

PARALLEL, FLAT, CURVED = 0, 1, 2
_HEIGHTS = 16  # floats in a cache line
_PATCH = 16  # voxel columns in each direction that are worked on together, so that they stay in the cache


@compiled
def backproject_columns(
    volume: Floats,
    padded: Floats,
    beam: int,
    frames: Doubles,
    distances: Doubles,
    piercing: Doubles,
    heights: Doubles,
    pitch: Doubles,
    weights: Doubles,
    start: int,
    stop: int,
) -> None:
    """Add to the voxel columns start <= i < stop of the first axis what all views give them.

    Parameters
    ----------
    volume : (first, second, heights) float32
        In any order in memory: a patch of it is worked on with the height innermost, then added.
    padded : (views, 1 + columns + 1, PAD_BEFORE + rows + PAD_AFTER) float32
        Filtered projections with zeros around.
    beam : int
        PARALLEL, FLAT or CURVED.
    frames, distances, piercing, heights, pitch
        As in `DetectorTables`, frames in the order of the volume's axes.
    weights : (views,) float64
    """
    patch = np.empty((_PATCH, _PATCH, volume.shape[2]), np.float32)
    line = np.zeros(padded.shape[2] + TABLE_MARGIN, np.float32)
    for i in range(start, stop, _PATCH):
        for j in range(0, volume.shape[1], _PATCH):
            here = patch[: min(_PATCH, stop - i), : min(_PATCH, volume.shape[1] - j)]
            here[:] = 0
            for view in range(padded.shape[0]):
                shift = heights[view] if beam == CURVED else piercing[view, 1]
                place = (beam, frames[view], distances[view], piercing[view], shift, pitch)
                _backproject_patch(here, padded[view], line, i, j, place, weights[view])
            _add_patch(volume[i : i + here.shape[0], j : j + here.shape[1]], here)


@compiled
def _backproject_patch(
    patch: Floats,
    pixels: Floats,
    line: Floats,
    first_i: int,
    first_j: int,
    place: tuple[int, Doubles, float, Doubles, float, Doubles],
    weight: float,
) -> None:
    """Add one view to the voxel columns from (first_i, first_j) on."""
    beam, frame, distance, piercing, shift, pitch = place
    columns, rows = pixels.shape[0] - 2, pixels.shape[1] - PAD_BEFORE - PAD_AFTER
    for i in range(first_i, first_i + patch.shape[0]):
        for j in range(first_j, first_j + patch.shape[1]):
            x = frame[0, 0] * i + frame[0, 1] * j + frame[0, 3]
            depth = frame[1, 0] * i + frame[1, 1] * j + frame[1, 3]
            u, grown, share = _place(beam, x, depth, distance, piercing)
            column = u / pitch[1] + (columns - 1) / 2
            if grown <= 0 or not -1 < column < columns:
                continue
            v = frame[2, 3] + frame[2, 0] * i + frame[2, 1] * j
            row = (grown * v + shift) / pitch[0] + (rows - 1) / 2
            slope = grown * frame[2, 2] / pitch[0]
            first, last = _seen(row, slope, rows, patch.shape[2])
            if first < last:
                low, high = _needed(row, slope, first, last, rows)
                _join(line, pixels, column, low, high, weight * share)
                add_lerp(patch[i - first_i, j - first_j], first, last, line, row + PAD_BEFORE, slope)


@compiled
def _add_patch(volume: Floats, patch: Floats) -> None:
    """Add a patch, a few heights at a time, so that lines of either order in memory are used while they are in the cache."""
    for i in range(patch.shape[0]):
        for low in range(0, patch.shape[2], _HEIGHTS):
            for k in range(low, min(low + _HEIGHTS, patch.shape[2])):
                for j in range(patch.shape[1]):
                    volume[i, j, k] += patch[i, j, k]


@compiled
def backproject_voxels(
    volume: Floats,
    padded: Floats,
    beam: int,
    frames: Doubles,
    distances: Doubles,
    piercing: Doubles,
    heights: Doubles,
    pitch: Doubles,
    weights: Doubles,
    start: int,
    stop: int,
) -> None:
    """Do the same voxel by voxel, for any orientation of detector and volume."""
    columns, rows = padded.shape[1] - 2, padded.shape[2] - PAD_BEFORE - PAD_AFTER
    for i in range(start, stop):
        for view in range(padded.shape[0]):
            a, pixels = frames[view], padded[view]
            for j in range(volume.shape[1]):
                for k in range(volume.shape[2]):
                    x = a[0, 0] * i + a[0, 1] * j + a[0, 2] * k + a[0, 3]
                    depth = a[1, 0] * i + a[1, 1] * j + a[1, 2] * k + a[1, 3]
                    v = a[2, 0] * i + a[2, 1] * j + a[2, 2] * k + a[2, 3]
                    u, grown, share = _place(beam, x, depth, distances[view], piercing[view])
                    column = u / pitch[1] + (columns - 1) / 2
                    shift = heights[view] if beam == CURVED else piercing[view, 1]
                    row = (grown * v + shift) / pitch[0] + (rows - 1) / 2
                    if grown > 0 and -1 < column < columns and -1 < row < rows:
                        c, r = int(column + 1), int(row + 1)
                        s, t = np.float32(column + 1 - c), np.float32(row + 1 - r)
                        r += PAD_BEFORE - 1
                        left = pixels[c, r] + t * (pixels[c, r + 1] - pixels[c, r])
                        right = pixels[c + 1, r] + t * (pixels[c + 1, r + 1] - pixels[c + 1, r])
                        volume[i, j, k] += np.float32(weights[view] * share) * (left + s * (right - left))


@compiled
def _place(beam: int, x: float, depth: float, distance: float, piercing: Doubles) -> tuple[float, float, float]:
    """Return u in mm from the detector's centre, how much v grows up to it (0: not seen), and the weight of distance."""
    if beam == PARALLEL:
        return x, 1.0, 1.0
    if depth <= 0:
        return 0.0, 0.0, 0.0
    if beam == FLAT:
        grown = distance / depth
        return grown * x + piercing[0], grown, 1 / (depth * depth)
    a, b = x * x + depth * depth, x * piercing[0] + depth * piercing[1]
    root = b * b - a * (piercing[0] * piercing[0] + piercing[1] * piercing[1] - distance * distance)
    if root < 0:
        return 0.0, 0.0, 0.0
    grown = (math.sqrt(root) - b) / a
    return distance * math.atan2(piercing[0] + grown * x, piercing[1] + grown * depth), grown, 1 / a


@compiled
def _seen(row: float, slope: float, rows: int, heights: int) -> tuple[int, int]:
    """Return the voxels, first and last (excluded), whose row lies within one pixel of the detector."""
    return max(0, math.ceil((-1 - row) / slope)), min(heights, math.floor((rows - row) / slope) + 1)


@compiled
def _needed(row: float, slope: float, first: int, last: int, rows: int) -> tuple[int, int]:
    """Return the pixels, first and last (excluded, zeros beside the detector included), that those voxels look up."""
    low = max(-1, math.floor(row + slope * first) - 1)
    return low, min(rows + 2, math.floor(row + slope * (last - 1)) + 3)


@compiled
def _join(line: Floats, pixels: Floats, column: float, low: int, high: int, weight: float) -> None:
    """Write the weighted mix of two neighbouring detector columns."""
    c = int(column + 1)
    share = column + 1 - c
    part = slice(PAD_BEFORE + low, PAD_BEFORE + high)
    _mix(line[part], pixels[c, part], pixels[c + 1, part], np.float32(weight * (1 - share)), np.float32(weight * share))


@compiled
def _mix(into: Floats, a: Floats, b: Floats, left: np.float32, right: np.float32) -> None:
    """Write left * a + right * b; a loop of its own, because only then is it vectorised."""
    for k in range(into.shape[0]):
        into[k] = left * a[k] + right * b[k]
