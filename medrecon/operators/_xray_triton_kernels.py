"""The kernels of `_xray_triton`."""

from __future__ import annotations

import triton
import triton.language as tl

from medrecon.operators._xray_rays import AXIS_PREFERENCE

_PREFER_1: tl.constexpr = tl.constexpr(AXIS_PREFERENCE[1])
_PREFER_2: tl.constexpr = tl.constexpr(AXIS_PREFERENCE[2])


@triton.jit
def project(
    volume, out, pixels, row_step, origins, to_mm, n0, n1, n2, columns, rows,
    PARALLEL: tl.constexpr, LARGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: a block of rows of one detector column of one view."""
    ray = tl.program_id(0)
    view = ray // columns
    r = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = r.to(tl.float64)
    p0 = tl.load(pixels + ray * 3) + row * tl.load(row_step + view * 3)
    p1 = tl.load(pixels + ray * 3 + 1) + row * tl.load(row_step + view * 3 + 1)
    p2 = tl.load(pixels + ray * 3 + 2) + row * tl.load(row_step + view * 3 + 2)
    e0, e1, e2 = (
        p0 * 0 + tl.load(origins + view * 3),
        p1 * 0 + tl.load(origins + view * 3 + 1),
        p2 * 0 + tl.load(origins + view * 3 + 2),
    )
    if not PARALLEL:
        e0, e1, e2 = e0 - p0, e1 - p1, e2 - p2
    s0, s1, s2 = tl.abs(e0), tl.abs(e1) * _PREFER_1, tl.abs(e2) * _PREFER_2
    main0 = (s0 > s1) & (s0 > s2)
    main1 = (s1 > s2) & ~main0
    # the main axis, and the two others in order
    pm, em = tl.where(main0, p0, tl.where(main1, p1, p2)), tl.where(main0, e0, tl.where(main1, e1, e2))
    pa, ea = tl.where(main0, p1, p0), tl.where(main0, e1, e0)
    pb, eb = tl.where(main0 | main1, p2, p1), tl.where(main0 | main1, e2, e1)
    nm, na, nb = tl.where(main0, n0, tl.where(main1, n1, n2)), tl.where(main0, n1, n0), tl.where(main0 | main1, n2, n1)
    step_a, step_b = ea / em, eb / em
    at_a, at_b = pa - pm * step_a, pb - pm * step_b
    x, y, z = _in_mm(to_mm, e0, e1, e2)
    length = tl.sqrt(x * x + y * y + z * z) / tl.abs(em)
    first, last = tl.zeros_like(nm), nm
    if not PARALLEL:
        low, high = tl.minimum(pm, pm + em), tl.maximum(pm, pm + em)
        first = tl.floor(tl.maximum(low, -1.0)).to(tl.int32) + 1
        last = tl.ceil(tl.minimum(high, nm.to(tl.float64))).to(tl.int32)
    first, last = _narrow(at_a, step_a, na, first, last)
    first, last = _narrow(at_b, step_b, nb, first, last)
    last = tl.where(r < rows, last, 0)
    at_a, at_b, step_a, step_b = at_a.to(tl.float32), at_b.to(tl.float32), step_a.to(tl.float32), step_b.to(tl.float32)
    stride0 = n1 * n2
    if LARGE:
        stride0 = stride0.to(tl.int64)
    stride_m = tl.where(main0, stride0, tl.where(main1, n2, 1))
    stride_a, stride_b = tl.where(main0, n2, stride0), tl.where(main0 | main1, 1, n2)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(tl.min(first), tl.max(last)):
        a, b = at_a + k * step_a, at_b + k * step_b
        i, j = tl.floor(a), tl.floor(b)
        u, v = a - i, b - j
        i, j = i.to(tl.int32), j.to(tl.int32)
        here = (k >= first) & (k < last)
        in_i, in_i1 = here & (i >= 0) & (i < na), here & (i >= -1) & (i + 1 < na)
        in_j, in_j1 = (j >= 0) & (j < nb), (j >= -1) & (j + 1 < nb)
        at = volume + k * stride_m + i * stride_a + j * stride_b
        f00 = tl.load(at, mask=in_i & in_j, other=0.0)
        f01 = tl.load(at + stride_b, mask=in_i & in_j1, other=0.0)
        f10 = tl.load(at + stride_a, mask=in_i1 & in_j, other=0.0)
        f11 = tl.load(at + stride_a + stride_b, mask=in_i1 & in_j1, other=0.0)
        low_side = f00 + v * (f01 - f00)
        total += low_side + u * (f10 + v * (f11 - f10) - low_side)
    place = ray.to(tl.int64) * rows + r
    tl.store(out + place, total * length.to(tl.float32), mask=r < rows)


@triton.jit
def _narrow(at, step, size, first, last):
    """Keep the planes at which at + step * k lies within a voxel of the volume, or one more."""
    flat = tl.abs(step) < 1e-12
    safe = tl.where(flat, 1.0, step)
    x, y = (-1 - at) / safe, (size - at) / safe
    low, high = tl.maximum(tl.minimum(x, y), -1.0), tl.minimum(tl.maximum(x, y), (last + 1).to(tl.float64))
    missed = flat & ((at <= -1) | (at >= size))
    first = tl.where(flat, first, tl.maximum(first, tl.floor(tl.minimum(low, 1e9)).to(tl.int32)))
    last = tl.where(flat, last, tl.minimum(last, tl.ceil(tl.maximum(high, -2.0)).to(tl.int32) + 1))
    return first, tl.where(missed, first, last)


@triton.jit
def _in_mm(to_mm, x, y, z):
    """Turn a step in voxels into mm."""
    return (
        tl.load(to_mm) * x + tl.load(to_mm + 1) * y + tl.load(to_mm + 2) * z,
        tl.load(to_mm + 3) * x + tl.load(to_mm + 4) * y + tl.load(to_mm + 5) * z,
        tl.load(to_mm + 6) * x + tl.load(to_mm + 7) * y + tl.load(to_mm + 8) * z,
    )


@triton.jit
def spread_columns(
    volume, values, tables, maps, found, n1, n2, views, columns, rows, samples, half_width,
    CANDIDATES: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: a block of heights of one voxel column; it sums over all views."""
    column = tl.program_id(0)
    i, j = (column // n1).to(tl.float32), (column % n1).to(tl.float32)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    height = k.to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for view in range(views):
        m = maps + view * 8
        x = tl.load(m) * i + tl.load(m + 1) * j + tl.load(m + 2)
        depth = tl.load(m + 3) * i + tl.load(m + 4) * j + tl.load(m + 5)
        place = (x / depth - tl.load(m + 6)) * tl.load(m + 7)
        low = tl.minimum(tl.maximum(tl.floor(place), 0.0), samples - 2.0)
        left = tl.load(found + view * samples + low.to(tl.int32))
        right = tl.load(found + view * samples + low.to(tl.int32) + 1)
        lowest = tl.ceil(left + (place - low) * (right - left) - half_width).to(tl.int32)
        for candidate in range(CANDIDATES):
            c = lowest + candidate
            inside = (c >= 0) & (c < columns)
            ray = view * columns + tl.where(inside, c, 0)
            t = tables + ray * 9
            across = tl.load(t + 8) > 0.5
            plane, lateral = tl.where(across, j, i), tl.where(across, i, j)
            share = 1 - tl.abs(tl.load(t) + plane * tl.load(t + 1) - lateral)
            counted = inside & (share > 0) & (plane > tl.load(t + 6)) & (plane < tl.load(t + 7))
            start = tl.load(t + 2) + plane * tl.load(t + 3)
            slope = tl.load(t + 4) + plane * tl.load(t + 5)
            slope = tl.where(counted, slope, 1.0)
            share = tl.where(counted, share, 0.0)
            line = values + ray.to(tl.int64) * rows
            nearest = tl.floor((height - 1 - start) / slope).to(tl.int32) + 1
            for tap in range(TAPS):
                r = nearest + tap
                weight = share * tl.maximum(1 - tl.abs(start + slope * r.to(tl.float32) - height), 0.0)
                total += weight * tl.load(line + r, mask=(weight > 0) & (r >= 0) & (r < rows) & (k < n2), other=0.0)
    tl.store(volume + column.to(tl.int64) * n2 + k, total, mask=k < n2)


@triton.jit
def spread_rays(
    volume, values, pixels, row_step, origins, matrices, to_mm, n1, n2, views, columns, rows, half_column, half_row,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr, PARALLEL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: a block of voxels along the last axis; each tries all pixels around its image in all views."""
    line = tl.program_id(0)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    z = k.to(tl.float32)
    x, y = z * 0 + (line // n1).to(tl.float32), z * 0 + (line % n1).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    image = values
    for view in range(views):
        m = matrices + view * 12
        w = tl.load(m + 8) * x + tl.load(m + 9) * y + tl.load(m + 10) * z + tl.load(m + 11)
        column = (tl.load(m) * x + tl.load(m + 1) * y + tl.load(m + 2) * z + tl.load(m + 3)) / w
        row = (tl.load(m + 4) * x + tl.load(m + 5) * y + tl.load(m + 6) * z + tl.load(m + 7)) / w
        first_c, first_r = tl.ceil(column - half_column).to(tl.int32), tl.ceil(row - half_row).to(tl.int32)
        q0, q1, q2 = tl.load(row_step + view * 3), tl.load(row_step + view * 3 + 1), tl.load(row_step + view * 3 + 2)
        o0, o1, o2 = tl.load(origins + view * 3), tl.load(origins + view * 3 + 1), tl.load(origins + view * 3 + 2)
        for dc in range(COLUMNS):
            c = first_c + dc
            in_c = (c >= 0) & (c < columns) & (k < n2)
            place = pixels + (view * columns + c) * 3
            c0, c1, c2 = (
                tl.load(place, mask=in_c, other=1.0),
                tl.load(place + 1, mask=in_c, other=1.0),
                tl.load(place + 2, mask=in_c, other=1.0),
            )
            for dr in range(ROWS):
                r = first_r + dr
                seen = in_c & (r >= 0) & (r < rows)
                height = r.to(tl.float32)
                p0, p1, p2 = c0 + height * q0, c1 + height * q1, c2 + height * q2
                e0, e1, e2 = p0 * 0 + o0, p1 * 0 + o1, p2 * 0 + o2
                if not PARALLEL:
                    e0, e1, e2 = o0 - p0, o1 - p1, o2 - p2
                s0, s1, s2 = tl.abs(e0), tl.abs(e1) * _PREFER_1, tl.abs(e2) * _PREFER_2
                main0 = (s0 > s1) & (s0 > s2)
                main1 = (s1 > s2) & ~main0
                em = tl.where(main0, e0, tl.where(main1, e1, e2))
                t = tl.where(main0, x - p0, tl.where(main1, y - p1, z - p2)) / em
                away0, away1, away2 = tl.abs(p0 + t * e0 - x), tl.abs(p1 + t * e1 - y), tl.abs(p2 + t * e2 - z)
                weight = tl.where(main0, 1.0, tl.maximum(1 - away0, 0.0)) * tl.where(main1, 1.0, tl.maximum(1 - away1, 0.0))
                weight *= tl.where(main0 | main1, tl.maximum(1 - away2, 0.0), 1.0)
                if not PARALLEL:
                    seen = seen & (t > 0) & (t < 1)
                a, b, d = _in_mm(to_mm, e0, e1, e2)
                length = tl.sqrt(a * a + b * b + d * d) / tl.abs(em)
                value = tl.load(image + r * columns + c, mask=seen & (weight > 0), other=0.0)
                total += tl.where(seen, weight * length, 0.0) * value
        image += rows * columns
    tl.store(volume + line.to(tl.int64) * n2 + k, total, mask=k < n2)
