"""From attenuation per mm to Hounsfield units and back: what water and air measure in this very spectrum.

HU = 1000 (mu - water) / (water - air). Both values depend on tube voltage, filter and scatter, so they are measured,
told by the scanner, or declared by the user, and the origin travels with them. Nothing here guesses a spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import UsageError

#: Photon energy in keV and mass attenuation of water in cm2/g, with coherent scattering: Hubbell and Seltzer 1995, NISTIR 5632.
_WATER = np.array(
    [
        (10.0, 5.329),
        (15.0, 1.673),
        (20.0, 0.8096),
        (30.0, 0.3756),
        (40.0, 0.2683),
        (50.0, 0.2269),
        (60.0, 0.2059),
        (80.0, 0.1837),
        (100.0, 0.1707),
        (150.0, 0.1505),
        (200.0, 0.1370),
        (300.0, 0.1186),
        (400.0, 0.1061),
        (500.0, 0.09687),
        (600.0, 0.08956),
        (800.0, 0.07865),
        (1000.0, 0.07072),
    ]
)
LOWEST_KEV, HIGHEST_KEV = float(_WATER[0, 0]), float(_WATER[-1, 0])
_CM_PER_MM = 0.1
_AIR_HU, _WATER_HU = -1000.0, 0.0


class Origin(StrEnum):
    """How the values of water and air are known."""

    MEASURED = "measured"
    """In regions of the volume whose Hounsfield units are known."""
    SCANNER = "scanner"
    """The files say it."""
    GIVEN = "given"
    """The user gave the values."""
    ENERGY = "energy"
    """The user gave an effective energy; the value is that of pure water for photons of this one energy."""


@dataclass(frozen=True, slots=True)
class HounsfieldCalibration:
    """What water and air attenuate.

    Parameters
    ----------
    water_per_mm, air_per_mm : float
        Attenuation in 1/mm; water's is the larger one.
    origin : Origin

    Raises
    ------
    UsageError
        ``HU-VALUE`` where water does not attenuate more than air.
    """

    water_per_mm: float
    air_per_mm: float = 0.0
    origin: Origin = Origin.GIVEN

    def __post_init__(self) -> None:
        if not (np.isfinite([self.water_per_mm, self.air_per_mm]).all() and self.water_per_mm > max(self.air_per_mm, 0)):
            raise UsageError(
                "HU-VALUE",
                f"water at {self.water_per_mm:.4g} and air at {self.air_per_mm:.4g} per mm cannot be",
                "Water attenuates about 0.02 per mm, air nearly nothing. Is the value per cm?",
            )

    @classmethod
    def from_energy(cls, kev: float) -> Self:
        """Take water's value at one photon energy, by interpolation of logarithms in the published table.

        Raises
        ------
        UsageError
            ``HU-VALUE`` for an energy outside the table, 10 to 1000 keV.
        """
        return cls(water_per_mm(kev), origin=Origin.ENERGY)

    @classmethod
    def from_samples(cls, attenuation_per_mm: ArrayLike, hounsfield: ArrayLike) -> Self:
        """Fit the line through materials of known Hounsfield units; of a single one, air is taken as 0 per mm.

        Parameters
        ----------
        attenuation_per_mm : (n,)
            As measured in the volume.
        hounsfield : (n,)
            What they should be, such as 0 for water and -1000 for air.

        Raises
        ------
        UsageError
            ``HU-VALUE`` where the samples do not fix a rising line.
        """
        mu, hu = (np.asarray(values, dtype=np.float64) for values in (attenuation_per_mm, hounsfield))
        if mu.shape != hu.shape or mu.ndim != 1 or not len(mu):
            raise UsageError("HU-VALUE", f"{mu.size} attenuations and {hu.size} Hounsfield units do not pair")
        if len(mu) == 1:
            mu, hu = np.append(mu, 0.0), np.append(hu, _AIR_HU)
        if np.ptp(hu) < 1:
            raise UsageError("HU-VALUE", "all samples have the same Hounsfield units", "Give two materials: water and air.")
        per_hu, at_water = np.polyfit(hu, mu, 1)
        return cls(float(at_water), float(at_water + _AIR_HU * per_hu), Origin.MEASURED)

    def to_hounsfield(self, attenuation_per_mm: ArrayLike) -> NDArray[np.float32]:
        """Return Hounsfield units of attenuation in 1/mm."""
        scale = (_WATER_HU - _AIR_HU) / (self.water_per_mm - self.air_per_mm)
        values = np.asarray(attenuation_per_mm, dtype=np.float32)
        return (values - np.float32(self.water_per_mm)) * np.float32(scale)

    def to_attenuation(self, hounsfield: ArrayLike) -> NDArray[np.float32]:
        """Return attenuation in 1/mm of Hounsfield units; below air there is nothing."""
        share = (np.asarray(hounsfield, dtype=np.float32) - np.float32(_AIR_HU)) / np.float32(_WATER_HU - _AIR_HU)
        values = np.float32(self.air_per_mm) + share * np.float32(self.water_per_mm - self.air_per_mm)
        clipped: NDArray[np.float32] = np.maximum(values, np.float32(min(self.air_per_mm, 0.0)))
        return clipped

    def as_json(self) -> dict[str, object]:
        """Return the calibration as plain data, as it stands in ``run.json``."""
        return {"water_per_mm": self.water_per_mm, "air_per_mm": self.air_per_mm, "origin": str(self.origin)}


def water_per_mm(kev: float) -> float:
    """Return the attenuation of water in 1/mm at a photon energy; raise `UsageError` (``HU-VALUE``) outside the table."""
    if not LOWEST_KEV <= kev <= HIGHEST_KEV:
        raise UsageError(
            "HU-VALUE",
            f"an effective energy of {kev:g} keV is outside {LOWEST_KEV:g} to {HIGHEST_KEV:g} keV",
            "A tube at 120 kV has an effective energy of about 60 to 70 keV.",
        )
    energies, attenuation = np.log(_WATER.T)
    return float(np.exp(np.interp(np.log(kev), energies, attenuation)) * _CM_PER_MM)
