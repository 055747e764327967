"""Whether voxels as deep as pixels are wide keep the detail of thin slices."""

from __future__ import annotations

import numpy as np

from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Grid
from medrecon.core.scans import SlicePoses

_LEAST_LOSS = 1.1  # voxels deeper than the slices by less lose nothing worth saying
_BY_DEFAULT = 1e-3  # relative difference up to which a spacing is that of the pixels


def lost_depth(poses: SlicePoses, grid: Grid) -> Finding | None:
    """Find slices thinner than their pixels on a grid with the pixels' spacing, which is the default.

    Who asks for another spacing knows what is asked for, and hears nothing.
    """
    pixel_mm = float(poses.pixel_spacing_mm.min())
    if len(poses) < 2 or not poses.are_parallel or not np.allclose(grid.spacing_mm, pixel_mm, rtol=_BY_DEFAULT):
        return None
    step_mm = float(np.median(np.diff(np.sort(poses.depths_mm))))
    thick_mm = float(np.median(poses.thickness_mm))
    detail_mm = max(step_mm, thick_mm)
    if not 0 < _LEAST_LOSS * detail_mm < pixel_mm:
        return None
    return Finding(
        "GRID-DEPTH",
        Verdict.WARN,
        f"slices of {thick_mm:.3g} mm every {step_mm:.3g} mm were made into voxels of {pixel_mm:.3g} mm, the spacing of pixels: "
        "detail across the slices is lost",
        {"thickness_mm": thick_mm, "step_mm": step_mm, "voxel_mm": pixel_mm},
        hint=f"Choose the spacing yourself: --spacing {detail_mm:.3g} (grid.spacing_mm).",
    )
