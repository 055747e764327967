"""A scan as a folder that `medrecon.readers.projection_stack` reads: ``scan.yaml``, ``projections.npy``, ``vectors.npy``.

The vectors are float64, so that the geometry comes back bit by bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from medrecon.core.projections import ProjectionScan
from medrecon.core.views import ViewGeometry
from medrecon.safety.atomic import replacing_folder


def write(scan: ProjectionScan, target: Path) -> None:
    """Write a scan into the folder `target`, which appears when it is whole.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    with replacing_folder(target) as folder:
        np.save(folder / "projections.npy", scan.pixels, allow_pickle=False)
        np.save(folder / "vectors.npy", vectors(scan.views), allow_pickle=False)
        (folder / "scan.yaml").write_text(yaml.safe_dump(_described(scan), sort_keys=False), encoding="utf-8")


def vectors(views: ViewGeometry) -> np.ndarray:
    """Source (or ray direction), detector centre, u, v of every view, (n, 12)."""
    first = views.ray_directions if views.sources_lps_mm is None else views.sources_lps_mm
    return np.hstack([np.asarray(first), views.centres_lps_mm, views.u, views.v])


def _described(scan: ProjectionScan) -> dict[str, object]:
    detector = scan.views.detector
    return {
        "format": "medrecon projections",
        "version": 1,
        "images": "projections.npy",
        "measures": str(scan.measures),
        "detector": {
            "rows": detector.shape[0],
            "columns": detector.shape[1],
            "row_pitch_mm": detector.pitch_mm[0],
            "column_pitch_mm": detector.pitch_mm[1],
            "curve_radius_mm": detector.curve_radius_mm,
        },
        "geometry": {
            "kind": "vectors",
            "vectors": "vectors.npy",
            "parallel_beam": scan.views.is_parallel,
            "left_handed": scan.views.left_handed,
            "isocentre_lps_mm": [float(x) for x in scan.views.isocentre],
        },
    }
