"""Where source and detector stand, view by view: the geometry of a `ProjectionScan` without its pixels.

Every kind of scanner, parallel, fan, cone, helical or C-arm, curved detector or flat, ends in one form: per view a
source (or a ray direction), the centre of the detector and the directions of its columns and rows, in LPS mm. The
operators see nothing else. Pixel ``(row, column)`` is centred at ``(index - (count - 1) / 2) * pitch`` from the centre
of the detector, everywhere and for every constructor.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from medrecon.core import _view_checks as checks
from medrecon.core import _view_frames as frames
from medrecon.core import _view_projection as projection
from medrecon.core.errors import GeometryError
from medrecon.core.grid import Float64


@dataclass(frozen=True, slots=True)
class Detector:
    """The pixels of a detector: how many, how far apart, on a plane or on a cylinder.

    Parameters
    ----------
    shape : (rows, columns)
    pitch_mm : (row, column)
        Distance between neighbouring rows and between neighbouring columns, at the detector; along the arc where it
        is curved.
    curve_radius_mm : float, optional
        Radius of the cylinder on which the columns lie. Its axis is parallel to the columns' direction `v` and lies on
        the source's side; with the source on that axis all columns see it under equal angles. None for a flat panel.
    """

    shape: tuple[int, int]
    pitch_mm: tuple[float, float]
    curve_radius_mm: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "pitch_mm", tuple(float(p) for p in self.pitch_mm))
        checks.refuse_impossible_detector(self.shape, self.pitch_mm, self.curve_radius_mm)

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of the detector, from outer edge to outer edge."""
        return self.shape[0] * self.pitch_mm[0], self.shape[1] * self.pitch_mm[1]

    def row_mm(self, row: ArrayLike) -> Float64:
        """Distance of a row index from the detector's centre, along v."""
        return (np.asarray(row, dtype=np.float64) - (self.shape[0] - 1) / 2) * self.pitch_mm[0]

    def column_mm(self, column: ArrayLike) -> Float64:
        """Distance of a column index from the detector's centre, along u, or along the arc."""
        return (np.asarray(column, dtype=np.float64) - (self.shape[1] - 1) / 2) * self.pitch_mm[1]

    def row_index(self, v_mm: ArrayLike) -> Float64:
        """Fractional row at a distance along v from the detector's centre."""
        return np.asarray(v_mm, dtype=np.float64) / self.pitch_mm[0] + (self.shape[0] - 1) / 2

    def column_index(self, u_mm: ArrayLike) -> Float64:
        """Fractional column at a distance along u (or the arc) from the detector's centre."""
        return np.asarray(u_mm, dtype=np.float64) / self.pitch_mm[1] + (self.shape[1] - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class ViewGeometry:
    """Source and detector of every view, in LPS mm.

    Parameters
    ----------
    centres_lps_mm : (n, 3)
        Centre of the detector.
    u, v : (n, 3)
        Unit vectors of growing column index and growing row index.
    detector : Detector
    sources_lps_mm : (n, 3), optional
        The focal spot, for diverging beams.
    ray_directions : (n, 3), optional
        Unit vectors from source to detector, for parallel beams. Exactly one of the two is given.
    isocentre_lps_mm : (3,), optional
        Where the scanner turns about. Without it, the point nearest to all central rays.
    left_handed : bool
        That u, v and the direction towards the source form a left-handed triple: the image is read out mirrored. It
        has to be said, because a left-handed geometry is usually a mistake that yields a perfectly sharp mirror image.

    Raises
    ------
    GeometryError
        ``PRJ-SHAPE`` for arrays that do not fit each other, ``PRJ-HAND`` for the wrong handedness, ``PRJ-FEW`` for no
        view, ``PRJ-GEOM`` for what cannot be a scanner.
    """

    centres_lps_mm: Float64
    u: Float64
    v: Float64
    detector: Detector
    sources_lps_mm: Float64 | None = None
    ray_directions: Float64 | None = None
    isocentre_lps_mm: Float64 | None = None
    left_handed: bool = False

    def __post_init__(self) -> None:
        if (self.sources_lps_mm is None) == (self.ray_directions is None):
            raise GeometryError("PRJ-GEOM", "views need either sources (diverging beam) or ray directions (parallel beam)")
        for name in ("centres_lps_mm", "u", "v", "sources_lps_mm", "ray_directions"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _frozen(checks.vectors(given, len(self.centres_lps_mm), name)))
        checks.refuse_non_unit(self.u, self.v, self.ray_directions)
        checks.refuse_wrong_hand(self.u, self.v, self.towards_detector, self.left_handed)
        given = self.isocentre_lps_mm
        isocentre = self._nearest_to_rays() if given is None else checks.point(given, "isocentre_lps_mm")
        object.__setattr__(self, "isocentre_lps_mm", _frozen(isocentre))
        if not self.is_parallel:
            checks.refuse_implausible_distances(self.source_detector_mm, None if given is None else self.source_isocentre_mm)
            checks.refuse_implausible_pixels(
                self.detector.size_mm, self.detector.pitch_mm, self.piercing_mm, self.source_detector_mm
            )

    def __len__(self) -> int:
        return len(self.centres_lps_mm)

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), tuple(getattr(self, name) for name in self.__dataclass_fields__)

    # -- constructors ------------------------------------------------------------------------------------------------

    @classmethod
    def cone(
        cls,
        angles_rad: ArrayLike,
        sid_mm: ArrayLike,
        sdd_mm: ArrayLike,
        detector: Detector,
        *,
        offset_u_mm: ArrayLike = 0.0,
        offset_v_mm: ArrayLike = 0.0,
        source_offset_u_mm: ArrayLike = 0.0,
        source_offset_v_mm: ArrayLike = 0.0,
        in_plane_rad: ArrayLike = 0.0,
        tilt_rad: ArrayLike = 0.0,
        slant_rad: ArrayLike = 0.0,
        isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0),
    ) -> Self:
        """Turn source and detector about the patient's long axis (+z).

        At angle 0 the source is in front of the patient (-y), columns grow to the patient's left, rows to the head; a
        positive angle moves the source to the patient's left. This is the gantry angle of IEC 61217 for a patient
        lying head first, supine.

        Parameters
        ----------
        angles_rad : (n,)
            In any order and at any distances.
        sid_mm, sdd_mm : float or (n,)
            Source to axis, source to detector.
        detector : Detector
        offset_u_mm, offset_v_mm : float or (n,)
            Where the detector's centre lies, measured from the central ray; u along the arc of a curved detector.
        source_offset_u_mm, source_offset_v_mm : float or (n,)
            Shift of the focal spot along u and v; the detector stays.
        in_plane_rad, tilt_rad, slant_rad : float or (n,)
            Turn the detector about its centre: in its plane (u towards v), about u, about v.
        isocentre_lps_mm : (3,) or (n, 3)
            Point on the axis; one per view where the table moves.
        """
        angles = checks.angles(angles_rad)
        frame = frames.turned(angles)
        sid, sdd = (checks.per_view(value, len(angles), name) for value, name in ((sid_mm, "sid_mm"), (sdd_mm, "sdd_mm")))
        shift = frames.add_up(frame, source_offset_u_mm, source_offset_v_mm, sid)
        if detector.curve_radius_mm is None:
            centre = frames.add_up(frame, offset_u_mm, offset_v_mm, sid - sdd)
        else:
            centre = frames.add_up(frame, 0.0, offset_v_mm, sid - sdd)
            along_arc, frame = frames.slide_along_arc(frame, offset_u_mm, detector.curve_radius_mm)
            centre += along_arc
        u, v = frames.detector_axes(frame, in_plane_rad, tilt_rad, slant_rad)
        isocentre = np.broadcast_to(np.asarray(isocentre_lps_mm, dtype=np.float64), (len(angles), 3))
        return cls(isocentre + centre, u, v, detector, isocentre + shift, isocentre_lps_mm=isocentre.mean(axis=0))

    @classmethod
    def fan(
        cls,
        angles_rad: ArrayLike,
        sid_mm: ArrayLike,
        sdd_mm: ArrayLike,
        columns: int,
        pitch_mm: float,
        *,
        row_pitch_mm: float = 1.0,
        curve_radius_mm: float | None = None,
        offset_u_mm: ArrayLike = 0.0,
        source_offset_u_mm: ArrayLike = 0.0,
        isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0),
    ) -> Self:
        """Build a cone of a single row: a fan in the plane of the isocentre."""
        detector = Detector((1, columns), (row_pitch_mm, pitch_mm), curve_radius_mm)
        return cls.cone(
            angles_rad,
            sid_mm,
            sdd_mm,
            detector,
            offset_u_mm=offset_u_mm,
            source_offset_u_mm=source_offset_u_mm,
            isocentre_lps_mm=isocentre_lps_mm,
        )

    @classmethod
    def helical(
        cls,
        angles_rad: ArrayLike,
        sid_mm: ArrayLike,
        sdd_mm: ArrayLike,
        detector: Detector,
        *,
        pitch_mm_per_turn: float,
        z0_mm: float = 0.0,
        offset_u_mm: ArrayLike = 0.0,
        offset_v_mm: ArrayLike = 0.0,
        source_offset_u_mm: ArrayLike = 0.0,
        source_offset_v_mm: ArrayLike = 0.0,
        axis_lps_mm: tuple[float, float] = (0.0, 0.0),
    ) -> Self:
        """Turn as `cone` does while source and detector move along +z by `pitch_mm_per_turn` each turn.

        Parameters
        ----------
        angles_rad : (n,)
            Unwrapped: they grow (or fall) beyond a turn.
        z0_mm : float
            Height of the source at the first angle.
        axis_lps_mm : (x, y)
            Where the axis stands.
        """
        angles = checks.unwrapped_angles(angles_rad)
        z = z0_mm + (angles - angles[0]) / (2 * np.pi) * pitch_mm_per_turn
        axis = np.column_stack([np.full(len(z), axis_lps_mm[0]), np.full(len(z), axis_lps_mm[1]), z])
        return cls.cone(
            np.mod(angles, 2 * np.pi),
            sid_mm,
            sdd_mm,
            detector,
            offset_u_mm=offset_u_mm,
            offset_v_mm=offset_v_mm,
            source_offset_u_mm=source_offset_u_mm,
            source_offset_v_mm=source_offset_v_mm,
            isocentre_lps_mm=axis,
        )

    @classmethod
    def parallel(
        cls,
        angles_rad: ArrayLike,
        detector: Detector,
        *,
        offset_u_mm: ArrayLike = 0.0,
        offset_v_mm: ArrayLike = 0.0,
        in_plane_rad: ArrayLike = 0.0,
        tilt_rad: ArrayLike = 0.0,
        slant_rad: ArrayLike = 0.0,
        isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0),
    ) -> Self:
        """Turn a parallel beam about +z, with the angles of `cone`; the detector's centre is level with the axis."""
        angles = checks.angles(angles_rad)
        frame = frames.turned(angles)
        u, v = frames.detector_axes(frame, in_plane_rad, tilt_rad, slant_rad)
        isocentre = checks.point(isocentre_lps_mm, "isocentre_lps_mm")
        centre = isocentre + frames.add_up(frame, offset_u_mm, offset_v_mm, 0.0)
        return cls(centre, u, v, detector, ray_directions=-frame[:, :, 2], isocentre_lps_mm=isocentre)

    @classmethod
    def c_arm(
        cls,
        primary_deg: ArrayLike,
        secondary_deg: ArrayLike,
        sid_mm: ArrayLike,
        sdd_mm: ArrayLike,
        detector: Detector,
        *,
        offset_u_mm: ArrayLike = 0.0,
        offset_v_mm: ArrayLike = 0.0,
        isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0),
    ) -> Self:
        """Place the views of a C-arm from DICOM positioner angles.

        Parameters
        ----------
        primary_deg : (n,)
            Positioner Primary Angle (0018,1510): 0 has the detector in front of the chest, +90 at the patient's left (LAO).
        secondary_deg : (n,) or float
            Positioner Secondary Angle (0018,1511): positive tilts the detector towards the head (CRA).
        sid_mm, sdd_mm : float or (n,)
            Source to isocentre (0018,1111), source to detector (0018,1110).

        Notes
        -----
        Rows grow to the feet and columns, seen from in front of the patient, to the patient's left, as XA images are
        shown.
        """
        primary = checks.angles_deg(primary_deg)
        secondary = np.radians(checks.per_view(secondary_deg, len(primary), "secondary_deg"))
        frame = frames.c_arm(np.radians(primary), secondary)
        sid, sdd = (checks.per_view(value, len(primary), name) for value, name in ((sid_mm, "sid_mm"), (sdd_mm, "sdd_mm")))
        isocentre = checks.point(isocentre_lps_mm, "isocentre_lps_mm")
        source = isocentre + frames.add_up(frame, 0.0, 0.0, sid)
        centre = isocentre + frames.add_up(frame, offset_u_mm, offset_v_mm, sid - sdd)
        return cls(centre, frame[:, :, 0], frame[:, :, 1], detector, source, isocentre_lps_mm=isocentre)

    @classmethod
    def from_vectors(
        cls,
        sources_lps_mm: ArrayLike | None,
        centres_lps_mm: ArrayLike,
        u: ArrayLike,
        v: ArrayLike,
        detector: Detector,
        *,
        ray_directions: ArrayLike | None = None,
        isocentre_lps_mm: ArrayLike | None = None,
        left_handed: bool = False,
    ) -> Self:
        """Take the vectors as they are; u, v and ray directions are normalised.

        Parameters
        ----------
        sources_lps_mm : (n, 3), or None for a parallel beam
        centres_lps_mm : (n, 3)
        u, v : (n, 3)
            Directions of growing column and row index, of any length.
        isocentre_lps_mm : (3,), optional
            Say where it is when the detector is tilted or displaced by much: it is estimated otherwise.
        left_handed : bool
            Declare that the image is read out mirrored.
        """
        n = len(np.asarray(centres_lps_mm))
        return cls(
            checks.vectors(centres_lps_mm, n, "centres_lps_mm"),
            checks.unit_vectors(u, n, "u"),
            checks.unit_vectors(v, n, "v"),
            detector,
            None if sources_lps_mm is None else checks.vectors(sources_lps_mm, n, "sources_lps_mm"),
            None if ray_directions is None else checks.unit_vectors(ray_directions, n, "ray_directions"),
            None if isocentre_lps_mm is None else np.asarray(isocentre_lps_mm, dtype=np.float64),
            left_handed,
        )

    @classmethod
    def from_matrices(
        cls, matrices: ArrayLike, detector: Detector, *, isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0), left_handed: bool = False
    ) -> Self:
        """Decompose projection matrices of a diverging beam.

        Parameters
        ----------
        matrices : (n, 3, 4)
            ``(column w, row w, w) = M (x, y, z, 1)`` with x, y, z in LPS mm and pixel indices as in this module; any
            scale and sign.
        detector : Detector
            Flat. Its pitch sets the scale, which a matrix does not hold.
        isocentre_lps_mm : (3,)
            In front of the source in every view, which settles the sign of each matrix.

        Raises
        ------
        GeometryError
            ``PRJ-GEOM`` for a matrix that is singular, skew, or does not fit the ratio of the pitches.
        """
        isocentre = checks.point(isocentre_lps_mm, "isocentre_lps_mm")
        m = checks.signed_matrices(matrices, isocentre)
        sources: Float64 = -np.linalg.solve(m[:, :, :3], m[:, :, 3:])[:, :, 0].astype(np.float64)
        n, across, down = m[:, 2, :3], m[:, 0, :3], m[:, 1, :3]
        principal = np.stack([np.einsum("ki,ki->k", across, n), np.einsum("ki,ki->k", down, n)], axis=1)
        u, v = across - principal[:, :1] * n, down - principal[:, 1:] * n
        sdd = checks.distance_of_both(u, v, detector.pitch_mm)
        u, v = (vector / np.linalg.norm(vector, axis=1, keepdims=True) for vector in (u, v))
        along_u, along_v = -detector.column_mm(principal[:, 0]), -detector.row_mm(principal[:, 1])
        centres = sources + sdd[:, None] * n + along_u[:, None] * u + along_v[:, None] * v
        return cls(centres, u, v, detector, sources, isocentre_lps_mm=isocentre, left_handed=left_handed)

    # -- what follows from the vectors -------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the projections: (views, rows, columns)."""
        return len(self), *self.detector.shape

    @property
    def isocentre(self) -> Float64:
        """Where the scanner turns about, LPS mm, (3,)."""
        return _known(self.isocentre_lps_mm)

    @property
    def is_parallel(self) -> bool:
        """Whether the rays of a view are parallel."""
        return self.sources_lps_mm is None

    @property
    def is_curved(self) -> bool:
        """Whether the detector lies on a cylinder."""
        return self.detector.curve_radius_mm is not None

    @property
    def towards_detector(self) -> Float64:
        """From the source to the detector's centre, or the ray direction of a parallel beam; not normalised, (n, 3)."""
        if self.sources_lps_mm is None:
            return _known(self.ray_directions)
        towards: Float64 = self.centres_lps_mm - self.sources_lps_mm
        return towards

    @property
    def normals(self) -> Float64:
        """Unit normals of the detector (at its centre), pointing away from the source, (n, 3)."""
        normals: Float64 = np.cross(self.v, self.u) * (-1 if self.left_handed else 1)
        return normals

    @property
    def source_detector_mm(self) -> Float64:
        """Distance from the source to the detector's plane, along its normal (SDD); inf for a parallel beam, (n,)."""
        if self.is_parallel:
            return np.full(len(self), np.inf)
        distance: Float64 = np.einsum("ki,ki->k", self.towards_detector, self.normals)
        return distance

    @property
    def source_isocentre_mm(self) -> Float64:
        """Depth of the isocentre, along the detector's normal (SID); inf for a parallel beam, (n,)."""
        if self.sources_lps_mm is None:
            return np.full(len(self), np.inf)
        depth: Float64 = np.einsum("ki,ki->k", self.isocentre - self.sources_lps_mm, self.normals)
        return depth

    @property
    def magnification(self) -> Float64:
        """How much larger the isocentre appears on the detector; 1 for a parallel beam, (n,)."""
        if self.is_parallel:
            return np.ones(len(self))
        magnification: Float64 = self.source_detector_mm / self.source_isocentre_mm
        return magnification

    @property
    def piercing_mm(self) -> Float64:
        """Where the perpendicular from the source meets the detector, as (u, v) from its centre; (n, 2).

        The weights of FDK are measured from here. A parallel beam has no such point: its isocentre's image is returned.
        """
        if self.sources_lps_mm is None:
            column, row, _ = self.project(self.isocentre)
            return np.stack([self.detector.column_mm(column), self.detector.row_mm(row)], axis=1)
        towards = self.towards_detector
        return -np.stack([np.einsum("ki,ki->k", towards, self.u), np.einsum("ki,ki->k", towards, self.v)], axis=1)

    @property
    def axis(self) -> Float64:
        """Unit vector about which the views turn, on the side of the detector's v (growing z for `cone`), (3,)."""
        to_source = -self.towards_detector
        to_source = to_source / np.linalg.norm(to_source, axis=1, keepdims=True)
        mean_v = self.v.mean(axis=0)
        if len(self) < 3:
            return np.asarray(mean_v / np.linalg.norm(mean_v))
        axis: Float64 = np.linalg.svd(to_source - to_source.mean(axis=0))[2][-1]
        return axis if axis @ mean_v >= 0 else -axis

    @property
    def angles_rad(self) -> Float64:
        """Angle of the detector's normal about +z, 0 with the source in front of the patient, in [0, 2 pi), (n,)."""
        to_source = -self.normals
        angles: Float64 = np.mod(np.arctan2(to_source[:, 0], -to_source[:, 1]), 2 * np.pi)
        return angles

    def project(self, points_lps_mm: ArrayLike) -> tuple[Float64, Float64, Float64]:
        """Find where points appear on the detector.

        Parameters
        ----------
        points_lps_mm : (..., 3)

        Returns
        -------
        column, row : (n, ...)
            Fractional pixel indices, also beyond the detector's edges.
        depth_mm : (n, ...)
            Distance from the source along the detector's normal (from the detector's plane for a parallel beam);
            nothing that is not positive is seen by a diverging beam.
        """
        return projection.project(self, np.asarray(points_lps_mm, dtype=np.float64))

    def column_points_lps_mm(self, columns: ArrayLike | None = None) -> Float64:
        """Where each column crosses the detector's middle line, (n, columns, 3).

        The centre of pixel ``(row, column)`` is this point plus ``detector.row_mm(row) * v``.
        """
        detector = self.detector
        u_mm = detector.column_mm(np.arange(detector.shape[1]) if columns is None else columns)
        radius = detector.curve_radius_mm
        if radius is None:
            points: Float64 = self.centres_lps_mm[:, None] + u_mm[:, None] * self.u[:, None]
            return points
        angle = u_mm / radius
        bent = np.sin(angle)[:, None] * self.u[:, None] + (np.cos(angle) - 1)[:, None] * self.normals[:, None]
        curved: Float64 = self.centres_lps_mm[:, None] + radius * bent
        return curved

    def pixel_lps_mm(self, view: int, rows: ArrayLike, columns: ArrayLike) -> Float64:
        """Centres of pixels of one view in LPS mm; rows and columns broadcast, the result has one axis more."""
        rows, columns = np.broadcast_arrays(np.asarray(rows, dtype=np.float64), np.asarray(columns, dtype=np.float64))
        one = self.take([view])
        middle = one.column_points_lps_mm(columns.ravel())[0].reshape(*columns.shape, 3)
        points: Float64 = middle + self.detector.row_mm(rows)[..., None] * self.v[view]
        return points

    def matrices(self) -> Float64:
        """Projection matrices (n, 3, 4): ``(column w, row w, w) = M (x, y, z, 1)``, with w the depth in mm.

        For a parallel beam w is 1. A curved detector has no such matrix (``PRJ-GEOM``).
        """
        if self.is_curved:
            raise GeometryError("PRJ-GEOM", "the projection onto a curved detector is not a matrix", "Use project().")
        return projection.matrices(self)

    @property
    def digest(self) -> str:
        """SHA-256 over all numbers of the geometry."""
        numbers = [getattr(self, name) for name in ("centres_lps_mm", "u", "v", "sources_lps_mm", "ray_directions")]
        panel = repr((self.detector.shape, self.detector.pitch_mm, self.detector.curve_radius_mm, self.left_handed))
        content = b"".join(b"-" if array is None else array.tobytes() for array in (*numbers, self.isocentre))
        return hashlib.sha256(panel.encode() + content).hexdigest()

    # -- derived geometries ------------------------------------------------------------------------------------------

    def take(self, which: ArrayLike) -> ViewGeometry:
        """Return the chosen views, in that order."""
        chosen = np.asarray(which)
        return replace(
            self,
            centres_lps_mm=self.centres_lps_mm[chosen],
            u=self.u[chosen],
            v=self.v[chosen],
            sources_lps_mm=None if self.sources_lps_mm is None else self.sources_lps_mm[chosen],
            ray_directions=None if self.ray_directions is None else self.ray_directions[chosen],
        )

    def moved(self, to_lps_mm: ArrayLike) -> ViewGeometry:
        """Move source, detector and isocentre together by a rigid motion.

        Parameters
        ----------
        to_lps_mm : (4, 4)
            A rotation and a translation in mm, such as the one from the gantry's frame to the patient's.
        """
        motion = checks.rigid(to_lps_mm)
        turn, shift = motion[:3, :3], motion[:3, 3]
        return replace(
            self,
            centres_lps_mm=self.centres_lps_mm @ turn.T + shift,
            u=self.u @ turn.T,
            v=self.v @ turn.T,
            sources_lps_mm=None if self.sources_lps_mm is None else self.sources_lps_mm @ turn.T + shift,
            ray_directions=None if self.ray_directions is None else self.ray_directions @ turn.T,
            isocentre_lps_mm=turn @ self.isocentre + shift,
        )

    def with_detector(self, detector: Detector) -> ViewGeometry:
        """Return the same views on another detector with the same centre."""
        return replace(self, detector=detector)

    # -- private -----------------------------------------------------------------------------------------------------

    def _nearest_to_rays(self) -> Float64:
        """Return the point nearest to the central rays, and nearest to the origin where these leave it open."""
        along = self.normals if self.ray_directions is None else self.ray_directions
        start = self.centres_lps_mm if self.sources_lps_mm is None else self.sources_lps_mm
        across = np.eye(3) - along[:, :, None] * along[:, None, :]
        right = np.einsum("kij,kj->i", across, start)
        nearest: Float64 = np.linalg.pinv(across.sum(axis=0), rcond=1e-9) @ right
        return nearest


def _frozen(array: Float64) -> Float64:
    """Return our own read-only copy."""
    copy = np.array(array, dtype=np.float64)
    copy.flags.writeable = False
    return copy


def _known(array: Float64 | None) -> Float64:
    """Return an array that the constructor has made sure of."""
    if array is None:
        raise TypeError("the constructor sets this array")
    return array
