"""How long a run will take and how much memory, said before it is started, and from what that is known.

Seconds are voxels times what a million of them cost, by method: measured on two cores at first, and on this machine as
soon as a run has finished here. Memory is what the engine itself checks before it starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medrecon.core.reading import SeriesInfo

#: Seconds per million voxels of the result, on two cores of 2026; everything from reading to writing.
FIRST_RATES: Mapping[str, float] = {"consistent_spline": 1.3, "consistent_spline, general path": 12.0, "interpolate": 0.7}
_OTHER_RATE = 2.0
_START_S = 3.0  # to load Python and torch
_TORCH_BYTES = 600e6
_LEAST_VOXELS = 200_000  # a smaller run says little about a larger one


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will need.

    Parameters
    ----------
    seconds : float
    memory_bytes : float
    shape : (slices, rows, columns)
        Of the result.
    from_here : bool
        Whether the time comes from a run on this machine.
    """

    seconds: float
    memory_bytes: float
    shape: tuple[int, int, int]
    from_here: bool


@dataclass(slots=True)
class Rates:
    """Seconds per million voxels by the work that is done, as this machine showed them; `work_of` names the work."""

    measured: dict[str, float]

    def learn(self, work: str, voxels: int, seconds: float) -> None:
        """Remember how long a finished run took, without what it was given to learn."""
        if voxels >= _LEAST_VOXELS and seconds > _START_S:
            self.measured[work] = (seconds - _START_S) / (voxels / 1e6)

    def estimate(self, work: str, shape: tuple[int, int, int], pixels: int, given_s: float = 0.0) -> Estimate:
        """Estimate a run from the size of its result, the number of pixels that were measured, and what it is given to learn."""
        voxels = math.prod(shape)
        rate = self.measured.get(work, FIRST_RATES.get(work, _OTHER_RATE))
        memory = _TORCH_BYTES + 4 * (4 * voxels + 3 * pixels)  # as the engine's own check
        return Estimate(_START_S + given_s + rate * voxels / 1e6, memory, shape, work in self.measured)


def work_of(method: str, path: str) -> str:
    """Name the work of a run: the general path of the slice model costs many times the fast one."""
    return f"{method}, general path" if path == "general" else method


def given_s(settings: Mapping[str, Any]) -> float:
    """Return the seconds that a method is given to learn from the scan, whatever its size; 0 for most."""
    return float(sum(settings.get(name) or 0.0 for name in ("seconds", "fine_tune_s")))


def result_shape(info: SeriesInfo, spacing_mm: float | tuple[float, float, float] | list[float] | None) -> tuple[int, int, int]:
    """Return about how many voxels a result will have along slices, rows and columns, before the images are read."""
    slices, rows, columns = info.shape
    step, row, column = info.spacing_mm
    thickness = info.thickness_mm[1] if info.thickness_mm else (step or row)
    extent = ((step or thickness) * (slices - 1) + thickness, row * rows, column * columns)
    finest = min(row, column)
    wanted = spacing_mm if spacing_mm is not None else finest
    voxel = (wanted,) * 3 if isinstance(wanted, int | float) else tuple(wanted)
    along_slices, along_rows, along_columns = (max(1, round(length / size)) for length, size in zip(extent, voxel, strict=True))
    return along_slices, along_rows, along_columns
