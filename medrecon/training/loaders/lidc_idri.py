"""LIDC-IDRI as The Cancer Imaging Archive distributes it: 1010 patients, chest CT in Hounsfield units.

``LIDC-IDRI-0001/<study>/<series>/*.dcm``, with radiographs of the chest beside the CT of some patients. Armato et al.
2011, Medical Physics 38, 915. Listing opens no file.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from medrecon.core.reading import ReadOptions
from medrecon.training.loaders import Case
from medrecon.training.loaders._series import LEAST_SLICES, largest

_PATIENT = re.compile(r"LIDC-IDRI-\d{4}")


def cases(path: Path, options: ReadOptions) -> tuple[Case, ...]:
    """List the series of every patient that has enough files for a CT, wherever the patients' folders lie below `path`."""
    found = []
    for patient in sorted(folder for folder in path.rglob("LIDC-IDRI-*") if _PATIENT.fullmatch(folder.name) and folder.is_dir()):
        for series in sorted({file.parent for file in patient.rglob("*.dcm")}):
            if sum(1 for _ in series.glob("*.dcm")) >= LEAST_SLICES:
                key = series.relative_to(patient).as_posix()
                found.append(Case(f"{patient.name}/{key}", partial(largest, series, options), patient.name))
    return tuple(found)
