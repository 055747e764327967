"""From what the detector read to line integrals, in the usual order; every correction is off unless asked for.

Flat field and logarithm, bad pixels, scatter, beam hardening, rings, the axis of rotation, and how the patient lay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medrecon.config import ProjectionConfig
from medrecon.core.errors import GeometryError, UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.patient_position import between
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import ViewGeometry

if TYPE_CHECKING:
    from medrecon.preprocess.centre_of_rotation import Axis

_PATIENT_POSITION = "00185100"
_FEWEST_WITH_RINGS = 8  # views, in which a stripe can be told from the object
_Step = tuple[ProjectionScan, tuple[Finding, ...]]


def line_integrals_of(scan: ProjectionScan, config: ProjectionConfig) -> _Step:
    """Return the scan as line integrals with everything corrected that was asked for, and notes on what was done.

    Raises
    ------
    InputError
        ``PRJ-FLAT`` for counts without an open beam.
    GeometryError
        ``PRJ-FEW`` where the axis is to be found and no two views look from opposite sides.
    """
    notes: tuple[Finding, ...] = ()
    for step in (_logarithm, _bad_pixels, _scatter, _beam_hardening, _rings, _axis, _position):
        scan, more = step(scan, config)
        notes += more
    return scan, notes


def with_axis_at(views: ViewGeometry, column: float | None = None, tilt_rad: float | None = None) -> ViewGeometry:
    """Shift and turn the detector in its plane so that the axis appears where it was seen.

    Parameters
    ----------
    column : float, optional
        Where it crosses the middle row, counted from 0; as it is where not given.
    tilt_rad : float, optional
        Its angle against the columns, positive to higher columns with growing row; as it is where not given.

    Raises
    ------
    GeometryError
        ``PRJ-GEOM`` for a curved detector.
    """
    if views.is_curved:
        raise GeometryError("PRJ-GEOM", "the axis cannot be moved on a curved detector", "Correct the geometry in the file.")
    shown, crossing_row, _ = views.project(views.isocentre)
    above = views.detector.row_mm(crossing_row)[:, None]
    there = (views.detector.column_mm(shown) if column is None else views.detector.column_mm(np.full(len(views), column)))[
        :, None
    ]
    if tilt_rad is None:
        back = views.detector.column_mm(shown)[:, None] - there
        return replace(views, centres_lps_mm=views.centres_lps_mm + back * views.u)
    on_detector = views.centres_lps_mm + views.detector.column_mm(shown)[:, None] * views.u + above * views.v
    u = np.cos(tilt_rad) * views.u + np.sin(tilt_rad) * views.v
    v = np.cos(tilt_rad) * views.v - np.sin(tilt_rad) * views.u
    centres = on_detector - (there + above * np.tan(tilt_rad)) * u - above * v
    return replace(views, centres_lps_mm=centres, u=u, v=v)


def _logarithm(scan: ProjectionScan, config: ProjectionConfig) -> _Step:
    from medrecon.preprocess.line_integrals import to_line_integrals

    done = to_line_integrals(scan, config.open_beam, config.dark)
    if scan.measures is not Measured.COUNTS or config.open_beam is None:
        return done, ()
    numbers = {"open_beam": config.open_beam, "dark": config.dark}
    fact = f"counts were divided by the open beam of {config.open_beam:g} that the settings give, dark {config.dark:g}"
    return done, (Finding("PRJ-OPEN", Verdict.OK, fact, numbers),)


def _bad_pixels(scan: ProjectionScan, config: ProjectionConfig) -> _Step:
    if not config.bad_pixels:
        return scan, ()
    from medrecon.preprocess.bad_pixels import fill_bad_pixels, find_bad_pixels

    bad = find_bad_pixels(scan.pixels)
    if not bad.any():
        return scan, ()
    measured = np.broadcast_to(~bad, scan.pixels.shape) & (True if scan.measured is None else scan.measured)
    fact = f"{int(bad.sum())} of {bad.size} detector pixels answer unlike their neighbours; they are left out"
    note = Finding("PRJ-BAD", Verdict.OK, fact, {"pixels": int(bad.sum())})
    return replace(scan, pixels=fill_bad_pixels(scan.pixels, bad), measured=measured), (note,)


def _scatter(scan: ProjectionScan, config: ProjectionConfig) -> _Step:
    if not config.scatter:
        return scan, ()
    from medrecon.preprocess.logarithm import attenuation
    from medrecon.preprocess.scatter import subtract_constant_scatter

    primary = subtract_constant_scatter(np.exp(-scan.pixels), config.scatter)
    return replace(scan, pixels=attenuation(primary)[0]), ()


def _beam_hardening(scan: ProjectionScan, config: ProjectionConfig) -> _Step:
    if not config.beam_hardening:
        return scan, ()
    from medrecon.preprocess.beam_hardening import WaterPolynomial

    return replace(scan, pixels=WaterPolynomial(config.beam_hardening)(scan.pixels)), ()


def _rings(scan: ProjectionScan, config: ProjectionConfig) -> _Step:
    if config.rings == "none" or len(scan.views) < _FEWEST_WITH_RINGS:
        return scan, ()
    from medrecon.preprocess.rings import remove_rings

    return replace(scan, pixels=remove_rings(scan.pixels, config.rings, min(21, scan.pixels.shape[2]))), ()


def _axis(scan: ProjectionScan, config: ProjectionConfig) -> _Step:
    wanted = "as-read" if config.axis == "auto" and not scan.views.is_parallel else config.axis
    column = None if isinstance(wanted, str) else wanted
    tilt = None if isinstance(config.tilt_deg, str) else float(np.radians(config.tilt_deg))
    columns = scan.views.detector.shape[1]
    if column is not None and column > columns - 1:
        raise UsageError("CFG-VALUE", f"projections.axis is column {column:g}, the detector has {columns}.")
    notes: tuple[Finding, ...] = ()
    if wanted in ("auto", "find") or config.tilt_deg == "find":
        found = _found(scan, must=wanted == "find" or config.tilt_deg == "find")
        if found is not None:
            column = found.column if wanted in ("auto", "find") else column
            tilt = found.tilt_rad if config.tilt_deg == "find" else tilt
            notes = (_where(found, columns),)
    if column is None and tilt is None:
        return scan, ()
    return replace(scan, views=with_axis_at(scan.views, column, tilt)), notes


def _found(scan: ProjectionScan, must: bool) -> Axis | None:
    """Find the axis; None where no two views look from opposite sides and nothing depends on it."""
    from medrecon.preprocess.centre_of_rotation import find_axis

    try:
        return find_axis(scan.pixels, scan.views.angles_rad)
    except GeometryError as error:
        if error.code == "PRJ-FEW" and not must:
            return None
        raise


def _where(found: Axis, columns: int) -> Finding:
    tilt_deg = float(np.degrees(found.tilt_rad))
    fact = (
        f"the axis of rotation was found at column {found.column:.2f} of {columns}, to {found.spread_px:.2f} pixels,"
        f" leaning by {tilt_deg:.2f} degrees"
    )
    numbers = {"column": found.column, "spread_px": found.spread_px, "tilt_deg": tilt_deg}
    return Finding("PRJ-AXIS", Verdict.OK, fact, numbers, hint="projections.axis and tilt_deg say otherwise.")


def _position(scan: ProjectionScan, config: ProjectionConfig) -> _Step:
    """Turn source and detector to where they were about a patient who lay as the settings say."""
    position = config.patient_position
    if position is None:
        return scan, ()
    before, known = scan.position, tuple(finding for finding in scan.findings if finding.code != "PRJ-POSITION")
    fact = f"the patient lay {position.words}, as the settings say"
    if before in (None, position):
        note = Finding("PRJ-POSITION", Verdict.OK, fact, {"position": str(position)})
    else:
        numbers = {"position": str(position), "in_files": str(before)}
        note = Finding("PRJ-POSITION", Verdict.WARN, f"{fact}; the files say {before.words}", numbers)
    header = {**scan.source.header, _PATIENT_POSITION: {"vr": "CS", "Value": [str(position)]}}
    turned = scan.views.moved(between(before, position))
    source = replace(scan.source, header=header)
    return replace(scan, views=turned, position=position, findings=known, source=source), (note,)
