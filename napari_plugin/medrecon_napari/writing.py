"""Writers: image layers as NIfTI, NRRD, MetaImage or a DICOM series, surfaces as meshes in LPS millimetres.

What is written is what the metadata say about the layer's place, through the engine's own writers, which check what
they wrote. A layer that does not say where it stands in the patient is refused: no place is made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import medrecon as mr
from medrecon import writers
from medrecon.core.errors import UsageError
from medrecon.core.source import Source
from medrecon_napari.place import apply

_VOLUME_ENDINGS = {".nii.gz": "nifti", ".nrrd": "nrrd", ".mha": "mha"}
#: Roles whose values are not what the scanner measures, so that the source's unit does not hold for them.
_MAPS = ("coverage", "residual", "uncertainty", "difference")


def write_volume(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:  # noqa: ANN401 (a layer's data)
    """Write an image or labels layer as one file; the ending chooses the format."""
    target = Path(path)
    name = next((name for ending, name in _VOLUME_ENDINGS.items() if target.name.lower().endswith(ending)), None)
    if name is None:
        endings = ", ".join(_VOLUME_ENDINGS)
        raise UsageError("ARG-ENDING", f"no volume format ends in {target.suffix[:20]!r}", f"Known endings: {endings}.")
    volume = as_volume(data, meta)
    writers.get(name).write(volume, target, _context(meta))
    return [str(target)]


def write_dicom(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:  # noqa: ANN401 (a layer's data)
    """Write an image layer as a derived DICOM series, into the folder that has the path's name without its ending."""
    target = Path(path).with_suffix("")
    writers.get("dicom").write(as_volume(data, meta), target, _context(meta))
    return [str(target)]


def write_surface(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:  # noqa: ANN401 (a layer's data)
    """Write a surface layer as a mesh in LPS mm; the ending chooses the format."""
    target = Path(path)
    surface = as_surface(data, meta)
    for name in writers.names():
        writer = writers.get(name)
        if writer.writes == "surface" and Path(writer.target).suffix == target.suffix.lower():
            writer.write(surface, target, _context(meta))
            return [str(target)]
    raise UsageError("ARG-ENDING", f"no surface format ends in {target.suffix[:20]!r}", "Known: .stl .ply .obj .glb .3mf .vtp")


def as_volume(data: Any, meta: Mapping[str, Any]) -> mr.Volume:  # noqa: ANN401 (a layer's data)
    """Return the volume that an image or labels layer shows.

    Raises
    ------
    UsageError
        ``NAP-PLACE`` for a layer that does not know its place, or whose images stand in no common raster.
    """
    voxels = np.asarray(data, dtype=np.float32)
    metadata = meta.get("metadata", {})
    if voxels.ndim != 3 or "to_lps_mm" not in metadata:
        raise UsageError(
            "NAP-PLACE",
            "the layer does not say where it stands in the patient",
            "Only layers that medrecon opened or made can be written as medical images; save others as TIFF.",
        )
    is_map = metadata.get("role") in _MAPS
    return mr.Volume(
        voxels,
        mr.Grid(voxels.shape, metadata["to_lps_mm"]),
        mr.Quantity.ARBITRARY if is_map else metadata.get("quantity", mr.Quantity.ARBITRARY),
        metadata.get("seen"),
        metadata.get("source") or Source(),
    )


def as_surface(data: Any, meta: Mapping[str, Any]) -> mr.Surface:  # noqa: ANN401 (a layer's data)
    """Return the surface that a surface layer shows; raises `UsageError` (``NAP-PLACE``) where its place is not known."""
    metadata = meta.get("metadata", {})
    if "to_lps_mm" not in metadata:
        raise UsageError(
            "NAP-PLACE",
            "the surface does not say where it stands in the patient",
            "Only surfaces that medrecon opened or made can be written in patient millimetres.",
        )
    vertices = apply(np.asarray(metadata["to_lps_mm"], dtype=np.float64), np.asarray(data[0], dtype=np.float64))
    return mr.Surface(vertices, data[1], str(metadata.get("tissue", "surface")), metadata.get("measures", {}))


def _context(meta: Mapping[str, Any]) -> writers.WriteContext:
    metadata = meta.get("metadata", {})
    provenance = metadata.get("provenance", {})
    return writers.WriteContext(
        method=str(provenance.get("method", "")),
        settings_hash=str(provenance.get("config_hash", "")),
        verdict=str(metadata.get("verdict") or "ok"),
        source=metadata.get("source") or Source(),
    )
