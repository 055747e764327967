"""Views in the words of other programs: ASTRA's vectors, TIGRE's and LEAP's parameters. Numbers only.

All of them turn about z and have u, v and the direction to the source right-handed, as we have; their x, y and z are
taken as LPS. ASTRA's angle is ours; TIGRE's and LEAP's is ours less 90 degrees. RTK has a module of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Float64
from medrecon.core.views import Detector, ViewGeometry

_CLOSE_MM = 1e-6


def views_to_astra(views: ViewGeometry) -> tuple[str, Float64]:
    """Return ASTRA's name of the geometry and its vectors.

    Returns
    -------
    kind : str
        ``cone_vec``, ``cyl_cone_vec`` or ``parallel3d_vec``. The detector has (rows, columns) as ours, and the
        projections are (row, view, column) there.
    vectors : (n, 12), or (n, 13) with the radius of a curved detector
        Source (or ray direction), detector centre, step from column to column, step from row to row; mm.
    """
    if views.sources_lps_mm is None and views.is_curved:
        raise GeometryError("PRJ-EXPORT", "ASTRA has no parallel beam on a curved detector")
    start = views.sources_lps_mm if views.ray_directions is None else -views.ray_directions  # ASTRA's rays run to the source
    row_mm, column_mm = views.detector.pitch_mm
    parts = [np.asarray(start), views.centres_lps_mm, column_mm * views.u, row_mm * views.v]
    if views.detector.curve_radius_mm is None:
        return ("parallel3d_vec" if views.is_parallel else "cone_vec"), np.hstack(parts)
    radius = np.full((len(views), 1), views.detector.curve_radius_mm)
    return "cyl_cone_vec", np.hstack([*parts, radius])


def views_from_astra(
    kind: str, vectors: ArrayLike, detector_shape: tuple[int, int], isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0)
) -> ViewGeometry:
    """Turn ASTRA's vectors, in mm, into views.

    Parameters
    ----------
    kind : str
        ``cone_vec``, ``cyl_cone_vec`` or ``parallel3d_vec``.
    vectors : (n, 12) or (n, 13)
        With one pixel pitch and one radius for all views.
    detector_shape : (rows, columns)
    isocentre_lps_mm : (3,)
        ASTRA's vectors do not tell it.

    Notes
    -----
    To ASTRA a ray and its reverse are the same. Here each runs towards the side from which u and v are right-handed, so
    that a mirrored parallel beam cannot be told from a true one.
    """
    widths = {"cone_vec": 12, "cyl_cone_vec": 13, "parallel3d_vec": 12}
    table = np.asarray(vectors, dtype=np.float64)
    if kind not in widths or table.ndim != 2 or table.shape[1] != widths[kind] or not len(table):
        raise GeometryError("PRJ-SHAPE", f"vectors of shape {table.shape} are none of ASTRA's {', '.join(widths)}")
    start, centres, u, v = (table[:, 3 * k : 3 * k + 3] for k in range(4))
    pitch = _one(np.linalg.norm(v, axis=1), "row pitch"), _one(np.linalg.norm(u, axis=1), "column pitch")
    detector = Detector(detector_shape, pitch, _one(table[:, 12], "radius") if kind == "cyl_cone_vec" else None)
    parallel = kind == "parallel3d_vec"
    if parallel:
        start = start * -np.sign(np.einsum("ki,ki->k", np.cross(u, v), start))[:, None]
    return ViewGeometry.from_vectors(
        None if parallel else start,
        centres,
        u,
        v,
        detector,
        ray_directions=start if parallel else None,
        isocentre_lps_mm=isocentre_lps_mm,
    )


@dataclass(frozen=True, eq=False)
class TigreParameters:
    """TIGRE's description of a circular or helical scan.

    Parameters
    ----------
    angles_rad : (n,)
    source_origin_mm, source_detector_mm : (n,)
        ``DSO`` and ``DSD``.
    detector_shape, pitch_mm : (V, U)
        ``nDetector`` and ``dDetector``.
    detector_offset_mm : (n, 2)
        ``offDetector``, (V, U).
    image_offset_mm : (n, 3)
        ``offOrigin``, (z, y, x): where the centre of the image lies; a helix moves it.
    parallel : bool
        ``mode`` is ``parallel``.
    """

    angles_rad: Float64
    source_origin_mm: Float64
    source_detector_mm: Float64
    detector_shape: tuple[int, int]
    pitch_mm: tuple[float, float]
    detector_offset_mm: Float64
    image_offset_mm: Float64
    parallel: bool = False


def views_to_tigre(views: ViewGeometry, image_centre_lps_mm: ArrayLike | None = None) -> TigreParameters:
    """Express views in TIGRE's parameters.

    Parameters
    ----------
    views : ViewGeometry
        Turning about z, with an upright flat detector and the source opposite to it.
    image_centre_lps_mm : (3,), optional
        Centre of the volume; the isocentre where not given.

    Raises
    ------
    GeometryError
        ``PRJ-EXPORT`` for curved, tilted or mirrored detectors and for shifted sources.
    """
    frame = _upright_frame(views, "TIGRE")
    image = views.isocentre if image_centre_lps_mm is None else np.asarray(image_centre_lps_mm, dtype=np.float64)
    n, start = len(views), np.zeros((len(views), 3))
    if views.sources_lps_mm is not None:
        start[:, 2] = views.sources_lps_mm[:, 2] - views.isocentre[2]
        aside = np.einsum("ki,ki->k", views.sources_lps_mm - views.isocentre, views.u)
        if np.abs(aside).max() > _CLOSE_MM:
            raise GeometryError("PRJ-EXPORT", f"the source is shifted by {np.abs(aside).max():.4g} mm, TIGRE cannot say that")
    centre = np.einsum("kia,ki->ka", frame, views.centres_lps_mm - views.isocentre - start)
    sid = np.full(n, 1000.0) if views.is_parallel else views.source_isocentre_mm
    sdd = sid - centre[:, 2] if not views.is_parallel else np.full(n, 2000.0)
    return TigreParameters(
        np.mod(views.angles_rad - np.pi / 2, 2 * np.pi),
        sid,
        sdd,
        views.detector.shape,
        views.detector.pitch_mm,
        centre[:, [1, 0]],
        (image - views.isocentre - start)[:, ::-1],
        views.is_parallel,
    )


def views_from_tigre(parameters: TigreParameters, image_centre_lps_mm: ArrayLike = (0.0, 0.0, 0.0)) -> ViewGeometry:
    """Turn TIGRE's parameters into views, for an image whose centre stands at `image_centre_lps_mm`."""
    detector = Detector(parameters.detector_shape, parameters.pitch_mm)
    isocentres = np.asarray(image_centre_lps_mm, dtype=np.float64) - parameters.image_offset_mm[:, ::-1]
    angles = np.mod(parameters.angles_rad + np.pi / 2, 2 * np.pi)
    along_v, along_u = parameters.detector_offset_mm.T
    if parameters.parallel:
        return ViewGeometry.parallel(
            angles, detector, offset_u_mm=along_u, offset_v_mm=along_v, isocentre_lps_mm=_only(isocentres)
        )
    return ViewGeometry.cone(
        angles,
        parameters.source_origin_mm,
        parameters.source_detector_mm,
        detector,
        offset_u_mm=along_u,
        offset_v_mm=along_v,
        isocentre_lps_mm=isocentres,
    )


