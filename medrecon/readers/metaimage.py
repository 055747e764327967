"""MetaImage: ``.mha`` in one file, ``.mhd`` with its data beside it.

Positions are LPS, as ITK writes them. A file without spacing is refused; tracked frames, which the same suffix may
hold, are read by `tracked_frames`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medrecon.core.errors import InputError
from medrecon.core.findings import Finding
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.readers import _itk, _meta_header, _volumes


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file begins with the keys of a MetaImage header."""
    return _meta_header.begins(head)


def companions(path: Path) -> list[Path]:
    """Return the data file that a ``.mhd`` header names, where it may name it."""
    try:
        stored = _meta_header.stored(path, *_meta_header.keys_of(path))
    except (InputError, OSError):
        return []
    return [] if stored.path == path else [stored.path]


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the volumes in MetaImage files, one for each time point or component."""
    return _volumes.find_each("metaimage", "MetaImage file", files, lambda path: _describe(path, options))


read = _itk.read


def _describe(path: Path, options: ReadOptions) -> list[_volumes.Described]:
    keys, end = _meta_header.keys_of(path)
    findings: list[Finding] = []
    spacing = None
    if not keys.keys() & {"ElementSpacing", "ElementSize"}:
        spacing = options.spacing_mm
        findings.append(_volumes.no_spacing(spacing))
    return _itk.describe(path, "MetaImageIO", _meta_header.stored(path, keys, end), findings, spacing_mm=spacing, keys=keys)
