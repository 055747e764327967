"""How voxel values become the 16 bit integers of a classic DICOM image, and back.

Hounsfield units are rounded to whole units. Other values stay as they are where they are whole numbers that fit; else
they are scaled so that rounding costs less than 0.5/32767 of their range. Voxels that were never seen get a value of
their own, below every value that was seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import OutputError
from medrecon.core.volume import OUTSIDE_VALUE, Quantity, Volume

Stored = NDArray[np.int16] | NDArray[np.uint16]

_MOST_HOUNSFIELD = 32767
_EXACT = 1e12  # whole numbers below this survive the fourteen digits of the intercept
_CODES = 65533  # of the 65536 integers one may be the padding, and rounding may need one more at either end
_NICE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True, slots=True)
class Coding:
    """What the stored integers mean: value = slope * stored + intercept.

    Parameters
    ----------
    smallest, largest : int
        Range of the stored values of seen voxels; what lies beyond is clipped.
    slope, intercept : float
    padding : int, optional
        Stored value of voxels that were never seen; None where all were.
    clipped : int
        How many seen voxels lie beyond the range.
    """

    smallest: int
    largest: int
    slope: float = 1.0
    intercept: float = 0.0
    padding: int | None = None
    clipped: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the stored integers are the values themselves."""
        return self.slope == 1.0 and self.intercept == 0.0

    @property
    def lowest(self) -> int:
        """Smallest stored integer of all, padding included."""
        return self.smallest if self.padding is None else min(self.smallest, self.padding)

    @property
    def is_signed(self) -> bool:
        """Whether the stored integers are int16, which is preferred, else uint16."""
        return self.lowest < 0 or self.largest <= 32767

    def encode(self, values: NDArray[np.float32], seen: NDArray[np.bool_] | None) -> Stored:
        """Return the stored little-endian integers of some voxels, same shape."""
        stored = np.rint(values if self.is_plain else (values.astype(np.float64) - self.intercept) / self.slope)
        stored = np.clip(stored, self.smallest, self.largest)
        if self.padding is not None and seen is not None:
            stored = np.where(seen, stored, self.padding)
        return stored.astype("<i2" if self.is_signed else "<u2")


def choose_coding(volume: Volume) -> Coding:
    """Choose the stored integers for a volume.

    Raises
    ------
    OutputError
        ``OUT-FINITE`` where a seen voxel is not a finite number.
    """
    low, high, whole = _survey(volume)
    outside = None if volume.seen is None or volume.seen.all() else int(OUTSIDE_VALUE[volume.quantity])
    if volume.quantity is Quantity.HOUNSFIELD:
        return _hounsfield(volume, low, high, outside)
    if whole:
        plain = Coding(round(low), round(high), padding=None if outside is None else min(outside, round(low) - 1))
        if plain.largest <= (32767 if plain.is_signed else 65535) and plain.lowest >= -32768:
            return plain
    return _scaled(low, high, whole=whole, padded=outside is not None)


def _survey(volume: Volume) -> tuple[float, float, bool]:
    """Lowest and highest seen value, and whether all are whole numbers; slice by slice, to need no copy of the volume."""
    low, high, whole = math.inf, -math.inf, True
    for k, plane in enumerate(volume.voxels):
        values = plane if volume.seen is None else plane[volume.seen[k]]
        if values.size == 0:
            continue
        least, most = float(values.min()), float(values.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise OutputError("OUT-FINITE", f"slice {k + 1} of the volume holds a value that is not a finite number")
        low, high = min(low, least), max(high, most)
        whole = whole and bool((values == np.rint(values)).all())
    return (low, high, whole) if low <= high else (0.0, 0.0, True)


def _hounsfield(volume: Volume, low: float, high: float, outside: int | None) -> Coding:
    """Whole Hounsfield units as int16."""
    smallest, largest = (int(np.clip(round(v), -_MOST_HOUNSFIELD, _MOST_HOUNSFIELD)) for v in (low, high))
    clipped = 0
    if min(low, -high) < -_MOST_HOUNSFIELD - 0.5:
        beyond = np.abs(volume.voxels) >= _MOST_HOUNSFIELD + 0.5
        clipped = int(np.count_nonzero(beyond if volume.seen is None else beyond & volume.seen))
    return Coding(smallest, largest, padding=None if outside is None else min(outside, smallest - 1), clipped=clipped)


def _scaled(low: float, high: float, *, whole: bool, padded: bool) -> Coding:
    """Spread the range over the unsigned integers; zero stays a whole stored value, so that it comes back exactly."""
    exact = whole and high - low <= _CODES and max(abs(low), abs(high)) < _EXACT
    slope = 1.0 if exact else _round_up(max(high - low, 1e-6 * abs(high), 1e-30) / _CODES)
    intercept = float(f"{(math.floor(low / slope) - padded) * slope:.14g}")
    smallest, largest = (round((v - intercept) / slope) for v in (low, high))
    return Coding(max(smallest, int(padded)), min(largest, 65535), slope, intercept, padding=0 if padded else None)


def _round_up(number: float) -> float:
    """Return the next larger number of at most two digits, which decimal text holds exactly."""
    exponent = math.floor(math.log10(number))
    return next(nice for nice in (float(f"{digit}e{exponent}") for digit in _NICE) if nice >= number)
