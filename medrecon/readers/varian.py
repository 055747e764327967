"""Varian cone beams: OBI (``ProjectionInfo.xml`` with ``.hnd`` or ``.hnc``) and TrueBeam (``Scan.xml`` with ``.xim``).

Angles and offsets are understood as RTK does; nothing in these files tells which way the gantry turns. Frames are divided
by the reading of the ionisation chamber, and by the scans without patient where they lie beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError, InputError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Float64
from medrecon.core.progress import Tick
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.rtk_geometry import RtkParameters, views_from_rtk
from medrecon.readers import _projections, _varian_images, _xml
from medrecon.readers._varian_images import Frame

ASKED_FIRST = True
_OBI_OPEN_BEAM = 139_000.0  # counts in air that RTK assumes
_NO_ANGLE = 6000.0  # written where the source was not read
_CM = 10.0
_PLACES = ("*.hnd", "*.hnc", "*/*.hnd", "*/*.hnc"), ("Acquisitions/*/Proj_*.xim", "Acquisitions/*/*/Proj_*.xim", "Proj_*.xim")
_AIR = ("Calibrations/Air-*/FilterBowtie*.xim", "Calibrations/Air-*/*/FilterBowtie*.xim", "Calibrations/Air-*/Filter.xim")


@dataclass(frozen=True, slots=True)
class _Header:
    """What `read` needs: the frames that count, what they are divided by, and the scans without patient."""

    frames: tuple[Path, ...]
    norms: tuple[float, ...]
    air: tuple[Path, ...]
    is_obi: bool


def claims(path: Path, head: bytes) -> bool:
    """Whether an XML file describes a scan of either kind."""
    return _xml.looks_like(path, head, b"CalibratedSAD") or _xml.looks_like(path, head, b"Acquisitions>", b"SAD>", b"Imager")


def companions(path: Path) -> list[Path]:
    """Return the images that belong to a scan."""
    return [one.resolve() for patterns in (*_PLACES, _AIR) for one in _beside(path, patterns)]


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:  # noqa: ARG001
    """List the scans."""
    return _projections.find_each("varian", "Varian scan", files, _describe)


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> ProjectionScan:
    """Read one scan; raises what it is refused for."""
    header: _Header = _projections.begin(info, options).header
    pixels = np.empty(info.shape, dtype=np.float32)
    for k, path in enumerate(header.frames):
        pixels[k] = _pixels(_read(path), info.shape[1:]) / np.float32(header.norms[k])
        tick((k + 1) / len(pixels))
    measured = pixels > 0  # the panel writes 0 where it has no reading
    open_beam: float | NDArray[np.float32] | None = _OBI_OPEN_BEAM if header.is_obi else None
    if header.air:
        blanks = [_read(path) for path in header.air]
        open_beam = np.stack([_pixels(blank, info.shape[1:]) / np.float32(_norm(blank)) for blank in blanks])
    return _projections.finish(info, options, pixels, open_beam=open_beam, measured=None if measured.all() else measured)


def _describe(path: Path) -> _projections.Described | None:
    texts = dict(reversed(list(_xml.elements(_xml.parsed(path)))))  # of a repeated name the first one
    is_obi = "CalibratedSAD" in texts
    found = _beside(path, _PLACES[0] if is_obi else _PLACES[1])
    heads = [(one, _read(one, with_pixels=False)) for one in found]
    heads = [(one, head) for one, head in heads if head.shape != (0, 0) and _angle(head, is_obi) is not None]
    if not heads:
        raise InputError("PRJ-FILES", "no images stand where the scan's file expects them.", "Keep the folders as exported.")
    shapes = {head.shape for _, head in heads}
    if len(shapes) > 1:
        raise GeometryError("PRJ-SHAPE", f"images of {len(shapes)} different sizes belong to the scan", "Export it again.")
    views = views_from_rtk(_parameters(texts, [head for _, head in heads], is_obi), shapes.pop(), _pitch(heads[0][1], is_obi))
    air = () if is_obi else _beside(path, _AIR)
    paths = tuple(one for one, _ in heads)
    return _projections.Described(
        views=views,
        paths=(path, *paths, *air),
        measures=Measured.TRANSMISSION if air or is_obi else Measured.COUNTS,
        findings=_assumptions(is_obi, bool(air)),
        header=_Header(paths, _norms([head for _, head in heads], is_obi), air, is_obi),
    )


def _parameters(texts: dict[str, str], heads: list[Frame], is_obi: bool) -> RtkParameters:
    angles = np.array([_angle(head, is_obi) for head in heads], dtype=np.float64)
    sid, sdd = (_need(texts, name) for name in (("CalibratedSAD", "CalibratedSID") if is_obi else ("SAD", "SID")))
    across, along = _obi_offsets(texts) if is_obi else _frame_offsets(heads)
    flat = np.zeros(len(heads))
    return RtkParameters(
        gantry_deg=angles if is_obi else 180.0 - angles,
        sid_mm=flat + sid,
        sdd_mm=flat + sdd,
        out_of_plane_deg=flat,
        in_plane_deg=flat,
        source_offset_x_mm=flat,
        source_offset_y_mm=flat,
        projection_offset_x_mm=flat + across,
        projection_offset_y_mm=flat + along,
    )


def _obi_offsets(texts: dict[str, str]) -> tuple[float, float]:
    shifted = texts.get("FanType", "").lower() == "halffan"
    across = _need(texts, "CalibratedDetectorOffsetX") + (_need(texts, "DetectorPosLat") if shifted else 0.0)
    return across, _need(texts, "CalibratedDetectorOffsetY")


def _frame_offsets(heads: list[Frame]) -> tuple[Float64, Float64]:
    across, along = (np.array([_CM * head.values.get(f"KVDetector{way}", 0.0) for head in heads]) for way in ("Lat", "Lng"))
    return across, along


def _angle(head: Frame, is_obi: bool) -> float | None:
    angle = head.values.get("angle_deg" if is_obi else "KVSourceRtn")
    if angle is None or angle == _NO_ANGLE:
        return None
    if not np.isfinite(angle):
        raise _projections.damaged("the angle of a frame is not finite")
    return angle


def _pitch(head: Frame, is_obi: bool) -> tuple[float, float]:
    names = ("resolution_y_mm", "resolution_x_mm") if is_obi else ("PixelHeight", "PixelWidth")
    scale = 1.0 if is_obi else _CM
    rows, columns = (scale * head.values.get(name, 0.0) for name in names)
    return rows, columns


def _norms(heads: list[Frame], is_obi: bool) -> tuple[float, ...]:
    """Return what each frame is divided by: the chamber's reading, for OBI relative to its mean."""
    norms = np.array([head.values.get("norm_chamber", 0.0) if is_obi else _norm(head) for head in heads])
    if not (np.isfinite(norms).all() and norms.min() > 0):
        return (1.0,) * len(heads)
    return tuple(float(norm) for norm in (norms / norms.mean() if is_obi else norms))


