"""Stacks of PNG, JPEG or TIFF images, and TIFF files of several pages.

Images carry neither spacing nor place, so the spacing must be given and the orientation is assumed, in words. Images of
one folder belong together when their names differ in numbers only and their sizes agree; they are sorted by those
numbers. 16 bits stay 16 bits, colours become luminance.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import InputError, MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Grid
from medrecon.core.progress import Tick
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.volume import Volume
from medrecon.readers import _volumes
from medrecon.readers._listing import open_regular

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_DENSEST = 1032  # deflate cannot pack more bytes into one
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow and libjpeg have it
_LARGEST_SHARE = 2  # numbers that leave more holes than this count something else than images
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class _Image:
    """One file as its header describes it."""

    file: ListedFile
    kind: str
    rows: int
    columns: int
    pages: int
    colour: bool

    @property
    def alike(self) -> tuple[object, ...]:
        """What images of one stack share: folder, name without its numbers, kind and size."""
        name = Path(self.file.name) if self.file.name else self.file.path
        return str(name.parent), re.sub(r"\d+", "#", name.name), self.kind, self.rows, self.columns, self.colour

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers in the file's name, in order."""
        name = Path(self.file.name) if self.file.name else self.file.path
        return tuple(map(int, re.findall(r"\d+", name.name)))


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file begins as PNG, JPEG or TIFF files do."""
    return head.startswith((_PNG, _JPEG, *_TIFF))


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the stacks among images; a single image is no volume and is skipped."""
    images: list[_Image] = []
    skipped: list[Skipped] = []
    for file in files:
        try:
            images.append(_look(file))
        except MedreconError as error:
            skipped.append(Skipped(file.number, "image", error.code))
    series: list[SeriesInfo] = []
    for stack in _stacks(images):
        if len(stack) == 1 and stack[0].pages == 1:
            skipped.append(Skipped(stack[0].file.number, "single image", "IMG-SINGLE"))
            continue
        try:
            found = _describe(stack, options)
        except (MedreconError, OSError):
            skipped += [
                Skipped(image.file.number, "image of a stack that changes while it is read", "INP-GONE") for image in stack
            ]
            continue
        if found.id in {info.id for info in series}:
            skipped += [Skipped(image.file.number, "copy of another image stack", "INP-COPY") for image in stack]
        else:
            series.append(found)
    return series, skipped


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> Volume:
    """Decode a stack; planes whose number is missing from the names count as not measured."""
    content = _volumes.begin(info, options)
    planes: tuple[int, ...] = content.header
    values = np.full(info.shape, np.nan, dtype=np.float32)
    images = itertools.chain.from_iterable(map(_pages, content.paths))
    for done, (plane, image) in enumerate(zip(planes, images, strict=True), start=1):
        if image.shape != info.shape[1:]:
            raise InputError("IMG-DAMAGED", f"image {done} decodes to another size than its header says.", "Export it again.")
        values[plane] = image
        tick(done / len(planes))
    return _volumes.finish(info, options, values)


def _describe(stack: list[_Image], options: ReadOptions) -> SeriesInfo:
    first = stack[0]
    findings = [_spacing(options), *_colours(stack)]
    if first.pages > 1:
        planes = tuple(range(first.pages))
    else:
        stack, planes, order = _in_order(stack)
        findings += order
    shape = (planes[-1] + 1, first.rows, first.columns)
    grid = None if options.spacing_mm is None else Grid.from_parts(shape, options.spacing_mm, (0, 0, 0))
    findings += _volumes.judge_shape(shape, grid)
    described = _volumes.Described(shape, grid, tuple(findings), header=planes)
    return _volumes.series_of("image_stack", tuple(image.file.path for image in stack), [described])[0]


def _stacks(images: Iterable[_Image]) -> Iterator[list[_Image]]:
    """Group images that belong together; a file of several pages is a stack by itself."""
    groups: dict[tuple[object, ...], list[_Image]] = {}
    for image in images:
        key = (*image.alike, image.file.number) if image.pages > 1 else image.alike
        groups.setdefault(key, []).append(image)
    yield from groups.values()


