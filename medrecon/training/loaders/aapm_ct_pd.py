"""Low-dose CT images and projections of AAPM and the Mayo Clinic, in both forms in which they are distributed.

The Cancer Imaging Archive (LDCT-and-Projection-data): ``C002/<study>/1.000000-Full dose images-12345/*.dcm`` beside low
dose images and projections. The Grand Challenge of 2016: ``L067/full_3mm/*.IMA`` beside ``quarter_3mm``. Only images of the
full dose are taken: they are the truth, and noise is synthesised. Moen et al. 2021, Medical Physics 48, 902; McCollough et
al. 2017, Medical Physics 44, e339. Listing opens no file.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from medrecon.core.reading import ReadOptions
from medrecon.training.loaders import Case
from medrecon.training.loaders._series import largest

_FULL_DOSE = re.compile(r"full[ _-]?dose[ _-]?images|full_\d+mm", re.IGNORECASE)
_PATIENT = re.compile(r"[LNC]\d{3}")


def cases(path: Path, options: ReadOptions) -> tuple[Case, ...]:
    """List the series of full dose; patients by their folder, such as L067 or C002."""
    folders = sorted(folder for folder in path.rglob("*") if folder.is_dir() and _FULL_DOSE.search(folder.name))
    return tuple(
        Case(folder.relative_to(path).as_posix(), partial(largest, folder, options), _patient(folder)) for folder in folders
    )


def _patient(folder: Path) -> str:
    """Return the patient's folder, the innermost that is named like one; the folder above where none is."""
    return next((part for part in reversed(folder.parts) if _PATIENT.fullmatch(part)), folder.parent.name)
