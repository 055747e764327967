"""Scans of a phantom that tells every mirror image apart, and files of each format written from its published facts.

Nothing here uses a reader or a writer of the package: bytes are put together with struct, numpy, h5py and pydicom.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrecon.core.projections import ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from tests.makers_xray import Ellipsoids, lettered

SID_MM, SDD_MM = 200.0, 300.0
ROWS, COLUMNS, ROW_PITCH_MM, COLUMN_PITCH_MM = 20, 36, 4.0, 3.0
VIEWS = 8
Float32 = NDArray[np.float32]


def phantom() -> Ellipsoids:
    """R at the right, L at the left, F in front, G behind, a ball at the head: no two mirror images look alike."""
    letters = lettered()
    return replace(letters, densities=0.05 * letters.densities)


def angles_rad(count: int = VIEWS) -> NDArray[np.float64]:
    """Uneven enough to be told from their reverse, over a full turn."""
    angles: NDArray[np.float64] = np.radians(10.0 + 360.0 / count * np.arange(count))
    return angles


def cone_views(**more: float) -> ViewGeometry:
    """A cone beam with oblong pixels on an oblong detector."""
    return ViewGeometry.cone(angles_rad(), SID_MM, SDD_MM, detector(), **more)


def parallel_views(count: int = VIEWS, pitch_mm: float = 2.0) -> ViewGeometry:
    """A parallel beam over half a turn, as at a beamline."""
    return ViewGeometry.parallel(np.pi / count * np.arange(count), Detector((ROWS + 8, COLUMNS), (pitch_mm, pitch_mm)))


def detector() -> Detector:
    """The detector of `cone_views`."""
    return Detector((ROWS, COLUMNS), (ROW_PITCH_MM, COLUMN_PITCH_MM))


def scanned(views: ViewGeometry) -> ProjectionScan:
    """Exact line integrals of the phantom."""
    return ProjectionScan(phantom().project(views), views)


def mismatch(scan: ProjectionScan) -> float:
    """How far the pixels are from what the phantom, standing upright in the patient, looks like in the scan's geometry."""
    return float(np.abs(scan.pixels - phantom().project(scan.views)).max())


def sources(scan: ProjectionScan) -> NDArray[np.float64]:
    """Where the focal spots are, or for a parallel beam the directions from which it comes."""
    views = scan.views
    return np.asarray(-views.towards_detector if views.is_parallel else views.sources_lps_mm)


def mirrored(scan: ProjectionScan) -> ProjectionScan:
    """The same scan with its columns the wrong way round."""
    return replace(scan, pixels=scan.pixels[:, :, ::-1])


def upside_down(scan: ProjectionScan) -> ProjectionScan:
    """The same scan with its rows the wrong way round."""
    return replace(scan, pixels=scan.pixels[:, ::-1])


def write_text(path: Path, text: str) -> Path:
    """Write text and return where."""
    path.write_text(text, encoding="utf-8")
    return path