def _in_order(stack: list[_Image]) -> tuple[list[_Image], tuple[int, ...], list[Finding]]:
    """Sort images by the numbers in their names; return also the plane of each, and what is to be said about it."""
    stack = sorted(stack, key=lambda image: image.numbers)
    columns = [column for column in zip(*(image.numbers for image in stack), strict=True) if len(set(column)) > 1]
    fact = f"{len(stack)} images were sorted by the numbers in their names."
    even = tuple(range(len(stack)))
    if len({image.numbers for image in stack}) < len(stack):
        fact = "two images bear the same number, so that their order is not known."
        return stack, even, [Finding("IMG-ORDER", Verdict.REFUSED, fact, hint="Number the images from first to last.")]
    if len(columns) > 1:
        fact += " Several numbers vary, the first one counts most."
        return stack, even, [Finding("IMG-ORDER", Verdict.WARN, fact, hint="Check that the images follow each other.")]
    step = math.gcd(*np.diff(columns[0]).tolist())
    planes = tuple((number - columns[0][0]) // step for number in columns[0])
    if planes[-1] + 1 > _LARGEST_SHARE * len(stack):
        fact += " The numbers count something else than images, which are taken as evenly spaced."
        return stack, even, [Finding("IMG-ORDER", Verdict.WARN, fact, hint="Number the images from first to last.")]
    findings = [Finding("IMG-ORDER", Verdict.OK, fact, {"images": len(stack)})]
    missing = sorted(set(range(planes[-1] + 1)) - set(planes))
    if missing:
        fact = f"{len(missing)} of {planes[-1] + 1} images are missing, the first is number {missing[0] + 1} of the stack."
        findings.append(Finding("IMG-GAP", Verdict.REFUSED, fact, {"missing": len(missing)}, allow="missing-slices"))
    return stack, planes, findings


def _spacing(options: ReadOptions) -> Finding:
    """Refuse a stack without a spacing, or say what is assumed about its place."""
    if options.spacing_mm is None:
        hint = "Give it: spacing_mm=(slice, row, column), or --input-spacing."
        return Finding("IMG-SPACING", Verdict.REFUSED, "images do not say how far apart they and their pixels stand.", hint=hint)
    fact = "images do not say how they stand in the patient; assumed: first image at the feet, rows to the back, columns to left."
    return Finding("IMG-ORIENT", Verdict.WARN, fact, hint="Left and right, head and feet may be swapped: check them.")


def _colours(stack: list[_Image]) -> list[Finding]:
    findings = []
    if stack[0].colour:
        fact = "colours are turned into luminance (0.299 red, 0.587 green, 0.114 blue)."
        findings.append(Finding("IMG-COLOUR", Verdict.OK, fact))
    if stack[0].kind == "jpeg":
        findings.append(Finding("IMG-LOSSY", Verdict.OK, "the images were compressed with loss (JPEG)."))
    return findings


def _look(file: ListedFile) -> _Image:
    """Read the header of an image and refuse what cannot be what it says; nothing is decoded."""
    try:
        with open_regular(file.path) as stream:
            head = stream.read(32)
        if head.startswith(_TIFF):
            return _look_at_tiff(file)
        return _look_at_picture(file, head)
    except _DAMAGE as error:
        raise _damaged("its header cannot be understood") from error


def _look_at_picture(file: ListedFile, head: bytes) -> _Image:
    with _opened(file.path) as image:
        columns, rows = image.size
        kind, colour = str(image.format).lower(), image.mode not in ("1", "L", "LA", "I", "I;16", "I;16B", "F")
    if kind == "png":
        if head[24] == 16 and head[25] in (2, 6):  # bit depth and colour type of the first chunk
            raise InputError("IMG-TYPE", "colours with 16 bits would lose half of them.", "Save the images as 16-bit grey.")
        if rows * columns * max(head[24], 1) // 8 > _DENSEST * file.path.stat().st_size:
            raise _damaged("it is too short for its size")
    return _Image(file, kind, rows, columns, 1, colour)


def _look_at_tiff(file: ListedFile) -> _Image:
    import tifffile

    with tifffile.TiffFile(file.path) as tiff:
        if len(tiff.pages) > _volumes.MOST_PAGES:
            raise InputError(
                "IMG-TYPE", f"the TIFF has {len(tiff.pages)} pages, at most {_volumes.MOST_PAGES} are read.", "Split it."
            )
        pages = [page.aspage() for page in tiff.pages]
        first, series = pages[0], tiff.series[0]
        stored = sum(math.prod(page.shape) for page in pages)
        if not _is_whole(tiff, pages) or math.prod(series.shape) > stored:
            raise _damaged("it ends before its pixels do")
        varying = [n for name, n in zip(series.axes, series.shape, strict=True) if name not in "YXS" and n > 1]
        if len(tiff.series) > 1 or len(varying) > 1 or math.prod(series.shape) != stored:
            raise InputError("IMG-TYPE", "the TIFF holds several series, channels or times.", "Save one stack per file.")
    colour = first.samplesperpixel > 1 or first.photometric == 3  # a palette
    return _Image(file, "tiff", first.imagelength, first.imagewidth, len(pages), colour)


def _is_whole(tiff: Any, pages: list[Any]) -> bool:  # noqa: ANN401 (tifffile, imported where it is used)
    """Whether the chain of pages comes to its end and every page has the bytes that its size needs."""
    tiff.filehandle.seek(tiff.pages.next_page_offset)
    end = tiff.filehandle.read(tiff.tiff.offsetsize)
    if len(end) < tiff.tiff.offsetsize or any(end):
        return False
    for page in pages:
        ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        held = sum(page.databytecounts) * (1 if page.compression == 1 and page.bitspersample >= 8 else _DENSEST)
        if not ends or max(ends) > tiff.filehandle.size or page.nbytes > held:
            return False
    return True


def _pages(path: Path) -> Iterator[NDArray[np.float32]]:
    """Decode the pages of one file, one by one, as luminance."""
    try:
        with open_regular(path) as stream:
            head = stream.read(4)
        if head in _TIFF:
            yield from _tiff_pages(path)
        else:
            with _opened(path) as image:
                yield _picture(image)
    except _DAMAGE as error:
        raise _damaged("its pixels cannot be decoded") from error


def _tiff_pages(path: Path) -> Iterator[NDArray[np.float32]]:
    """Decode with tifffile where it needs no further package, else with Pillow: LZW, JPEG, palettes, inverted greys."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        plain = all(p.compression in (1, 8, 32946, 32773) and p.photometric in (1, 2) for p in (q.aspage() for q in tiff.pages))
        if plain:
            for page in tiff.pages:
                yield _luminance(page.asarray())
            return
        count = len(tiff.pages)
    with _opened(path) as image:
        for number in range(count):
            image.seek(number)
            yield _picture(image)


def _picture(image: Any) -> NDArray[np.float32]:  # noqa: ANN401 (Pillow's image, imported where it is used)
    grey = image.mode in ("1", "L", "I", "I;16", "I;16B", "F")
    return _luminance(np.asarray(image if grey else image.convert("LA" if image.mode == "LA" else "RGB")))


def _luminance(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return (rows, columns) float32 of grey, grey with alpha, or red, green and blue with or without alpha."""
    if pixels.ndim == 2:
        return pixels.astype(np.float32)
    if pixels.ndim != 3 or pixels.shape[2] > 4:
        raise InputError("IMG-TYPE", f"an image has the shape {list(pixels.shape)}.", "Save grey or red-green-blue images.")
    if pixels.shape[2] < 3:
        return pixels[..., 0].astype(np.float32)
    grey: NDArray[np.float32] = pixels[..., :3].astype(np.float32) @ _LUMINANCE
    return grey


def _opened(path: Path) -> Any:  # noqa: ANN401 (a context manager around Pillow's image)
    """Open an image with Pillow; a size beyond its budget, of which it only warns, is refused."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(path, formats=("PNG", "JPEG", "TIFF"))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise InputError(
                "IMG-LIMIT", f"an image claims more than {Image.MAX_IMAGE_PIXELS} pixels.", "Split or shrink it."
            ) from error


def _damaged(why: str) -> InputError:
    return InputError("IMG-DAMAGED", f"an image is damaged: {why}.", "Copy or export it again.")
