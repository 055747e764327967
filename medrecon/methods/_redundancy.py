"""How often each ray of a scan was measured, and the weight that makes all its measurements count as one.

Full circle, short scan, displaced detector, and both at once are the same question. A ray at angle phi and distance t
from the axis is the ray at phi + pi and -t seen from the other side; a scan measures one, both or neither. Every ray
gets a confidence c, smooth and falling to 0 towards the ends of the arc and the short side of the detector; its weight
is c over the sum of c of both. So the weights of conjugate rays add up to 1, whatever was measured. For a displaced
detector this is the weight of Wang 2002, Med. Phys. 29, 1634; for a short scan it does what the weight of Parker 1982,
Med. Phys. 9, 254 does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Float64
from medrecon.core.views import ViewGeometry

_SHORT_SCAN_GAP_RAD = np.radians(5)
_SHORT_SCAN_RATIO = 3.0  # a gap that is not this much wider than the next is part of a sparse full turn
_LEAST_CONFIDENCE = 1e-6  # of a ray that was measured: without a conjugate its weight is 1 all the same
_OVERLAP_PER_ASYMMETRY = 8.0  # a detector displaced by a fraction of a pixel must not be weighed over its whole width
_GREATEST_RMS = 0.25  # a short scan of 12 views reaches 0.14 between its views, mirrored weights 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Fans:
    """The rays of every view in the plane across the axis, as angle and distance.

    Parameters
    ----------
    azimuth_rad : (n,)
        Angle of the source about the axis, in [0, 2 pi).
    radius_mm : (n,)
        Distance of the source from the axis; inf for a parallel beam.
    distance_mm : (n, columns)
        Signed distance t of each ray from the axis; the ray's angle is azimuth + pi - asin(t / radius).
    edges_mm : (n, 2)
        Least and greatest t that the detector's outer edges see.
    """

    azimuth_rad: Float64
    radius_mm: Float64
    distance_mm: Float64
    edges_mm: Float64

    @classmethod
    def of(cls, views: ViewGeometry) -> Fans:
        """Take the rays through the detector's middle line."""
        axis, columns = views.axis, views.detector.shape[1]
        points = views.column_points_lps_mm(np.concatenate([[-0.5], np.arange(columns), [columns - 0.5]]))
        if views.sources_lps_mm is None:
            rays, start = np.asarray(views.ray_directions)[:, None], points
            to_source, radius = -np.asarray(views.ray_directions), np.full(len(views), np.inf)
        else:
            start = views.sources_lps_mm[:, None]
            rays, to_source = points - start, views.sources_lps_mm - views.isocentre
            radius = np.linalg.norm(to_source - np.outer(to_source @ axis, axis), axis=1)
        across = np.cross(rays, axis)
        across = across / np.linalg.norm(across, axis=-1, keepdims=True)
        distance = ((start - views.isocentre) * across).sum(axis=-1)
        edges = np.sort(distance[:, [0, -1]], axis=1)
        return cls(_azimuth(to_source, axis), radius, distance[:, 1:-1], edges)

    @property
    def half_fan_rad(self) -> float:
        """Greatest angle between a ray and the line from its source to the axis."""
        return float(np.arcsin(np.minimum(np.abs(self.edges_mm).max(axis=1) / self.radius_mm, 1)).max())


@dataclass(frozen=True, slots=True)
class Arc:
    """The angles that the views cover, each view standing for the middle of one step.

    Parameters
    ----------
    start_rad, length_rad : float
        From the first view less half a step, to the last and half a step.
    """

    start_rad: float
    length_rad: float

    @property
    def is_full(self) -> bool:
        """Whether the views go all the way around."""
        return self.length_rad >= 2 * np.pi - 1e-9

    def inside(self, azimuth_rad: Float64) -> Float64:
        """Distance of angles from the nearer end of the arc; negative outside, inf in a full turn."""
        if self.is_full:
            return np.full(np.shape(azimuth_rad), np.inf)
        past = np.mod(azimuth_rad - self.start_rad + 1e-9, 2 * np.pi) - 1e-9
        return np.asarray(np.minimum(past, self.length_rad - past))


@dataclass(frozen=True, slots=True)
class RedundancyCheck:
    """Numbers that say whether the weights do what they should.

    Parameters
    ----------
    worst, rms : float
        Distance from 1 of the sum of the weights of conjugate rays, looked up in the table of weights.
    unseen_share : float
        Share of the rays within the field of view, over half a turn, that were never measured.
    arc_deg : float
    """

    worst: float
    rms: float
    unseen_share: float
    arc_deg: float


