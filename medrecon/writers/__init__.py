"""Writers, one file each; the name of the file is the name users type in ``--formats``.

A writer file holds ``WRITES`` (``"volume"`` or ``"surface"``), ``TARGET`` (the file or folder name, in which ``{name}``
stands for the surface's name) and ``write(thing, target, context)``, which makes ``target`` appear only when it is
whole, through `medrecon.safety.atomic`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medrecon.core import registry
from medrecon.core.source import Source


@dataclass(frozen=True, slots=True)
class WriteContext:
    """What a writer may need beside the thing itself.

    Parameters
    ----------
    method : str
        Name of the method that made the data, for descriptions.
    settings_hash : str
        Hash of the configuration; with the source UIDs it makes new UIDs that a re-run repeats.
    verdict : str
        ``ok``, ``warn`` or ``refused``.
    invented : bool
        Whether voxels were inferred by a learned method (DICOM SyntheticData).
    source : Source
        Where the data came from, for things that do not know it themselves: surfaces.
    """

    method: str = ""
    settings_hash: str = ""
    verdict: str = "ok"
    invented: bool = False
    source: Source = field(default_factory=Source)


@dataclass(frozen=True, slots=True)
class Writer:
    """One output format."""

    name: str
    writes: Literal["volume", "surface"]
    target: str
    write: Callable[[Any, Path, WriteContext], None]


def names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return registry.names(sys.modules[__name__])


def get(name: str) -> Writer:
    """Return a writer by name; raise `UsageError` (``ARG-NAME``) where there is none."""
    module = registry.load(sys.modules[__name__], name)
    return Writer(name, module.WRITES, module.TARGET, module.write)
