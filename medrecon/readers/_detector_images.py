"""Detector images in TIFF, NPY and raw files: how many pixels there are, judged before any is decoded, and the pixels.

A stack is one file with all views or one file for each. Rows and columns stay as they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import InputError
from medrecon.core.progress import Tick, silent
from medrecon.readers import _projections
from medrecon.readers._itk import beside
from medrecon.readers._listing import open_regular

_TIFF_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, EOFError)
_DENSEST = 1032  # deflate cannot pack more bytes into one
_MOST_FILES = 100_000


@dataclass(frozen=True, slots=True)
class RawLayout:
    """Pixels without any header: views of rows of columns.

    Parameters
    ----------
    shape : (views, rows, columns)
    dtype : numpy's name, with the byte order in front
    offset : int
        Where they begin.
    """

    shape: tuple[int, int, int]
    dtype: str
    offset: int = 0


def named(geometry: Path, name: str) -> tuple[Path, ...]:
    """Return the files that a geometry file names: one, or with ``*`` in its last part all that match, sorted as people count.

    Raises
    ------
    InputError
        ``VOL-ESCAPE`` or ``VOL-DETACHED`` for a name that leads out of the folder or to nothing, ``PRJ-FILES`` for a
        pattern that no file matches.
    """
    if "*" not in name:
        return (beside(geometry, name),)
    pattern = Path(name)
    folder = beside_folder(geometry, str(pattern.parent))
    matching = sorted((path for path in folder.glob(pattern.name) if path.is_file()), key=_projections.natural)
    if not 0 < len(matching) <= _MOST_FILES:
        raise InputError("PRJ-FILES", f"{len(matching)} files match the pattern of the projections.", "Check the pattern.")
    return tuple(beside(geometry, str(path.relative_to(geometry.parent.resolve()))) for path in matching)


def beside_folder(geometry: Path, name: str) -> Path:
    """Return a folder below the one in which a geometry file stands; raise ``VOL-ESCAPE`` for any other."""
    base = geometry.parent.resolve()
    folder = (base / name).resolve()
    if not folder.is_relative_to(base):
        raise InputError("VOL-ESCAPE", "the geometry names a folder outside its own.", "Put the projections beside the geometry.")
    return folder


def shape_of(paths: Sequence[Path], raw: RawLayout | None = None) -> tuple[int, int, int]:
    """Return (views, rows, columns) of a stack from its headers and the lengths of its files; nothing is decoded.

    Raises
    ------
    InputError
        ``PRJ-CUT`` for a file that ends too early, ``PRJ-SHAPE`` for images of different sizes, ``PRJ-HEADER`` for
        anything that is no stack of grey images.
    """
    shapes = [_raw_shape(path, raw) if raw else _npy(path)[0] if path.suffix == ".npy" else _tiff_shape(path) for path in paths]
    if len({shape[1:] for shape in shapes}) > 1:
        sizes = " and ".join(f"{rows} x {columns}" for _, rows, columns in sorted(set(shapes))[:2])
        raise InputError("PRJ-SHAPE", f"images of different sizes: {sizes} pixels.", "Leave flats of another size out.")
    return sum(shape[0] for shape in shapes), *shapes[0][1:]


def is_integer(path: Path) -> bool:
    """Whether the pixels of a TIFF or NPY file are integers, as counts are."""
    if path.suffix == ".npy":
        return np.dtype(_npy(path)[1]).kind in "iu"
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        dtype = tiff.pages.first.dtype
    return dtype is not None and dtype.kind in "iu"


def load(paths: Sequence[Path], shape: tuple[int, int, int], raw: RawLayout | None = None, tick: Tick = silent) -> NDArray[Any]:
    """Return the pixels of a stack as float32, (views, rows, columns); `shape` is what `shape_of` found."""
    pixels = np.empty(shape, dtype=np.float32)
    done = 0
    for path in paths:
        part = _raw_pixels(path, raw) if raw else _npy_pixels(path) if path.suffix == ".npy" else _tiff_pixels(path)
        if part.shape[1:] != shape[1:] or done + len(part) > shape[0]:
            raise _projections.damaged("an image decodes to another size than its header says")
        pixels[done : done + len(part)] = part
        done += len(part)
        tick(done / shape[0])
    return pixels


def _raw_shape(path: Path, raw: RawLayout) -> tuple[int, int, int]:
    needed = math.prod(raw.shape) * np.dtype(raw.dtype).itemsize
    available = path.stat().st_size - raw.offset
    if min(raw.shape) < 1 or available < needed:
        raise _projections.cut(needed, available)
    return raw.shape


def _raw_pixels(path: Path, raw: RawLayout) -> NDArray[Any]:
    return np.memmap(path, dtype=raw.dtype, mode="r", offset=raw.offset, shape=raw.shape)


def _npy(path: Path) -> tuple[tuple[int, int, int], str]:
    """Return the shape and type of a NPY file whose length fits them."""
    try:
        with open_regular(path) as file:
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(file)
            available = path.stat().st_size - file.tell()
    except ValueError as error:
        raise _projections.damaged("the header of a NPY file cannot be understood") from error
    if dtype.kind not in "iuf" or fortran or len(shape) not in (2, 3) or min(shape) < 1:
        raise _projections.damaged("a NPY file does not hold real numbers (views, rows, columns) in C order")
    if available < math.prod(shape) * dtype.itemsize:
        raise _projections.cut(math.prod(shape) * dtype.itemsize, available)
    views, rows, columns = shape if len(shape) == 3 else (1, *shape)
    return (views, rows, columns), dtype.str


def _npy_pixels(path: Path) -> NDArray[Any]:
    shape, _ = _npy(path)
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.reshape(shape)


def _tiff_shape(path: Path) -> tuple[int, int, int]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page.aspage() for page in tiff.pages]
            sizes = {(page.imagelength, page.imagewidth) for page in pages}
            whole = all(_is_whole(page, tiff.filehandle.size) for page in pages)
            grey = all(page.samplesperpixel == 1 and page.dtype is not None and page.dtype.kind in "iuf" for page in pages)
    except _TIFF_ERRORS as error:
        raise _projections.damaged("a TIFF file cannot be understood") from error
    if len(sizes) != 1 or not grey:
        raise _projections.damaged("a TIFF file does not hold grey images of one size")
    if not whole:
        raise InputError("PRJ-CUT", "a TIFF file ends before its pixels do.", "Copy or export it again.")
    return len(pages), *sizes.pop()


def _is_whole(page: Any, size: int) -> bool:  # noqa: ANN401 (tifffile, imported where it is used)
    ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    most = sum(page.databytecounts) * (1 if page.compression == 1 else _DENSEST)
    return bool(ends) and max(ends) <= size and page.nbytes <= most


def _tiff_pixels(path: Path) -> NDArray[Any]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return np.stack([page.asarray() for page in tiff.pages])
    except _TIFF_ERRORS as error:
        raise _projections.damaged("the pixels of a TIFF file cannot be decoded") from error
