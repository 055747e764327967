"""Where training volumes come from, one file each: public sets in the form in which they are distributed, and folders.

A loader file ``name.py`` holds ``cases(path, options) -> tuple of Case``: it lists what is there and reads nothing of
the voxels; a case's `load` reads one volume when it is drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medrecon.core import registry
from medrecon.core.errors import InputError
from medrecon.core.reading import ReadOptions
from medrecon.core.volume import Volume


@dataclass(frozen=True, slots=True)
class Case:
    """One volume that can be drawn.

    Parameters
    ----------
    key : str
        Its place in the data set, the same on every machine, and free of patient text in what is logged: it is only
        hashed, to decide which cases are held out.
    load : function to Volume
    subject : str
        Cases of one subject are held out together; empty: the case is a subject of its own.
    """

    key: str
    load: Callable[[], Volume]
    subject: str = ""


def names() -> tuple[str, ...]:
    """Return the names of all loaders."""
    return registry.names(sys.modules[__name__])


def cases(name: str, path: Path, options: ReadOptions) -> tuple[Case, ...]:
    """List the cases of a data set.

    Raises
    ------
    UsageError
        ``ARG-NAME`` where there is no loader of that name.
    InputError
        ``TRN-DATA`` where nothing usable lies at `path`.
    """
    module = registry.load(sys.modules[__name__], name)
    found: tuple[Case, ...] = module.cases(path, options) if path.exists() else ()
    if not found:
        hint = "Check the path in the recipe (`data`), and which form the loader expects: docs/training.md."
        raise InputError("TRN-DATA", f"loader {name} found no usable case where the recipe points", hint)
    return found
