"""MONAI transforms over the same functions as the Python API.

The dictionary transforms end in ``d`` and work on `MetaTensor` inside ``monai.transforms.Compose``; the array
transforms do the same to one value. Importing this package loads MONAI.
"""

from medrecon.transforms.load import LoadSeries, LoadSeriesd
from medrecon.transforms.projections import (
    CorrectBeamHardening,
    CorrectBeamHardeningd,
    DivideByFlatField,
    DivideByFlatFieldd,
    FillBadPixels,
    FillBadPixelsd,
    RandDetectorNoise,
    RandDetectorNoised,
    RemoveRings,
    RemoveRingsd,
    SubtractScatter,
    SubtractScatterd,
    TakeLogarithm,
    TakeLogarithmd,
)
from medrecon.transforms.reconstruct import ReconstructSlices, ReconstructSlicesd
from medrecon.transforms.surface import ExtractSurface, ExtractSurfaced

__all__ = [
    "CorrectBeamHardening",
    "CorrectBeamHardeningd",
    "DivideByFlatField",
    "DivideByFlatFieldd",
    "ExtractSurface",
    "ExtractSurfaced",
    "FillBadPixels",
    "FillBadPixelsd",
    "LoadSeries",
    "LoadSeriesd",
    "RandDetectorNoise",
    "RandDetectorNoised",
    "ReconstructSlices",
    "ReconstructSlicesd",
    "RemoveRings",
    "RemoveRingsd",
    "SubtractScatter",
    "SubtractScatterd",
    "TakeLogarithm",
    "TakeLogarithmd",
]
