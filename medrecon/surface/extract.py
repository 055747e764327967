"""A surface from a volume: where its values cross a level.

`make_surface` is the one entry for users; label maps have `medrecon.surface.labels`. Nothing here changes the volume.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError
from medrecon.core.mesh import Surface
from medrecon.core.progress import Tick, silent
from medrecon.core.volume import Volume
from medrecon.surface import lattice, refine
from medrecon.surface.body import inside_body
from medrecon.surface.enclosed import volume_mm3
from medrecon.surface.measure import measure
from medrecon.surface.pieces import largest_pieces
from medrecon.surface.settings import SurfaceConfig
from medrecon.surface.slivers import weld_slivers
from medrecon.surface.tissues import Tissue, choose

Field = NDArray[np.float32]
_HEAVY = 2  # from so many times the wanted triangles on, welding pays


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
    tissue = choose(volume, config)
    keep = functools.partial(largest_pieces, pieces=tissue.pieces, by_volume=config.closed)
    raw = _draw(volume, tissue, config.closed)
    tick(0.2)
    raw = keep(raw) if config.largest_component else raw
    tick(0.3)
    target = config.target_triangles or len(raw.triangles)
    welded = weld_slivers(raw, volume.grid) if len(raw.triangles) > _HEAVY * target else raw
    tick(0.4)
    smooth = refine.smooth(welded, config.smoothing_iterations, config.smoothing_pass_band)
    tick(0.55)
    light = refine.decimate(smooth, target)
    light = keep(light) if config.largest_component else light  # decimation may cut a thin neck
    tick(0.95)
    measures = measure(light) | _volume_changes(raw, welded, smooth, light)
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
    return _draw(volume, choose(volume, config), config.closed)


def _draw(volume: Volume, tissue: Tissue, closed: bool) -> Surface:
    values, level = _inside_is_high(volume, tissue)
    values, start = _cropped(values, level, closed)
    if min(values.shape) < 2:  # a single plane that is not to be closed
        raise _empty(volume, tissue)
    corners, triangles = _flying_edges(values, level)
    return lattice.stand(corners, start, triangles, volume.grid, tissue.name)


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
        raise _empty(volume, tissue)
    if (values == np.float32(level)).any():
        level -= 1e-4 * (high - low)  # else triangles without area, which merge when a file of single precision is read
    return values, level


def _known(volume: Volume, tissue: Tissue, all_finite: bool) -> NDArray[np.bool_] | None:
    """Which voxels may be inside at all; None for all of them."""
    known = None if all_finite else np.isfinite(volume.voxels)
    if volume.seen is not None:
        known = volume.seen if known is None else known & volume.seen
    if tissue.inside_body and tissue.high is not None:
        body = inside_body(volume, air_below=tissue.high)
        known = body if known is None else known & body
    return known


def _empty(volume: Volume, tissue: Tissue) -> GeometryError:
    finite = volume.voxels[np.isfinite(volume.voxels)]
    span = f"values from {finite.min():g} to {finite.max():g}" if finite.size else "no finite value"
    hint = "Choose a level above the lowest and not above the highest value, or another tissue."
    return GeometryError("SRF-EMPTY", f"nothing to enclose: {tissue} in a volume of {span}", hint)


def _cropped(values: Field, level: float, closed: bool) -> tuple[Field, NDArray[np.int64]]:
    """Return the part around all that is inside, and the index at which it starts; the array itself where it will do.

    Where the inside reaches the scan's end, and is to be closed, one voxel is added that mirrors its neighbour's value at
    the level: the cap then stands half a voxel beyond the last centre, where the voxel ends.
    """
    inside = [np.flatnonzero(highest >= level) for highest in _highest(values)]
    sides = [
        (int(closed and axis[0] == 0), int(closed and axis[-1] == n - 1)) for axis, n in zip(inside, values.shape, strict=True)
    ]
    boxes = [slice(max(int(axis[0]) - 1, 0), int(axis[-1]) + 2) for axis in inside]
    if not np.any(sides):
        return values[boxes[0]], np.array([boxes[0].start, 0, 0])  # whole planes need no copy
    part = np.pad(values[tuple(boxes)], sides, mode="edge")
    for axis, (before, after) in enumerate(sides):
        planes = np.moveaxis(part, axis, 0)
        for face in (planes[:before], planes[len(planes) - after :]):
            np.minimum(face, np.float32(2 * level) - face, out=face)
    return part, np.array([box.start - before for box, (before, _) in zip(boxes, sides, strict=True)])


def _highest(values: Field) -> list[Field]:
    """Return the highest value of each plane across each of the three axes."""
    across = values.max(axis=0)
    return [values.max(axis=(1, 2)), across.max(axis=1), across.max(axis=0)]


def _flying_edges(values: Field, level: float) -> tuple[lattice.Corners, lattice.Triangles]:
    """Return vertices as (column, row, slice) and triangles."""
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    edges = vtkFlyingEdges3D()
    edges.SetInputData(lattice.image(values))
    edges.SetValue(0, level)
    for part in ("Normals", "Gradients", "Scalars"):
        getattr(edges, f"SetCompute{part}")(False)
    edges.Update()
    return lattice.arrays(edges.GetOutput())


def _volume_changes(raw: Surface, welded: Surface, smooth: Surface, light: Surface) -> dict[str, float]:
    """In percent; welding is a part of making the surface lighter."""
    first, second, third, last = (volume_mm3(surface) for surface in (raw, welded, smooth, light))
    return {
        "volume_change_by_smoothing_percent": 100 * (third / second - 1),
        "volume_change_by_decimation_percent": 100 * (second / first * last / third - 1),
    }
