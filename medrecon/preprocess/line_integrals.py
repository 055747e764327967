"""What a method needs: line integrals, from whatever a scan measures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from medrecon.core.errors import InputError
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.preprocess.flat_field import flat_field
from medrecon.preprocess.logarithm import attenuation


def to_line_integrals(
    scan: ProjectionScan, open_beam: ArrayLike | None = None, dark: ArrayLike = 0.0, floor: float = 1e-4
) -> ProjectionScan:
    """Turn counts or transmission into line integrals; a scan of line integrals is returned as it is.

    Parameters
    ----------
    scan : ProjectionScan
    open_beam : (rows, columns), (images, rows, columns) or a number, for counts
        What air alone gives.
    dark : the same, without beam
    floor : float
        Smallest transmission that is told from nothing.

    Raises
    ------
    InputError
        ``PRJ-FLAT`` for counts without an open beam.
    """
    if scan.measures is Measured.LINE_INTEGRALS:
        return scan
    pixels, valid = scan.pixels, np.ones(scan.views.detector.shape, dtype=np.bool_)
    if scan.measures is Measured.COUNTS:
        if open_beam is None:
            hint = "Give the counts in air (open_beam=), or projections that are divided by them already."
            raise InputError("PRJ-FLAT", "the scan holds counts, and nothing tells what air alone gives.", hint)
        transmitted = flat_field(pixels, open_beam, dark)
        pixels, valid = transmitted.pixels, transmitted.valid
    values, seen = attenuation(pixels, floor)
    seen = seen & valid
    if scan.measured is not None:
        seen &= scan.measured
    values[~seen] = 0
    return replace(
        scan, pixels=values, measures=Measured.LINE_INTEGRALS, measured=None if seen.all() else np.asarray(seen, dtype=np.bool_)
    )
