"""Folders that a reconstruction left, opened as a group: volume, surfaces and maps of how far to trust it, one upon the other.

A folder with a ``run.json`` is complete; without one it is not opened as a result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import medrecon as mr
from medrecon.core.errors import InputError
from medrecon_napari.layers import LayerData, coverage_layer, difference_layer, surface_layer, uncertainty_layer, volume_layer
from medrecon_napari.place import Place
from medrecon_napari.planes import stack

RECORD_NAME = "run.json"
_VOLUMES = ("volume.nii.gz", "volume.nrrd", "volume.mha", "dicom")
#: Endings of surface files that are read here, the first one found for each surface counts.
_MESHES = (".stl", ".ply", ".obj", ".glb", ".3mf")
_MOST_RECORD_BYTES = 64 * 2**20


def is_result(path: Path) -> bool:
    """Whether a folder holds a finished result."""
    return path.is_dir() and (path / RECORD_NAME).is_file()


def result_layers(folder: Path | str) -> list[LayerData]:
    """Return the layers of a result folder: the volume, then its maps and surfaces where they were written.

    Raises
    ------
    InputError
        ``NAP-RESULT`` where the folder holds no finished result, or one without a volume.
    """
    folder = Path(folder)
    record = _record(folder)
    volume = _volume(folder)
    common = _common(record, folder)
    made_of = f"{_method(record)} · {common['series']}".strip(" ·") or folder.name
    first = volume_layer(volume, common | {"role": "result"}, made_of)
    maps = [beside(layer, first) for layer in _maps(folder, common, str(volume.quantity))]
    return [first, *maps, *_surfaces(folder, record, common, first)]


def place_of(layer: LayerData) -> Place:
    """Return where the data of a layer made here stand; the layer must be one in one space."""
    arguments = layer[1]
    world = np.eye(4)
    world[:3, :3] = np.diag(arguments.get("scale", (1.0, 1.0, 1.0)))
    world[:3, 3] = arguments.get("translate", (0.0, 0.0, 0.0))
    return Place(np.asarray(arguments["metadata"]["to_lps_mm"], dtype=np.float64), world)


def beside(layer: LayerData, reference: LayerData) -> LayerData:
    """Return a layer moved so that it lies upon another one; one that the screen turns differently gets a note instead."""
    place, other = place_of(layer), place_of(reference)
    data, arguments, kind = layer
    if not place.shares_turn_with(other):
        note = f"shown turned by {place.turned_against(other):.1f} degrees against {reference[1]['name']}"
        metadata = {**arguments["metadata"], "notes": (*arguments["metadata"].get("notes", ()), note)}
        return data, {**arguments, "metadata": metadata}, kind
    return data, {**arguments, "translate": place.beside(other).world_from_data[:3, 3]}, kind


def _record(folder: Path) -> Mapping[str, Any]:
    """Read what the run wrote about itself."""
    path = folder / RECORD_NAME
    try:
        if path.stat().st_size > _MOST_RECORD_BYTES:
            raise _not_a_result(f"its {RECORD_NAME} is larger than {_MOST_RECORD_BYTES} bytes")
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_a_result(f"its {RECORD_NAME} could not be read ({type(error).__name__})") from error
    if not isinstance(record, dict):
        raise _not_a_result(f"its {RECORD_NAME} holds {type(record).__name__}, not a record")
    return record


def _volume(folder: Path) -> mr.Volume:
    found = next((folder / name for name in _VOLUMES if (folder / name).exists()), None)
    if found is None:
        raise _not_a_result("it holds no volume in a format that is read here")
    return _as_volume(found)


def _maps(folder: Path, common: Mapping[str, Any], quantity: str) -> Iterator[LayerData]:
    """Yield the maps that lie with a result, each hidden at first: what was measured, what disagrees, what is in doubt."""
    named = {name: folder / f"{name}.nii.gz" for name in ("coverage", "residual", "uncertainty")}
    found = {name: _as_volume(path) for name, path in named.items() if path.is_file()}
    titles = {name: f"{name} · {common['series']}" for name in found}
    if "coverage" in found:
        yield coverage_layer(found["coverage"], common, titles["coverage"])
    if "residual" in found:
        shown, layer, kind = difference_layer(found["residual"], {**common, "role": "residual"}, titles["residual"])
        yield shown, layer | {"visible": False}, kind
    if "uncertainty" in found:
        yield uncertainty_layer(found["uncertainty"], {**common, "quantity": quantity}, titles["uncertainty"])


def _as_volume(path: Path) -> mr.Volume:
    """Read a volume file, or the DICOM series of a result, as a volume."""
    found = mr.read(path)
    if isinstance(found, mr.SliceScan):
        return stack(found).volume
    if not isinstance(found, mr.Volume):
        raise _not_a_result("what should be its volume are X-ray projections")
    return found


def _surfaces(folder: Path, record: Mapping[str, Any], common: Mapping[str, Any], volume: LayerData) -> list[LayerData]:
    """Return the surfaces of a result, each lying on the layer of its volume."""
    world_from_lps, step_mm = place_of(volume).world_from_lps(), float(np.max(volume[1]["scale"]))
    measures = {entry.get("name"): entry for entry in record.get("surfaces", []) if isinstance(entry, dict)}
    files: dict[str, Path] = {}
    for ending in _MESHES:
        for path in sorted(folder.glob(f"surface-*{ending}")):
            files.setdefault(path.name.removeprefix("surface-").removesuffix(ending), path)
    layers = []
    for name, path in files.items():
        surface = read_mesh(path, name, {key: value for key, value in measures.get(name, {}).items() if key != "name"})
        metadata = {**common, "path": str(path)}
        layers.append(surface_layer(surface, world_from_lps, metadata, f"{name} · {common['series']}", step_mm))
    return layers


def read_mesh(path: Path, name: str, measures: Mapping[str, object]) -> mr.Surface:
    """Read a mesh file of ours, whose vertices are LPS mm; corners that triangles share become one vertex.

    Raises
    ------
    InputError
        ``NAP-MESH`` where the file is damaged or holds no triangles.
    """
    import trimesh

    try:
        mesh = trimesh.load_mesh(path)
        vertices, triangles = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise _no_mesh(type(error).__name__) from error
    if not len(triangles):
        raise _no_mesh("no triangles")
    return mr.Surface(vertices, triangles, name, measures)


def _no_mesh(why: str) -> InputError:
    return InputError("NAP-MESH", f"a surface file could not be read ({why})", "Export the surface again.")


def _common(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    provenance = record.get("provenance", {})
    return {
        "series": str(provenance.get("series_id", "")),
        "modality": str(provenance.get("modality", "")),
        "path": str(folder),
        "verdict": str(record.get("verdict", "")),
        "findings": list(record.get("findings", [])),
        "quality": dict(record.get("quality", {})),
        "provenance": dict(provenance),
        "notes": (),
    }


def _method(record: Mapping[str, Any]) -> str:
    return str(record.get("provenance", {}).get("method", ""))


def _not_a_result(why: str) -> InputError:
    return InputError("NAP-RESULT", f"the folder is not a finished result: {why}", "Choose the folder that holds run.json.")
