"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped.

The place comes from the sform where it has a code, else from the qform; where they differ, or neither is there, a
finding says so. The announced size is compared with the file before anything is allocated, and a cut file is refused:
the missing part is never zeros. Values are scaled as the header says.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError, InputError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Float64, Grid
from medrecon.core.interop import MM_PER_UNIT, grid_from_ras
from medrecon.core.progress import Tick
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.volume import Volume
from medrecon.readers import _volumes
from medrecon.readers._listing import open_regular
from medrecon.safety.limits import Limits

_GZIP = b"\x1f\x8b"
_DENSEST = 1032  # deflate cannot pack more bytes into one
_STEP = 1 << 20
_SIZES = {348: 352, 540: 544}  # sizeof_hdr: bytes up to the end of the extension flag
_FORMS_MM = 0.1  # sform and qform that differ by more are worth a warning
_AXES = ("time", "component", "axis 6", "axis 7")
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the voxels stand in the inflated file and how they are stored."""

    shape: tuple[int, int, int]  # column, row, slice
    dtype: np.dtype[Any]
    offset: int
    slope: float | None
    intercept: float | None
    packed: bool

    @property
    def part_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file begins with a NIfTI header, inflated where it is gzipped."""
    start = _inflated(head) if head.startswith(_GZIP) else head
    if len(start) < 12 or _header_size(start) is None:
        return False
    return start[4:7] in (b"n+2", b"ni2") or start[344:347] == b"n+1"


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the volumes in NIfTI files, one for each time point or component."""
    return _volumes.find_each("nifti", "NIfTI file", files, _describe)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> Volume:
    """Read one volume; raises what it is refused for, ``VOL-CUT`` where the voxels end too early."""
    content = _volumes.begin(info, options)
    layout: _Layout = content.header
    try:
        values = _voxels(content.paths[0], layout, content.part)
    except _DAMAGE as error:
        raise _cut() from error
    tick(1.0)
    return _volumes.finish(info, options, values.transpose(2, 1, 0))


def _describe(path: Path) -> list[_volumes.Described]:
    header = _header(path)
    extra, layout = _layout(header, packed=_is_packed(path))
    parts = math.prod(extra)
    if parts > _volumes.MOST_PARTS:
        raise InputError("VOL-LIMIT", f"the file claims {parts} volumes, at most {_volumes.MOST_PARTS} are read.", "Split it.")
    grid, findings = _place(header, layout.shape)
    needed = layout.offset + parts * layout.part_bytes
    if layout.dtype.kind not in "iuf" or layout.dtype.itemsize > 8:
        fact = "the voxels are colours, complex numbers or longer than 64 bits, not real numbers."
        findings.append(Finding("VOL-TYPE", Verdict.REFUSED, fact, hint="Convert them to one real channel first."))
    elif not _holds(path, needed, layout.packed):
        fact = f"the header announces {needed} bytes, and the file of {path.stat().st_size} bytes ends before that."
        findings.append(Finding("VOL-CUT", Verdict.REFUSED, fact, {"announced_bytes": needed}, hint="Copy or export it again."))
    findings += _volumes.judge_shape(layout.shape[::-1], grid)
    quantity = _volumes.spoken_quantity(header["descrip"].item().split(b"\0")[0].decode("latin-1"))
    return [
        _volumes.Described(layout.shape[::-1], grid, tuple(findings), quantity, labels, number, layout)
        for number, labels in enumerate(_labels(extra))
    ]


def _header(path: Path) -> Any:  # noqa: ANN401 (nibabel is untyped)
    """Read the header alone, without nibabel's own repairs of what it finds."""
    import nibabel

    try:
        with _stream(path) as file:
            block = file.read(max(_SIZES.values()))
    except _DAMAGE:
        block = _start_of_damaged(path)
    size = _header_size(block)
    if size is None or len(block) < size:
        raise InputError("VOL-HEADER", "the NIfTI header is cut.", "Copy or export the file again.")
    kind = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
    order = "<" if int.from_bytes(block[:4], "little") == size else ">"
    return kind(block[:size], endianness=order, check=False)


def _layout(header: Any, *, packed: bool) -> tuple[tuple[int, ...], _Layout]:  # noqa: ANN401 (nibabel is untyped)
    """Return the sizes of the axes beyond the third, and the layout of one volume."""
    from nibabel.spatialimages import HeaderDataError

    axes = int(header["dim"][0])
    sizes = tuple(int(n) for n in header["dim"][1 : 1 + max(axes, 0)])
    offset = float(header["vox_offset"])
    if not 1 <= axes <= 7 or min(sizes) < 1 or not _SIZES[int(header["sizeof_hdr"])] <= offset < 2**53:
        raise InputError("VOL-HEADER", "the NIfTI header has impossible sizes or offsets.", "Export the file again.")
    sizes = (*sizes, 1, 1)
    try:
        dtype = header.get_data_dtype()
        slope, intercept = header.get_slope_inter()
    except (HeaderDataError, KeyError) as error:
        raise InputError("VOL-HEADER", "the NIfTI header has an unknown voxel type or scaling.", "Export it again.") from error
    return sizes[3:], _Layout((sizes[0], sizes[1], sizes[2]), dtype, int(offset), slope, intercept, packed)


