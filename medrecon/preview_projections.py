"""A coarse plane of what projections will give, in about a second: few views, a coarse detector, large voxels.

Whatever the method, the preview is made by filtered back projection, in which a voxel needs every view but no other voxel:
only the plane is made, unless the Hounsfield units are to be measured in the volume. Corrections and units are those of the
run. It is always a draft.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from medrecon import device as devices
from medrecon import methods
from medrecon.config import ReconstructionConfig
from medrecon.core.errors import UsageError
from medrecon.core.field_of_view import beam_of, recommended_grid, recommended_spacing_mm
from medrecon.core.grid import Grid
from medrecon.core.patient_position import between
from medrecon.core.progress import silent
from medrecon.core.projections import ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.core.volume import Volume
from medrecon.methods.fdk import FdkConfig, fdk
from medrecon.preview import Preview, View, axis_of, part_of
from medrecon.steps.corrections import with_axis_at

if TYPE_CHECKING:
    from medrecon.quality.assess import Quality
    from medrecon.steps.projections import ProjectionJob

_VOXELS_ACROSS = 112
_VIEWS_A_TURN = 120


def preview_projections(scan: ProjectionScan, config: ReconstructionConfig, view: View, point_lps_mm: ArrayLike) -> Preview:
    """Reconstruct the plane of a view that goes through a point, coarsely.

    Parameters
    ----------
    view : {"axial", "coronal", "sagittal"}
    point_lps_mm : (x, y, z)
        Outside the field of view the nearest plane is taken.

    Raises
    ------
    UsageError
        ``ARG-INPUT`` where the method is not one of projections.
    InputError, GeometryError
        Whatever the run would refuse.
    """
    import torch

    from medrecon.steps.projections import ProjectionJob

    started = time.perf_counter()
    if methods.get(config.method).input != "projections":
        raise UsageError("ARG-INPUT", f"the method {config.method} takes no projections")
    where = devices.choose(config.device)
    scan, config = _with_axis(scan, config)
    fine = recommended_grid(_as_it_lay(scan, config), config.grid.spacing_mm, config.grid.region_lps_mm)
    spacing_mm = max(*fine.spacing_mm, max(fine.shape * np.asarray(fine.spacing_mm)) / _VOXELS_ACROSS)
    small = coarser(_fewer(scan), spacing_mm)
    job = ProjectionJob.prepare(small, _for_coarse(config, small, spacing_mm, view, point_lps_mm), where)
    with devices.seeded(config.seed), torch.no_grad():
        x = fdk(job.A, job.y, _settings(config), silent)
    volume = job.finish(x, _quality(job)).volume
    plane = _plane(volume, view, point_lps_mm)
    seconds, voxels = time.perf_counter() - started, math.prod(volume.grid.shape)
    return Preview(plane, None, fine, where, seconds, voxels, max(1, round(spacing_mm / max(fine.spacing_mm))), draft=True)


def coarser(scan: ProjectionScan, spacing_mm: float) -> ProjectionScan:
    """Join pixels of the detector until they are as large as voxels of a spacing seem on it; columns of curved ones stay.

    Rows and columns that do not fill a whole pixel at the far ends are left out.
    """
    wanted = spacing_mm / recommended_spacing_mm(scan.views) * min(scan.views.detector.pitch_mm)
    row, column = (
        max(1, min(int(wanted / p), n // 2)) for p, n in zip(scan.views.detector.pitch_mm, scan.views.shape[1:], strict=True)
    )
    times = (row, 1 if scan.views.is_curved else column)
    if times == (1, 1):
        return scan
    counted = np.ones_like(scan.pixels) if scan.measured is None else scan.measured.astype(np.float32)
    count = _joined(counted, times)
    pixels = _joined(np.where(counted > 0, scan.pixels, 0), times) / np.maximum(count, 1)
    measured = None if scan.measured is None else count > 0
    return replace(scan, pixels=pixels, views=_joined_views(scan.views, times), measured=measured)


def _with_axis(scan: ProjectionScan, config: ReconstructionConfig) -> tuple[ProjectionScan, ReconstructionConfig]:
    """Put the axis where the settings say as a column of the whole detector, which joined pixels no longer have."""
    column, columns = config.projections.axis, scan.views.detector.shape[1]
    if isinstance(column, str):
        return scan, config
    if column > columns - 1:
        raise UsageError("CFG-VALUE", f"projections.axis is column {column:g}, the detector has {columns}.")
    as_read = config.projections.model_copy(update={"axis": "as-read"})
    return replace(scan, views=with_axis_at(scan.views, column)), config.model_copy(update={"projections": as_read})


def _fewer(scan: ProjectionScan) -> ProjectionScan:
    """Keep views that are evenly spread over the arc, or over the turns of a helix, in whatever order they were taken."""
    views = scan.views
    if beam_of(views) == "helical":
        order = np.argsort(np.asarray(views.sources_lps_mm) @ views.axis, kind="stable")
        turns = float(np.ptp(np.unwrap(views.angles_rad[order]))) / (2 * math.pi)
    else:
        order, turns = np.argsort(views.angles_rad, kind="stable"), 1.0
    most = round(_VIEWS_A_TURN * max(1.0, turns))
    return scan if len(views) <= most else scan.take(order[np.linspace(0, len(order) - 1, most).round().astype(int)])


def _joined(pixels: np.ndarray, times: tuple[int, int]) -> np.ndarray:
    """Sum pixels in blocks."""
    (row, column), (views, rows, columns) = times, pixels.shape
    whole = pixels[:, : rows // row * row, : columns // column * column]
    joined: np.ndarray = whole.reshape(views, rows // row, row, columns // column, column).sum(axis=(2, 4), dtype=np.float32)
    return joined


def _joined_views(views: ViewGeometry, times: tuple[int, int]) -> ViewGeometry:
    """Return the geometry of the joined pixels; each lies in the middle of those that it was made of."""
    detector = views.detector
    shape = (detector.shape[0] // times[0], detector.shape[1] // times[1])
    pitch = (detector.pitch_mm[0] * times[0], detector.pitch_mm[1] * times[1])
    middle = [(n * t - 1) / 2 for n, t in zip(shape, times, strict=True)]
    down, across = float(detector.row_mm(middle[0])), float(detector.column_mm(middle[1]))
    centres = views.centres_lps_mm + down * views.v + across * views.u
    return replace(views, centres_lps_mm=centres, detector=Detector(shape, pitch, detector.curve_radius_mm))


def _for_coarse(
    config: ReconstructionConfig, small: ProjectionScan, spacing_mm: float, view: View, point_lps_mm: ArrayLike
) -> ReconstructionConfig:
    """Return the settings for the coarse scan: its voxels, the plane alone, no rings to be found in few views."""
    region = config.grid.region_lps_mm
    if not config.hounsfield.samples:
        grid = _plane_of(recommended_grid(_as_it_lay(small, config), spacing_mm, region), view, point_lps_mm)
        reach_mm = 0.51 * spacing_mm  # so that a plane lies within also where the axis is found elsewhere
        ends = grid.to_lps(np.array([(0, 0, 0), grid.shape]) - [[0], [1]]) + np.array([[-reach_mm], [reach_mm]])
        low, high = ((float(x), float(y), float(z)) for x, y, z in ends)
        region = (low, high)
    return config.model_copy(
        update={
            "grid": config.grid.model_copy(update={"spacing_mm": spacing_mm, "region_lps_mm": region}),
            "projections": config.projections.model_copy(update={"rings": "none"}),
        }
    )


def _as_it_lay(scan: ProjectionScan, config: ReconstructionConfig) -> ViewGeometry:
    """Return the views about the patient as the settings say that the patient lay."""
    position = config.projections.patient_position
    return scan.views if position is None else scan.views.moved(between(scan.position, position))


def _settings(config: ReconstructionConfig) -> FdkConfig:
    settings = FdkConfig.model_validate(dict(config.settings)) if config.method == "fdk" else FdkConfig()
    return settings.model_copy(update={"passes": 1})


def _quality(job: ProjectionJob) -> Quality:
    """Map what was seen; a draft is not projected again."""
    from medrecon.quality.assess import Quality
    from medrecon.quality.view_coverage import view_coverage

    nothing = np.zeros((0, 0, 0), dtype=np.float32)
    return Quality(math.nan, math.nan, nothing, view_coverage(job.A), math.nan, math.nan, math.nan)


def _plane_of(grid: Grid, view: View, point_lps_mm: ArrayLike) -> Grid:
    """Return the part of a grid that is one voxel thick and the nearest to a point."""
    axis = axis_of(grid, view)
    at = int(np.clip(np.round(grid.to_index(point_lps_mm)[axis]), 0, grid.shape[axis] - 1))
    return part_of(grid, axis, at, at + 1)


def _plane(volume: Volume, view: View, point_lps_mm: ArrayLike) -> Volume:
    """Cut the plane of a view out of a volume; of the plane itself all is kept."""
    grid = _plane_of(volume.grid, view, point_lps_mm)
    low = np.rint(volume.grid.to_index(grid.to_lps([0, 0, 0]))).astype(int)
    index = tuple(slice(int(a), int(a) + n) for a, n in zip(low, grid.shape, strict=True))
    seen = None if volume.seen is None else volume.seen[index]
    return Volume(volume.voxels[index], grid, volume.quantity, seen, volume.source)
