"""Which values become black and which white: windows as radiologists name them, by centre and width.

The first choice is what the DICOM header says; without that, what is usual for the quantity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CENTRE, _WIDTH = "00281050", "00281051"
_SAMPLED_VOXELS = 1_000_000
_TAILS_PERCENT = (0.1, 99.9)


@dataclass(frozen=True, slots=True)
class Window:
    """A range of values in the unit of the voxels: `centre` in its middle, `width` from black to white."""

    name: str
    centre: float
    width: float

    @property
    def limits(self) -> tuple[float, float]:
        """The value shown black and the value shown white."""
        return self.centre - self.width / 2, self.centre + self.width / 2

    @classmethod
    def between(cls, name: str, low: float, high: float) -> Window:
        """Return the window between two values."""
        return cls(name, (low + high) / 2, high - low)

    def __str__(self) -> str:
        return f"W {self.width:.4g}  L {self.centre:.4g}"


#: In Hounsfield units, by the key that chooses them; bone, brain, lung and abdomen as in 3D Slicer.
HOUNSFIELD_PRESETS: Mapping[str, Window] = {
    "1": Window("bone", 400.0, 1000.0),
    "2": Window("brain", 50.0, 100.0),
    "3": Window("lung", -500.0, 1400.0),
    "4": Window("abdomen", 40.0, 350.0),
    "5": Window("liver", 60.0, 150.0),
    "6": Window("subdural", 75.0, 215.0),
    "7": Window("angiography", 300.0, 600.0),
}
#: Chooses the window from the values of the layer, whatever their unit.
AUTOMATIC_KEY = "8"
#: Goes back to the window with which the layer was opened: that of the DICOM header where there is one.
RESET_KEY = "9"


def from_header(header: Mapping[str, Any]) -> Window | None:
    """Return the first window of a DICOM JSON header, None where there is none that makes sense."""
    values = [header.get(tag, {}).get("Value") or [None] for tag in (_CENTRE, _WIDTH)]
    centre, width = (first[0] for first in values)
    usable = all(isinstance(value, int | float) and np.isfinite(value) for value in (centre, width)) and width > 0
    return Window("DICOM", float(centre), float(width)) if usable else None


def automatic(voxels: NDArray[Any]) -> Window:
    """Return the window that leaves 0.1 % of the values black and 0.1 % white."""
    step = max(1, int(np.ceil((voxels.size / _SAMPLED_VOXELS) ** (1 / voxels.ndim))))
    sample = voxels[(slice(None, None, step),) * voxels.ndim]
    finite = sample[np.isfinite(sample)]
    low, high = (float(v) for v in np.percentile(finite, _TAILS_PERCENT)) if finite.size else (0.0, 1.0)
    return Window.between("automatic", low, high if high > low else low + 1.0)


def usual(voxels: NDArray[Any], quantity: str, header: Mapping[str, Any]) -> Window:
    """Return the window to open a layer with: the header's, soft tissue for Hounsfield units, else an automatic one."""
    found = from_header(header)
    if found is not None:
        return found
    return Window("soft tissue", 40.0, 400.0) if quantity == "hounsfield" else automatic(voxels)
