"""Scans, volumes and surfaces as napari layers: in mm, right side up, with the truth about their place in the metadata.

Metadata of every layer made here:

- ``to_lps_mm`` (4, 4): index into the layer's data -> LPS mm; for images that are not parallel ``poses_lps_mm`` instead;
- ``role``: ``scan``, ``volume``, ``result``, ``coverage``, ``residual``, ``uncertainty``, ``difference``, ``surface``;
- ``series``, ``modality``, ``quantity``, ``verdict``, ``findings`` (plain data), ``path``, ``notes``;
- ``window``: the one it was opened with; ``seen``: False where nothing was measured, or None;
- ``source``: the `Source` it came from, which holds patient text and shows none of it in its ``repr``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import medrecon as mr
from medrecon.core.findings import Finding, judge
from medrecon.core.projections import ProjectionScan
from medrecon_napari import colours
from medrecon_napari.place import apply
from medrecon_napari.planes import Stack, stack
from medrecon_napari.window_level import Window, automatic, usual

#: What napari's ``viewer.add_layer`` helpers and readers take: data, arguments of the layer, type of the layer.
LayerData = tuple[Any, dict[str, Any], str]
Readable = mr.SliceScan | mr.Volume | ProjectionScan

_UNITS = ("mm", "mm", "mm")
_SHEARED = "the volume's axes are not perpendicular; it is shown as if they were, positions in the status bar are true"


def scan_layers(found: Readable, path: str = "") -> list[LayerData]:
    """Return the layers of one series: one for each stack of slices, one for a volume.

    Parameters
    ----------
    found : SliceScan, Volume or ProjectionScan
        As `medrecon.read` returns it.
    path : str
        Where it was read from; kept in the metadata for the next run, shown nowhere.
    """
    common = _common(found, path)
    if isinstance(found, mr.Volume):
        return [volume_layer(found, common | {"role": "volume"}, name=_name(common))]
    if isinstance(found, ProjectionScan):
        return [_projections(found, common)]
    several = found.stack is not None and len(np.unique(found.stack)) > 1
    stacks = found.stacks() if several else [found]
    names = [_name(common)] if len(stacks) == 1 else [f"{_name(common)} stack {k}" for k in range(1, len(stacks) + 1)]
    return [_slices(one, common, name) for one, name in zip(stacks, names, strict=True)]


def volume_layer(
    volume: mr.Volume,
    metadata: Mapping[str, Any],
    name: str,
    window: Window | None = None,
    interpolation: str = "linear",
) -> LayerData:
    """Return the image layer of a volume: turned for the screen, never resampled."""
    shown, layer, kind = volume.to_napari(name)
    chosen = window or usual(shown, str(volume.quantity), volume.source.header)
    seen = None if volume.seen is None else volume.with_voxels(volume.seen.astype(np.float32)).to_napari()[0] > 0
    notes = (*metadata.get("notes", ()), *((_SHEARED,) if volume.grid.is_sheared else ()))
    layer["metadata"] = {
        **metadata,
        **layer["metadata"],
        "source": volume.source,
        "window": chosen,
        "seen": seen,
        "notes": notes,
    }
    return shown, layer | {"contrast_limits": chosen.limits, "interpolation2d": interpolation}, kind


def surface_layer(
    surface: mr.Surface, world_from_lps: NDArray[np.float64], metadata: Mapping[str, Any], name: str, step_mm: float = 1.0
) -> LayerData:
    """Return the surface layer of a mesh on the screen of the volume to which `world_from_lps` belongs.

    The vertices are given along the axes of napari's world, since napari slices surfaces only along the axes of their data.

    Parameters
    ----------
    step_mm : float
        What one unit of the data is in the world. napari's sliders take the finest scale of all layers for their step, so
        give the widest spacing of the volume.
    """
    vertices = (apply(world_from_lps, surface.vertices_lps_mm) / step_mm).astype(np.float32)
    triangles, values = surface.triangles.astype(np.uint32), np.ones(len(vertices), dtype=np.float32)
    colour = colours.TISSUE_COLOURS.get(surface.name, colours.OTHER_SURFACE)
    layer = {
        "name": name,
        "scale": (step_mm,) * 3,
        "units": _UNITS,
        "colormap": {"name": f"medrecon {surface.name}", "colors": [colour, colour]},
        "shading": "smooth",
        "metadata": {
            **metadata,
            "role": "surface",
            "tissue": surface.name,
            "measures": dict(surface.measures),
            "to_lps_mm": np.linalg.inv(world_from_lps) @ np.diag([step_mm, step_mm, step_mm, 1.0]),
        },
    }
    return (vertices, triangles, values), layer, "surface"


def coverage_layer(volume: mr.Volume, metadata: Mapping[str, Any], name: str) -> LayerData:
    """Return the layer of the engine's coverage map: measured, interpolated, not seen.

    An image in three colours, since napari needs four times as long to add a labels layer, during which the window stands still.
    """
    shown, layer, kind = volume.to_napari(name)
    levels = np.uint8(colours.UNSEEN) - np.clip(np.rint(shown), 0, 2).astype(np.uint8)
    layer["metadata"] = {**metadata, **layer["metadata"], "role": "coverage", "value_names": dict(colours.COVERAGE_NAMES)}
    look = {"colormap": dict(colours.COVERAGE), "contrast_limits": colours.COVERAGE_LIMITS, "interpolation2d": "nearest"}
    return levels, layer | look | {"opacity": 0.5, "visible": False}, kind


def uncertainty_layer(volume: mr.Volume, metadata: Mapping[str, Any], name: str) -> LayerData:
    """Return the layer of a method's own doubt, in the unit of the result: clear where it is sure, red where it is not."""
    shown, layer, kind = volume.to_napari(name)
    limit = max(automatic(shown).limits[1], float(np.finfo(np.float32).tiny))
    window = Window.between("from 0", 0.0, limit)
    layer["metadata"] = {**layer["metadata"], **metadata, "role": "uncertainty", "window": window}
    return shown, layer | {"colormap": dict(colours.UNCERTAIN), "contrast_limits": window.limits, "visible": False}, kind


