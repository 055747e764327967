"""HDF5 from beamlines: DataExchange, and NeXus tomography (NXtomo) with its image key. Parallel beam.

Flats and darks are averaged and divided out; frames marked as invalid are left out. Neither format says which way the
sample turns and how the camera is mounted: rows are taken to go down, and the sense of rotation is an assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrecon.core import _view_checks as checks
from medrecon.core.errors import GeometryError, InputError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Float64
from medrecon.core.progress import Tick
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.views import Detector, ViewGeometry
from medrecon.readers import _hdf5, _projections
from medrecon.readers._hdf5 import Place

ASKED_FIRST = True
_PROJECTION, _FLAT, _DARK = 0, 1, 2  # NeXus: image_key
_MM = {"m": 1e3, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "nm": 1e-6}
_MOST_ENTRIES = 64
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where the frames of one scan are.

    Parameters
    ----------
    frames : Place
        (frames, rows, columns), projections and perhaps flats and darks among them.
    which : indices of the projections
    flats, darks : a data set and which of its frames, or None
    """

    frames: Place
    which: NDArray[np.int64]
    flats: tuple[Place, NDArray[np.int64]] | None
    darks: tuple[Place, NDArray[np.int64]] | None
    angles: Place
    pitch_mm: tuple[float, float] | None = None


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file is HDF5; MATLAB's has a block of its own in front."""
    return head.startswith(_hdf5.MAGIC)


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the scans in HDF5 files."""
    return _projections.find_each("data_exchange", "HDF5 file", files, lambda path: _describe(path, options))


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    stored: _Stored = _projections.begin(info, options).header
    pixels = np.empty(info.shape, dtype=np.float32)
    for first in range(0, len(stored.which), _BLOCK):
        part = stored.which[first : first + _BLOCK]
        pixels[first : first + len(part)] = _hdf5.frames(stored.frames, part)
        tick((first + len(part)) / len(stored.which))
    open_beam = None if stored.flats is None else _hdf5.frames(*stored.flats)
    dark = 0.0 if stored.darks is None else _hdf5.frames(*stored.darks)
    return _projections.finish(info, options, pixels, open_beam=open_beam, dark=dark)


def _describe(path: Path, options: ReadOptions) -> _projections.Described | None:
    stored = _data_exchange(path) or _nexus(path)
    if stored is None:
        return None
    shape = _hdf5.shape_of(stored.frames)
    angles, findings = _angles(stored, shape[0])
    views = ViewGeometry.parallel(
        angles, Detector((shape[1], shape[2]), _projections.pitch_mm(options, stored.pitch_mm)), in_plane_rad=np.pi
    )
    if stored.flats is None:
        fact = "the file holds no open beam; its values are counts"
        findings.append(Finding("PRJ-FLAT", Verdict.WARN, fact, hint="Give the open beam before the logarithm is taken."))
    what = "HDF5 says neither the sense of rotation nor how the camera was mounted; rows are taken to go down"
    places = [stored.frames, stored.angles, *(one[0] for one in (stored.flats, stored.darks) if one)]
    return _projections.Described(
        views=views,
        paths=tuple(dict.fromkeys([path, *(place.file for place in places)])),
        measures=Measured.TRANSMISSION if stored.flats else Measured.COUNTS,
        findings=(*findings, _projections.assumed(what)),
        header=stored,
    )


def _data_exchange(path: Path) -> _Stored | None:
    frames = _hdf5.locate(path, "exchange/data")
    if frames is None:
        return None
    angles = _hdf5.locate(path, "exchange/theta")
    if angles is None:
        raise InputError("PRJ-HEADER", "the file holds no angles (theta).", "Add /exchange/theta with its units.")
    shape = _shape(frames)
    flats, darks = (_all_of(_hdf5.locate(path, f"exchange/data_{name}"), shape) for name in ("white", "dark"))
    return _Stored(frames, np.arange(shape[0]), flats, darks, angles)


def _nexus(path: Path) -> _Stored | None:
    """Find the first entry with frames and angles that are all there; raise for a missing file where there is none."""
    missing: list[InputError] = []
    for entry in _hdf5.names(path)[:_MOST_ENTRIES]:
        for frames_at, key_at, angles_at in _nexus_places(path, entry):
            try:
                frames, angles = _hdf5.locate(path, frames_at), _hdf5.locate(path, angles_at)
            except InputError as error:
                missing.append(error)
                continue
            if frames is not None and angles is not None and len(_hdf5.shape_of(frames)) == 3:
                return _keyed(path, frames, _hdf5.locate(path, key_at), angles, key_at.rpartition("/")[0])
    if missing:
        raise missing[0]
    return None


def _nexus_places(path: Path, entry: str) -> list[tuple[str, str, str]]:
    """Frames, image key and angles: as the standard has them, as CIL writes them, as a beamline's own names have them."""
    plain = [
        (f"{at}/{frames}", f"{at}/instrument/detector/image_key", f"{at}/{angles}")
        for at, (frames, angles) in product(
            (f"{entry}/tomo_entry", entry),
            (("instrument/detector/data", "sample/rotation_angle"), ("data/data", "data/rotation_angle")),
        )
    ]
    named = [name for name in _hdf5.names(path, f"{entry}/instrument")[:_MOST_ENTRIES] if _has_key(path, entry, name)]
    own = [
        (f"{entry}/{name}/data", f"{entry}/instrument/{name}/image_key", f"{entry}/{name}/{angles}")
        for name in named
        for angles in _hdf5.names(path, f"{entry}/{name}")
        if angles.endswith(("theta_value", "rotation_angle"))
    ]
    return [*plain, *own]