@dataclass(frozen=True, eq=False)
class LeapModularBeam:
    """The arguments of LEAP's ``set_modularbeam``; it serves every flat, diverging geometry.

    Parameters
    ----------
    rows, columns : int
    pixel_height_mm, pixel_width_mm : float
    source_positions, module_centers, row_vectors, col_vectors : (n, 3) float32
        In mm; the row vector points to growing rows.
    """

    rows: int
    columns: int
    pixel_height_mm: float
    pixel_width_mm: float
    source_positions: ArrayLike
    module_centers: ArrayLike
    row_vectors: ArrayLike
    col_vectors: ArrayLike


@dataclass(frozen=True, eq=False)
class LeapConeBeam:
    """The arguments of LEAP's ``set_conebeam`` without helix, and whether ``set_curvedDetector`` follows.

    Parameters
    ----------
    rows, columns : int
    pixel_height_mm, pixel_width_mm : float
    center_row, center_col : float
        Pixel index that the central ray meets.
    phis_deg : (n,)
    sod_mm, sdd_mm, tau_mm : float
        `tau_mm` moves source and detector against u.
    curved : bool
        The detector is focused on the source.
    """

    rows: int
    columns: int
    pixel_height_mm: float
    pixel_width_mm: float
    center_row: float
    center_col: float
    phis_deg: Float64
    sod_mm: float
    sdd_mm: float
    tau_mm: float = 0.0
    curved: bool = False


