"""Elekta's cone beam (XVI 5): the list of frames ``_Frames.xml`` with one ``.his`` image for each.

The distances, 1000 and 1536 mm, and the panel of 409.6 mm are in no file; they are those that RTK assumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medrecon.core.errors import GeometryError, InputError
from medrecon.core.progress import Tick
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.rtk_geometry import RtkParameters, views_from_rtk
from medrecon.readers import _his, _projections, _xml

ASKED_FIRST = True
SID_MM, SDD_MM = 1000.0, 1536.0
_PATTERNS = ("*.his", "*/*.his")
#: Files that were made anonymous lose a letter of some names.
_ANGLE, _U, _V = ({"GantryAngle", "antryAngle", "Gantryngle"}, {"UCentre", "Uentre"}, {"VCentre", "Ventre"})


@dataclass(frozen=True, slots=True)
class _Frames:
    """The list of frames: degrees and millimetres, (n,)."""

    angle_deg: tuple[float, ...]
    u_mm: tuple[float, ...]
    v_mm: tuple[float, ...]


def claims(path: Path, head: bytes) -> bool:
    """Whether the file is a list of frames, or one of the images."""
    return head.startswith(_his.MAGIC) or _xml.looks_like(path, head, b"<Frame>", b"entre>")


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the scans; images without a list of frames are skipped."""
    lists = [file for file in files if not _is_image(file.path)]
    series, skipped = _projections.find_each("elekta_his", "list of frames", lists, _describe)
    used = {image for file in lists for image in _images(file.path)}
    alone = [file for file in files if _is_image(file.path) and file.path not in used]
    return series, [*skipped, *(Skipped(file.number, "flat-panel image without a list of frames", "PRJ-FILES") for file in alone)]


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    images: tuple[Path, ...] = _projections.begin(info, options).header
    pixels = np.empty(info.shape, dtype=np.float32)
    for k, path in enumerate(images):
        pixels[k] = _his.line_integrals(path, (info.shape[1], info.shape[2]))
        tick((k + 1) / len(images))
    return _projections.finish(info, options, pixels, measured=_his.measured(info.shape))


def _describe(path: Path) -> _projections.Described:
    frames, images = _listed(path), _images(path)
    if not images:
        raise InputError("PRJ-FILES", "no images stand beside the list of frames.", "Keep the folder as exported.")
    _projections.same_count(len(images), len(frames.angle_deg))
    shapes = {_his.shape_of(image) for image in images}
    if len(shapes) > 1:
        raise GeometryError("PRJ-SHAPE", f"images of {len(shapes)} different sizes belong to the scan", "Export it again.")
    shape = shapes.pop()
    flat = np.zeros(len(images))
    parameters = RtkParameters(
        gantry_deg=np.mod(frames.angle_deg, 360.0),
        sid_mm=flat + SID_MM,
        sdd_mm=flat + SDD_MM,
        out_of_plane_deg=flat,
        in_plane_deg=flat,
        source_offset_x_mm=flat,
        source_offset_y_mm=flat,
        projection_offset_x_mm=-np.array(frames.u_mm),
        projection_offset_y_mm=-np.array(frames.v_mm),
    )
    what = "the files tell neither distances nor panel: 1000 mm, 1536 mm and 409.6 mm are taken"
    lay = _projections.unknown_position("the files do not say how the patient lay")
    return _projections.Described(
        views=views_from_rtk(parameters, shape, _his.pitch_mm(shape)),
        paths=(path, *images),
        findings=(_projections.assumed(what), lay),
        header=images,
    )


def _listed(path: Path) -> _Frames:
    """Read the frames; each needs an angle and the centre of the panel."""
    found: dict[str, list[float]] = {"angle": [], "u": [], "v": []}
    frames = 0
    for name, text in _xml.elements(_xml.parsed(path)):
        frames += name == "Frame"
        for key, names in (("angle", _ANGLE), ("u", _U), ("v", _V)):
            if name in names:
                found[key].append(_xml.number(text, "a value of a frame"))
    if not frames:
        raise GeometryError("PRJ-FEW", "the list of frames is empty", "A scan needs at least one view.")
    if {len(values) for values in found.values()} != {frames}:
        raise _projections.damaged(f"not all of {frames} frames have an angle and a centre")
    return _Frames(*(tuple(found[key]) for key in ("angle", "u", "v")))


def _images(path: Path) -> tuple[Path, ...]:
    found = {one for pattern in _PATTERNS for one in path.parent.glob(pattern) if _is_image(one)}
    return tuple(sorted((one.resolve() for one in found), key=lambda one: (str(one.parent), _projections.natural(one))))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() == ".his" and path.is_file() and not path.is_symlink()
