"""The set-ups of RTK's own tests (RTK:test/*.cxx), with the tolerances that RTK accepts.

RTK turns about its y axis in degrees and places detectors by the coordinate of pixel 0; here they are written with our
constructors. Errors are over all voxels: mean absolute error, and PSNR with a peak of 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.grid import Grid
from medrecon.core.views import Detector, ViewGeometry
from tests.makers_xray import IEC_TO_LPS, Ellipsoids, ball, shepp_logan

SID_MM, SDD_MM = 600.0, 1200.0

#: The direction that RTK calls a tilt of 45 degrees; its columns are not perpendicular.
SKEWED = [[np.sqrt(0.5), -np.sqrt(0.5), np.sqrt(0.5)], [np.sqrt(0.5), 0, 0], [0, 0, 1]]


@dataclass(frozen=True, eq=False)
class RtkCase:
    """One row of RTK's table.

    Parameters
    ----------
    phantom : Ellipsoids
    views : ViewGeometry
    grid : Grid
    method, settings
        What reconstructs it.
    largest_error, least_psnr_db : float
        RTK's tolerances.
    in_field_of_view : bool
        RTK sets voxels beyond the field of view to 0 before it compares.
    noise : float
        Standard deviation added to the line integrals.
    """

    phantom: Ellipsoids
    views: ViewGeometry
    grid: Grid
    method: str
    largest_error: float
    least_psnr_db: float
    settings: Mapping[str, object] = field(default_factory=dict)
    in_field_of_view: bool = False
    noise: float = 0.0

    def projections(self) -> NDArray[np.float32]:
        """Exact line integrals, with noise where the case has some."""
        exact = self.phantom.project(self.views)
        drawn = np.random.default_rng(0).standard_normal(exact.shape, dtype=np.float32)
        return exact + np.float32(self.noise) * drawn if self.noise else exact

    def errors(self, voxels: NDArray[np.float32]) -> tuple[float, float]:
        """Mean absolute error and PSNR, as RTK's CheckImageQuality has them."""
        truth = self.phantom.voxels(self.grid)
        if self.in_field_of_view:
            voxels = np.where(seen_by_all(self.views, self.grid), voxels, 0)
        away = np.abs(voxels - truth)
        return float(away.mean()), float(20 * np.log10(2 / np.sqrt((away**2).mean())))


def full_turn(n: int) -> NDArray[np.float64]:
    """Angles of a full turn."""
    return np.arange(n) * 2 * np.pi / n


