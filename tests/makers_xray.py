"""Phantoms made of ellipsoids, whose line integrals are known in closed form, and scans to look at them with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medrecon.core.grid import Grid
from medrecon.core.views import Detector, ViewGeometry

Float64 = NDArray[np.float64]

#: RTK's Shepp-Logan (rtkSheppLoganPhantom.cxx): semi-axes, centre, angle about y in degrees, density; y is the long axis.
SHEPP_LOGAN = (
    (0.69, 0.90, 0.92, 0, 0, 0, 0, 2),
    (0.6624, 0.88, 0.874, 0, 0, 0, 0, -0.98),
    (0.41, 0.21, 0.16, -0.22, -0.25, 0, 108, -0.02),
    (0.31, 0.22, 0.11, 0.22, -0.25, 0, 72, -0.02),
    (0.21, 0.5, 0.25, 0, -0.25, 0.35, 0, 0.02),
    (0.046, 0.046, 0.046, 0, -0.25, 0.1, 0, 0.02),
    (0.046, 0.02, 0.023, -0.08, -0.25, -0.65, 0, 0.01),
    (0.046, 0.02, 0.023, 0.06, -0.25, -0.65, 90, 0.01),
    (0.056, 0.1, 0.04, 0.06, 0.625, -0.105, 90, 0.02),
    (0.056, 0.1, 0.056, 0, 0.625, 0.1, 0, -0.02),
)

#: From RTK's fixed IEC axes to LPS, head first, supine.
IEC_TO_LPS = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])

#: Letters as rows of a 5 x 7 dot matrix.
LETTERS = {
    "R": ("XXXX.", "X...X", "X...X", "XXXX.", "X.X..", "X..X.", "X...X"),
    "L": ("X....", "X....", "X....", "X....", "X....", "X....", "XXXXX"),
    "F": ("XXXXX", "X....", "X....", "XXXX.", "X....", "X....", "X...."),
    "G": (".XXX.", "X...X", "X....", "X.XXX", "X...X", "X...X", ".XXX."),
}


@dataclass(frozen=True, eq=False)
class Ellipsoids:
    """Overlapping ellipsoids whose densities add up.

    Parameters
    ----------
    to_unit : (n, 3, 3)
        Turn and scale an offset from the centre in LPS mm so that the surface has length 1.
    centres_lps_mm : (n, 3)
    densities : (n,)
    """

    to_unit: Float64
    centres_lps_mm: Float64
    densities: Float64

    def line_integrals(self, starts: Float64, ends: Float64) -> Float64:
        """Density times length inside, between two points (..., 3) each: the segment, not the whole line."""
        total = np.zeros(np.broadcast_shapes(starts.shape, ends.shape)[:-1])
        length = np.linalg.norm(ends - starts, axis=-1)
        for matrix, centre, density in zip(self.to_unit, self.centres_lps_mm, self.densities, strict=True):
            p, d = (starts - centre) @ matrix.T, (ends - starts) @ matrix.T
            a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
            root = np.sqrt(np.maximum(b * b - a * c, 0))
            first, last = (np.clip((-b + sign * root) / a, 0, 1) for sign in (-1, 1))
            total += density * (last - first) * length
        return total

    def project(self, views: ViewGeometry) -> NDArray[np.float32]:
        """Exact line integrals in every pixel, (views, rows, columns)."""
        rows, columns = views.detector.shape
        row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        result = np.empty(views.shape, np.float32)
        for k in range(len(views)):
            pixels = views.pixel_lps_mm(k, row, column)
            if views.sources_lps_mm is None:
                far = 1e4 * np.asarray(views.ray_directions)[k]
                result[k] = self.line_integrals(pixels - far, pixels + far)
            else:
                result[k] = self.line_integrals(views.sources_lps_mm[k], pixels)
        return result

    def density(self, points_lps_mm: Float64) -> Float64:
        """Density at points (..., 3)."""
        total = np.zeros(points_lps_mm.shape[:-1])
        for matrix, centre, density in zip(self.to_unit, self.centres_lps_mm, self.densities, strict=True):
            total += density * ((((points_lps_mm - centre) @ matrix.T) ** 2).sum(-1) <= 1)
        return total

    def voxels(self, grid: Grid, samples: int = 1) -> NDArray[np.float32]:
        """Density in every voxel: at its centre, or the mean of samples^3 points in it."""
        offsets = (np.arange(samples) + 0.5) / samples - 0.5
        indices = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in grid.shape), indexing="ij"), axis=-1)
        total = np.zeros(grid.shape)
        for di in offsets:
            for dj in offsets:
                for dk in offsets:
                    total += self.density(grid.to_lps(indices + np.array([di, dj, dk])))
        return (total / samples**3).astype(np.float32)

    def moved(self, to_lps_mm: Float64) -> Ellipsoids:
        """Move the phantom by a rigid (or mirroring) motion."""
        turn, shift = to_lps_mm[:3, :3], to_lps_mm[:3, 3]
        return replace(self, to_unit=self.to_unit @ np.linalg.inv(turn), centres_lps_mm=self.centres_lps_mm @ turn.T + shift)


def ball(radius_mm: float, centre_lps_mm: tuple[float, float, float] = (0, 0, 0), density: float = 1.0) -> Ellipsoids:
    """A uniform ball."""
    return Ellipsoids(np.eye(3)[None] / radius_mm, np.array([centre_lps_mm], dtype=np.float64), np.array([density]))


def shepp_logan(scale_mm: float = 128.0) -> Ellipsoids:
    """RTK's three-dimensional Shepp-Logan phantom, its long axis along +z of LPS."""
    table = np.array(SHEPP_LOGAN)
    angle = np.radians(table[:, 6])
    zero, one = np.zeros_like(angle), np.ones_like(angle)
    about_y = np.stack(
        [
            np.stack([np.cos(angle), zero, np.sin(angle)], axis=-1),
            np.stack([zero, one, zero], axis=-1),
            np.stack([-np.sin(angle), zero, np.cos(angle)], axis=-1),
        ],
        axis=-2,
    )
    to_unit = about_y / (table[:, :3, None] * scale_mm)
    return Ellipsoids(to_unit @ IEC_TO_LPS.T, table[:, 3:6] * scale_mm @ IEC_TO_LPS.T, table[:, 7])


