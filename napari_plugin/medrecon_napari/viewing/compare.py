"""Before and after: the measured slices and the result in turns, and what the one has that the other has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import medrecon as mr
from medrecon.core.errors import UsageError
from medrecon_napari.layers import LayerData, difference_layer
from medrecon_napari.viewing.letters import place_of_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_PICTURES = ("scan", "volume", "result")


def before_after(viewer: ViewerModel) -> str:
    """Show the measured slices where the result was shown, or the other way round; return what is shown now.

    Raises
    ------
    UsageError
        ``NAP-LAYER`` where there are not both.
    """
    before, after = pair(viewer)
    shown, hidden = (before, after) if after.visible else (after, before)
    shown.visible, hidden.visible = True, False
    viewer.layers.selection.active = shown
    return str(shown.name)


def pair(viewer: ViewerModel) -> tuple[Layer, Layer]:
    """Return the picture to compare with and the newest result: slices of the same series if they are there."""
    results = [layer for layer in viewer.layers if layer.metadata.get("role") == "result"]
    pictures = [layer for layer in viewer.layers if layer.metadata.get("role") in _PICTURES]
    after = results[-1] if results else (pictures[-1] if pictures else None)
    others = [layer for layer in pictures if layer is not after and after is not None]
    same = [one for one in others if after is not None and one.metadata.get("series") == after.metadata.get("series")]
    if after is None or not others:
        raise UsageError("NAP-LAYER", "there are no two pictures to compare", "Open the scan and its result in the same window.")
    return (same or others)[0], after


def add_difference(viewer: ViewerModel) -> Layer:
    """Add the layer `after - before`, on the raster of `before`; both must stand in one patient space.

    Raises
    ------
    UsageError
        ``NAP-LAYER`` where there are no two pictures, or they hold different quantities.
    """
    from napari.layers import Layer

    before, after = pair(viewer)
    if before.metadata.get("quantity") != after.metadata.get("quantity"):
        raise UsageError(
            "NAP-LAYER",
            f"{before.metadata.get('quantity')} and {after.metadata.get('quantity')} values cannot be subtracted",
            "Compare layers of one quantity.",
        )
    added: Layer = viewer.add_layer(Layer.create(*difference(before, after)))
    return added


def difference(before: Layer, after: Layer) -> LayerData:
    """Return the layer data of `after - before` on the raster of `before`; what only one of them saw is 0."""
    here, there = (place_of_layer(layer) for layer in (before, after))
    if here is None or there is None:
        raise UsageError("NAP-LAYER", "a layer does not know its place", "Compare layers that medrecon opened.")
    to_other = np.linalg.inv(there.lps_from_data) @ here.lps_from_data
    values = subtracted(before.data, after.data, to_other, before.metadata.get("seen"), after.metadata.get("seen"))
    volume = mr.Volume(values, mr.Grid(values.shape, here.lps_from_data), before.metadata.get("quantity", "arbitrary"))
    note = f"{after.metadata.get('role')} minus {before.metadata.get('role')}: blue lower, red higher"
    common: dict[str, Any] = {"role": "difference", "series": before.metadata.get("series", ""), "notes": (note,)}
    return difference_layer(volume, common, f"difference · {after.metadata.get('series', '')}".rstrip(" ·"))


def subtracted(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    to_after: NDArray[np.float64],
    before_seen: NDArray[np.bool_] | None = None,
    after_seen: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Return `after`, interpolated linearly at the voxels of `before`, minus `before`.

    Parameters
    ----------
    to_after : (4, 4)
        Maps an index of `before` to one of `after`.
    before_seen, after_seen : bool arrays, optional
        Voxels that were not seen, and such beyond the other volume, give 0.
    """
    from scipy.ndimage import map_coordinates

    result = np.zeros(before.shape, dtype=np.float32)
    rows, columns = (np.arange(n, dtype=np.float64) for n in before.shape[1:])
    top = np.asarray(after.shape)[:, None, None] - 1
    for plane in range(before.shape[0]):
        grid = np.stack(np.broadcast_arrays(float(plane), rows[:, None], columns[None]), axis=0)
        where = np.einsum("ij,jrc->irc", to_after[:3, :3], grid) + to_after[:3, 3, None, None]
        inside = ((where >= -1e-6) & (where <= top + 1e-6)).all(axis=0)
        value = map_coordinates(after, where, order=1, mode="nearest")
        if after_seen is not None:
            inside &= map_coordinates(after_seen, np.rint(where), order=0, mode="nearest")
        if before_seen is not None:
            inside &= before_seen[plane]
        result[plane] = np.where(inside, value - before[plane], 0)
    return result
