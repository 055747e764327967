"""The logarithm: from transmission to line integrals, with care where hardly anything came through."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError


def attenuation(
    transmission: ArrayLike, floor: float = 1e-4, knee: float | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return ``-log(transmission)`` and where it could be taken.

    Parameters
    ----------
    transmission : (views, rows, columns)
        1 for air.
    floor : float
        What lies below is taken as `floor`: its ray hit something that nothing passed, or noise made it negative.
    knee : float, optional
        Below it the logarithm goes on as its tangent, down to 0 and beyond, so that noise about 0 keeps a finite
        mean and is not cut on one side. Between `floor` and 1.

    Returns
    -------
    line_integrals : (views, rows, columns) float32
    seen : (views, rows, columns) bool
        False where the value was not a number.
    """
    if not 0 < floor < 1 or (knee is not None and not floor <= knee < 1):
        raise UsageError("CFG-VALUE", f"a floor of {floor} and a knee of {knee} do not lie between 0 and 1, floor first.")
    values = np.asarray(transmission, dtype=np.float32)
    seen = np.isfinite(values)
    clean = np.where(seen, values, np.float32(1))
    result = -np.log(np.maximum(clean, np.float32(floor if knee is None else knee)))
    if knee is not None:
        result += np.maximum(knee - clean, 0) / np.float32(knee)
    return result, seen
