"""A stack of detector images beside a YAML file that says how they were taken: our own format, and for data of no format.

The images are TIFF (one file or one for each view), NPY or raw. The YAML begins with ``format: medrecon projections``;
``docs/projection-formats.md`` shows it. Relative names only, below the folder of the YAML file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medrecon.core import _view_checks as checks
from medrecon.core.errors import GeometryError, InputError, UsageError
from medrecon.core.grid import Float64
from medrecon.core.progress import Tick
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.settings import Config, parse, read_yaml
from medrecon.core.views import Detector, ViewGeometry
from medrecon.readers import _detector_images as images
from medrecon.readers import _projections
from medrecon.readers._detector_images import RawLayout

ASKED_FIRST = True
MARK = "medrecon projections"
_MOST_ANGLE_BYTES = 16 * 2**20
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Steps(Config):
    """Evenly spaced angles."""

    first: Finite
    step: Finite


class AngleFile(Config):
    """Angles in a text file, one a line; `skip` lines at the start and at the end belong to flats and darks."""

    file: str
    skip: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (0, 0)


Angles = list[Finite] | Steps | AngleFile


class Raw(Config):
    """Pixels without a header."""

    views: Annotated[int, Field(gt=0)]
    dtype: Literal["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"]
    byte_order: Literal["little", "big"] = "little"
    offset: Annotated[int, Field(ge=0)] = 0


class DetectorPart(Config):
    """The detector; `rows` and `columns` are read from the images where they are not given."""

    row_pitch_mm: Positive
    column_pitch_mm: Positive
    rows: Annotated[int, Field(gt=0)] | None = None
    columns: Annotated[int, Field(gt=0)] | None = None
    curve_radius_mm: Positive | None = None


class GeometryPart(Config):
    """How the views stand; the names are those of `ViewGeometry`'s constructors.

    `vectors` names a NPY file (views, 12): source (or ray direction), detector centre, u, v of each view in LPS mm.
    """

    kind: Literal["parallel", "cone", "helical", "vectors"]
    angles_deg: Angles | None = None
    angles_rad: Angles | None = None
    sid_mm: Finite | None = None
    sdd_mm: Finite | None = None
    offset_u_mm: Finite = 0.0
    offset_v_mm: Finite = 0.0
    source_offset_u_mm: Finite = 0.0
    source_offset_v_mm: Finite = 0.0
    in_plane_deg: Finite = 0.0
    tilt_deg: Finite = 0.0
    slant_deg: Finite = 0.0
    pitch_mm_per_turn: Finite = 0.0
    z0_mm: Finite = 0.0
    isocentre_lps_mm: tuple[Finite, Finite, Finite] | None = None
    vectors: str | None = None
    parallel_beam: bool = False
    left_handed: bool = False


class StackFile(Config):
    """The YAML file."""

    format: Literal["medrecon projections"]
    version: Literal[1] = 1
    images: str
    raw: Raw | None = None
    measures: Measured = Measured.LINE_INTEGRALS
    open_beam: str | None = None
    dark: str | None = None
    saturation: Positive | None = None
    detector: DetectorPart
    geometry: GeometryPart


@dataclass(frozen=True, slots=True)
class _Header:
    """What `read` needs beside the geometry."""

    images: tuple[Path, ...]
    open_beam: tuple[Path, ...]
    dark: tuple[Path, ...]
    raw: RawLayout | None
    saturation: float | None


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file says of itself what it is, within its first lines."""
    return any(line.strip() == f"format: {MARK}".encode() for line in head.splitlines()[:8])


