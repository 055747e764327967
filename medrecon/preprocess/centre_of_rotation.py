"""Where the axis of rotation appears on the detector, and how it leans: from views that look from opposite sides.

Right for a parallel beam, and for a fan or cone so narrow that opposite views nearly mirror each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import GeometryError

_FURTHEST_RAD = np.radians(3.0)
_ALIKE_RAD = np.radians(0.1)  # pairs further apart than the best ones lean to one side
_MOST_PAIRS = 32
_MOST_BANDS = 16
_FEWEST_BANDS = 3
_LIKE = 0.5  # of the best band's likeness, below which a band says nothing
_ROUNDS = 3
_UPRIGHT_PX = 0.1  # over the height of the detector
_SPREAD = 3.0  # robust standard deviations beyond which a band is left out


@dataclass(frozen=True, slots=True)
class Axis:
    """The image of the axis of rotation.

    Parameters
    ----------
    column : float
        At the middle row, counted from 0.
    tilt_rad : float
        Angle against the columns; positive where it moves to higher columns with growing row. 0 where it could not be seen.
    spread_px : float
        How far the measurements of single pairs lie apart (half the interquartile range).
    """

    column: float
    tilt_rad: float
    spread_px: float

    def offset_u_mm(self, columns: int, pitch_mm: float) -> float:
        """Where the detector's middle stands, measured from the axis: the ``offset_u_mm`` of `ViewGeometry.parallel`."""
        return ((columns - 1) / 2 - self.column) * pitch_mm


def find_axis(line_integrals: ArrayLike, angles_rad: ArrayLike) -> Axis:
    """Find the axis from pairs of views half a turn apart.

    Parameters
    ----------
    line_integrals : (views, rows, columns)
    angles_rad : (views,)

    Raises
    ------
    GeometryError
        ``PRJ-FEW`` where no two views are half a turn apart, to 3 degrees; ``PRJ-SHAPE`` where angles and views differ in number.
    """
    stack, angles = np.asarray(line_integrals, dtype=np.float64), np.asarray(angles_rad, dtype=np.float64)
    stack = np.nan_to_num(stack, posinf=0.0, neginf=0.0)
    if stack.ndim != 3 or angles.shape != (len(stack),):
        raise GeometryError("PRJ-SHAPE", f"projections of shape {list(stack.shape)} and {angles.size} angles do not pair")
    pairs = _opposed(angles)
    views, numbers = np.unique(pairs, return_inverse=True)
    chosen, numbers = stack[views], numbers.reshape(-1, 2)
    column, slope, spread = _measure(chosen, numbers)
    for _ in range(_ROUNDS):
        if abs(slope) * stack.shape[1] < _UPRIGHT_PX:
            break
        upright = _sheared(chosen, column, slope)  # opposite views of a leaning axis mirror each other only when it is upright
        column, more, spread = _measure(upright, numbers)
        slope += more
    return Axis(column, float(np.arctan(slope)), spread)


def _measure(stack: NDArray[np.float64], pairs: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the axis's column at the middle row, how it moves with each row, and how far single measurements lie apart."""
    rows, columns = stack.shape[1:]
    bands = np.array_split(np.arange(rows), min(rows, _MOST_BANDS))
    averaged = np.stack([stack[:, band].mean(axis=1) for band in bands], axis=1)
    found = np.array([[_shift(a, b) for a, b in zip(averaged[i], averaged[k], strict=True)] for i, k in pairs])
    shift, likeness = found[..., 0] / 2, np.median(found[..., 1], axis=0)
    telling = likeness > _LIKE * max(float(likeness.max()), 1e-12)  # others show nothing, or noise
    if not telling.any():
        raise GeometryError("PRJ-EMPTY", "the views show nothing that moves when they turn", "Give the axis.")
    heights = np.array([band.mean() for band in bands]) - (rows - 1) / 2
    spread = float(np.subtract(*np.percentile(shift[:, telling], [75, 25])) / 2)
    column, slope = _line(heights[telling], (columns - 1) / 2 + np.median(shift[:, telling], axis=0))
    return column, slope, spread


def _sheared(stack: NDArray[np.float64], column: float, slope: float) -> NDArray[np.float64]:
    """Turn every view about the axis at its middle row, so that the axis stands upright."""
    from scipy.ndimage import affine_transform

    lean = np.arctan(slope)
    turn = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    middle = np.array([(stack.shape[1] - 1) / 2, column])
    turned = [affine_transform(image, turn, middle - turn @ middle, order=1, mode="nearest") for image in stack]
    return np.asarray(turned)


def _opposed(angles: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the pairs of views that are nearest to half a turn apart."""
    apart = np.abs(np.angle(np.exp(1j * (angles[None] - angles[:, None] - np.pi))))
    apart[np.tril_indices(len(angles))] = np.inf
    order = np.argsort(apart, axis=None, kind="stable")[:_MOST_PAIRS]
    furthest = min(_FURTHEST_RAD, float(apart.min()) + _ALIKE_RAD)
    pairs = [divmod(int(at), len(angles)) for at in order if apart.flat[at] <= furthest]
    if not pairs:
        raise GeometryError("PRJ-FEW", "no two views look from opposite sides", "Give the axis, or scan half a turn and a step.")
    return [(i, k) for i, k in pairs]


def _shift(row: NDArray[np.float64], opposed: NDArray[np.float64]) -> tuple[float, float]:
    """Return by how many columns a row must move onto the mirror image of the opposed one, and how alike they are then.

    The shift is twice the axis's offset.
    """
    from scipy.fft import irfft, rfft

    mirrored = opposed[::-1]
    n = len(row)
    a, b = (np.diff(values - values.mean(), prepend=values[0] - values.mean()) for values in (row, mirrored))
    size = 2 * n
    cross = rfft(a, size) * np.conj(rfft(b, size))
    correlation = irfft(cross, size)
    lags = np.fft.fftfreq(size, 1 / size)
    best = int(np.argmax(correlation))
    left, middle, right = (correlation[(best + step) % size] for step in (-1, 0, 1))
    curve = left - 2 * middle + right
    energy = float(np.sqrt((a @ a) * (b @ b)))
    return float(lags[best] + (0.5 * (left - right) / curve if curve < 0 else 0.0)), float(middle / energy) if energy > 0 else 0.0


def _line(heights: NDArray[np.float64], columns: NDArray[np.float64]) -> tuple[float, float]:
    """Fit a straight line after leaving out bands that are far from it (empty rows give any shift)."""
    if len(heights) < _FEWEST_BANDS:
        return float(np.median(columns)), 0.0
    from scipy.stats import theilslopes

    slope, middle, _, _ = theilslopes(columns, heights)
    away = np.abs(columns - middle - slope * heights)
    kept = away <= max(_SPREAD * 1.4826 * float(np.median(away)), 0.25)
    if kept.sum() < _FEWEST_BANDS:
        return float(middle), float(slope)
    fitted = np.polyfit(heights[kept], columns[kept], 1)
    return float(fitted[1]), float(fitted[0])
