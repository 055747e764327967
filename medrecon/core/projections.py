"""What was measured by X-rays: detector images that know where source and detector stood.

A `ProjectionScan` holds line integrals or counts and the `ViewGeometry` of every view. Nothing here assumes a circle,
equal angles or a flat detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import GeometryError
from medrecon.core.findings import Finding, Verdict, judge
from medrecon.core.patient_position import PatientPosition
from medrecon.core.source import Source
from medrecon.core.views import ViewGeometry

_SHORTEST_ARC_RAD = np.pi * (1 - 1e-3)
_RADIANS_OF_A_SCAN = (0.97 * np.pi, 1.03 * 2 * np.pi)  # half a turn to a whole one; no scanner turns by so few degrees
_MANY_VIEWS = 90  # that nobody takes over fewer degrees than that
_FEWEST_OF_NEEDED = 0.25  # of the views that sample the field of view fully; below it streaks are seen
_LARGEST_LINE_INTEGRAL = 20.0  # exp(-20) is one photon in half a billion
_EDGE_COLUMNS = 3
_TRUNCATED_ABOVE = 0.02  # of the largest line integral
_TRUNCATED_VIEWS = 0.05


class Measured(StrEnum):
    """What a detector value means."""

    LINE_INTEGRALS = "line_integrals"
    """Attenuation summed along the ray, without unit: -log of the transmission."""
    TRANSMISSION = "transmission"
    """Intensity relative to the open beam, 1 for air."""
    COUNTS = "counts"
    """Raw detector values, before flat and dark field."""


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionScan:
    """Detector images and their geometry, as measured.

    Parameters
    ----------
    pixels : (views, rows, columns) float32
        Made contiguous and read-only.
    views : ViewGeometry
    measures : Measured
    measured : (views, rows, columns) bool, optional
        False where a pixel holds no measurement: dead, saturated, collimated. None means all were measured.
    findings : tuple of Finding
    allowed : tuple of str
        The laxness under which the scan was read.
    source : Source
    position : PatientPosition, optional
        How the patient lay, for which `views` is right. None where nothing tells: then the views are those of head first,
        supine.

    Raises
    ------
    GeometryError
        ``PRJ-SHAPE`` where pixels or mask do not have the geometry's shape.
    """

    pixels: NDArray[np.float32]
    views: ViewGeometry
    measures: Measured = Measured.LINE_INTEGRALS
    measured: NDArray[np.bool_] | None = None
    findings: tuple[Finding, ...] = ()
    allowed: tuple[str, ...] = ()
    source: Source = field(default_factory=Source)
    position: PatientPosition | None = None

    def __post_init__(self) -> None:
        pixels = np.ascontiguousarray(self.pixels, dtype=np.float32).view()
        pixels.flags.writeable = False
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "measures", Measured(self.measures))
        for name, array in (("pixels", pixels), ("measured", self.measured)):
            if array is not None and array.shape != self.views.shape:
                raise GeometryError(
                    "PRJ-SHAPE",
                    f"{name} are {' x '.join(map(str, array.shape))}, the geometry has {len(self.views)} views of"
                    f" {self.views.detector.shape[0]} rows and {self.views.detector.shape[1]} columns",
                )

    @property
    def verdict(self) -> Verdict:
        """The verdict over all findings under the given allowances."""
        return judge(self.findings, self.allowed)

    def take(self, which: ArrayLike) -> ProjectionScan:
        """Return the chosen views, in that order, with their instances."""
        chosen = np.asarray(which)
        instances = self.source.instances
        if len(instances) == len(self.views):
            instances = tuple(instances[int(k)] for k in chosen)
        return replace(
            self,
            pixels=self.pixels[chosen],
            views=self.views.take(chosen),
            measured=None if self.measured is None else self.measured[chosen],
            source=replace(self.source, instances=instances),
        )


def judge_arc(views: ViewGeometry) -> tuple[Finding, ...]:
    """Warn where the views do not reach around half a turn: shapes along the unseen directions are then not known.

    An arc of as many degrees as a scan has radians is refused unless ``tiny-arc`` is allowed.
    """
    arc = covered_arc_rad(views)
    if arc >= _SHORTEST_ARC_RAD:
        return ()
    fact = f"{len(views)} views span {np.degrees(arc):.1f} degrees, a volume needs 180 and the fan angle: limited angle"
    hint = "Analytic methods will streak; use an iterative method, and do not measure along the unseen direction."
    few = Finding("PRJ-FEW", Verdict.WARN, fact, {"arc_deg": float(np.degrees(arc)), "views": len(views)}, hint=hint)
    return (*_judge_unit(float(np.degrees(arc)), len(views)), few)


def _judge_unit(arc_deg: float, views: int) -> tuple[Finding, ...]:
    """Refuse an arc in degrees that is one of a scan in radians."""
    least, most = _RADIANS_OF_A_SCAN
    if views < 3 or not (least if views < _MANY_VIEWS else 0.1) < arc_deg < most:
        return ()
    fact = f"{views} views span {arc_deg:.2f} degrees; as radians that would be {arc_deg / (2 * np.pi):.2f} of a turn"
    hint = "Give the angles in the unit that the file declares."
    return (Finding("PRJ-UNIT", Verdict.REFUSED, fact, {"arc_deg": arc_deg, "views": views}, hint=hint, allow="tiny-arc"),)


def judge_sampling(views: ViewGeometry) -> tuple[Finding, ...]:
    """Warn where the views are so far apart that streaks between them are as wide as many voxels.

    Full sampling of a field of view that is n columns wide takes n pi / 2 views a turn (Crowther 1970, Proc. R. Soc.
    Lond. A 317, 319).
    """
    turns = max(covered_arc_rad(views) / (2 * np.pi), 1e-6)
    needed = views.detector.shape[1] * np.pi / 2
    if len(views) / turns >= _FEWEST_OF_NEEDED * needed:
        return ()
    fact = f"{len(views)} views; {round(needed * turns)} would sample the field of view fully: streaks between views"
    hint = "Use the preset cbct-sparse-view, or larger voxels; filtered back projection streaks."
    return (Finding("PRJ-SPARSE", Verdict.WARN, fact, {"views": len(views), "needed": round(needed * turns)}, hint=hint),)


def judge_line_integrals(scan: ProjectionScan) -> tuple[Finding, ...]:
    """Find line integrals of nothing, of more than X-rays can pass, and rows that end inside the object."""
    largest, smallest = float(scan.pixels.max()), float(scan.pixels.min())
    if largest - smallest < 1e-6 * max(abs(largest), 1.0):
        fact = f"every line integral is {largest:.4g}: there is nothing to reconstruct"
        return (Finding("PRJ-EMPTY", Verdict.REFUSED, fact, {"value": largest}, hint="Are these the projections of the scan?"),)
    found = []
    if largest > _LARGEST_LINE_INTEGRAL:
        fact = f"the largest line integral is {largest:.4g}: no X-rays pass more than {_LARGEST_LINE_INTEGRAL:g}"
        hint = "Are these counts, or another unit? Say so in the scan's file, else the scale is wrong."
        found.append(Finding("PRJ-SCALE", Verdict.WARN, fact, {"largest": largest}, hint=hint))
    return (*found, *_judge_truncation(scan.pixels, largest))


def _judge_truncation(pixels: NDArray[np.float32], largest: float) -> tuple[Finding, ...]:
    edges = (np.abs(pixels[:, :, columns]).mean(axis=(1, 2)) for columns in (np.s_[:_EDGE_COLUMNS], np.s_[-_EDGE_COLUMNS:]))
    cut = np.logical_or(*(edge > _TRUNCATED_ABOVE * largest for edge in edges))
    share = float(cut.mean())
    if share <= _TRUNCATED_VIEWS:
        return ()
    fact = f"in {share:.0%} of the views the object reaches beyond the detector: values near the rim are inferred"
    hint = "Do not read values near the rim of the field of view; a level shift of the whole is possible."
    return (Finding("PRJ-TRUNCATED", Verdict.WARN, fact, {"views_share": share}, hint=hint),)


def without_impossible_values(scan: ProjectionScan) -> tuple[ProjectionScan, tuple[Finding, ...]]:
    """Return the scan with 0 where nothing was measured, and values that cannot be measurements found and marked so."""
    if scan.measured is not None:
        scan = replace(scan, pixels=np.where(scan.measured, scan.pixels, np.float32(0)))
    found = judge_values(scan.pixels, scan.measures)
    if not found:
        return scan, ()
    usable = np.isfinite(scan.pixels)
    if scan.measures is not Measured.LINE_INTEGRALS:
        usable &= scan.pixels >= 0
    if scan.measured is not None:
        usable &= scan.measured
    return replace(scan, pixels=np.where(usable, scan.pixels, np.float32(0)), measured=np.asarray(usable, dtype=np.bool_)), found


def covered_arc_rad(views: ViewGeometry) -> float:
    """Return the arc that the views span: a full turn less the widest gap between neighbouring views, plus one step."""
    to_source = -views.towards_detector
    to_source = to_source - np.outer(to_source @ views.axis, views.axis)
    first = to_source[0] / np.linalg.norm(to_source[0])
    angles = np.sort(np.mod(np.arctan2(to_source @ np.cross(views.axis, first), to_source @ first), 2 * np.pi))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    step = float(np.median(gaps)) if len(views) > 2 else 0.0
    return float(min(2 * np.pi, 2 * np.pi - gaps.max() + step))


def judge_values(pixels: NDArray[np.float32], measures: Measured, saturation: float | None = None) -> tuple[Finding, ...]:
    """Find values that cannot be measurements.

    Parameters
    ----------
    pixels : (views, rows, columns)
    measures : Measured
        Counts and transmissions are not negative; line integrals may be, a little, by noise.
    saturation : float, optional
        The detector's largest value; a row of a view that is saturated throughout is found.
    """
    impossible = ~np.isfinite(pixels)
    if measures is not Measured.LINE_INTEGRALS:
        impossible |= pixels < 0
    found = [_values_finding(impossible, "values are not finite or negative")] if impossible.any() else []
    if saturation is not None:
        rows = np.asarray((pixels >= saturation).all(axis=2, keepdims=True))
        if rows.any():
            found.append(_values_finding(rows & np.ones_like(impossible), "values lie in saturated rows"))
    return tuple(found)


def _values_finding(where: NDArray[np.bool_], what: str) -> Finding:
    views = np.flatnonzero(where.any(axis=(1, 2)))
    fact = f"{int(where.sum())} {what}, in {len(views)} of {len(where)} views (first: {int(views[0]) + 1})"
    numbers = {"count": int(where.sum()), "views": len(views), "first_view": int(views[0]) + 1}
    return Finding("PRJ-VALUE", Verdict.REFUSED, fact, numbers, allow="bad-pixels")