def views_to_leap(views: ViewGeometry) -> LeapModularBeam:
    """Express views of a diverging beam on a flat detector in LEAP's modular beam.

    Raises
    ------
    GeometryError
        ``PRJ-EXPORT`` for a parallel beam or a curved detector, see `views_to_leap_cone`.
    """
    if views.is_parallel or views.is_curved:
        raise GeometryError("PRJ-EXPORT", "LEAP's modular beam diverges and has a flat detector")
    arrays = (np.asarray(a, np.float32) for a in (views.sources_lps_mm, views.centres_lps_mm, views.v, views.u))
    return LeapModularBeam(*views.detector.shape, *views.detector.pitch_mm, *arrays)


def views_from_leap(beam: LeapModularBeam, isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0)) -> ViewGeometry:
    """Turn LEAP's modular beam into views."""
    detector = Detector((beam.rows, beam.columns), (beam.pixel_height_mm, beam.pixel_width_mm))
    return ViewGeometry.from_vectors(
        beam.source_positions,
        beam.module_centers,
        beam.col_vectors,
        _perpendicular(beam.row_vectors, beam.col_vectors),
        detector,
        isocentre_lps_mm=isocentre_lps_mm,
    )


def views_to_leap_cone(views: ViewGeometry) -> LeapConeBeam:
    """Express a circular scan about z through the isocentre in LEAP's cone beam.

    Raises
    ------
    GeometryError
        ``PRJ-EXPORT`` where distances or offsets differ between views, or the detector is tilted, or curved about
        anything but the source.
    """
    frame = _upright_frame(views, "LEAP", curved=True)
    if views.sources_lps_mm is None:
        raise GeometryError("PRJ-EXPORT", "a parallel beam is no cone beam")
    detector, arc = views.detector, np.zeros(len(views))
    source, centre = views.sources_lps_mm - views.isocentre, views.centres_lps_mm - views.isocentre
    if detector.curve_radius_mm is not None:
        frame, centre, arc = _about_source(views, detector.curve_radius_mm)
    source, centre = (np.einsum("kia,ki->ka", frame, points) for points in (source, centre))
    sod, sdd = _one(source[:, 2], "source distance"), _one(source[:, 2] - centre[:, 2], "detector distance")
    aside, up = _one(source[:, 0], "source offset"), _one(source[:, 1], "source height")
    along_u, along_v = _one(centre[:, 0] - aside + arc, "offset along u"), _one(centre[:, 1] - up, "offset along v")
    if abs(up) > _CLOSE_MM:
        raise GeometryError("PRJ-EXPORT", f"the source is {up:.4g} mm above the isocentre, LEAP's cone beam has it level")
    (row_mm, column_mm), (rows, columns) = detector.pitch_mm, detector.shape
    return LeapConeBeam(
        rows,
        columns,
        row_mm,
        column_mm,
        (rows - 1) / 2 - along_v / row_mm,
        (columns - 1) / 2 - along_u / column_mm,
        np.mod(np.degrees(np.arctan2(frame[:, 1, 2], frame[:, 0, 2])), 360.0),
        sod,
        sdd,
        -aside,
        views.is_curved,
    )


