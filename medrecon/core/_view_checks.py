"""What a geometry of views is refused for when it is made.

Each check states what is implausible and with which numbers; none of them repairs anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Float64

_FINEST_PITCH_MM, _COARSEST_PITCH_MM = 1e-6, 100.0
_LONGEST_MM = 20_000.0
_STEEPEST_RAY_DEG = 80.0
_GREATEST_MAGNIFICATION = 1000.0
_FINEST_ANGLE_RAD = 2e-6  # pitch over distance; micro-CT has 3e-5
_MOST_TURNS = 200


def vectors(given: ArrayLike, n: int, name: str) -> Float64:
    """Return finite vectors (n, 3), one vector being repeated for every view."""
    array = np.asarray(given, dtype=np.float64)
    if n < 1:
        raise GeometryError("PRJ-FEW", "there is no view", "A scan needs at least one view.")
    if array.shape not in ((n, 3), (3,), (1, 3)):
        raise GeometryError("PRJ-SHAPE", f"{name} has shape {array.shape}, {n} views need ({n}, 3)")
    if not np.isfinite(array).all():
        raise GeometryError("PRJ-GEOM", f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite")
    repeated: Float64 = np.broadcast_to(array, (n, 3)).copy()
    return repeated


def unit_vectors(given: ArrayLike, n: int, name: str) -> Float64:
    """Return vectors (n, 3) scaled to unit length."""
    array = vectors(given, n, name)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    if not lengths.min() > 0:
        raise GeometryError("PRJ-GEOM", f"{name} has length 0 in view {int(lengths.argmin()) + 1}")
    scaled: Float64 = array / lengths
    return scaled


def point(given: ArrayLike, name: str) -> Float64:
    """Return one finite point (3,)."""
    found: Float64 = vectors(np.asarray(given, dtype=np.float64).reshape(1, -1), 1, name)[0]
    return found


def per_view(given: ArrayLike, n: int, name: str) -> Float64:
    """Return one finite number per view, (n,)."""
    array = np.asarray(given, dtype=np.float64)
    if array.shape not in ((n,), ()):
        raise GeometryError("PRJ-SHAPE", f"{name} has shape {array.shape}, {n} angles need one number or {n}")
    if not np.isfinite(array).all():
        raise GeometryError("PRJ-GEOM", f"{name} holds a value that is not finite")
    return np.array(np.broadcast_to(array, (n,)))


def angles(angles_rad: ArrayLike) -> Float64:
    """Return angles of a circular scan; refuse what can only be degrees: over two turns, or over one in even tenths."""
    array = _angle_list(angles_rad)
    span, tenths = float(np.ptp(array)), array * 10
    if span > 4 * np.pi + 1e-6 or (span > 2 * np.pi + 1e-6 and np.abs(tenths - np.round(tenths)).max() < 1e-6):
        raise GeometryError(
            "PRJ-UNIT",
            f"the angles span {np.ptp(array):.4g}, which is {np.ptp(array) / (2 * np.pi):.1f} turns if they are radians",
            "Convert degrees with numpy.radians; of a scan of many turns pass the angles modulo 2 pi.",
        )
    return array


def unwrapped_angles(angles_rad: ArrayLike) -> Float64:
    """Return angles of a helical scan; refuse what can only be degrees: over 200 turns, or 20 with 30 views each."""
    array = _angle_list(angles_rad)
    step = float(np.median(np.abs(np.diff(array)))) if len(array) > 1 else 0.0
    turns = float(np.ptp(array)) / (2 * np.pi)
    if turns > _MOST_TURNS or (step > 0.2 and turns > 20):
        raise GeometryError(
            "PRJ-UNIT",
            f"steps of {step:.4g} over {turns:.1f} turns are implausible for radians",
            "Convert degrees with numpy.radians.",
        )
    return array


def angles_deg(given_deg: ArrayLike) -> Float64:
    """Return finite angles in degrees; whether they may be radians is judged of the whole scan, by its arc."""
    return _angle_list(given_deg)


def refuse_impossible_detector(shape: tuple[int, ...], pitch_mm: tuple[float, ...], radius_mm: float | None) -> None:
    """Refuse a detector without pixels or with a pitch that no detector has."""
    if len(shape) != 2 or min(shape) < 1:
        raise GeometryError("PRJ-SHAPE", f"a detector needs rows and columns, at least one each, not {list(shape)}")
    if len(pitch_mm) != 2 or not all(_FINEST_PITCH_MM <= p <= _COARSEST_PITCH_MM for p in pitch_mm):
        raise GeometryError("PRJ-GEOM", f"pixel pitches of {list(pitch_mm)} mm are implausible", "Pitches are millimetres.")
    if radius_mm is not None and not (np.isfinite(radius_mm) and radius_mm > 0):
        raise GeometryError("PRJ-GEOM", f"the detector's radius of {radius_mm} mm is not positive")
    if radius_mm is not None and shape[1] * pitch_mm[1] > np.pi * radius_mm:
        raise GeometryError("PRJ-GEOM", f"{shape[1]} columns of {pitch_mm[1]} mm exceed half a cylinder of radius {radius_mm} mm")


def refuse_non_unit(u: Float64, v: Float64, ray_directions: Float64 | None) -> None:
    """Refuse u and v that are not perpendicular unit vectors, and ray directions that are not unit vectors."""
    units = [u, v] if ray_directions is None else [u, v, ray_directions]
    off = max(float(np.abs(np.linalg.norm(vector, axis=1) - 1).max()) for vector in units)
    skew = float(np.abs(np.einsum("ki,ki->k", u, v)).max())
    if off > 1e-6 or skew > 1e-4:
        raise GeometryError(
            "PRJ-GEOM",
            f"u and v are not perpendicular unit vectors (length off by {off:.1e}, cosine {skew:.1e})",
            "ViewGeometry.from_vectors normalises lengths; skew detectors are not supported.",
        )


def refuse_wrong_hand(u: Float64, v: Float64, towards_detector: Float64, left_handed: bool) -> None:
    """Refuse a detector seen from behind, or edge on, unless the mirrored read-out was declared."""
    length = np.linalg.norm(towards_detector, axis=1)
    if not length.min() > 0:
        raise GeometryError("PRJ-GEOM", f"source and detector coincide in view {int(length.argmin()) + 1}")
    facing = np.einsum("ki,ki->k", np.cross(u, v), towards_detector) / length * (-1 if left_handed else 1)
    if np.abs(facing).min() < 1e-3:
        raise GeometryError("PRJ-GEOM", f"the detector is seen edge on in view {int(np.abs(facing).argmin()) + 1}")
    wrong = np.flatnonzero(facing > 0)
    if wrong.size:
        raise GeometryError(
            "PRJ-HAND",
            f"in {wrong.size} of {len(u)} views (first: {int(wrong[0]) + 1}) u, v and the direction to the source are"
            f" {'right' if left_handed else 'left'}-handed",
            "The image would be mirrored: reverse u or v, or declare left_handed=True if the panel is read out that way.",
        )


def refuse_implausible_distances(source_detector_mm: Float64, source_isocentre_mm: Float64 | None) -> None:
    """Refuse distances of zero, in metres, or with the isocentre behind the source or the detector."""
    if source_detector_mm.max() > _LONGEST_MM:
        raise GeometryError("PRJ-GEOM", f"the detector is {source_detector_mm.max():.4g} mm from the source", "Give millimetres.")
    if source_isocentre_mm is None:
        return
    worst = int(np.argmin(np.minimum(source_isocentre_mm, source_detector_mm - source_isocentre_mm)))
    sid, sdd = float(source_isocentre_mm[worst]), float(source_detector_mm[worst])
    if not 0 < sid < sdd:
        raise GeometryError(
            "PRJ-GEOM",
            f"in view {worst + 1} the isocentre is {sid:.4g} mm and the detector {sdd:.4g} mm from the source",
            "The isocentre lies between them: 0 < SID < SDD.",
        )
    greatest = float((source_detector_mm / source_isocentre_mm).max())
    if greatest > _GREATEST_MAGNIFICATION:
        raise GeometryError("PRJ-GEOM", f"the magnification is {greatest:.4g}", "Are both distances in millimetres?")


def refuse_implausible_pixels(
    size_mm: tuple[float, float], pitch_mm: tuple[float, float], piercing_mm: Float64, source_detector_mm: Float64
) -> None:
    """Refuse rays steeper than any scanner's, and pixels so small that the pitch must be in metres."""
    reach = max(size_mm) / 2 + np.abs(piercing_mm).max(axis=1)
    steepest = float(np.degrees(np.arctan(reach / source_detector_mm)).max())
    if steepest > _STEEPEST_RAY_DEG:
        raise GeometryError(
            "PRJ-GEOM",
            f"rays reach {steepest:.1f} degrees from the central ray",
            "Are pitch, offset and distances all millimetres?",
        )
    finest = min(pitch_mm) / float(source_detector_mm.max())
    if finest < _FINEST_ANGLE_RAD:
        raise GeometryError(
            "PRJ-GEOM",
            f"a pitch of {min(pitch_mm):.4g} mm at {source_detector_mm.max():.4g} mm is too fine for any detector",
            "Is the pitch in millimetres?",
        )