def lettered(dot_mm: float = 2.0, distance_mm: float = 20.0) -> Ellipsoids:
    """Text that tells every mirror image apart: R at the patient's right, L at the left, F in front, G (gluteal) behind.

    The letters stand upright (head up) and are read from in front of the patient. A ball marks the head end.
    """
    places = {"R": (-distance_mm, 0.0), "L": (distance_mm, 0.0), "F": (0.0, -distance_mm), "G": (0.0, distance_mm)}
    centres = [
        (x + (column - 2) * dot_mm, y, (3 - row) * dot_mm)
        for letter, (x, y) in places.items()
        for row, dots in enumerate(LETTERS[letter])
        for column, dot in enumerate(dots)
        if dot == "X"
    ]
    centres.append((0.0, 0.0, distance_mm))
    radii = np.full(len(centres), 0.6 * dot_mm)
    radii[-1] = 2 * dot_mm
    return Ellipsoids(np.eye(3) / radii[:, None, None], np.array(centres), np.ones(len(centres)))


def project_box(
    views: ViewGeometry, half_mm: float, centre_lps_mm: tuple[float, float, float] = (0, 0, 0)
) -> NDArray[np.float32]:
    """Length in a cube about a point of every ray of a diverging beam, from the source to the pixel."""
    row, column = np.meshgrid(*(np.arange(n) for n in views.detector.shape), indexing="ij")
    result = np.empty(views.shape, np.float32)
    for k, source in enumerate(np.asarray(views.sources_lps_mm)):
        step, start = views.pixel_lps_mm(k, row, column) - source, source - np.asarray(centre_lps_mm)
        with np.errstate(divide="ignore"):
            ends = np.stack([(-half_mm - start) / step, (half_mm - start) / step])
        first, last = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
        result[k] = np.maximum(np.clip(last, 0, 1) - np.clip(first, 0, 1), 0) * np.linalg.norm(step, axis=-1)
    return result


def box_to_the_centres(n: int) -> NDArray[np.float32]:
    """The share of each of n^3 voxels that a box fills which reaches from the first voxels' centres to the last ones'."""
    filled = np.ones(n, np.float32)
    filled[[0, -1]] = 0.5
    shares: NDArray[np.float32] = filled[:, None, None] * filled[:, None] * filled
    return shares


def centred_grid(n: int, spacing_mm: float, centre_lps_mm: tuple[float, float, float] = (0, 0, 0)) -> Grid:
    """A cube of n voxels each way about a point."""
    origin = np.asarray(centre_lps_mm) - (n - 1) / 2 * spacing_mm
    return Grid.from_parts((n, n, n), (spacing_mm,) * 3, origin)


def random_geometry(rng: np.random.Generator, kind: str) -> tuple[ViewGeometry, Grid]:
    """A small scan of odd sizes with everything at once: offsets, uneven angles, an oblique and perhaps mirrored grid.

    Parameters
    ----------
    kind : str
        ``parallel``, ``cone``, ``curved`` or ``helical``; with ``upright`` appended the detector is not tilted and the
        grid turns about z only.
    """
    upright = kind.endswith("upright")
    detector = Detector((9, 13), tuple(rng.uniform(1.5, 3.0, 2)), curve_radius_mm=90.0 if "curved" in kind else None)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
    tilts = (0.0, 0.0, 0.0) if upright else rng.uniform(-0.2, 0.2, 3)
    offsets = rng.uniform(-3, 3, 4)
    if "parallel" in kind:
        views = ViewGeometry.parallel(
            angles, detector, offset_u_mm=offsets[0], offset_v_mm=offsets[1], in_plane_rad=tilts[0], tilt_rad=tilts[1]
        )
    elif "helical" in kind:
        views = ViewGeometry.helical(angles, 60, 90, detector, pitch_mm_per_turn=8, offset_u_mm=offsets[0])
    else:
        views = ViewGeometry.cone(
            angles,
            60,
            90,
            detector,
            offset_u_mm=offsets[0],
            offset_v_mm=offsets[1],
            source_offset_u_mm=offsets[2],
            source_offset_v_mm=offsets[3],
            in_plane_rad=tilts[0],
            tilt_rad=tilts[1],
            slant_rad=tilts[2],
        )
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]  # proper or mirroring
    if upright:
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)], [rng.choice([-1.0, 1.0]), 0, 0]])
    shape, spacing = (7, 11, 9), rng.uniform(1.0, 2.0, 3)
    centre = rng.uniform(-2, 2, 3)
    origin = centre - turn @ ((np.array(shape) - 1) / 2 * spacing)
    return views, Grid.from_parts(shape, spacing, origin, turn)
