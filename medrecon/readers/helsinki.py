"""MATLAB files of the University of Helsinki: the structure ``CtData...`` of the tomography challenge, version 5 and 7.3.

The central plane of a cone beam: a fan of line integrals. The files do not say which way the sample turns.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core import _view_checks as checks
from medrecon.core.errors import GeometryError, InputError
from medrecon.core.progress import Tick
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.views import ViewGeometry
from medrecon.readers import _hdf5, _projections
from medrecon.readers._listing import open_regular
from medrecon.safety.inflate import allowed_bytes
from medrecon.safety.limits import Limits

_OLD, _NEW = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"
_HEADER_BYTES, _COMPRESSED = 128, 15
_NUMBERS = ("distanceSourceOrigin", "distanceSourceDetector", "pixelSizePost", "angles")
_STEP = 1 << 20
_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    OSError,
    NotImplementedError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    struct.error,
    zlib.error,
)


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file is a MATLAB file of version 5 or 7.3."""
    return head.startswith((_OLD, _NEW))


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the scans in MATLAB files."""
    return _projections.find_each("helsinki", "MATLAB file", files, _describe)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    content = _projections.begin(info, options, bytes_per_pixel=24)
    found = _contents(content.described.paths[0])
    if found is None:
        raise InputError("INP-CHANGED", "the file was changed since it was found.", "Find the scan again.")
    tick(1.0)
    return _projections.finish(info, options, found["sinogram"][:, None, :])


def _describe(path: Path) -> _projections.Described | None:
    found = _contents(path)
    if found is None:
        return None
    sinogram, angles = found["sinogram"], found["angles"].ravel()
    if sinogram.ndim != 2:
        raise GeometryError("PRJ-SHAPE", f"a sinogram has views and columns, this one has {sinogram.ndim} axes")
    _projections.same_count(len(sinogram), len(angles))
    sid, sdd, pitch = (float(found[name].ravel()[0]) for name in _NUMBERS[:3])
    turned = np.mod(np.radians(checks.angles_deg(angles)), 2 * np.pi)
    views = ViewGeometry.fan(turned, sid, sdd, sinogram.shape[1], pitch, row_pitch_mm=pitch)
    what = "the file does not say which way the sample turns; the source is taken to turn counter-clockwise, seen from above"
    return _projections.Described(views=views, paths=(path,), findings=(_projections.assumed(what),))


def _contents(path: Path) -> dict[str, NDArray[np.float64]] | None:
    """Return sinogram (views, columns), angles and distances; None where the file holds no structure ``CtData...``."""
    with open_regular(path) as file:
        old = file.read(len(_OLD)) == _OLD
    found = _version_5(path) if old else _version_7(path)
    if found is None:
        return None
    lacking = sorted({"sinogram", *_NUMBERS} - set(found))
    if lacking:
        raise _projections.damaged(f"the structure lacks {', '.join(lacking)}")
    empty = [name for name, value in found.items() if value.size == 0]
    if empty:
        raise GeometryError("PRJ-FEW", f"{empty[0]} is empty", "A scan needs at least one view.")
    return found


def _version_7(path: Path) -> dict[str, NDArray[np.float64]] | None:
    """HDF5 holds MATLAB's arrays transposed."""
    name = next((name for name in _hdf5.names(path) if name.startswith("CtData")), None)
    if name is None:
        return None
    places = {one: _hdf5.locate(path, f"{name}/parameters/{one}") for one in _NUMBERS}
    places["sinogram"] = _hdf5.locate(path, f"{name}/sinogram")
    most = Limits().frame_bytes
    return {one: _hdf5.numbers(place, most).T for one, place in places.items() if place is not None}


def _version_5(path: Path) -> dict[str, NDArray[np.float64]] | None:
    from scipy.io import loadmat, whosmat

    _refuse_bombs(path)
    try:
        name = next((name for name, _, _ in whosmat(path) if name.startswith("CtData")), None)
        if name is None:
            return None
        data = loadmat(path, variable_names=[name], struct_as_record=False, squeeze_me=True)[name]
        fields = {**_fields(data), **_fields(_fields(data).get("parameters"))}
        wanted = {one: np.asarray(fields[one], dtype=np.float64) for one in ("sinogram", *_NUMBERS) if one in fields}
    except _ERRORS as error:
        raise _projections.damaged("the MATLAB file is cut or damaged") from error
    return wanted


def _fields(record: Any) -> Mapping[str, Any]:  # noqa: ANN401 (scipy's structures)
    return {name: getattr(record, name) for name in getattr(record, "_fieldnames", ())}


def _refuse_bombs(path: Path) -> None:
    """Inflate the compressed variables step by step, keeping nothing, and refuse more than the file's size makes likely."""
    most, total = allowed_bytes(path.stat().st_size, Limits()), 0
    with open_regular(path) as file:
        file.seek(_HEADER_BYTES)
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack("<II", tag)
            end = file.tell() + size
            if kind == _COMPRESSED:
                total += _inflated(file.read(size), most - total)
            if total > most:
                raise _projections.damaged(f"the variables of the MATLAB file inflate to more than {most} bytes")
            file.seek(end)


def _inflated(packed: bytes, most: int) -> int:
    stream, size = zlib.decompressobj(), 0
    try:
        while packed and size <= most:
            size += len(stream.decompress(packed, _STEP))
            packed = stream.unconsumed_tail
    except zlib.error as error:
        raise _projections.damaged("the MATLAB file is cut or damaged") from error
    return size
