"""LoDoPaB-CT: 40 000 slices of chest CT as HDF5, the truth of a benchmark for low-dose reconstruction.

``ground_truth_train_000.hdf5`` with ``data`` (128, 362, 362), attenuation over 81.35858 per metre, 26 cm wide; beside it
``patient_ids_rand_train.csv``, one number a slice, where it was downloaded too: then the slices of one patient are held out
together. Slices of one file are no neighbours, so that each is a volume of one slice. The set's own test and validation
parts are left alone. Leuschner et al. 2021, Scientific Data 8, 109. CC BY 4.0.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from medrecon.core.errors import InputError
from medrecon.core.grid import Grid
from medrecon.core.reading import ReadOptions
from medrecon.core.volume import Quantity, Volume
from medrecon.readers import _hdf5
from medrecon.training.loaders import Case

_FILE = re.compile(r"ground_truth_train_(\d{3})\.hdf5")
_PATIENTS = "patient_ids_rand_train.csv"
_SLICES_PER_FILE = 128
_ATTENUATION_PER_MM = 81.35858e-3
_WIDTH_MM = 260.0


def cases(path: Path, options: ReadOptions) -> tuple[Case, ...]:  # noqa: ARG001 (nothing here can be allowed)
    """List every slice of the training part."""
    patients = _patients(path)
    found = []
    for file in sorted(file for file in path.rglob("*.hdf5") if _FILE.fullmatch(file.name)):
        place, count = _stack(file)
        first = _SLICES_PER_FILE * int(file.stem[-3:])
        for number in range(count):
            subject = patients[first + number] if first + number < len(patients) else ""
            found.append(Case(f"{file.name}/{number}", partial(_slice, place, number), subject))
    return tuple(found)


def _patients(path: Path) -> list[str]:
    files = sorted(path.rglob(_PATIENTS))
    return files[0].read_text(encoding="ascii").split() if files else []


def _stack(file: Path) -> tuple[_hdf5.Place, int]:
    """Return where the slices of a file stand, and how many there are."""
    place = _hdf5.locate(file, "data")
    shape = _hdf5.shape_of(place) if place is not None else ()
    if place is None or len(shape) != 3 or shape[1] != shape[2]:
        raise InputError("TRN-DATA", f"an HDF5 file holds data of shape {list(shape)}, not square slices", "Download it again.")
    return place, shape[0]


def _slice(place: _hdf5.Place, number: int) -> Volume:
    pixels = _hdf5.frames(place, np.array([number])).astype(np.float32) * np.float32(_ATTENUATION_PER_MM)
    step = _WIDTH_MM / pixels.shape[1]
    return Volume(pixels, Grid.from_parts((1, *pixels.shape[1:]), (step,) * 3, (0, 0, 0)), Quantity.ATTENUATION_PER_MM)
