"""The list of what was measured, and the same list as a CSV file; without napari and without Qt."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from medrecon.core.provenance import RESEARCH_LABEL
from medrecon.safety.atomic import replacing
from medrecon_napari.measure.region import RegionStatistics
from medrecon_napari.measure.surfaces import SurfaceDistance

#: Columns of the table and of the file, in their order.
COLUMNS = (
    "kind",
    "layer",
    "value",
    "unit",
    "mean",
    "sd",
    "minimum",
    "maximum",
    "voxels",
    "area_mm2",
    "volume_ml",
    "points_lps_mm",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Parameters
    ----------
    kind : str
        ``distance``, ``angle``, ``path``, ``region``, ``label``, ``surface distance``.
    layer : str
        Name of the layer that was measured.
    value : float
        The main number, in `unit`.
    more : mapping
        Further columns of `COLUMNS`.
    points_lps_mm : (n, 3) or empty
    """

    kind: str
    layer: str
    value: float
    unit: str
    more: Mapping[str, float] = field(default_factory=dict)
    points_lps_mm: Sequence[Sequence[float]] = ()

    @property
    def label(self) -> str:
        """What stands beside the drawing."""
        return f"{self.value:.1f} {self.unit}" if math.isfinite(self.value) else "-"

    def cells(self) -> dict[str, str]:
        """Return the row as text, column by column; what does not apply is empty."""
        points = "; ".join(" ".join(f"{v:.2f}" for v in point) for point in self.points_lps_mm)
        known = {"kind": self.kind, "layer": self.layer, "unit": self.unit, "points_lps_mm": points}
        numbers = {"value": self.value, **self.more}
        return {column: known.get(column) or _number(numbers.get(column)) for column in COLUMNS}


def region_row(layer: str, statistics: RegionStatistics, unit: str, points: ArrayLike = ()) -> Row:
    """Return the row of an outlined region: its mean is the value."""
    return _of_region("region", layer, statistics, unit, points)


def label_row(layer: str, label: int, statistics: RegionStatistics, unit: str) -> Row:
    """Return the row of one label of a labels layer."""
    return _of_region(f"label {label}", layer, statistics, unit, ())


def surface_row(layer: str, distance: SurfaceDistance) -> Row:
    """Return the row of a surface distance: its mean is the value, `maximum` the Hausdorff distance."""
    more = {"mean": distance.mean, "maximum": distance.maximum}
    return Row("surface distance", layer, distance.mean, "mm", more)


def as_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV with a header line; numbers with a point, as machines read them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(cell) for name, cell in row.cells().items()} for row in rows)
    return text.getvalue()


def save_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the rows to a file, whole or not at all, the research label in its last line.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    with replacing(path) as scratch:
        scratch.write_text(f"{as_csv(rows)}# {RESEARCH_LABEL}\n", encoding="utf-8")


def _of_region(kind: str, layer: str, statistics: RegionStatistics, unit: str, points: ArrayLike) -> Row:
    more = {
        "mean": statistics.mean,
        "sd": statistics.sd,
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
        "voxels": float(statistics.voxels),
        "area_mm2": statistics.area_mm2,
        "volume_ml": statistics.volume_ml,
    }
    return Row(kind, layer, statistics.mean, unit, more, np.asarray(points, dtype=np.float64).tolist())


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _harmless(cell: str) -> str:
    """Keep a spreadsheet from taking a layer's name for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "@") or (cell[:1] == "-" and not cell[1:2].isdigit()) else cell
