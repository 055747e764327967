"""Where air lies inside the body, for tissues whose values also occur around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medrecon.core.volume import Volume

_MOST_VOXELS = 4_000_000
_MARGIN_MM = 5.0  # skin, fat and muscle before the lung are thicker


def inside_body(volume: Volume, air_below: float) -> NDArray[np.bool_]:
    """Return which voxels lie inside the largest object that is denser than `air_below`, and a margin away from its skin.

    In each plane across the body, the object's holes count as inside: lungs stay inside where the scan cuts them. The mask
    is made on a coarse copy, since the lung's own wall is drawn by its values and only the outside must be told apart.

    Returns
    -------
    (slices, rows, columns) bool
    """
    from scipy import ndimage

    step = max(1, int(np.ceil((volume.voxels.size / _MOST_VOXELS) ** (1 / 3))))
    coarse = (slice(None, None, step),) * 3
    dense = volume.voxels[coarse] >= air_below
    if volume.seen is not None:
        dense &= volume.seen[coarse]
    labels, _ = ndimage.label(dense)
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    body = labels == sizes.argmax() if sizes.any() else dense
    along = int(np.abs(volume.grid.directions[2]).argmax())  # the index axis that runs most from feet to head
    filled = np.moveaxis(np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(body, along, 0)]), 0, along)
    depth = ndimage.distance_transform_edt(
        np.pad(filled, 1, mode="edge"), sampling=[step * spacing for spacing in volume.grid.spacing_mm]
    )[1:-1, 1:-1, 1:-1]
    inside: NDArray[np.bool_] = depth > _MARGIN_MM
    for axis in range(3):
        inside = inside.repeat(step, axis=axis)
    slices, rows, columns = volume.grid.shape
    return inside[:slices, :rows, :columns]
