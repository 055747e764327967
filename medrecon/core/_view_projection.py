"""Where a point appears on the detector: the perspective and the parallel case, on a plane and on a cylinder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medrecon.core.grid import Float64

if TYPE_CHECKING:
    from medrecon.core.views import ViewGeometry


def project(views: ViewGeometry, points_lps_mm: Float64) -> tuple[Float64, Float64, Float64]:
    """Return column, row and depth in mm of points (..., 3), each (n, ...)."""
    flat = points_lps_mm.reshape(-1, 3)
    start, along = _rays(views, flat)
    u_mm, v_mm = (
        _meet_plane(views, start, along) if views.detector.curve_radius_mm is None else _meet_cylinder(views, start, along)
    )
    origin = views.centres_lps_mm if views.sources_lps_mm is None else views.sources_lps_mm
    depth = _dot(flat[None] - origin[:, None], views.normals[:, None])
    shape = (len(views), *points_lps_mm.shape[:-1])
    detector = views.detector
    return detector.column_index(u_mm).reshape(shape), detector.row_index(v_mm).reshape(shape), depth.reshape(shape)


def matrices(views: ViewGeometry) -> Float64:
    """Return the projection matrices (n, 3, 4) of a flat detector; w is the depth in mm, or 1 for a parallel beam."""
    n = views.normals
    last = np.zeros((len(views), 4))
    if views.sources_lps_mm is None:
        last[:, 3] = 1
        origin, scale, piercing = views.centres_lps_mm, np.ones(len(views)), np.zeros((len(views), 2))
        axes = [oblique(views, views.u), oblique(views, views.v)]
    else:
        last[:, :3], last[:, 3] = n, -_dot(n, views.sources_lps_mm)
        origin, scale, piercing = views.sources_lps_mm, views.source_detector_mm, views.piercing_mm
        axes = [views.u, views.v]
    result = np.empty((len(views), 3, 4))
    for k in (0, 1):  # the column follows u, the row follows v
        pitch, count = views.detector.pitch_mm[1 - k], views.detector.shape[1 - k]
        result[:, k, :3] = scale[:, None] * axes[k] / pitch
        result[:, k, 3] = -scale * _dot(axes[k], origin) / pitch
        result[:, k] += (piercing[:, k] / pitch + (count - 1) / 2)[:, None] * last
    result[:, 2] = last
    return result


def _rays(views: ViewGeometry, points: Float64) -> tuple[Float64, Float64]:
    """Return a point on the ray through each point, and the direction of that ray, each (n, points, 3)."""
    if views.sources_lps_mm is None:
        directions = np.asarray(views.ray_directions)[:, None]
        return np.broadcast_to(points, (len(views), *points.shape)), np.broadcast_to(directions, (len(views), *points.shape))
    start = np.broadcast_to(views.sources_lps_mm[:, None], (len(views), *points.shape))
    return start, points[None] - start


def _meet_plane(views: ViewGeometry, start: Float64, along: Float64) -> tuple[Float64, Float64]:
    """Meet the detector's plane; points level with the source have no image (inf or nan)."""
    normals = views.normals[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = _dot(views.centres_lps_mm[:, None] - start, normals) / _dot(along, normals)
        hit = start + share[..., None] * along - views.centres_lps_mm[:, None]
    return _dot(hit, views.u[:, None]), _dot(hit, views.v[:, None])


def _meet_cylinder(views: ViewGeometry, start: Float64, along: Float64) -> tuple[Float64, Float64]:
    """Meet the cylinder whose axis, parallel to v, runs through ``centre - radius * normal``, on its far side."""
    radius = float(views.detector.curve_radius_mm or 0.0)
    focus = views.centres_lps_mm - radius * views.normals
    frame = np.stack([views.u, views.normals, views.v], axis=1)
    p, d = (np.einsum("kji,kpi->kpj", frame, vectors) for vectors in (start - focus[:, None], along))
    a, b, c = (d[..., :2] ** 2).sum(-1), (p[..., :2] * d[..., :2]).sum(-1), (p[..., :2] ** 2).sum(-1) - radius**2
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = p + ((-b + np.sqrt(b * b - a * c)) / a)[..., None] * d
    return radius * np.arctan2(hit[..., 0], hit[..., 1]), hit[..., 2]


def oblique(views: ViewGeometry, vector: Float64) -> Float64:
    """Return the covector that reads a detector coordinate off a point by sliding it along the ray."""
    rays, normals = np.asarray(views.ray_directions), views.normals
    oblique: Float64 = vector - (_dot(rays, vector) / _dot(rays, normals))[:, None] * normals
    return oblique


def _dot(a: Float64, b: Float64) -> Float64:
    """Inner product along the last axis."""
    products: Float64 = (a * b).sum(axis=-1)
    return products