def rigid(to_lps_mm: ArrayLike) -> Float64:
    """Return a rigid motion (4, 4); refuse one that stretches, shears or mirrors."""
    motion = np.asarray(to_lps_mm, dtype=np.float64)
    if motion.shape != (4, 4) or not np.isfinite(motion).all() or np.abs(motion[3] - [0, 0, 0, 1]).max() > 1e-9:
        raise GeometryError("PRJ-GEOM", f"a rigid motion is a finite 4x4 matrix, not one of shape {motion.shape}")
    turn = motion[:3, :3]
    off = float(np.abs(turn.T @ turn - np.eye(3)).max())
    if off > 1e-6 or np.linalg.det(turn) < 0:
        raise GeometryError("PRJ-GEOM", f"the motion is not a rotation (off by {off:.1e}, determinant {np.linalg.det(turn):.3f})")
    return motion


def signed_matrices(matrices: ArrayLike, in_front_lps_mm: Float64) -> Float64:
    """Scale projection matrices so that w is the depth in mm, positive for the given point."""
    m = np.asarray(matrices, dtype=np.float64)
    if m.ndim != 3 or m.shape[1:] != (3, 4) or len(m) < 1 or not np.isfinite(m).all():
        raise GeometryError("PRJ-SHAPE", f"projection matrices have shape (n, 3, 4) and are finite; got {m.shape}")
    scale = np.linalg.norm(m[:, 2, :3], axis=1)
    if not scale.min() > 0 or not np.linalg.cond(m[:, :, :3] / scale[:, None, None]).max() < 1e12:
        raise GeometryError("PRJ-GEOM", "a projection matrix is singular, or belongs to a parallel beam")
    m = m / scale[:, None, None]
    depth = m[:, 2, :3] @ in_front_lps_mm + m[:, 2, 3]
    signed: Float64 = m * np.where(depth < 0, -1.0, 1.0)[:, None, None]
    return signed


