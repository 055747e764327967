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


def write_mha(path: Path, pixels: NDArray[np.generic], pitch_mm: tuple[float, float], origin_mm: tuple[float, float]) -> Path:
    """A MetaImage stack, x = columns, y = rows, z = views; `origin_mm` is (x, y) of pixel (0, 0)."""
    views, rows, columns = pixels.shape
    types = {"f4": "MET_FLOAT", "u2": "MET_USHORT"}
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        f"Offset = {origin_mm[0]} {origin_mm[1]} 0\nElementSpacing = {pitch_mm[1]} {pitch_mm[0]} 1\n"
        f"DimSize = {columns} {rows} {views}\nElementType = {types[pixels.dtype.str[1:]]}\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + pixels.tobytes())
    return path


def rtk_xml(gantry_deg: list[float], sid_mm: float = SID_MM, sdd_mm: float = SDD_MM, extra: str = "") -> str:
    """RTK's geometry file as its documentation describes it: common values once, zeros left out, no matrices."""
    views = "".join(f"  <Projection><GantryAngle>{angle!r}</GantryAngle></Projection>\n" for angle in gantry_deg)
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n<RTKThreeDCircularGeometry version="3">\n'
        f"  <SourceToIsocenterDistance>{sid_mm}</SourceToIsocenterDistance>\n"
        f"  <SourceToDetectorDistance>{sdd_mm}</SourceToDetectorDistance>\n{extra}{views}</RTKThreeDCircularGeometry>\n"
    )


def centred_origin_mm() -> tuple[float, float]:
    """(x, y) of pixel (0, 0) of a centred detector."""
    return -(COLUMNS - 1) / 2 * COLUMN_PITCH_MM, -(ROWS - 1) / 2 * ROW_PITCH_MM


def degrees() -> list[float]:
    """The angles of `cone_views` in degrees."""
    return [float(angle) for angle in np.degrees(angles_rad())]
