"""What the readers of NRRD and MetaImage share: SimpleITK reads them, after their sizes were compared with the file.

ITK opens whatever file a header names and inflates whatever it is given, so both are looked at first. SimpleITK never
reads NIfTI here, because it fills a cut file with zeros.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from numpy.typing import NDArray

from medrecon.core.errors import GeometryError, InputError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Grid
from medrecon.core.interop import sitk_grid
from medrecon.core.progress import Tick
from medrecon.core.reading import ReadOptions, SeriesInfo
from medrecon.core.volume import Volume
from medrecon.readers import _volumes
from medrecon.readers._listing import open_regular
from medrecon.safety.limits import Limits

if TYPE_CHECKING:
    import SimpleITK

_STEP = 1 << 20
_DENSEST_DEFLATE = 1032
_MOST_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the voxels of a file are.

    Parameters
    ----------
    path : Path
        The file itself, or the one that its header names.
    offset : int
        Where they begin.
    packing : str
        ``raw``, ``text``, ``deflate`` (zlib or gzip) or ``bzip2``.
    length : int or None
        Packed length, where the header tells it.
    """

    path: Path
    offset: int
    packing: str
    length: int | None = None


def describe(
    path: Path,
    kind: str,
    stored: Stored,
    findings: list[Finding],
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    mm_per_unit: float = 1.0,
    keys: Mapping[str, str],
) -> list[_volumes.Described]:
    """Describe the volumes of a file from what ITK reads in its header.

    Parameters
    ----------
    kind : str
        Name of ITK's reader, such as ``NrrdImageIO``.
    spacing_mm : (slice, row, column), optional
        Replaces the spacing where the header has none.
    keys : mapping
        Key-value pairs of the header, among which ours may be.
    """
    header = _information(path, kind)
    sizes, components = tuple(map(int, header.GetSize())), int(header.GetNumberOfComponents())
    if not 2 <= len(sizes) <= 4 or min(sizes) < 1:
        raise InputError("VOL-HEADER", f"the header announces {len(sizes)} axes.", "Give an image with three axes.")
    columns, rows, slices, times = (*sizes, 1, 1)[:4]
    grid = _grid(header, spacing_mm, mm_per_unit, findings)
    findings += _judge_size(stored, math.prod(sizes) * components, header)
    findings += _volumes.judge_shape((slices, rows, columns), grid)
    if times * components > _volumes.MOST_PARTS:
        raise InputError("VOL-LIMIT", f"the file claims {times * components} volumes.", "Split it.")
    quantity = _volumes.spoken_quantity(keys.get("medrecon", ""))
    companions = () if stored.path == path else (stored.path,)
    return [
        _volumes.Described((slices, rows, columns), grid, tuple(findings), quantity, labels, part, (kind, stored), companions)
        for part, labels in enumerate(_labels(times, components))
    ]


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> Volume:
    """Read one volume of a NRRD or MetaImage file; raises what it is refused for."""
    import SimpleITK

    content = _volumes.begin(info, options)
    kind, stored = content.header
    path = content.paths[0]
    header = _information(path, kind)
    components = int(header.GetNumberOfComponents())
    needed = math.prod(map(int, header.GetSize())) * components * _item_bytes(header)
    if stored.packing in ("deflate", "bzip2") and not _inflates_to(stored, needed):
        raise _cut(needed)
    try:
        values = SimpleITK.GetArrayFromImage(header.Execute())
    except RuntimeError as error:
        raise _cut(needed) from error
    tick(1.0)
    return _volumes.finish(info, options, _part(values, info.shape, components, content.part))


