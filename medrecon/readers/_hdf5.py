"""HDF5 read with care: links leave their folder never, and a data set is no larger than its file can make it.

The library follows links to other files by itself; here each step of a path is looked at first.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import InputError
from medrecon.readers import _projections
from medrecon.readers._itk import beside
from medrecon.safety.limits import Limits

if TYPE_CHECKING:
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"
_MOST_LINKS = 16
_DENSEST = 1032  # deflate cannot pack more bytes into one


class Place(NamedTuple):
    """A data set: the file that really holds it, and its path inside."""

    file: Path
    name: str


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; what the library refuses is ``PRJ-HEADER``."""
    import h5py

    try:
        file = h5py.File(path, "r", locking=False)
    except (OSError, ValueError) as error:
        raise _projections.damaged("the HDF5 file is cut or damaged") from error
    with file:
        yield file


def locate(path: Path, name: str, links: int = 0) -> Place | None:
    """Find what stands at a path, following links inside the file and to files in its folder or below; None for nothing.

    Raises
    ------
    InputError
        ``PRJ-LINK`` for a link that leads to a missing file or out of the folder, or in circles.
    """
    import h5py

    if links > _MOST_LINKS:
        raise InputError("PRJ-LINK", f"more than {_MOST_LINKS} links follow each other in the HDF5 file.", "Export it again.")
    parts = [part for part in name.split("/") if part]
    with opened(path) as file:
        group: Any = file
        for depth, part in enumerate(parts):
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            rest = "/".join(parts[depth + 1 :])
            if link is None:
                return None
            if isinstance(link, h5py.SoftLink):
                base = "" if link.path.startswith("/") else "/".join(parts[:depth])
                return locate(path, f"{base}/{link.path}/{rest}", links + 1)
            if isinstance(link, h5py.ExternalLink):
                return locate(_linked(path, link.filename), f"{link.path}/{rest}", links + 1)
            group = _member(group, part)
        return Place(path, "/".join(parts)) if isinstance(group, h5py.Dataset) else None


def names(path: Path, group: str = "") -> list[str]:
    """Return the members of a group in the file itself, without following any link; nothing for what is no group."""
    import h5py

    with opened(path) as file:
        found: Any = file
        for part in filter(None, group.split("/")):
            is_own = isinstance(found, h5py.Group) and isinstance(found.get(part, getlink=True), h5py.HardLink)
            if not is_own:
                return []
            found = _member(found, part)
        return sorted(found) if isinstance(found, h5py.Group) else []


def shape_of(place: Place) -> tuple[int, ...]:
    """Return the shape of a data set after comparing its size with what is stored.

    Raises
    ------
    InputError
        ``PRJ-LINK`` where its values lie in other files, ``PRJ-CUT`` where they were never all written, ``PRJ-HEADER``
        for values that are no real numbers or a size that no packing explains.
    """
    with opened(place.file) as file:
        data = file[place.name]
        if data.is_virtual or data.external:
            raise InputError("PRJ-LINK", "a data set lies in other files.", "Export it into one file.")
        if data.dtype.kind not in "iuf":
            raise _projections.damaged("a data set does not hold real numbers")
        stored = data.id.get_storage_size()
        if data.chunks is None:
            whole = stored >= data.nbytes
        else:
            chunks = math.prod(-(-size // chunk) for size, chunk in zip(data.shape, data.chunks, strict=True))
            whole = data.id.get_num_chunks() >= chunks
        if not whole or data.nbytes == 0:
            raise _projections.cut(data.nbytes, stored)
        if data.nbytes > _DENSEST * place.file.stat().st_size:
            raise _projections.damaged(f"a data set of {data.nbytes} bytes cannot lie in a file of its size")
        return tuple(int(n) for n in data.shape)


def numbers(place: Place, most_bytes: int = Limits().value_bytes) -> NDArray[np.float64]:
    """Read a small data set."""
    size = 8 * math.prod(shape_of(place))
    if size > most_bytes:
        raise _projections.damaged(f"a list has {size} bytes, at most {most_bytes} are read")
    return _values(place).astype(np.float64)


def frames(place: Place, which: NDArray[np.int64]) -> NDArray[Any]:
    """Read some frames, in rising order, of a data set (frames, rows, columns), run by run."""
    runs = np.split(which, np.flatnonzero(np.diff(which) != 1) + 1)
    with _reading(), opened(place.file) as file:
        data = file[place.name]
        return np.concatenate([data[int(run[0]) : int(run[-1]) + 1] for run in runs])


def attribute(place: Place, name: str) -> str:
    """Return a text attribute in lower case, empty where there is none."""
    with opened(place.file) as file:
        value = file[place.name].attrs.get(name, "")
    value = value.decode("latin-1") if isinstance(value, bytes) else value
    return value.strip().lower() if isinstance(value, str) else ""


def _values(place: Place) -> NDArray[Any]:
    with _reading(), opened(place.file) as file:
        return np.asarray(file[place.name][()])


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise _projections.damaged("the values of a data set cannot be decoded") from error


def _member(group: Any, part: str) -> Any:  # noqa: ANN401 (h5py is untyped)
    try:
        return group[part]
    except (KeyError, OSError, RuntimeError) as error:
        raise _projections.damaged("the HDF5 file is damaged") from error


def _linked(path: Path, name: str) -> Path:
    try:
        return beside(path, name)
    except InputError as error:
        hint = "Copy all files of the scan into one folder, as they lay beside each other."
        raise InputError("PRJ-LINK", "a link leads to a file that is missing or outside the folder.", hint) from error