def owns(path: Path) -> list[Path]:
    """Return the images that the YAML file names."""
    try:
        stack = _parsed(path)
        return [
            one
            for name in (stack.images, stack.open_beam, stack.dark, stack.geometry.vectors)
            if name
            for one in images.named(path, name)
        ]
    except (InputError, OSError):
        return []


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the scans that YAML files describe."""
    return _projections.find_each("projection_stack", "YAML geometry", files, _describe)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    content = _projections.begin(info, options)
    header: _Header = content.header
    pixels = images.load(header.images, info.shape, header.raw, tick)
    fields = {}
    for name, paths in (("open_beam", header.open_beam), ("dark", header.dark)):
        if paths:
            fields[name] = images.load(paths, images.shape_of(paths))
    return _projections.finish(info, options, pixels, saturation=header.saturation, **fields)


def _describe(path: Path) -> _projections.Described:
    stack = _parsed(path)
    stored, open_beam, dark = (images.named(path, name) if name else () for name in (stack.images, stack.open_beam, stack.dark))
    raw = _raw_layout(stack)
    shape = images.shape_of(stored, raw)
    detector = Detector(
        (stack.detector.rows or shape[1], stack.detector.columns or shape[2]),
        (stack.detector.row_pitch_mm, stack.detector.column_pitch_mm),
        stack.detector.curve_radius_mm,
    )
    if detector.shape != shape[1:]:
        raise GeometryError(
            "PRJ-SHAPE",
            f"the images have {shape[1]} x {shape[2]} pixels, the geometry says {detector.shape[0]} x {detector.shape[1]}",
        )
    views, extra = _views(stack.geometry, path, detector, shape[0])
    _projections.same_count(shape[0], len(views))
    return _projections.Described(
        views=views,
        paths=(path, *stored, *open_beam, *dark, *extra),
        measures=Measured.TRANSMISSION if open_beam else stack.measures,
        header=_Header(stored, open_beam, dark, raw, stack.saturation),
    )


def _parsed(path: Path) -> StackFile:
    try:
        data = read_yaml(path)
    except UsageError as error:  # its message names the file
        raise InputError("PRJ-HEADER", "the YAML geometry is no plain YAML of at most 64 kB.", "Check its lines.") from error
    try:
        return parse(StackFile, data, "the YAML geometry")
    except UsageError as error:
        raise InputError("PRJ-HEADER", error.fact, "docs/projection-formats.md shows the format.") from error


def _raw_layout(stack: StackFile) -> RawLayout | None:
    if stack.raw is None:
        return None
    if not stack.detector.rows or not stack.detector.columns:
        raise InputError("PRJ-HEADER", "raw images need the detector's rows and columns.", "Add both to the YAML geometry.")
    order = "<" if stack.raw.byte_order == "little" else ">"
    shape = (stack.raw.views, stack.detector.rows, stack.detector.columns)
    return RawLayout(shape, f"{order}{np.dtype(stack.raw.dtype).str[1:]}", stack.raw.offset)


def _views(geometry: GeometryPart, path: Path, detector: Detector, count: int) -> tuple[ViewGeometry, tuple[Path, ...]]:
    """Return the views, and the further files in which they stand."""
    if geometry.kind == "vectors":
        return _from_vectors(geometry, path, detector)
    angles, extra = _angles(geometry, path, count)
    _projections.same_count(count, len(angles))
    turns = {name: np.radians(getattr(geometry, f"{name}_deg")) for name in ("in_plane", "tilt", "slant")}
    shared = {name: getattr(geometry, name) for name in ("offset_u_mm", "offset_v_mm")}
    at = geometry.isocentre_lps_mm or (0.0, 0.0, 0.0)
    angled = {f"{name}_rad": turn for name, turn in turns.items()}
    if geometry.kind == "parallel":
        return ViewGeometry.parallel(angles, detector, **shared, **angled, isocentre_lps_mm=at), extra
    if geometry.sid_mm is None or geometry.sdd_mm is None:
        raise InputError("PRJ-HEADER", "a diverging beam needs sid_mm and sdd_mm.", "Add both to the YAML geometry.")
    shared |= {"source_offset_u_mm": geometry.source_offset_u_mm, "source_offset_v_mm": geometry.source_offset_v_mm}
    sid, sdd = geometry.sid_mm, geometry.sdd_mm
    if geometry.kind == "cone":
        return ViewGeometry.cone(angles, sid, sdd, detector, **shared, **angled, isocentre_lps_mm=at), extra
    helix = {"pitch_mm_per_turn": geometry.pitch_mm_per_turn, "z0_mm": geometry.z0_mm}
    return ViewGeometry.helical(angles, sid, sdd, detector, **helix, **shared, axis_lps_mm=at[:2]), extra


def _angles(geometry: GeometryPart, path: Path, count: int) -> tuple[Float64, tuple[Path, ...]]:
    given = [values for values in (geometry.angles_deg, geometry.angles_rad) if values is not None]
    if len(given) != 1:
        raise InputError("PRJ-HEADER", "angles are needed once: angles_deg or angles_rad.", "Correct the YAML geometry.")
    extra: tuple[Path, ...] = ()
    if isinstance(given[0], Steps):
        angles = given[0].first + given[0].step * np.arange(count, dtype=np.float64)
    elif isinstance(given[0], AngleFile):
        extra = images.named(path, given[0].file)
        lines = _numbers(extra[0])
        angles = lines[given[0].skip[0] : len(lines) - given[0].skip[1]]
    else:
        angles = np.array(given[0], dtype=np.float64)
    if geometry.angles_deg is None:
        return angles, extra
    turned = np.radians(checks.angles_deg(angles))
    return (turned if geometry.kind == "helical" else np.mod(turned, 2 * np.pi)), extra


def _numbers(path: Path) -> Float64:
    if path.stat().st_size > _MOST_ANGLE_BYTES:
        raise _projections.damaged(f"the file of angles is longer than {_MOST_ANGLE_BYTES} bytes")
    try:
        return np.array(path.read_text(encoding="utf-8").replace(",", " ").split(), dtype=np.float64)
    except ValueError as error:
        raise _projections.damaged("the file of angles does not hold numbers alone") from error


def _from_vectors(geometry: GeometryPart, path: Path, detector: Detector) -> tuple[ViewGeometry, tuple[Path, ...]]:
    if geometry.vectors is None:
        raise InputError("PRJ-HEADER", "the kind vectors needs the file of them.", "Add vectors: to the YAML geometry.")
    extra = images.named(path, geometry.vectors)
    shape = images.shape_of(extra)
    if shape[0] != 1 or shape[2] != 12:
        raise GeometryError("PRJ-SHAPE", f"vectors have the shape (views, 12), not {shape[1:]}")
    table: NDArray[np.float64] = np.load(extra[0], allow_pickle=False).astype(np.float64)
    first, centre, u, v = (table[:, k : k + 3] for k in (0, 3, 6, 9))
    views = ViewGeometry.from_vectors(
        None if geometry.parallel_beam else first,
        centre,
        u,
        v,
        detector,
        ray_directions=first if geometry.parallel_beam else None,
        isocentre_lps_mm=geometry.isocentre_lps_mm,
        left_handed=geometry.left_handed,
    )
    return views, extra