def header_lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a text header without their ends, up to a limit; the caller stops at the last one."""
    left = _MOST_HEADER_BYTES
    while left > 0 and (line := file.readline(left)):
        left -= len(line)
        yield line.rstrip(b"\r\n").decode("latin-1")
    if left <= 0:
        raise InputError("VOL-HEADER", f"the header is longer than {_MOST_HEADER_BYTES} bytes.", "Export the file again.")


def beside(path: Path, name: str) -> Path:
    """Return the data file that a header names, which must be a plain file in the header's folder or below.

    Raises
    ------
    InputError
        ``VOL-ESCAPE`` for a name that leads out, ``VOL-DETACHED`` where there is no such file.
    """
    folder = path.parent.resolve()
    named = Path(name.replace("\\", "/"))
    if named.is_absolute() or ".." in named.parts or ":" in name:
        raise InputError("VOL-ESCAPE", "the header names a data file outside its own folder.", "Put both into one folder.")
    try:
        target = (folder / named).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            "VOL-DETACHED", "the data file that the header names is not there.", "Put both into one folder."
        ) from error
    if not target.is_relative_to(folder):
        raise InputError("VOL-ESCAPE", "the header names a data file outside its own folder.", "Put both into one folder.")
    if not target.is_file():
        raise InputError("VOL-DETACHED", "what the header names as data is no file.", "Put both into one folder.")
    return target


def _information(path: Path, kind: str) -> SimpleITK.ImageFileReader:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(kind)
    try:
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    except (RuntimeError, UnicodeError) as error:
        raise InputError("VOL-HEADER", "the header cannot be understood.", "Export the file again.") from error
    return reader


def _grid(
    header: Any,  # noqa: ANN401 (SimpleITK is untyped)
    spacing_mm: tuple[float, float, float] | None,
    mm_per_unit: float,
    findings: list[Finding],
) -> Grid | None:
    """Return the grid; None, with a finding, where there is none, or where the file was refused for its spacing already."""
    if len(header.GetSize()) < 3 or any(finding.code == "VOL-SPACING" for finding in findings):
        return None
    try:
        grid = sitk_grid(header)
        affine = grid.to_lps_mm.copy()
        if spacing_mm is not None:
            affine[:3, :3] = grid.directions * spacing_mm
        affine[:3] *= mm_per_unit
        return Grid(grid.shape, affine)
    except GeometryError as error:
        findings.append(Finding("VOL-SPACING", Verdict.REFUSED, f"{error.fact}.", hint="Correct the header."))
        return None


def _judge_size(stored: Stored, count: int, header: Any) -> list[Finding]:  # noqa: ANN401 (SimpleITK is untyped)
    """Compare what the header announces with what the file can hold at most."""
    needed = count * _item_bytes(header)
    available = stored.path.stat().st_size - stored.offset
    least = {"text": 2 * count - 1, "deflate": needed // _DENSEST_DEFLATE, "bzip2": 1}.get(stored.packing, needed)
    least = max(least, stored.length or 0)
    if available >= least:
        return []
    fact = f"the header announces {needed} bytes of voxels, and the file has {max(available, 0)} bytes for them."
    return [Finding("VOL-CUT", Verdict.REFUSED, fact, {"announced_bytes": needed}, hint="Copy or export it again.")]


def _item_bytes(header: Any) -> int:  # noqa: ANN401 (SimpleITK is untyped)
    import SimpleITK

    name = SimpleITK.GetPixelIDValueAsString(header.GetPixelID())
    bits = next((n for n in (8, 16, 32, 64) if f"{n}-bit" in name), None)
    if bits is None or "complex" in name or "label" in name:
        raise InputError("VOL-TYPE", "the voxels are not real numbers of 8 to 64 bits.", "Convert them to one real channel.")
    return bits // 8


def _inflates_to(stored: Stored, needed: int) -> bool:
    """Whether packed voxels inflate to the announced size and their checksum agrees; no step is kept."""
    most = needed + Limits().inflate_free_bytes  # more than announced is no harm, but need not be a bomb
    inflated = 0
    with open_regular(stored.path) as file:
        file.seek(stored.offset)
        stream: Any = bz2.BZ2Decompressor() if stored.packing == "bzip2" else zlib.decompressobj(47)
        try:
            while inflated <= most and not stream.eof:
                piece = _step(stream, file)
                if piece is None:
                    return False
                inflated += len(piece)
        except (zlib.error, OSError):  # OSError is what bz2 raises for damaged data
            return False
    return bool(stream.eof) and inflated >= needed


def _step(stream: Any, file: BinaryIO) -> bytes | None:  # noqa: ANN401 (two libraries, one idea)
    """Inflate at most `_STEP` bytes; None where the packed data end too early."""
    if isinstance(stream, bz2.BZ2Decompressor):
        packed = file.read(_STEP) if stream.needs_input else b""
        ended = stream.needs_input and not packed
    else:
        packed = stream.unconsumed_tail or file.read(_STEP)
        ended = not packed
    piece: bytes = stream.decompress(packed, _STEP)
    return None if ended and not piece else piece


def _part(values: NDArray[Any], shape: tuple[int, int, int], components: int, part: int) -> NDArray[Any]:
    """Pick one volume: times come first in ITK's arrays, components last."""
    times = values.reshape(-1, *shape, components)
    return times[part // components, ..., part % components]


def _labels(times: int, components: int) -> Iterator[tuple[str, ...]]:
    for time in range(times):
        for component in range(components):
            named = (("time", time, times), ("component", component, components))
            yield tuple(f"{name} {k + 1}" for name, k, size in named if size > 1)


def _cut(needed: int) -> InputError:
    return InputError(
        "VOL-CUT", f"the voxels end before the announced {needed} bytes, or are damaged.", "Copy or export the file again."
    )
