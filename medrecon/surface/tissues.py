"""Which voxels a surface encloses: presets as data, and the choice among them.

A tissue is a range of values. A surface is drawn where a value crosses the end of the range, so each end stands half
way up the edge to what the tissue usually borders on. Thresholds know no anatomy: between bone and air every value
in between occurs, so thin shells of "soft tissue" are drawn there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import UsageError
from medrecon.core.volume import Quantity, Volume
from medrecon.surface.settings import SurfaceConfig


@dataclass(frozen=True, slots=True)
class Tissue:
    """A range of voxel values, ends included.

    Parameters
    ----------
    name : str
    low, high : float or None
        Ends of the range in voxel units; None is open.
    inside_body : bool
        Whether air outside the body has such values too and must be left out.
    pieces : int
        How many separate pieces make up the tissue.
    """

    name: str
    low: float | None = None
    high: float | None = None
    inside_body: bool = False
    pieces: int = 1

    def __str__(self) -> str:
        low, high = (f"{end:g}" if end is not None else "any" for end in (self.low, self.high))
        return f"{self.name} ({low} to {high})"

    def rising(self, voxels: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Return values that rise into the tissue and the level at its end; the voxels themselves where they will do."""
        if self.high is None:
            return voxels, self.low if self.low is not None else -np.inf
        if self.low is None:
            return -voxels, -self.high
        return np.minimum(voxels - np.float32(self.low), np.float32(self.high) - voxels), 0.0


#: In Hounsfield units. Soft tissue, muscle, fat and bone end where InVesalius' presets do; skin is half way from air (-1000)
#: to fat and water, lung half way from aerated lung (about -850) to its wall (about 40).
HOUNSFIELD_PRESETS: Mapping[str, Tissue] = {
    tissue.name: tissue
    for tissue in (
        Tissue("skin", low=-500.0),
        Tissue("bone", low=226.0),
        Tissue("lung", high=-400.0, inside_body=True, pieces=2),
        Tissue("soft-tissue", low=-5.0, high=225.0),
        Tissue("muscle", low=-5.0, high=135.0),
        Tissue("fat", low=-205.0, high=-51.0),
    )
}
_OTSU_VOXELS = 2_000_000  # more change the threshold by less than noise does


def choose(volume: Volume, config: SurfaceConfig) -> Tissue:
    """Return the range of values that the settings mean in this volume.

    Raises
    ------
    UsageError
        ``SRF-QUANTITY`` for a tissue that is known in Hounsfield units only, in a volume of another quantity.
    """
    if config.level is not None:
        return Tissue(f"level-{config.level:.6g}".replace("--", "-minus-"), low=config.level)
    in_hounsfield = volume.quantity is Quantity.HOUNSFIELD
    name = config.tissue if config.tissue != "auto" else ("skin" if in_hounsfield else "foreground")
    if name == "foreground":
        return Tissue(name, low=_between_classes(volume))
    if not in_hounsfield:
        raise UsageError(
            "SRF-QUANTITY",
            f"the tissue {name!r} is known in Hounsfield units, and this volume holds {volume.quantity.value} values",
            "If it is a CT, say so (quantity='hounsfield', --quantity hounsfield); else use 'foreground' or a level.",
        )
    return HOUNSFIELD_PRESETS[name]


def _between_classes(volume: Volume) -> float:
    """Return the middle between the means of the two classes that Otsu 1979 (IEEE Trans. Syst. Man Cybern. 9, 62) finds.

    At Otsu's optimum the threshold is that middle; where few values lie between the classes, all thresholds there are
    as good for him, and the middle is the one that stands half way up the edge.
    """
    from skimage.filters import threshold_otsu

    step = max(1, int(np.ceil((volume.voxels.size / _OTSU_VOXELS) ** (1 / 3))))
    coarse = np.s_[::step, ::step, ::step]
    known = np.isfinite(volume.voxels[coarse])
    if volume.seen is not None:
        known &= volume.seen[coarse]
    values = volume.voxels[coarse][known]
    if not values.size:
        return 0.0
    bright = values > threshold_otsu(values)
    if not bright.any():  # all values are equal
        return float(values[0])
    return float(values[bright].mean(dtype=np.float64) + values[~bright].mean(dtype=np.float64)) / 2
