"""The right-handed frames in which scanners are described: u, v and the direction to the source.

A frame is a matrix (n, 3, 3) whose columns are these three unit vectors in LPS, one matrix per view.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medrecon.core import _view_checks as checks
from medrecon.core.grid import Float64

HEAD = (0.0, 0.0, 1.0)


def turned(angles: Float64) -> Float64:
    """Columns u, v and the direction to the source at each angle about +z, (n, 3, 3)."""
    sin, cos, zero = np.sin(angles), np.cos(angles), np.zeros_like(angles)
    u = np.stack([cos, sin, zero], axis=-1)
    to_source = np.stack([sin, -cos, zero], axis=-1)
    return np.stack([u, np.broadcast_to(HEAD, u.shape), to_source], axis=-1)


def c_arm(primary: Float64, secondary: Float64) -> Float64:
    """Columns u, v and the direction to the source for DICOM's positioner angles, (n, 3, 3)."""
    sin_p, cos_p, sin_s, cos_s = np.sin(primary), np.cos(primary), np.sin(secondary), np.cos(secondary)
    to_detector = np.stack([sin_p * cos_s, -cos_p * cos_s, sin_s], axis=-1)
    u = np.stack([cos_p, sin_p, np.zeros_like(primary)], axis=-1)
    return np.stack([u, np.cross(u, to_detector), -to_detector], axis=-1)


def add_up(frame: Float64, along_u: ArrayLike, along_v: ArrayLike, to_source: ArrayLike) -> Float64:
    """Add up multiples of the frame's three vectors, (n, 3)."""
    n = len(frame)
    parts = [checks.per_view(value, n, name) for value, name in ((along_u, "u"), (along_v, "v"), (to_source, "distance"))]
    total: Float64 = np.einsum("kij,kj->ki", frame, np.stack(parts, axis=1))
    return total


def detector_axes(frame: Float64, in_plane: ArrayLike, tilt: ArrayLike, slant: ArrayLike) -> tuple[Float64, Float64]:
    """Turn u and v in the plane (u towards v), then about u, then about v, all within the frame."""
    n = len(frame)
    a, b, c = (
        checks.per_view(value, n, name) for value, name in ((in_plane, "in_plane_rad"), (tilt, "tilt_rad"), (slant, "slant_rad"))
    )
    zero, one = np.zeros(n), np.ones(n)
    in_plane_turn = _matrix([[np.cos(a), -np.sin(a), zero], [np.sin(a), np.cos(a), zero], [zero, zero, one]])
    about_u = _matrix([[one, zero, zero], [zero, np.cos(b), -np.sin(b)], [zero, np.sin(b), np.cos(b)]])
    about_v = _matrix([[np.cos(c), zero, np.sin(c)], [zero, one, zero], [-np.sin(c), zero, np.cos(c)]])
    turned = frame @ about_v @ about_u @ in_plane_turn
    return turned[:, :, 0], turned[:, :, 1]


def _matrix(rows: list[list[Float64]]) -> Float64:
    """Stack entries (n,) into matrices (n, 3, 3)."""
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def slide_along_arc(frame: Float64, arc_mm: ArrayLike, radius_mm: float) -> tuple[Float64, Float64]:
    """Slide a curved detector along its arc: how far its centre moves (n, 3), and the frames at the new centre."""
    angle = (checks.per_view(arc_mm, len(frame), "offset_u_mm") / radius_mm)[:, None]
    u, to_source = frame[:, :, 0], frame[:, :, 2]
    moved = radius_mm * (np.sin(angle) * u + (1 - np.cos(angle)) * to_source)
    turned_u, turned_source = np.cos(angle) * u + np.sin(angle) * to_source, np.cos(angle) * to_source - np.sin(angle) * u
    return moved, np.stack([turned_u, frame[:, :, 1], turned_source], axis=-1)
