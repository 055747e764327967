"""Zeiss Xradia: projections in a ``.txrm`` container (OLE), cone or parallel beam.

The container is read with olefile; every stream is at least as long as its use before it is read. Shifts that the
scanner measured move the detector, view by view; nothing is resampled. The sense of rotation is that of other readers
of these files, and an assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
from medrecon.readers import _projections
from medrecon.safety.limits import Limits

if TYPE_CHECKING:
    import olefile

_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_TYPES = {5: "<u2", 10: "<f4"}
_PROJECTIONS, _CONE = 0, 1  # AcquisitionMode, XrayGeometry
_IMAGES_PER_FOLDER = 100
_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError)


@dataclass(frozen=True, slots=True)
class _Header:
    """What `read` needs: the type of the images, and that of the open beam, empty where there is none."""

    dtype: str
    open_beam: str


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file is an OLE container, as are those of old office programs."""
    return head.startswith(_MAGIC)


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the scans in OLE containers."""
    return _projections.find_each("zeiss_txrm", "OLE container", files, _describe)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    content = _projections.begin(info, options)
    header: _Header = content.header
    views, rows, columns = info.shape
    pixels = np.empty(info.shape, dtype=np.float32)
    with _Container(content.described.paths[0]) as container:
        for k in range(views):
            name = f"ImageData{k // _IMAGES_PER_FOLDER + 1}/Image{k + 1}"
            pixels[k] = container.values(name, header.dtype, rows * columns).reshape(rows, columns)
            tick((k + 1) / views)
        open_beam = None
        if header.open_beam:
            open_beam = container.values("ReferenceData/Image", header.open_beam, rows * columns).reshape(rows, columns)
    return _projections.finish(info, options, pixels, open_beam=open_beam)


class _Container:
    """The streams of an OLE file, each as long as what is asked of it."""

    def __init__(self, path: Path) -> None:
        import olefile

        try:
            self._ole: olefile.OleFileIO = olefile.OleFileIO(str(path))
        except _ERRORS as error:
            raise _projections.damaged("the OLE container is cut or damaged") from error

    def __enter__(self) -> _Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._ole.close()

    def has(self, name: str) -> bool:
        """Whether there is such a stream; names differ in case between versions."""
        return bool(self._ole.exists(name))

    def values(self, name: str, dtype: str, count: int) -> NDArray[np.float64] | NDArray[np.float32]:
        """Return the first values of a stream; raise where it has fewer."""
        needed = count * np.dtype(dtype).itemsize
        if not self.has(name):
            raise _projections.damaged(f"the OLE container lacks the stream {name}")
        try:
            available = int(self._ole.get_size(name))
            if available < needed:
                raise _projections.cut(needed, available)
            data = self._ole.openstream(name).read(needed)
        except _ERRORS as error:
            raise _projections.damaged(f"the stream {name} cannot be read") from error
        if len(data) < needed:
            raise _projections.cut(needed, len(data))
        return np.frombuffer(data, dtype=dtype)

    def number(self, name: str, dtype: str = "<i4") -> float:
        """Return a single value."""
        return float(self.values(f"ImageInfo/{name}", dtype, 1)[0])


def _describe(path: Path) -> _projections.Described | None:
    with _Container(path) as container:
        if not container.has("ImageInfo/NoOfImages") or container.number("AcquisitionMode") != _PROJECTIONS:
            return None
        count, rows, columns = (int(container.number(name)) for name in ("NoOfImages", "ImageHeight", "ImageWidth"))
        _refuse_sizes(path, count, rows, columns)
        dtype = _dtype(container.number("DataType"))
        for k in (0, count - 1):
            container.values(f"ImageData{k // _IMAGES_PER_FOLDER + 1}/Image{k + 1}", dtype, rows * columns)
        views = _views(container, count, (rows, columns))
        open_beam = ""
        if container.has("ReferenceData/Image"):
            open_beam = _dtype(float(container.values("ReferenceData/DataType", "<i4", 1)[0]))
    findings = [_projections.assumed("the file does not say which way is up nor which way the sample turns")]
    if not open_beam:
        hint = "Give the open beam before the logarithm is taken."
        findings.append(Finding("PRJ-FLAT", Verdict.WARN, "the file holds no open beam; its values are counts", hint=hint))
    return _projections.Described(
        views=views,
        paths=(path,),
        measures=Measured.TRANSMISSION if open_beam else Measured.COUNTS,
        findings=tuple(findings),
        header=_Header(dtype, open_beam),
    )


def _refuse_sizes(path: Path, count: int, rows: int, columns: int) -> None:
    if count < 1:
        raise GeometryError("PRJ-FEW", f"the file announces {count} images", "A scan needs at least one view.")
    if not (0 < rows <= Limits().side and 0 < columns <= Limits().side):
        raise _projections.damaged(f"images of {rows} x {columns} pixels cannot be")
    if count * rows * columns * 2 > path.stat().st_size:
        raise _projections.cut(count * rows * columns * 2, path.stat().st_size)


def _dtype(code: float) -> str:
    if int(code) not in _TYPES:
        raise InputError("PRJ-HEADER", f"pixels of type {int(code)} are not read.", "Types 5 and 10 are: 16 bits and float.")
    return _TYPES[int(code)]


def _views(container: _Container, count: int, shape: tuple[int, int]) -> ViewGeometry:
    angles_deg = container.values("ImageInfo/Angles", "<f4", count).astype(np.float64)
    angles = np.mod(-np.radians(checks.angles_deg(angles_deg)), 2 * np.pi)
    voxel_mm = container.number("PixelSize", "<f4") / 1000
    shifts = {
        f"offset_{axis}_mm": _shifts(container, f"Alignment/{letter}-Shifts", count) for axis, letter in (("u", "X"), ("v", "Y"))
    }
    if container.number("XrayGeometry") != _CONE:
        moved = {name: shift * voxel_mm for name, shift in shifts.items()}
        return ViewGeometry.parallel(angles, Detector(shape, (voxel_mm, voxel_mm)), **moved)
    to_axis, behind = (
        np.abs(container.values(f"ImageInfo/{name}Distance", "<f4", count)).astype(np.float64) for name in ("StoRA", "DtoRA")
    )
    if not to_axis.min() > 0:
        raise GeometryError("PRJ-GEOM", f"the source stands {to_axis.min():g} mm from the axis")
    pitch = float(voxel_mm * np.median((to_axis + behind) / to_axis))
    moved = {name: shift * pitch for name, shift in shifts.items()}
    return ViewGeometry.cone(angles, to_axis, to_axis + behind, Detector(shape, (pitch, pitch)), **moved)


def _shifts(container: _Container, name: str, count: int) -> Float64:
    """Return how far each image is to be moved, in pixels; zero where it was not measured."""
    return container.values(name, "<f4", count).astype(np.float64) if container.has(name) else np.zeros(count)
