"""Scatter: taken off the transmission, as a constant share of the faintest part or by a kernel over the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError

_MOST_ROUNDS = 50


def subtract_constant_scatter(transmission: ArrayLike, fraction: float, floor: float = 1e-4) -> NDArray[np.float32]:
    """Take the same amount off every pixel of a view: a share of the view's faintest percent.

    Boellaard et al., Radiother. Oncol. 44 (1997) 149, in its simplest form.

    Parameters
    ----------
    transmission : (views, rows, columns)
    fraction : float
        Scatter relative to everything received in the faintest percent of a view, 0 to 1 (exclusive).
    floor : float
        Nothing gets fainter than this.
    """
    _refuse_fraction(fraction)
    values = np.asarray(transmission, dtype=np.float32)
    faintest = np.quantile(values.reshape(len(values), -1), 0.01, axis=1).astype(np.float32)
    primary: NDArray[np.float32] = np.maximum(values - np.float32(fraction) * faintest[:, None, None], np.float32(floor))
    return primary


def subtract_kernel_scatter(
    transmission: ArrayLike, fraction: float, width_px: tuple[float, float], rounds: int = 5, floor: float = 1e-4
) -> NDArray[np.float32]:
    """Take off what a wide Gaussian makes of the primary rays, found by iteration.

    The measured image is ``primary + fraction * blurred(primary)``; Ohnesorge et al., Eur. Radiol. 9 (1999) 563, without the
    dependence on thickness.

    Parameters
    ----------
    transmission : (views, rows, columns)
    fraction : float
        Scatter to primary ratio of an even image, 0 to 1 (exclusive).
    width_px : (row, column)
        Standard deviation of the kernel in pixels.
    rounds : int
        The error falls by `fraction` each round.
    """
    from scipy.ndimage import gaussian_filter

    _refuse_fraction(fraction)
    if not (min(width_px) > 0 and 1 <= rounds <= _MOST_ROUNDS):
        raise UsageError("CFG-VALUE", f"a kernel of {list(width_px)} pixels in {rounds} rounds is no correction.")
    measured = np.asarray(transmission, dtype=np.float32)
    primary = measured / np.float32(1 + fraction)
    for _ in range(rounds):
        scattered = gaussian_filter(primary, sigma=(0, *width_px), mode="nearest")
        primary = measured - np.float32(fraction) * scattered
    result: NDArray[np.float32] = np.maximum(primary, np.float32(floor))
    return result


def _refuse_fraction(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise UsageError("CFG-VALUE", f"a scatter fraction of {fraction} does not lie between 0 and 1.")
