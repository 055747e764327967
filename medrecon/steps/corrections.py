"""From what the detector read to line integrals, in the usual order; every correction is off unless asked for.

Flat field and logarithm, bad pixels, scatter, beam hardening, rings, and the axis of rotation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medrecon.config import ProjectionConfig
from medrecon.core.errors import GeometryError, UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import ViewGeometry

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
    for step in (_logarithm, _bad_pixels, _scatter, _beam_hardening, _rings, _axis):
        scan, more = step(scan, config)
        notes += more
    return scan, notes


def with_axis_at(views: ViewGeometry, column: float) -> ViewGeometry:
    """Shift the detector along its columns so that the isocentre appears at a column, counted from 0.

    Raises
    ------
    GeometryError
        ``PRJ-GEOM`` for a curved detector.
    """
    if views.is_curved:
        raise GeometryError("PRJ-GEOM", "the axis cannot be shifted on a curved detector", "Correct the geometry in the file.")
    shown, _, _ = views.project(views.isocentre)
    shift_mm = (shown - column)[:, None] * views.detector.pitch_mm[1]
    return replace(views, centres_lps_mm=views.centres_lps_mm + shift_mm * views.u)


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
    if config.axis == "as-read" or (config.axis == "auto" and not scan.views.is_parallel):
        return scan, ()
    columns = scan.views.detector.shape[1]
    if not isinstance(config.axis, str):
        if config.axis > columns - 1:
            raise UsageError("CFG-VALUE", f"projections.axis is column {config.axis:g}, the detector has {columns}.")
        return replace(scan, views=with_axis_at(scan.views, config.axis)), ()
    from medrecon.preprocess.centre_of_rotation import find_axis

    try:
        found = find_axis(scan.pixels, scan.views.angles_rad)
    except GeometryError as error:
        if config.axis == "auto" and error.code == "PRJ-FEW":
            return scan, ()
        raise
    fact = f"the axis of rotation was found at column {found.column:.2f} of {columns}, to {found.spread_px:.2f} pixels"
    numbers = {"column": found.column, "spread_px": found.spread_px, "tilt_deg": float(np.degrees(found.tilt_rad))}
    note = Finding("PRJ-AXIS", Verdict.OK, fact, numbers, hint="Set projections.axis to a column to say otherwise.")
    return replace(scan, views=with_axis_at(scan.views, found.column)), (note,)