def slab(n: int, spacing_mm: float, every: int = 1, first_mm: float | None = None) -> Grid:
    """RTK's cube of n voxels each way about the origin, of which only every so many slices are kept."""
    first = -(n - 1) / 2 * spacing_mm if first_mm is None else first_mm
    slices = len(range(every // 2, n, every))
    return Grid.from_parts(
        (slices, n, n), (every * spacing_mm, spacing_mm, spacing_mm), (first, first, first + every // 2 * spacing_mm)
    )


def analytic_cases(views: int = 180, every: int = 1) -> dict[str, RtkCase]:
    """The FDK rows: 128^3 voxels of 2 mm, or only every so many slices of them.

    Parameters
    ----------
    views : int
        RTK has 180 in a full turn.
    every : int
        How many slices apart the reconstructed ones are.
    """
    panel, grid, turn = Detector((128, 128), (4.0, 4.0)), slab(128, 2.0, every), full_turn(views)
    offset = {"source_offset_u_mm": 20.0, "source_offset_v_mm": 15.0}
    shifted = ViewGeometry.cone(turn, SID_MM, SDD_MM, panel, **offset)
    centred = ViewGeometry.cone(turn, SID_MM, SDD_MM, panel)
    cropped = ViewGeometry.cone(turn, SID_MM, SDD_MM, Detector((128, 114), (4.0, 4.0)), offset_u_mm=-28.0)
    arc = np.radians(np.arange(round(110 * views / 180)) * 240 / round(110 * views / 180))
    small, large = shepp_logan(116), shepp_logan(128)
    parallel = ViewGeometry.parallel(turn, Detector((128, 128), (2.0, 2.0)))
    quarter = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    cases = {
        "FDK": RtkCase(small, shifted, grid, "fdk", 0.03, 26, in_field_of_view=True),
        "FDK, quarter turn": RtkCase(
            small, shifted, directed(quarter, 128, (-127, 127, -127), every), "fdk", 0.03, 26, in_field_of_view=True
        ),
        "FDK, skewed": RtkCase(
            small, shifted, directed(SKEWED, 128, (-127, -127, -127), every), "fdk", 0.03, 26, in_field_of_view=True
        ),
        "FDK, 64^3 region": RtkCase(
            small, shifted, directed(SKEWED, 64, (-5, -13, -20), every), "fdk", 0.03, 26, in_field_of_view=True
        ),
        "parallel": RtkCase(small, parallel, grid, "fdk", 0.03, 26, in_field_of_view=True),
        "short scan": RtkCase(small, ViewGeometry.cone(arc, SID_MM, SDD_MM, panel), grid, "fdk", 0.09, 22),
        "iterative FDK": RtkCase(small, shifted, grid, "fdk", 0.027, 27, {"passes": 3}, in_field_of_view=True),
        "Hann 0.8, noise": RtkCase(large, centred, grid, "fdk", 0.72, 22.4, {"window": "hann", "cutoff": 0.8}, noise=1.0),
        "Hann 0.8 both ways": RtkCase(
            large, centred, grid, "fdk", 0.74, 21.8, {"window": "hann", "cutoff": 0.8, "row_cutoff": 0.8}, noise=1.0
        ),
        "truncated": RtkCase(large, cropped, grid, "fdk", 0.12, 20.8, {"truncation": 0.1}),
    }
    for shift in (120.0, -120.0, 0.0, -146.0, 154.0):
        displaced = ViewGeometry.cone(turn, SID_MM, SDD_MM, panel, offset_u_mm=shift)
        cases[f"displaced {shift:+.0f} mm"] = RtkCase(large, displaced, grid, "fdk", 0.061, 24)
    return cases


def iterative_cases() -> dict[str, RtkCase]:
    """The rows of iterative methods: 64^3 voxels of 4 mm, or 34^3."""
    panel, grid = Detector((64, 64), (8.0, 8.0)), slab(64, 4.0, first_mm=-127.0)
    many = ViewGeometry.cone(full_turn(180), SID_MM, SDD_MM, panel)
    fewer = ViewGeometry.cone(full_turn(90), SID_MM, SDD_MM, panel)
    curved = {r: ViewGeometry.cone(full_turn(180), SID_MM, SDD_MM, Detector((64, 64), (8.0, 8.0), r)) for r in (200.0, 1200.0)}
    emitting = ViewGeometry.cone(
        full_turn(60), SID_MM, SDD_MM, Detector((34, 34), (8.0, 8.0)), offset_u_mm=-3.0, offset_v_mm=-3.0
    )
    small = slab(34, 4.0, first_mm=-67.0)
    sart = {"iterations": 1, "subsets": 180, "relaxation": 0.5, "nonnegative": False, "momentum": False, "stop": None}
    em = {"iterations": 3, "subsets": 6}
    cg = {"iterations": 5, "stop": None}
    return {
        "SART, 1 iteration": RtkCase(ball(90), many, grid, "sirt", 0.032, 28.6, sart),
        "OSEM, 3 iterations": RtkCase(ball(60), emitting, small, "mlem", 0.032, 25, em),
        "MLEM, 10 iterations": RtkCase(ball(60), emitting, small, "mlem", 0.047, 25, {"iterations": 10, "subsets": 1}),
        "CG, 5 iterations": RtkCase(ball(90), many, grid, "cgls", 0.08, 23, cg),
        "CG, damped": RtkCase(ball(90), many, grid, "cgls", 0.05, 23, cg | {"damping": 0.1}),
        "CG, curved, radius 200": RtkCase(ball(90), curved[200.0], grid, "cgls", 0.08, 23, cg),
        "CG, curved, radius 1200": RtkCase(ball(90), curved[1200.0], grid, "cgls", 0.08, 23, cg),
        "TV, 6 iterations": RtkCase(ball(90), fewer, grid, "tv", 0.05, 23, {"iterations": 6}),
    }


def directed(direction: ArrayLike, n: int, origin_iec_mm: tuple[float, float, float], every: int) -> Grid:
    """RTK's cube of n voxels of 2 mm with a direction matrix in RTK's axes, the second of which becomes our slices."""
    steps = IEC_TO_LPS @ (2.0 * np.asarray(direction, dtype=np.float64))[:, [1, 2, 0]]
    affine = np.eye(4)
    affine[:3, :3] = steps * [every, 1, 1]
    affine[:3, 3] = IEC_TO_LPS @ np.asarray(origin_iec_mm, dtype=np.float64) + (every // 2) * steps[:, 0]
    return Grid((len(range(every // 2, n, every)), n, n), affine)


def seen_by_all(views: ViewGeometry, grid: Grid) -> NDArray[np.bool_]:
    """Voxels that lie within the detector in every view."""
    points = grid.to_lps(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1))
    seen = np.ones(grid.shape, dtype=bool)
    rows, columns = views.detector.shape
    for k in range(0, len(views), max(1, len(views) // 24)):
        column, row, _ = views.take([k]).project(points)
        seen &= (np.abs(column[0] - (columns - 1) / 2) <= columns / 2) & (np.abs(row[0] - (rows - 1) / 2) <= rows / 2)
    return seen