def difference_layer(volume: mr.Volume, metadata: Mapping[str, Any], name: str) -> LayerData:
    """Return the image layer of signed differences: blue too low, red too high, clear where there is none."""
    shown, layer, kind = volume.to_napari(name)
    limit = max(abs(end) for end in automatic(shown).limits)
    layer["metadata"] = {**metadata, **layer["metadata"], "window": Window("symmetric", 0.0, 2 * limit)}
    return shown, layer | {"colormap": dict(colours.DIVERGING), "contrast_limits": (-limit, limit)}, kind


def _slices(scan: mr.SliceScan, common: Mapping[str, Any], name: str) -> LayerData:
    """Return the layer of one stack of slices."""
    metadata = {**common, "role": "scan", "slice_corners_lps_mm": scan.poses.corners_lps_mm()}
    if not scan.poses.are_parallel:
        return _frames(scan, metadata, name)
    stacked = stack(scan)
    metadata |= {"notes": stacked.notes, "display_error_mm": stacked.error_mm, "slice_count": len(scan.poses)}
    shown, layer, kind = volume_layer(stacked.volume, metadata, name, interpolation="nearest")
    layer["metadata"]["slice_of_index"] = _on_screen_slices(stacked, layer)
    return shown, layer, kind


def _on_screen_slices(stacked: Stack, layer: Mapping[str, Any]) -> tuple[int, NDArray[np.int64]]:
    """Return along which axis of the layer's data the slices follow each other, and which slice each index shows."""
    turned = np.linalg.inv(stacked.volume.grid.to_lps_mm) @ layer["metadata"]["to_lps_mm"]
    axis = int(np.argmax(np.abs(turned[0, :3])))
    order = stacked.slice_of_plane if turned[0, axis] > 0 else stacked.slice_of_plane[::-1]
    return axis, order


def _frames(scan: mr.SliceScan, metadata: Mapping[str, Any], name: str) -> LayerData:
    """Return images that are not parallel one after another: their place is known, but no raster can hold it."""
    row, column = (float(v) for v in scan.poses.pixel_spacing_mm[0])
    window = usual(scan.pixels, str(scan.quantity), scan.source.header)
    note = "the images are not parallel; they are shown one after another, positions in the status bar are true"
    layer = {
        "name": name,
        "scale": (1.0, row, column),
        "axis_labels": ("image", "row", "column"),
        "units": _UNITS,
        "colormap": "gray",
        "contrast_limits": window.limits,
        "metadata": {
            **metadata,
            "poses_lps_mm": scan.poses.to_lps_mm,
            "quantity": str(scan.quantity),
            "source": scan.source,
            "window": window,
            "seen": scan.measured,
            "notes": (note,),
        },
    }
    return scan.pixels, layer, "image"


def _projections(scan: ProjectionScan, common: Mapping[str, Any]) -> LayerData:
    """Return detector images one after another; a pixel of them is a ray, not a place in the patient."""
    row, column = scan.views.detector.pitch_mm
    window = automatic(scan.pixels)
    layer = {
        "name": _name(common),
        "scale": (1.0, float(row), float(column)),
        "axis_labels": ("view", "detector row", "detector column"),
        "units": _UNITS,  # napari draws layers of different units without any
        "colormap": "gray",
        "contrast_limits": window.limits,
        "metadata": {
            **common,
            "role": "scan",
            "quantity": str(scan.measures),
            "source": scan.source,
            "window": window,
            "notes": ("X-ray projections: millimetres are those of the detector, not of the patient",),
        },
    }
    return scan.pixels, layer, "image"


def _common(found: Readable, path: str) -> dict[str, Any]:
    return {
        "series": found.source.series_id,
        "modality": found.source.modality,
        "path": path,
        "verdict": str(judge(found.findings, found.allowed)),
        "findings": plain_findings(found.findings),
        "notes": (),
    }


def plain_findings(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """Return findings as plain data, as in ``run.json``."""
    return [finding.as_json() for finding in findings]


def _name(common: Mapping[str, Any]) -> str:
    """Return ``<modality> <series id>``; files that carry no modality are just volumes."""
    return " ".join(filter(None, [common["modality"] or "volume", common["series"]]))
