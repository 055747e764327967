"""Readers: a folder, a DICOM file with or without an ending, a ZIP, a volume file, a result folder.

What napari hands in is looked at briefly; a path that holds nothing of ours is left to other readers. One dropped
image of a series opens the whole series, since one slice is no volume.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import medrecon as mr
from medrecon.core.errors import InputError, UsageError
from medrecon.core.findings import Verdict, refuse
from medrecon_napari.layers import LayerData, scan_layers
from medrecon_napari.results import is_result, result_layers

PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Reader = Callable[[PathOrPaths], list[LayerData]]

_ENDINGS = (".dcm", ".dicom", ".ima", ".zip", ".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_LOOKED_AT = 200  # files of a folder
_HEAD_BYTES = 132
_MOST_SERIES = 8  # opened at once; more is a choice to make


def get_reader(path: PathOrPaths) -> Reader | None:
    """Return the reader of a path, or None where it holds nothing of ours (the contract of npe2)."""
    paths = _as_paths(path)
    return read if paths and all(map(looks_like_ours, paths)) else None


def read(path: PathOrPaths) -> list[LayerData]:
    """Read one path, or several, into layers; the window is given its letters first, and told what was refused.

    Raises
    ------
    MedreconError
        Why nothing could be opened, with its code and the way out.
    """
    from medrecon_napari.viewing.attach import attach_to_current, tell

    opened = [open_path(one) for one in _as_paths(path)]
    attach_to_current()
    tell([line for _, refused in opened for line in refused])
    return [layer for layers, _ in opened for layer in layers]


def open_path(path: Path) -> tuple[list[LayerData], list[str]]:
    """Return the layers of one path, the first series visible, and a line for every series that was refused."""
    if is_result(path):
        return result_layers(path), []
    found = look(path)
    layers: list[LayerData] = []
    for number, info in enumerate(found.usable):
        new = scan_layers(mr.read(found.where, info), str(found.where))
        layers += new if number == 0 else [(data, arguments | {"visible": False}, kind) for data, arguments, kind in new]
    return layers, [in_words(info) for info in found.refused]


@dataclass(frozen=True, slots=True)
class Found:
    """What a path holds: where to read from, the series that can be read, and those that are refused."""

    where: Path
    usable: tuple[mr.SeriesInfo, ...]
    refused: tuple[mr.SeriesInfo, ...]


def look(path: Path) -> Found:
    """Find the series of a path; one image of a series stands for the whole series in its folder.

    Raises
    ------
    MedreconError
        The refusal of the first series where all are refused, ``INP-NONE`` where there is none, ``NAP-MANY`` where there
        are more than a window can show.
    """
    found = _sorted_out(path, mr.find(path))
    if not found.usable and found.refused and path.is_file():
        wanted = {info.id for info in found.refused}
        around = _sorted_out(path.parent, [info for info in mr.find(path.parent) if info.id in wanted])
        found = around if around.usable else found
    if not found.usable:
        if found.refused:
            refuse(found.refused[0].findings)
        raise InputError("INP-NONE", "no series was found", "Choose the folder that holds the scan.")
    if len(found.usable) > _MOST_SERIES:
        raise UsageError(
            "NAP-MANY",
            f"{len(found.usable)} series are usable, at most {_MOST_SERIES} are opened at once",
            "Choose one in the panel: Plugins, medrecon.",
        )
    return found


def in_words(info: mr.SeriesInfo) -> str:
    """Say why a series is refused and what to do about it; no patient text."""
    first = next(finding for finding in info.findings if finding.verdict is Verdict.REFUSED)
    return f"{' '.join(filter(None, [info.modality, info.id]))} was refused. {first.code}: {first.fact} {first.hint}".rstrip()


def looks_like_ours(path: Path) -> bool:
    """Whether a path may hold a scan, a volume or a result, from its name or the first bytes of its files."""
    if path.is_dir():
        return is_result(path) or any(map(_file_looks_like_ours, islice(_files(path), _LOOKED_AT)))
    return _file_looks_like_ours(path)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root) / name for name in sorted(names))


def _file_looks_like_ours(path: Path) -> bool:
    return path.name.lower().endswith(_ENDINGS) or _is_dicom(path)


def _is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does: with its mark, or bare with the group of identification."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return head[128:132] == b"DICM" or (head[:2] == b"\x08\x00" and head[4:6].isalpha())


def _sorted_out(where: Path, series: Sequence[mr.SeriesInfo]) -> Found:
    refused = tuple(info for info in series if info.verdict is Verdict.REFUSED)
    return Found(where, tuple(info for info in series if info.verdict is not Verdict.REFUSED), refused)


def _as_paths(path: PathOrPaths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | os.PathLike) else [Path(one) for one in path]