def _norm(head: Frame) -> float:
    norm = head.values.get("KVNormChamber", 0.0)
    return norm if norm > 0 else 1.0


def _assumptions(is_obi: bool, has_air: bool) -> tuple[Finding, ...]:
    lay = _projections.unknown_position("the files do not say how the patient lay")
    found = [_projections.assumed("the files do not say which way the gantry turns; taken as RTK takes them"), lay]
    if is_obi:
        fact = f"the counts in air are taken as {_OBI_OPEN_BEAM:g}, as RTK does"
        found.append(Finding("PRJ-FLAT", Verdict.WARN, fact, hint="Values in Hounsfield units need a scan of water."))
    elif not has_air:
        fact = "no scan without patient lies beside the scan; its values are counts"
        found.append(Finding("PRJ-FLAT", Verdict.WARN, fact, hint="Copy the folder Calibrations too."))
    return tuple(found)


def _read(path: Path, with_pixels: bool = True) -> Frame:
    kind = _varian_images.read_xim if path.suffix.lower() == ".xim" else _varian_images.read_obi
    return kind(path, with_pixels)


def _pixels(frame: Frame, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if frame.pixels is None or frame.pixels.shape != shape:
        raise GeometryError("PRJ-SHAPE", f"an image has {frame.shape} pixels, the scan {tuple(shape)}")
    return frame.pixels.astype(np.float32)


def _beside(path: Path, patterns: Sequence[str]) -> tuple[Path, ...]:
    found = {one for pattern in patterns for one in path.parent.glob(pattern) if one.is_file() and not one.is_symlink()}
    return tuple(sorted(found, key=lambda one: (str(one.parent), _projections.natural(one))))


def _need(texts: dict[str, str], name: str) -> float:
    if name not in texts:
        raise _projections.damaged(f"the scan's file lacks {name}")
    return _xml.number(texts[name], name)
