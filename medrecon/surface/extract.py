"""A surface from a volume: where the values cross a level, and where labels end.

`make_surface` is the one entry for users. Surfaces are extracted in index space and their vertices mapped through the
volume's full affine, so that tilted, sheared, flipped and anisotropic grids need no resampling. Nothing here changes
the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError, UsageError
from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.progress import Tick, silent
from medrecon.core.volume import Volume
from medrecon.surface import refine
from medrecon.surface.body import inside_body
from medrecon.surface.enclosed import volume_mm3
from medrecon.surface.measure import measure
from medrecon.surface.pieces import largest_pieces
from medrecon.surface.pinches import open_pinches
from medrecon.surface.settings import SurfaceConfig
from medrecon.surface.tissues import Tissue, choose

if TYPE_CHECKING:
    from vtkmodules.vtkCommonDataModel import vtkImageData

Field = NDArray[np.float32]
_MOST_LABELS = 1000
_EMPTY_HINT = "Choose a level above the lowest and not above the highest value, or another tissue."
_FACES = tuple((axis, side) for axis in range(3) for side in (0, -1))


def make_surface(volume: Volume, config: SurfaceConfig | None = None, tick: Tick = silent) -> Surface:
    """Extract, keep the largest piece, smooth, decimate and measure.

    Parameters
    ----------
    volume : Volume
    config : SurfaceConfig, optional
    tick : Tick
        Told the finished share; may raise `CancelledError` between the steps.

    Returns
    -------
    Surface
        Named after its tissue or level; `measures` holds what `medrecon.surface.measure.measure` returns, and in percent
        how much smoothing and decimation changed the enclosed volume.

    Raises
    ------
    UsageError
        ``SRF-QUANTITY`` for a Hounsfield tissue in a volume of another quantity.
    GeometryError
        ``SRF-EMPTY`` where no voxel, or every voxel, is inside.
    """
    config = config or SurfaceConfig()
    pieces = choose(volume, config).pieces if config.largest_component else None
    raw = extract(volume, config)
    tick(0.2)
    raw = largest_pieces(raw, pieces) if pieces else raw
    tick(0.3)
    smooth = refine.smooth(raw, config.smoothing_iterations, config.smoothing_pass_band)
    tick(0.5)
    light = refine.decimate(smooth, config.target_triangles) if config.target_triangles else smooth
    light = largest_pieces(light, pieces) if pieces else light  # decimation may cut a thin neck
    tick(0.95)
    measures = measure(light) | _volume_changes(raw, smooth, light)
    tick(1.0)
    return replace(light, measures=measures)


def extract(volume: Volume, config: SurfaceConfig | None = None) -> Surface:
    """Draw the surface where the values cross the tissue's end or the level, with normals pointing out of it.

    Flying edges (Schroeder, Maynard, Geveci 2015, IEEE LDAV, 33). Voxels that were not seen, or are not finite, are outside.

    Returns
    -------
    Surface
        One triangle mesh, all pieces; closed where the scan ends if `config.closed`.

    Raises
    ------
    GeometryError
        ``SRF-EMPTY`` where the values do not cross the level.
    """
    config = config or SurfaceConfig()
    tissue = choose(volume, config)
    values, level = _inside_is_high(volume, tissue)
    start = np.zeros(3)
    if config.closed and any((np.take(values, side, axis) >= level).any() for axis, side in _FACES):
        values, start = _closed(values, level), start - 1
    corners, triangles = _flying_edges(values, level)
    return _stand(corners + start, triangles, volume.grid, tissue.name)


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
        _stand(corners - 1, triangles, volume.grid, "labels"), smoothing_iterations, smoothing_pass_band, junctions=True
    )
    tick(0.7)
    return tuple(open_pinches(_side(net, sides, label)) for label in wanted)


def _side(net: Surface, sides: NDArray[np.int64], label: int) -> Surface:
    """Return the closed surface of one label: triangles that have it behind them, and those that have it before, turned."""
    triangles = np.concatenate([net.triangles[sides[:, 0] == label], net.triangles[sides[:, 1] == label][:, ::-1]])
    used, renumbered = np.unique(triangles, return_inverse=True)
    return Surface(net.vertices_lps_mm[used], renumbered.reshape(-1, 3), f"label-{label}")


def _inside_is_high(volume: Volume, tissue: Tissue) -> tuple[Field, float]:
    """Return values that are at least the returned level inside the tissue, and less wherever nothing is known."""
    values, level = tissue.rising(volume.voxels)
    low, high = float(values.min()), float(values.max())
    known = _known(volume, tissue, all_finite=bool(np.isfinite(low + high)))
    if known is not None:
        low = float(values.min(where=known, initial=np.inf))
        high = float(values.max(where=known, initial=-np.inf))
        values = np.where(known, values, np.float32(low))
    if not low < level <= high:
        raise GeometryError("SRF-EMPTY", f"nothing to enclose: {tissue} in a volume of {_span(volume)}", _EMPTY_HINT)
    if (values == np.float32(level)).any():
        level -= 1e-4 * (high - low)  # else triangles without area, which merge when a file of single precision is read
    return values, level


def _known(volume: Volume, tissue: Tissue, all_finite: bool) -> NDArray[np.bool_] | None:
    """Which voxels may be inside at all; None for all of them."""
    masks = [] if all_finite else [np.isfinite(volume.voxels)]
    if volume.seen is not None:
        masks.append(volume.seen)
    if tissue.inside_body and tissue.high is not None:
        masks.append(inside_body(volume, air_below=tissue.high))
    return np.logical_and.reduce(masks) if masks else None


def _span(volume: Volume) -> str:
    finite = volume.voxels[np.isfinite(volume.voxels)]
    return f"values from {finite.min():g} to {finite.max():g}" if finite.size else "no finite value"


def _closed(values: Field, level: float) -> Field:
    """Add one voxel on every side that mirrors its neighbour's value at the level, so that caps stand half a voxel out."""
    padded = np.pad(values, 1, mode="edge")
    for axis, side in _FACES:
        face = np.moveaxis(padded, axis, 0)[side]
        np.minimum(face, np.float32(2 * level) - face, out=face)
    return padded