def distance_of_both(u: Float64, v: Float64, pitch_mm: tuple[float, float]) -> Float64:
    """Return SDD in mm from the lengths of u (pixels per column) and v (per row); they must agree and be perpendicular."""
    by_column, by_row = np.linalg.norm(u, axis=1) * pitch_mm[1], np.linalg.norm(v, axis=1) * pitch_mm[0]
    disagreement = float(np.abs(by_column / by_row - 1).max())
    skew = float(np.abs(np.einsum("ki,ki->k", u, v) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)).max())
    if disagreement > 0.01 or skew > 1e-4:
        raise GeometryError(
            "PRJ-GEOM",
            f"the matrices give source-detector distances that differ by {disagreement:.1%}, skew {skew:.1e}",
            "Check the pixel pitch (row, column).",
        )
    distance: Float64 = (by_column + by_row) / 2
    return distance


def _angle_list(given: ArrayLike) -> Float64:
    array = np.asarray(given, dtype=np.float64)
    if array.ndim != 1:
        raise GeometryError("PRJ-SHAPE", f"angles are a list of numbers, one per view; got shape {array.shape}")
    if not len(array):
        raise GeometryError("PRJ-FEW", "there is no view", "A scan needs at least one view.")
    if not np.isfinite(array).all():
        raise GeometryError("PRJ-GEOM", f"{int((~np.isfinite(array)).sum())} of {len(array)} angles are not finite")
    return array