def _place(header: Any, shape: tuple[int, int, int]) -> tuple[Grid | None, list[Finding]]:  # noqa: ANN401 (nibabel is untyped)
    """Return where the voxels stand, and what is to be said about it; no grid where the matrix is impossible."""
    findings: list[Finding] = []
    unit = _unit(header, findings)
    try:
        forms = [_grid(affine, shape, unit) for affine in _coded_affines(header)]
        grid = forms[0] if forms else _grid(header.get_base_affine(), shape, unit)
    except GeometryError as error:
        findings.append(Finding("NII-AFFINE", Verdict.REFUSED, f"{error.fact}.", hint="Correct the sform or qform of the file."))
        return None, findings
    if not forms:
        fact = (
            "the file does not say how it stands in the patient; assumed: first axis to the left, second to the front, "
            "third to the head, the middle of the volume at the origin."
        )
        findings.append(Finding("NII-NOFORM", Verdict.WARN, fact, hint="Left and right may be swapped: check them."))
    if len(forms) == 2:
        gap = float(np.abs(forms[0].corners_lps_mm() - forms[1].corners_lps_mm()).max())
        if gap > _FORMS_MM:
            fact = f"sform and qform place the corners up to {gap:.2f} mm apart; the sform is used."
            findings.append(Finding("NII-FORMS", Verdict.WARN, fact, {"corner_gap_mm": gap}))
    return grid, findings


def _coded_affines(header: Any) -> Iterator[Float64]:  # noqa: ANN401 (nibabel is untyped)
    """Yield the affines that the header vouches for by a code: sform first."""
    from nibabel.spatialimages import HeaderDataError

    if header["sform_code"] > 0:
        yield header.get_sform()
    if header["qform_code"] > 0:
        try:
            yield header.get_qform()
        except (HeaderDataError, ValueError) as error:
            raise GeometryError("NII-AFFINE", "the qform's quaternion is no rotation") from error


def _grid(affine: Float64, shape: tuple[int, int, int], unit_mm: float) -> Grid:
    with np.errstate(all="ignore"):  # overflow ends in a matrix that the grid refuses
        return grid_from_ras(shape, np.diag([unit_mm, unit_mm, unit_mm, 1.0]) @ affine)


def _unit(header: Any, findings: list[Finding]) -> float:  # noqa: ANN401 (nibabel is untyped)
    code = int(header["xyzt_units"]) & 7
    name = {1: "meter", 2: "mm", 3: "micron"}.get(code)
    if name is None:
        findings.append(Finding("VOL-UNIT", Verdict.OK, "the file does not name its unit of length; mm is assumed."))
        return 1.0
    if name != "mm":
        findings.append(Finding("VOL-UNIT", Verdict.OK, f"lengths are given in {name} and were turned into mm."))
    return MM_PER_UNIT[name]


def _labels(extra: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
    """Name every volume of a file by its index, from 1, along each axis that has several."""
    for index in itertools.product(*(range(n) for n in reversed(extra))):
        pairs = zip(_AXES, extra, reversed(index), strict=False)
        yield tuple(f"{name} {k + 1}" for name, size, k in pairs if size > 1)


def _voxels(path: Path, layout: _Layout, part: int) -> NDArray[np.float32]:
    """Read and scale one volume as (column, row, slice)."""
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.volumeutils import apply_read_scaling

    spec = (layout.shape, layout.dtype, layout.offset + part * layout.part_bytes)
    with _stream(path) as file:
        try:
            stored = np.asarray(ArrayProxy(file, spec, mmap=False))
        except OSError as error:  # nibabel's word for fewer bytes than announced
            raise _cut() from error
        if layout.packed:
            _check_sum(file)
    with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite, and counts as not measured
        values = stored if layout.slope is None else apply_read_scaling(stored, layout.slope, layout.intercept)
        return np.asarray(values, dtype=np.float32)


def _check_sum(file: BinaryIO) -> None:
    """Read on to the end, where gzip compares its checksum, but not through a bomb behind the voxels."""
    left = Limits().inflate_free_bytes
    while left > 0 and (piece := file.read(_STEP)):
        left -= len(piece)


def _cut() -> InputError:
    return InputError("VOL-CUT", "the voxels end too early or are damaged.", "Copy or export the file again.")


@contextlib.contextmanager
def _stream(path: Path) -> Iterator[BinaryIO]:
    """Open the inflated file."""
    with open_regular(path) as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file) as inflated:
                yield cast("BinaryIO", inflated)
        else:
            yield file


def _is_packed(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(2) == _GZIP


def _holds(path: Path, needed: int, packed: bool) -> bool:
    """Whether the file can hold the announced bytes, without keeping any of them."""
    size = path.stat().st_size
    if not packed:
        return size >= needed
    if needed > _DENSEST * size:
        return False
    with open_regular(path) as file:
        file.seek(-4, 2)
        if int.from_bytes(file.read(4), "little") == needed % 2**32:  # gzip's own note of the size
            return True
    return _counts_to(path, needed)


def _counts_to(path: Path, needed: int) -> bool:
    try:
        with _stream(path) as file:
            while needed > 0 and (piece := file.read(min(_STEP, needed))):
                needed -= len(piece)
    except _DAMAGE:
        return False
    return needed == 0


def _inflated(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, 352)
    except zlib.error:
        return b""


def _start_of_damaged(path: Path) -> bytes:
    with open_regular(path) as file:
        return _inflated(file.read(_STEP))


def _header_size(start: bytes) -> int | None:
    return next((n for n in _SIZES if n in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))), None)