def _has_key(path: Path, entry: str, name: str) -> bool:
    return "image_key" in _hdf5.names(path, f"{entry}/instrument/{name}") and name != "detector"


def _keyed(path: Path, frames: Place, key: Place | None, angles: Place, detector: str) -> _Stored:
    shape = _shape(frames)
    pitch = _pitch(path, detector)
    if key is None:
        return _Stored(frames, np.arange(shape[0]), None, None, angles, pitch)
    keys = _hdf5.numbers(key).ravel()
    if len(keys) != shape[0]:
        raise GeometryError("PRJ-SHAPE", f"there are {shape[0]} frames and {len(keys)} image keys", "Export the file again.")
    which, flats, darks = (np.flatnonzero(keys == kind) for kind in (_PROJECTION, _FLAT, _DARK))
    if not which.size:
        raise GeometryError("PRJ-FEW", f"none of {len(keys)} frames is a projection", "Check the image key.")
    return _Stored(frames, which, (frames, flats) if flats.size else None, (frames, darks) if darks.size else None, angles, pitch)


def _pitch(path: Path, detector: str) -> tuple[float, float] | None:
    """Return the pitch (row, column) in mm where both are there with a unit of length."""
    found = []
    for axis in ("y", "x"):
        place = _hdf5.locate(path, f"{detector}/{axis}_pixel_size")
        unit = "" if place is None else _hdf5.attribute(place, "units")
        if place is None or unit not in _MM:
            return None
        found.append(float(_hdf5.numbers(place).ravel()[0]) * _MM[unit])
    return found[0], found[1]


def _shape(frames: Place) -> tuple[int, int, int]:
    shape = _hdf5.shape_of(frames)
    if len(shape) != 3:
        raise GeometryError("PRJ-SHAPE", f"projections are (views, rows, columns), the data set has {len(shape)} axes")
    return shape[0], shape[1], shape[2]


def _all_of(place: Place | None, shape: tuple[int, int, int]) -> tuple[Place, NDArray[np.int64]] | None:
    if place is None:
        return None
    found = _hdf5.shape_of(place)
    if len(found) != 3 or found[1:] != shape[1:]:
        raise GeometryError("PRJ-SHAPE", f"a flat or dark field has the shape {found}, the projections {shape}")
    return place, np.arange(found[0])


def _angles(stored: _Stored, frame_count: int) -> tuple[Float64, list[Finding]]:
    """Return the angles of the projections in radians, from a list for these or for all frames, and what was decided."""
    angles = _hdf5.numbers(stored.angles).ravel()
    if len(angles) == frame_count:
        angles = angles[stored.which]
    _projections.same_count(len(stored.which), len(angles))
    unit = _hdf5.attribute(stored.angles, "units")
    if unit.startswith("rad"):
        return checks.angles(angles), []
    if unit.startswith("deg"):
        return np.mod(np.radians(checks.angles_deg(angles)), 2 * np.pi), []
    is_degrees = bool(np.ptp(angles) > 2 * np.pi + 0.1)
    name = "degrees" if is_degrees else "radians"
    fact = f"the angles carry no unit; as they span {np.ptp(angles):.4g} they are taken as {name}"
    finding = Finding("PRJ-UNIT", Verdict.WARN, fact, {"span": float(np.ptp(angles))}, hint="Check the arc of the views.")
    return (np.mod(np.radians(angles), 2 * np.pi) if is_degrees else angles), [finding]