def _flying_edges(values: Field, level: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return vertices as (slice, row, column) and triangles."""
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    edges = vtkFlyingEdges3D()
    edges.SetInputData(_image(values))
    edges.SetValue(0, level)
    for part in ("Normals", "Gradients", "Scalars"):
        getattr(edges, f"SetCompute{part}")(False)
    edges.Update()
    return _arrays(edges.GetOutput())


def _surface_nets(
    voxels: NDArray[np.int32], labels: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return vertices as (slice, row, column), triangles, and for each triangle the label behind it and before it."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkFiltersCore import vtkSurfaceNets3D

    nets = vtkSurfaceNets3D()
    nets.SetInputData(_image(voxels))
    for slot, label in enumerate(labels):
        nets.SetLabel(slot, label)
    nets.SetBackgroundLabel(0)
    nets.SetOutputMeshTypeToTriangles()
    nets.SmoothingOff()
    nets.Update()
    sides = vtk_to_numpy(nets.GetOutput().GetCellData().GetArray("BoundaryLabels")).astype(np.int64)
    corners, triangles = _arrays(nets.GetOutput())
    # one cell may hold several vertices at its centre, and neighbours disagree how these connect: cracks of no width
    centres = np.rint(corners - 0.5).astype(np.int64)
    _, first, merged = np.unique(np.ravel_multi_index(tuple(centres.T), voxels.shape), return_index=True, return_inverse=True)
    return corners[first], merged[triangles], sides


def _label_map(volume: Volume) -> tuple[NDArray[np.int32], list[int]]:
    voxels = volume.voxels if volume.seen is None else np.where(volume.seen, volume.voxels, 0)
    whole = np.isfinite(voxels).all() and np.array_equal(voxels, np.rint(voxels))
    labels = np.unique(voxels) if whole else np.zeros(0)
    if not whole or len(labels) > _MOST_LABELS:
        what = f"{len(labels)} different values" if whole else "values that are not whole numbers"
        raise UsageError("SRF-LABELS", f"this is no label map: it holds {what}", "Use a tissue or a level instead.")
    return voxels.astype(np.int32), [int(label) for label in labels if label != 0]


def _image(values: NDArray[Any]) -> vtkImageData:
    """Share the array with VTK as an image of spacing one, x along columns."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(*values.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(values.reshape(-1)))
    return image


def _arrays(mesh: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ANN401 (vtkPolyData is untyped)
    from vtkmodules.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(mesh.GetPoints().GetData())
    triangles = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return points[:, ::-1].astype(np.float64), triangles.astype(np.int64, copy=False)


def _stand(corners: NDArray[np.float64], triangles: NDArray[np.int64], grid: Grid, name: str) -> Surface:
    """Place a mesh in the patient; a map that mirrors would turn it inside out, so its triangles are turned back."""
    # VTK winds outward as seen in (x, y, z) = (column, row, slice), which mirrors (slice, row, column)
    turned = triangles if grid.is_left_handed else triangles[:, ::-1]
    return Surface(grid.to_lps(corners), turned, name)


def _volume_changes(raw: Surface, smooth: Surface, light: Surface) -> dict[str, float]:
    before, between, after = volume_mm3(raw), volume_mm3(smooth), volume_mm3(light)
    return {
        "volume_change_by_smoothing_percent": 100 * (between / before - 1),
        "volume_change_by_decimation_percent": 100 * (after / between - 1),
    }