def angular_steps(azimuth_rad: Float64) -> tuple[Float64, Arc]:
    """Return the angle that each view stands for, and the arc of all views.

    A view stands for half the gap to either neighbour. One gap much wider than all others, and wider than 20 degrees, is
    not part of the scan; the views on its two sides stand for as much there as on their other side.
    """
    if len(azimuth_rad) < 3:
        raise GeometryError(
            "PRJ-FEW", f"{len(azimuth_rad)} view(s) are too few for filtered back projection", "Use an iterative method."
        )
    order = np.argsort(azimuth_rad, kind="stable")
    angles = azimuth_rad[order]
    after = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    before = np.roll(after, 1)
    arc = Arc(0.0, 2 * np.pi)
    widest = int(np.argmax(after))
    if after[widest] > max(_SHORT_SCAN_GAP_RAD, _SHORT_SCAN_RATIO * np.delete(after, widest).max()):
        first = (widest + 1) % len(angles)
        length = 2 * np.pi - after[widest] + (before[widest] + after[first]) / 2
        arc = Arc(float(np.mod(angles[first] - after[first] / 2, 2 * np.pi)), float(min(length, 2 * np.pi)))
        after[widest], before[first] = before[widest], after[first]
    steps = np.empty_like(after)
    steps[order] = (before + after) / 2
    return steps, arc


def frame_about(axis: Float64) -> Float64:
    """Two directions across the axis, from the first of which angles count towards the second, and the axis; (3, 3)."""
    first = np.eye(3)[int(np.argmin(np.abs(axis)))]
    first = first - (first @ axis) * axis
    first = first / np.linalg.norm(first)
    return np.stack([first, np.cross(axis, first), axis])


def redundancy_weights(fans: Fans, arc: Arc) -> Float64:
    """Return the weight of every ray, (n, columns); those of conjugate rays add up to 1."""
    own = _confidence(fans, arc, fans.azimuth_rad[:, None], fans.distance_mm)
    other = _confidence(fans, arc, *_conjugate(fans, fans.azimuth_rad[:, None], fans.distance_mm))
    weights: Float64 = own / np.maximum(own + other, _LEAST_CONFIDENCE)
    return weights


def check_redundancy(fans: Fans, arc: Arc, weights: Float64) -> RedundancyCheck:
    """Add up the weights of conjugate rays as they stand in the table, and find the rays that nobody measured.

    The conjugate of a ray falls between two views and two columns, where the table is interpolated linearly; so the sum
    is 1 only up to the curvature of the weights between samples.
    """
    chosen = np.unique(np.linspace(0, fans.distance_mm.shape[1] - 1, 65).astype(int))
    t = fans.distance_mm[:, chosen]
    azimuth, distance = _conjugate(fans, fans.azimuth_rad[:, None], t)
    other = _looked_up(fans, weights, azimuth, distance)
    measured = _measured(fans, arc, azimuth, distance)
    away = np.abs(weights[:, chosen] + np.where(measured, other, 0) - 1)
    return RedundancyCheck(
        float(away.max()), float(np.sqrt((away**2).mean())), _unseen_share(fans, arc), float(np.degrees(arc.length_rad))
    )


def refuse_unbalanced(check: RedundancyCheck) -> None:
    """Refuse weights that do not add up: the views do not turn about one axis as the weights assume."""
    if check.rms > _GREATEST_RMS:
        raise GeometryError(
            "PRJ-WEIGHTS",
            f"the weights of conjugate rays add up to 1 only within {check.rms:.2f} (rms, worst {check.worst:.2f})",
            "The views do not turn about one axis, or the isocentre is wrong. Use an iterative method.",
        )


def _azimuth(directions: Float64, axis: Float64) -> Float64:
    """Angle of directions about the axis, in [0, 2 pi)."""
    first, second, _ = frame_about(axis)
    angles: Float64 = np.mod(np.arctan2(directions @ second, directions @ first), 2 * np.pi)
    return angles


