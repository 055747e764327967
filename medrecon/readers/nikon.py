"""Nikon XTek: the text file ``.xtekct`` with one TIFF for each view.

Angles, signs and the place of the first pixel are taken as CIL takes them: the sample turns, the first pixel is at the
top right as seen from the source. Counts are divided by the white level.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medrecon.core.errors import GeometryError, InputError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.progress import Tick
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.views import Detector, ViewGeometry
from medrecon.readers import _detector_images as images
from medrecon.readers import _projections, _xml
from medrecon.readers._listing import open_regular

ASKED_FIRST = True
_SECTION = "XTekCT"
_MOST_BYTES = 1 << 20


def claims(path: Path, head: bytes) -> bool:  # noqa: ARG001 (the reader's contract)
    """Whether the file's first section is Nikon's."""
    return head.lstrip(b"\xef\xbb\xbf\r\n ").startswith(b"[XTekCT]")


def owns(path: Path) -> list[Path]:
    """Return the images of the scan."""
    try:
        return list(_images(path, _values(path)))
    except (InputError, OSError):
        return []


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the scans."""
    return _projections.find_each("nikon", "Nikon scan", files, _describe)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    stored, white = _projections.begin(info, options).header
    pixels = images.load(stored, info.shape, tick=tick)
    np.maximum(pixels, 1, out=pixels, where=pixels >= 0)  # the detector's zero is no darkness
    return _projections.finish(info, options, pixels, open_beam=white)


def _describe(path: Path) -> _projections.Described:
    values = _values(path)
    count = round(_need(values, "Projections"))
    stored = _images(path, values)
    shape = images.shape_of(stored) if stored else (0, 0, 0)
    _projections.same_count(shape[0], count)
    expected = tuple(round(_need(values, f"DetectorPixels{axis}")) for axis in ("Y", "X"))
    if shape[1:] != expected:
        raise GeometryError("PRJ-SHAPE", f"the images have {shape[1:]} pixels, the scan's file says {expected}")
    white = _need(values, "WhiteLevel")
    if not white > 0:
        raise InputError("PRJ-FLAT", f"the white level is {white:g}.", "Scan again with the beam on, or correct the file.")
    return _projections.Described(
        views=_views(values, expected),
        paths=(path, *stored),
        measures=Measured.TRANSMISSION,
        findings=(
            *_tilted(values),
            _projections.assumed("the sense of rotation and the signs of offsets are those that CIL takes"),
        ),
        header=(stored, white),
    )


def _views(values: dict[str, str], shape: tuple[int, ...]) -> ViewGeometry:
    sid, sdd = _need(values, "SrcToObject"), _need(values, "SrcToDetector")
    pitch = (_need(values, "DetectorPixelSizeY"), _need(values, "DetectorPixelSizeX"))
    steps = _need(values, "AngularStep") * np.arange(round(_need(values, "Projections")))
    angles_deg = steps + _number(values, "InitialAngle") - 180.0
    axis_mm = _axis_mm(values, sid / sdd if sdd else 0.0)
    return ViewGeometry.cone(
        np.mod(np.radians(angles_deg), 2 * np.pi),
        sid,
        sdd,
        Detector((shape[0], shape[1]), pitch),
        offset_u_mm=-_number(values, "DetectorOffsetX") - axis_mm,
        offset_v_mm=-_number(values, "DetectorOffsetY"),
        source_offset_u_mm=-axis_mm,
        in_plane_rad=np.pi,
    )


def _axis_mm(values: dict[str, str], shrink: float) -> float:
    """Return how far the axis of rotation stands beside the central ray; older files give it at the detector."""
    if "objectoffsetx" in values:
        return _number(values, "ObjectOffsetX")
    return (_number(values, "CentreOfRotationTop") + _number(values, "CentreOfRotationBottom")) / 2 * shrink


def _tilted(values: dict[str, str]) -> tuple[Finding, ...]:
    tilts = {name: _number(values, name) for name in ("ObjectRoll", "ObjectTilt") if _number(values, name) != 0}
    if not tilts:
        return ()
    fact = f"the axis leans by {', '.join(f'{tilt:g}' for tilt in tilts.values())} degrees, which is not taken into account"
    return (Finding("PRJ-ASSUMED", Verdict.WARN, fact, dict(tilts), hint="Edges away from the middle may be double."),)


def _values(path: Path) -> dict[str, str]:
    """Return the settings of the section, their names in lower case."""
    with open_regular(path) as file:
        text = file.read(_MOST_BYTES).decode("utf-8-sig", errors="replace")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
        return dict(parser[_SECTION])
    except (configparser.Error, KeyError) as error:
        raise _projections.damaged("the scan's file is no list of settings") from error


def _images(path: Path, values: dict[str, str]) -> tuple[Path, ...]:
    """Return the TIFFs of the scan: ``Name_0001.tif`` and so on, in the folder of the file or the one that it names."""
    start = re.escape(values.get("name", path.stem))
    pattern = re.compile(rf"{start}_?\d+\.tiff?", re.IGNORECASE)
    named = values.get("inputfoldername", "").replace("\\", "/").rpartition("/")[2]
    folders = [path.parent, *([images.beside_folder(path, named)] if named else [])]
    for folder in folders:
        found = [one for one in folder.glob("*") if pattern.fullmatch(one.name) and one.is_file() and not one.is_symlink()]
        if found:
            return tuple(one.resolve() for one in sorted(found, key=_projections.natural))
    return ()


def _number(values: dict[str, str], name: str) -> float:
    return _xml.number(values[name.lower()], name) if name.lower() in values else 0.0


def _need(values: dict[str, str], name: str) -> float:
    if name.lower() not in values:
        raise _projections.damaged(f"the scan's file lacks {name}")
    return _number(values, name)
