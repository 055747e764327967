"""A folder of DICOM series, NIfTI, NRRD or MetaImage files: every volume that our readers find in it.

With a folder for each patient below, the volumes of one patient are held out together.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from medrecon.core.reading import ReadOptions
from medrecon.training.loaders import Case
from medrecon.training.loaders._series import usable, volume


def cases(path: Path, options: ReadOptions) -> tuple[Case, ...]:
    """List every series or volume file that can be used."""
    patients = sorted(path.iterdir()) if path.is_dir() else []
    if not patients or not all(patient.is_dir() for patient in patients):
        return tuple(_cases(path, options))
    return tuple(case for patient in patients for case in _cases(patient, options, patient.name))


def _cases(path: Path, options: ReadOptions, subject: str = "") -> list[Case]:
    return [Case(f"{subject}/{info.id}", partial(volume, path, info, options), subject) for info in usable(path, options)]