def _conjugate(fans: Fans, azimuth: Float64, distance: Float64) -> tuple[Float64, Float64]:
    """Where the source stands that sees each ray from the other side, and the ray's distance there."""
    radius = float(np.median(fans.radius_mm))
    fan = np.arcsin(np.clip(distance / radius, -1, 1))
    return np.mod(azimuth + np.pi - 2 * fan, 2 * np.pi), -distance


def _confidence(fans: Fans, arc: Arc, azimuth: Float64, distance: Float64) -> Float64:
    """Smooth, from 0 where a ray is not measured to 1 far from every edge."""
    overlap = np.clip(arc.length_rad - np.pi + 2 * fans.half_fan_rad, 0, arc.length_rad / 2)
    along_arc = _rise(arc.inside(azimuth), overlap)
    low, high = _edges_at(fans, azimuth)
    reach = np.maximum(np.minimum(-low, high), 0)
    width = np.minimum(2 * reach, _OVERLAP_PER_ASYMMETRY * np.abs(high + low))
    from_short_side = np.where(-low < high, distance - low, high - distance)
    across = _rise(from_short_side, width)
    confidence = np.maximum(along_arc * across, _LEAST_CONFIDENCE)
    return np.where(_measured(fans, arc, azimuth, distance), confidence, 0.0)


def _measured(fans: Fans, arc: Arc, azimuth: Float64, distance: Float64) -> np.ndarray:
    low, high = _edges_at(fans, azimuth)
    return np.asarray((distance >= low) & (distance <= high) & (arc.inside(azimuth) >= 0))


def _rise(x: Float64, width: Float64 | float) -> Float64:
    """sin^2 from 0 at 0 to 1 at `width`; 1 everywhere where there is no width."""
    share = np.divide(x, width, out=np.ones(np.broadcast_shapes(np.shape(x), np.shape(width))), where=np.asarray(width) > 0)
    return np.asarray(np.sin(np.pi / 2 * np.clip(share, 0, 1)) ** 2)


def _edges_at(fans: Fans, azimuth: Float64) -> tuple[Float64, Float64]:
    """Interpolate what the detector's edges see between the views."""
    low, high = (np.interp(azimuth, fans.azimuth_rad, edge, period=2 * np.pi) for edge in fans.edges_mm.T)
    return low, high


def _looked_up(fans: Fans, weights: Float64, azimuth: Float64, distance: Float64) -> Float64:
    """Interpolate the table of weights at rays between its views and columns."""
    order = np.argsort(fans.azimuth_rad, kind="stable")
    angles = fans.azimuth_rad[order]
    after = np.searchsorted(angles, azimuth) % len(angles)
    before = after - 1
    gap = np.mod(angles[after] - angles[before], 2 * np.pi)
    share = np.clip(np.mod(azimuth - angles[before], 2 * np.pi) / np.maximum(gap, 1e-12), 0, 1)
    near = gap < _SHORT_SCAN_GAP_RAD  # across the open gap of a short scan the nearer view alone counts
    share = np.where(near, share, np.round(share))
    values = [_in_view(fans, weights, order[k], distance) for k in (before, after)]
    return np.asarray((1 - share) * values[0] + share * values[1])


def _in_view(fans: Fans, weights: Float64, view: np.ndarray, distance: Float64) -> Float64:
    """Interpolate each view's weights at a distance; constant beyond the outermost columns."""
    t = fans.distance_mm
    columns = t.shape[1]
    pitch = (t[:, -1] - t[:, 0]) / max(columns - 1, 1)
    guess = np.clip((distance - t[view, 0]) / pitch[view], 0, columns - 1)
    for _ in range(3):  # the distance grows almost evenly with the column
        low = np.minimum(guess.astype(int), columns - 2)
        guess = np.clip(low + (distance - t[view, low]) / (t[view, low + 1] - t[view, low]), 0, columns - 1)
    low = np.minimum(guess.astype(int), columns - 2)
    share = guess - low
    return np.asarray((1 - share) * weights[view, low] + share * weights[view, low + 1])


def _unseen_share(fans: Fans, arc: Arc) -> float:
    reach = float(np.abs(fans.edges_mm).max(axis=1).mean()) * (1 - 1e-6)
    azimuth, distance = np.meshgrid(np.linspace(0, 2 * np.pi, 360, endpoint=False), np.linspace(-reach, reach, 65), indexing="ij")
    seen = _measured(fans, arc, azimuth, distance)
    seen |= _measured(fans, arc, *_conjugate(fans, azimuth, distance))
    return float(1 - seen.mean())
