"""medrecon turns 2D medical series into trustworthy 3D volumes and surfaces. Research use only, not a medical device.

The public names are loaded when they are first used, so that ``import medrecon`` stays fast and loads no torch, MONAI,
SimpleITK, VTK or Qt.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medrecon.config import ReconstructionConfig, load_config
    from medrecon.core.errors import MedreconError
    from medrecon.core.grid import Grid
    from medrecon.core.hounsfield import HounsfieldCalibration
    from medrecon.core.mesh import Surface
    from medrecon.core.projections import ProjectionScan
    from medrecon.core.reading import SeriesInfo
    from medrecon.core.scans import SlicePoses, SliceScan
    from medrecon.core.views import ViewGeometry
    from medrecon.core.volume import Quantity, Volume
    from medrecon.pipeline import reconstruct
    from medrecon.readers import find, read
    from medrecon.result import Result

__version__ = "0.1.0"

_HOME = {
    "Grid": "medrecon.core.grid",
    "HounsfieldCalibration": "medrecon.core.hounsfield",
    "MedreconError": "medrecon.core.errors",
    "ProjectionScan": "medrecon.core.projections",
    "Quantity": "medrecon.core.volume",
    "ReconstructionConfig": "medrecon.config",
    "Result": "medrecon.result",
    "SeriesInfo": "medrecon.core.reading",
    "SlicePoses": "medrecon.core.scans",
    "SliceScan": "medrecon.core.scans",
    "Surface": "medrecon.core.mesh",
    "ViewGeometry": "medrecon.core.views",
    "Volume": "medrecon.core.volume",
    "find": "medrecon.readers",
    "load_config": "medrecon.config",
    "read": "medrecon.readers",
    "reconstruct": "medrecon.pipeline",
}

__all__ = [
    "Grid",
    "HounsfieldCalibration",
    "MedreconError",
    "ProjectionScan",
    "Quantity",
    "ReconstructionConfig",
    "Result",
    "SeriesInfo",
    "SlicePoses",
    "SliceScan",
    "Surface",
    "ViewGeometry",
    "Volume",
    "__version__",
    "find",
    "load_config",
    "read",
    "reconstruct",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (any public name)
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'medrecon' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
