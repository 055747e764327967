"""Lengths, angles and areas of points in LPS millimetres: plain geometry, without napari and without Qt."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def length_mm(points_lps_mm: ArrayLike) -> float:
    """Return the length of a path through points (n, 3); of two points, their distance."""
    points = np.asarray(points_lps_mm, dtype=np.float64)
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def angle_deg(points_lps_mm: ArrayLike) -> float:
    """Return the angle in degrees, 0 to 180, at the second of three points; not a number where two of them coincide."""
    first, corner, last = np.asarray(points_lps_mm, dtype=np.float64)
    one, other = first - corner, last - corner
    sine, cosine = float(np.linalg.norm(np.cross(one, other))), float(one @ other)
    return float(np.degrees(np.arctan2(sine, cosine))) if one.any() and other.any() else float("nan")


def area_mm2(polygon_lps_mm: ArrayLike) -> float:
    """Return the area of a flat polygon (n, 3), wherever its plane lies; the last point joins the first."""
    points = np.asarray(polygon_lps_mm, dtype=np.float64)
    spokes = points - points[0]
    return float(np.linalg.norm(np.cross(spokes[1:-1], spokes[2:]).sum(axis=0)) / 2)


def ellipse(corners: ArrayLike, points: int = 256) -> Float64:
    """Return a polygon (points, 3) along the ellipse in a rectangle given by its corners (4, 3), with the ellipse's area."""
    box = np.asarray(corners, dtype=np.float64)
    middle, one, other = box.mean(axis=0), (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    turn = np.arange(points) * (2 * np.pi / points)
    wider = np.sqrt(2 * np.pi / points / np.sin(2 * np.pi / points))  # a polygon inside the ellipse would be too small
    outline: Float64 = middle + wider * (np.cos(turn)[:, None] * one + np.sin(turn)[:, None] * other)
    return outline
