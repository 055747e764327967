"""Surfaces from a label map: one for each label, from one net, so that neighbours share their border."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import UsageError
from medrecon.core.mesh import Surface
from medrecon.core.progress import Tick, silent
from medrecon.core.volume import Volume
from medrecon.surface import lattice, refine
from medrecon.surface.pinches import open_pinches

_MOST_LABELS = 1000


def extract_labels(
    volume: Volume,
    labels: Sequence[int] | None = None,
    smoothing_iterations: int = 20,
    smoothing_pass_band: float = 0.1,
    tick: Tick = silent,
) -> tuple[Surface, ...]:
    """Draw one closed surface for each label of a label map; neighbours share their border exactly.

    Surface nets (Frisken 2022, J. Comput. Graph. Tech. 11, 34), all labels in one net, which is then smoothed as a whole by
    `refine.smooth`: the net's own constrained smoothing takes 8 % from a ball of ten voxels, this 0.1 %.

    Parameters
    ----------
    volume : Volume
        Whole numbers; 0 is background, as is every voxel that was not seen.
    labels : sequence of int, optional
        Which labels; all but 0 where not given.
    smoothing_iterations, smoothing_pass_band : int, float
        As in `SurfaceConfig`; 0 iterations leave the staircase of the voxels.

    Returns
    -------
    tuple of Surface
        Named ``label-N``, in the order of `labels`, without measures.

    Raises
    ------
    UsageError
        ``SRF-LABELS`` where values are not whole numbers, are too many, or a wanted label does not occur.
    """
    voxels, found = _label_map(volume)
    wanted = list(found) if labels is None else [int(label) for label in labels]
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise UsageError("SRF-LABELS", f"label {missing[0]} does not occur", f"The map holds {found[:20]}.")
    corners, triangles, sides = _surface_nets(np.pad(voxels, 1), wanted)  # nets stay open at the image's border
    net = refine.smooth(
        lattice.stand(corners, np.full(3, -1), triangles, volume.grid, "labels"),
        smoothing_iterations,
        smoothing_pass_band,
        junctions=True,
    )
    surfaces = []
    for done, label in enumerate(wanted):
        tick(0.7 + 0.3 * done / len(wanted))
        surfaces.append(open_pinches(_side(net, sides, label)))
    tick(1.0)
    return tuple(surfaces)


def _side(net: Surface, sides: NDArray[np.int64], label: int) -> Surface:
    """Return the closed surface of one label: triangles that have it behind them, and those that have it before, turned."""
    triangles = np.concatenate([net.triangles[sides[:, 0] == label], net.triangles[sides[:, 1] == label][:, ::-1]])
    used, renumbered = np.unique(triangles, return_inverse=True)
    return Surface(net.vertices_lps_mm[used], renumbered.reshape(-1, 3), f"label-{label}")


def _surface_nets(
    voxels: NDArray[np.int32], labels: Sequence[int]
) -> tuple[lattice.Corners, lattice.Triangles, NDArray[np.int64]]:
    """Return vertices as (column, row, slice), triangles, and for each triangle the label behind it and before it."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkFiltersCore import vtkSurfaceNets3D

    nets = vtkSurfaceNets3D()
    nets.SetInputData(lattice.image(voxels))
    for slot, label in enumerate(labels):
        nets.SetLabel(slot, label)
    nets.SetBackgroundLabel(0)
    nets.SetOutputMeshTypeToTriangles()
    nets.SmoothingOff()
    nets.Update()
    sides = vtk_to_numpy(nets.GetOutput().GetCellData().GetArray("BoundaryLabels")).astype(np.int64)
    corners, triangles = lattice.arrays(nets.GetOutput())
    # one cell may hold several vertices at its centre, and neighbours disagree how these connect: cracks of no width
    centres = np.rint(corners - 0.5).astype(np.int64)
    _, first, merged = np.unique(
        np.ravel_multi_index(tuple(centres.T), voxels.shape[::-1]), return_index=True, return_inverse=True
    )
    return corners[first], merged[triangles], sides


def _label_map(volume: Volume) -> tuple[NDArray[np.int32], list[int]]:
    voxels = volume.voxels if volume.seen is None else np.where(volume.seen, volume.voxels, 0)
    whole = np.isfinite(voxels).all() and np.array_equal(voxels, np.rint(voxels))
    labels = np.unique(voxels) if whole else np.zeros(0)
    if not whole or len(labels) > _MOST_LABELS:
        what = f"{len(labels)} different values" if whole else "values that are not whole numbers"
        raise UsageError("SRF-LABELS", f"this is no label map: it holds {what}", "Use a tissue or a level instead.")
    return voxels.astype(np.int32), [int(label) for label in labels if label != 0]
