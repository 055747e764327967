"""Position and value under the cursor: patient millimetres with the letters of the sides, index, value with its unit.

napari asks the active layer for its status, from a thread of its own; layers that know their place answer here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon_napari.colours import UNITS
from medrecon_napari.place import in_words
from medrecon_napari.viewing.letters import place_of_layer

if TYPE_CHECKING:
    from napari.layers import Layer


def describe_in_status(layer: Layer) -> None:
    """Let a layer tell patient positions in the status bar; one that does not know its place is left as it is."""
    if place_of_layer(layer) is None:
        return
    plain = layer.get_status

    def get_status(position: Sequence[float] | None = None, **rest: Any) -> dict[str, str]:  # noqa: ANN401 (napari's arguments)
        if position is None or not rest.get("world", False):
            status: dict[str, str] = plain(position, **rest)
            return status
        in_3d = len(rest.get("dims_displayed") or ()) == 3  # a ray through many points: none of them is meant
        where, value = ("", "") if in_3d else at(layer, position)
        return {
            "layer_name": layer.name,
            "layer_base": layer.name,  # napari would show the folder's name, which may be a patient's
            "source_type": "",
            "plugin": "",
            "coordinates": ": ".join(filter(None, [where, value])),
            "coords": where,
            "value": value,
        }

    layer.get_status = get_status


def at(layer: Layer, position: Sequence[float]) -> tuple[str, str]:
    """Return where a world point lies in the patient, and what the layer holds there, in words.

    Parameters
    ----------
    position : three world coordinates, as napari's cursor has them
    """
    place = place_of_layer(layer)
    if place is None:
        return "", ""
    point = np.asarray(position, dtype=np.float64)[-3:]
    index = place.index_of_world(point)
    lps = place.lps_of_world(point)
    where = f"{in_words(lps.tolist())}  (LPS {', '.join(f'{v:.1f}' for v in lps)})"
    nearest = np.rint(index).astype(int)
    if not isinstance(layer.data, np.ndarray) or not _inside(nearest, layer.data.shape):
        return where, ""
    return f"{where}  {_index_in_words(layer.metadata, nearest)}", _value_in_words(layer, tuple(nearest.tolist()))


def _inside(index: np.ndarray, shape: Sequence[int]) -> bool:
    return bool((index >= 0).all() and (index < np.asarray(shape)).all())


def _index_in_words(metadata: Mapping[str, Any], index: np.ndarray) -> str:
    """Return the index, counted as the data are stored, and the number of the source slice where there is one."""
    stored = f"[{', '.join(str(int(v)) for v in index)}]"
    if "slice_of_index" not in metadata:
        return stored
    axis, order = metadata["slice_of_index"]
    number = int(order[int(index[axis])])
    return f"{stored} slice {number + 1}/{metadata['slice_count']}" if number >= 0 else f"{stored} no slice"


def _value_in_words(layer: Layer, index: tuple[int, ...]) -> str:
    metadata, value = layer.metadata, layer.data[index]
    seen = metadata.get("seen")
    if seen is not None and not seen[index]:
        return "not measured"
    if "value_names" in metadata:
        return str(metadata["value_names"].get(int(value), ""))
    unit = UNITS.get(metadata.get("quantity", ""), "")
    return f"{float(value):.5g} {unit}".rstrip()
