"""What the pages of a report are put together from: numbers and units for people, and pictures with words for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medrecon.core.provenance import Provenance
from medrecon.core.volume import Quantity, Volume
from medrecon.quality import pictures
from medrecon.quality.pictures import Tile

TILE_PX, HERO_PX, SLICE_PX = 360, 620, 240
PER_PLANE = 4
BAR_MM = 50

UNITS = {Quantity.HOUNSFIELD: "HU", Quantity.ATTENUATION_PER_MM: "per mm", Quantity.ARBITRARY: "grey levels"}
_UNIT_WORDS = {
    "mm": "mm",
    "mm2": "mm²",
    "cm2": "cm²",
    "mm3": "mm³",
    "ml": "mL",
    "deg": "°",
    "percent": "%",
    "hu": "HU",
    "s": "s",
    "db": "dB",
}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as the page holds it.

    Parameters
    ----------
    uri : str
        The picture itself, as a data URI.
    tile : Tile
    alt : str
        What it shows, for those who cannot see it.
    """

    uri: str
    tile: Tile
    alt: str

    @property
    def bar_percent(self) -> float:
        """Width of the scale bar, in percent of the picture's width."""
        return 100 * BAR_MM / (self.tile.width_px * self.tile.mm_per_pixel)


def number(value: object, digits: int = 3) -> str:
    """Write a number for people: some significant digits, thin spaces between thousands, a true minus sign."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return ", ".join(short(item) for item in value) if isinstance(value, list | tuple) else str(value)
    if not math.isfinite(value):
        return "not a number"
    if value == 0:
        return "0"
    if isinstance(value, int) or abs(value) >= 10**digits:
        text = f"{round(value):,}".replace(",", "\u202f")
    elif abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    else:
        text = f"{float(f'{value:.{digits}g}'):.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "\u2212")


def words(key: str) -> str:
    """Turn ``largest_step_mm`` into ``largest step, mm``."""
    stem, _, last = key.rpartition("_")
    words = f"{stem.replace('_', ' ')}, {_UNIT_WORDS[last]}" if stem and last in _UNIT_WORDS else key.replace("_", " ")
    return words.replace(" lps", " LPS")


def capital(words: str) -> str:
    """Return words with a capital first letter."""
    return words[:1].upper() + words[1:]


def shape_words(volume: Volume) -> str:
    """Return the number of voxels along each axis."""
    return " × ".join(str(n) for n in volume.grid.shape)


def spacing_words(volume: Volume) -> str:
    """Return the voxel size, as one number where it is one."""
    spacing = volume.spacing_mm
    if max(spacing) - min(spacing) < 1e-3 * max(spacing):
        return f"{number(spacing[0])} mm"
    return " × ".join(number(s) for s in spacing) + " mm"


def range_words(values: Any) -> str:  # noqa: ANN401
    """One number where all agree to a hundredth, else the smallest and the largest."""
    low, high = float(np.min(values)), float(np.max(values))
    return number(float(np.median(values))) if high - low < 0.01 else f"{number(low)} to {number(high)}"


def grey(tile: Tile, what: str) -> Shown:
    """Return a picture with words for it."""
    return Shown(pictures.data_uri(pictures.jpeg(tile.image)), tile, f"{what}, {tile.label}")


def nice(value: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def short(value: object) -> str:
    """Write one number of a list: two decimals say where something is and how long."""
    return number(round(value, 2), 9) if isinstance(value, float) else number(value)


def last_figure(metrics: Mapping[str, float], provenance: Provenance, plain: str, plain_words: str) -> tuple[str, str, str]:
    """Choose the last of the key figures: how close to the truth where one was given, else the computing time."""
    psnr, baseline = metrics.get("psnr_db"), metrics.get(f"{plain}_psnr_db")
    if psnr is None:
        return f"{number(sum(provenance.seconds.values()))} s", "computing time", provenance.device.partition(" ")[0]
    gain = f"{number(psnr - baseline, 2)} dB above {plain_words}" if baseline is not None else "against the known truth"
    return f"{psnr:.2f} dB", "PSNR", gain
