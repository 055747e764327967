"""RTK: the XML file of a ThreeDCircularProjectionGeometry, with its projections beside it in MetaImage, TIFF or HIS.

The XML does not name its projections. In its folder that set of images is taken which has as many views as the geometry;
of several the one that bears the geometry's name. Line integrals, unless the images hold integers, which are counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medrecon.core.errors import GeometryError, InputError, MedreconError
from medrecon.core.findings import Verdict
from medrecon.core.grid import Grid
from medrecon.core.progress import Tick
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.rtk_geometry import RtkParameters, read_rtk_xml, views_from_rtk
from medrecon.readers import _detector_images as images
from medrecon.readers import _his, _projections, metaimage
from medrecon.readers._listing import open_regular
from medrecon.readers._volumes import VolumeFile

ASKED_FIRST = True
_MOST_XML_BYTES = 64 * 2**20
_ENDINGS = {".mha": "meta", ".mhd": "meta", ".tif": "tiff", ".tiff": "tiff", ".npy": "npy", ".his": "his"}
_UNIT_SPACING = ReadOptions(spacing_mm=(1.0, 1.0, 1.0))


@dataclass(frozen=True, slots=True)
class _Images:
    """A set of detector images that may belong to the geometry.

    Parameters
    ----------
    shape : (views, rows, columns)
    volume : SeriesInfo, optional
        Of a MetaImage, as its reader found it.
    """

    kind: Literal["meta", "plain", "his"]
    paths: tuple[Path, ...]
    shape: tuple[int, int, int]
    volume: SeriesInfo | None = None

    @property
    def grid(self) -> Grid | None:
        """Where a MetaImage says that its pixels are."""
        content = None if self.volume is None else self.volume.content
        return content.grid if isinstance(content, VolumeFile) else None


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the root element is RTK's."""
    return b"<RTKThreeDCircularGeometry" in head


def owns(path: Path) -> list[Path]:
    """Return the projections that belong to a geometry."""
    try:
        return [one.resolve() for one in _projections_of(path, _geometry(path)).paths]
    except (MedreconError, OSError):
        return []


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the scans of RTK geometries."""
    return _projections.find_each("rtk", "RTK geometry", files, lambda path: _describe(path, options))


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    content = _projections.begin(info, options)
    stored: _Images = content.header
    if stored.kind == "his":
        pixels = np.stack([_his.line_integrals(path, (info.shape[1], info.shape[2])) for path in stored.paths])
        return _projections.finish(info, options, pixels, measured=_his.measured(info.shape))
    if stored.volume is None:
        return _projections.finish(info, options, images.load(stored.paths, stored.shape, tick=tick))
    volume = metaimage.read(replace(stored.volume, findings=()), _UNIT_SPACING, tick)
    voxels = volume.voxels if volume.seen is None else np.where(volume.seen, volume.voxels, np.float32(np.nan))
    return _projections.finish(info, options, voxels)


def _geometry(path: Path) -> RtkParameters:
    with open_regular(path) as file:
        return read_rtk_xml(file.read(_MOST_XML_BYTES + 1))


def _describe(path: Path, options: ReadOptions) -> _projections.Described:
    parameters = _geometry(path)
    stored = _projections_of(path, parameters)
    grid = stored.grid
    if grid is None:
        own = _his.pitch_mm((stored.shape[1], stored.shape[2])) if stored.kind == "his" else None
        pitch, first = _projections.pitch_mm(options, own), None
    else:
        if np.abs(grid.directions - np.eye(3)[:, ::-1]).max() > 1e-6:
            raise _projections.damaged("the projections have a direction matrix, which RTK's detector has not")
        pitch, (x, y, _) = (grid.spacing_mm[1], grid.spacing_mm[2]), grid.to_lps((0, 0, 0))
        first = (float(y), float(x))
    return _projections.Described(
        views=views_from_rtk(parameters, stored.shape[1:], pitch, first),
        paths=(path, *stored.paths),
        measures=Measured.COUNTS if _is_integer(stored) else Measured.LINE_INTEGRALS,
        findings=(_projections.unknown_position("RTK's geometry does not say how a patient lay", Verdict.OK),),
        header=stored,
    )


def _is_integer(stored: _Images) -> bool:
    if stored.kind == "his":
        return False  # the reader takes the logarithm
    if stored.kind == "plain":
        return images.is_integer(stored.paths[0])
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(stored.paths[0]))
    reader.ReadImageInformation()
    return "float" not in SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())


def _projections_of(path: Path, parameters: RtkParameters) -> _Images:
    """Choose the images that pair with the geometry."""
    sets = list(_sets(path))
    if not sets:
        raise InputError("PRJ-FILES", "no projections stand beside the RTK geometry.", "Put both into one folder.")
    fitting = [one for one in sets if one.shape[0] == len(parameters)]
    if len(sets) == 1 and not fitting:
        _projections.same_count(sets[0].shape[0], len(parameters))
    same_name = [one for one in fitting if len(one.paths) == 1 and one.paths[0].stem == path.stem]
    chosen = fitting if len(fitting) == 1 else same_name
    if len(chosen) != 1:
        raise InputError(
            "PRJ-FILES",
            f"of {len(sets)} sets of images {len(fitting)} have the {len(parameters)} views of the RTK geometry.",
            "Leave one set beside it, or give the set its name.",
        )
    return chosen[0]


def _sets(path: Path) -> Iterator[_Images]:
    """Yield what may be the projections: each file with several views, and all single images of one kind together."""
    by_kind: dict[str, list[tuple[Path, tuple[int, int, int]]]] = {}
    for file in sorted(path.parent.iterdir(), key=_projections.natural):
        kind = _ENDINGS.get(file.suffix.lower())
        if kind is None or not file.is_file():
            continue
        try:
            one = _one(file, kind)
        except (InputError, GeometryError):
            continue
        if one.shape[0] > 1 or kind == "meta":
            yield one
        else:
            by_kind.setdefault(kind, []).append((file, one.shape))
    for kind, found in by_kind.items():
        if len({shape for _, shape in found}) == 1:
            yield _Images("his" if kind == "his" else "plain", tuple(f for f, _ in found), (len(found), *found[0][1][1:]))


def _one(file: Path, kind: str) -> _Images:
    if kind == "meta":
        return _meta(file)
    if kind == "his":
        return _Images("his", (file,), (1, *_his.shape_of(file)))
    return _Images("plain", (file,), images.shape_of([file]))


def _meta(file: Path) -> _Images:
    found, _ = metaimage.find([ListedFile(1, file)], _UNIT_SPACING)
    if len(found) != 1 or any(finding.code in ("VOL-CUT", "VOL-SPACING") for finding in found[0].findings):
        raise InputError("PRJ-CUT", "a MetaImage beside the geometry is cut or no stack.", "Copy it again.")
    content = found[0].content
    paths = content.paths if isinstance(content, VolumeFile) else (file,)
    return _Images("meta", paths, found[0].shape, found[0])