def views_from_leap_cone(beam: LeapConeBeam, isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0)) -> ViewGeometry:
    """Turn LEAP's cone beam into views."""
    radius = beam.sdd_mm if beam.curved else None
    detector = Detector((beam.rows, beam.columns), (beam.pixel_height_mm, beam.pixel_width_mm), radius)
    phis = np.radians(np.mod(np.asarray(beam.phis_deg, dtype=np.float64), 360.0))
    views = ViewGeometry.cone(
        phis + np.pi / 2,
        beam.sod_mm,
        beam.sdd_mm,
        detector,
        offset_u_mm=float(-detector.column_mm(beam.center_col)),
        offset_v_mm=float(-detector.row_mm(beam.center_row)),
        isocentre_lps_mm=isocentre_lps_mm,
    )
    aside = -beam.tau_mm * np.stack([-np.sin(phis), np.cos(phis), np.zeros_like(phis)], axis=1)
    return replace(views, sources_lps_mm=np.asarray(views.sources_lps_mm) + aside, centres_lps_mm=views.centres_lps_mm + aside)


def _about_source(views: ViewGeometry, radius: float) -> tuple[Float64, Float64, Float64]:
    """Frames whose central ray meets the isocentre, the point where it meets the detector, and the arc to its middle."""
    source = np.asarray(views.sources_lps_mm)
    if np.linalg.norm(np.cross(views.centres_lps_mm - radius * views.normals - source, views.v), axis=1).max() > _CLOSE_MM:
        raise GeometryError("PRJ-EXPORT", "LEAP's curved detector is focused on the source, this one is not")
    to_source = source - views.isocentre
    to_source = to_source - np.einsum("ki,ki->k", to_source, views.v)[:, None] * views.v
    to_source /= np.linalg.norm(to_source, axis=1, keepdims=True)
    u = np.cross(-to_source, views.v)
    arc = radius * np.arctan2(np.einsum("ki,ki->k", views.normals, u), -np.einsum("ki,ki->k", views.normals, to_source))
    height = np.einsum("ki,ki->k", views.centres_lps_mm - source, views.v)[:, None] * views.v
    centre = source - radius * to_source + height - views.isocentre
    return np.stack([u, views.v, to_source], axis=2), centre, arc


def _upright_frame(views: ViewGeometry, program: str, curved: bool = False) -> Float64:
    """Columns u, v and the direction to the source; refuse what does not turn upright about z."""
    upright = np.abs(views.v - [0, 0, 1]).max() < _CLOSE_MM and not views.left_handed
    if views.sources_lps_mm is None:
        upright = upright and bool(np.abs(np.asarray(views.ray_directions) - views.normals).max() < _CLOSE_MM)
    if not upright or (views.is_curved and not curved):
        raise GeometryError("PRJ-EXPORT", f"{program} needs an upright{'' if curved else ', flat'} detector that turns about z")
    return np.stack([views.u, views.v, -views.normals], axis=2)


def _one(values: Float64, what: str) -> float:
    """Return the value that all views share."""
    if np.ptp(values) > _CLOSE_MM * max(1.0, float(np.abs(values).max())):
        raise GeometryError("PRJ-EXPORT", f"the {what} differs between views, from {values.min():.6g} to {values.max():.6g}")
    return float(values[0])


def _only(points: Float64) -> Float64:
    """Return the point that all views share."""
    if np.ptp(points, axis=0).max() > _CLOSE_MM:
        raise GeometryError("PRJ-EXPORT", "a parallel beam whose image moves between views is not supported")
    first: Float64 = points[0]
    return first


def _perpendicular(vectors: ArrayLike, to: ArrayLike) -> Float64:
    """Take off what rounding to float32 left along `to`."""
    v, u = np.asarray(vectors, dtype=np.float64), np.asarray(to, dtype=np.float64)
    straight: Float64 = v - (v * u).sum(axis=1, keepdims=True) / (u * u).sum(axis=1, keepdims=True) * u
    return straight
