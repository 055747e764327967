"""Tracked ultrasound: frames of a freehand probe in a sequence MetaImage of IGSIO and PLUS, ``.igs.mha`` or ``.mhd``.

Every frame says where the tracker saw the probe. Where the image lies on the probe, its calibration, stands in the header
or in a PLUS configuration beside the file. Volumes are built in the frame of the tracker's reference, whose axes are not
the patient's; that is said, and nothing is turned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError, InputError, MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.grid import Float64, Grid
from medrecon.core.profile import SliceProfile
from medrecon.core.progress import Tick
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.readers import _itk, _meta_header, _plus_config, _volumes
from medrecon.readers._plus_config import Fan, PlusConfig

ASKED_FIRST = True

_Number = TypeVar("_Number", np.float32, np.bool_)

_NAME = r"([A-Z][A-Za-z0-9]*?)To([A-Z][A-Za-z0-9]*)Transform"
_BEAM_MM = 2.0  # thickness where nobody says it
_WORLDS = ("Tracker", "World")  # where there is no reference body
_PIXEL_MM = (1e-3, 20.0)
_LEAN_WORTH_SAYING = np.sin(np.radians(0.5))
_LONGEST_SIDE = 16_384  # pixels of an image
#: A link of a chain: where a transform begins and ends, and whether it is taken that way round.
_Link = tuple[tuple[str, str], bool]
_FLIPS = {"MF": (False, False), "UF": (False, True), "MN": (True, False), "UN": (True, True)}


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """What is needed to read the frames that can be used.

    Parameters
    ----------
    file : VolumeFile
    shape : (frames, rows, columns), as stored
    used : (n,) int, which frames
    poses : SlicePoses or None where the series is refused
    rows, columns : those inside the clip rectangle
    fan : what of it the probe sees, or None for all
    flips : whether rows, columns are stored the other way round
    """

    file: _volumes.VolumeFile
    shape: tuple[int, int, int]
    used: NDArray[np.int64]
    poses: SlicePoses | None
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    fan: Fan | None
    flips: tuple[bool, bool]


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """Where frames stand: those that can be used, their pixel-to-mm matrices, and what was noticed."""

    used: NDArray[np.int64]
    to_mm: Float64
    findings: tuple[Finding, ...]


def claims(path: Path, head: bytes) -> bool:
    """Whether the file is a MetaImage that holds tracked frames."""
    return _meta_header.begins(head) and _meta_header.is_tracked(path)


def companions(path: Path) -> list[Path]:
    """Return the pixels of a ``.mhd``, and the PLUS configuration that belongs to the frames."""
    found: list[Path] = []
    try:
        found.append(_meta_header.stored(path, *_meta_header.keys_of(path)).path)
        found += filter(None, [_plus_config.path_beside(path)])
    except (InputError, OSError):
        pass  # said when the file is described
    return [one for one in found if one != path]


def find(files: Sequence[ListedFile], options: ReadOptions) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the sequences of tracked frames."""
    found, skipped = _volumes.find_each("tracked_frames", "tracked frames", files, lambda path: [_stored(path)])
    return [_judged(info, options) for info in found], skipped


def read(info: SeriesInfo, options: ReadOptions, tick: Tick) -> SliceScan:
    """Read the usable frames of one sequence; raises what it is refused for."""
    content = info.content
    if not isinstance(content, _Frames):
        raise InputError("INP-SERIES", "the series was not found by this reader.", "Pass a result of `find`.")
    volume = _itk.read(replace(info, shape=content.shape, content=content.file), options, tick)
    if content.poses is None:
        raise InputError("INP-SERIES", "the series has no place in space.", "Pass a result of `find` that is not refused.")
    measured = None if volume.seen is None else _cut_out(volume.seen, content)
    if content.fan is not None:
        mask = _inside_fan(content.fan, content)
        measured = np.broadcast_to(mask, info.shape) if measured is None else measured & mask
    pixels = _cut_out(volume.voxels, content)
    return SliceScan(
        pixels, content.poses, volume.quantity, measured, None, volume.findings, volume.allowed, source=volume.source
    )


def _stored(path: Path) -> _volumes.Described:
    """Describe the file as a stack of images without a place; refuse what is no stack of grey images."""
    keys, end = _meta_header.keys_of(path)
    found = _itk.describe(path, "MetaImageIO", _meta_header.stored(path, keys, end), [], keys=keys)
    if len(found) > 1:
        raise InputError("VOL-TYPE", f"the frames hold {len(found)} channels or times.", "Save them as grey images.")
    kept = tuple(finding for finding in found[0].findings if finding.code == "VOL-CUT")
    beside, config = _config_of(path)
    named = (*found[0].companions, *([beside] if beside is not None else []))
    header = (*found[0].header, keys, config)
    return replace(found[0], grid=Grid(found[0].shape, np.eye(4)), findings=kept, header=header, companions=named)


def _config_of(path: Path) -> tuple[Path | None, PlusConfig | MedreconError]:
    """Return the configuration beside the frames; what is wrong with it is told when they are judged."""
    beside = None
    try:
        beside = _plus_config.path_beside(path)
        return beside, PlusConfig() if beside is None else _plus_config.read(beside)
    except MedreconError as error:
        return beside, error


def _judged(info: SeriesInfo, options: ReadOptions) -> SeriesInfo:
    """Place the frames of a file that was found; what stands against it becomes a finding that refuses it."""
    if not isinstance(info.content, _volumes.VolumeFile):
        return info
    *header, keys, config = info.content.header
    file = replace(info.content, header=tuple(header))
    common = replace(info, kind="slices", modality="US", spacing_mm=(None, 0.0, 0.0), content=_unplaced(file, info.shape))
    if info.verdict is Verdict.REFUSED:
        return common
    try:
        if isinstance(config, MedreconError):
            raise config
        frames, poses, findings = _frames(file, info.shape, keys, config, options)
    except MedreconError as error:
        refusal = Finding(error.code, Verdict.REFUSED, error.fact, hint=error.hint)
        return replace(common, findings=(*info.findings, refusal))
    row_mm, column_mm = (float(step) for step in np.median(poses.pixel_spacing_mm, axis=0))
    thickness = float(poses.thickness_mm[0])
    return replace(
        common,
        shape=(len(poses), *poses.image_shape),
        spacing_mm=(None, row_mm, column_mm),
        thickness_mm=(thickness, thickness),
        findings=(*info.findings, *findings),
        content=frames,
    )


def _unplaced(file: _volumes.VolumeFile, shape: tuple[int, int, int]) -> _Frames:
    nothing = np.empty(0, dtype=np.int64)
    return _Frames(file, shape, nothing, None, nothing, nothing, None, (False, False))


def _frames(
    file: _volumes.VolumeFile, shape: tuple[int, int, int], keys: Mapping[str, str], config: PlusConfig, options: ReadOptions
) -> tuple[_Frames, SlicePoses, tuple[Finding, ...]]:
    flips = _flips(keys.get("UltrasoundImageOrientation", "MF"))
    rows, columns = _inside_clip(config, shape)
    placed = _place(keys, shape[0], config)
    poses = _poses(placed, rows, columns, options)
    noticed = (*placed.findings, *_lean(poses), *_beam(options), *_profile(options))
    return _Frames(file, shape, placed.used, poses, rows, columns, config.fan, flips), poses, noticed


def _cut_out(stored: NDArray[_Number], content: _Frames) -> NDArray[_Number]:
    """Return the used frames inside the clip rectangle, marked side first and near side up, as calibrations have it."""
    rows, columns = (
        size - 1 - index if flipped else index
        for index, size, flipped in zip((content.rows, content.columns), content.shape[1:], content.flips, strict=True)
    )
    return stored[content.used[:, None, None], rows[:, None], columns]


def _inside_fan(fan: Fan, content: _Frames) -> NDArray[np.bool_]:
    mask = fan.holds(content.rows, content.columns)
    if not mask.any():
        raise InputError("US-CLIP", "no pixel lies inside the fan of the PLUS configuration.", "Correct the fan, or take it out.")
    return mask


def _flips(orientation: str) -> tuple[bool, bool]:
    """Return whether rows and columns are stored against the axes in which calibrations are given."""
    if orientation[:2] not in _FLIPS:
        fact = "the images are stored in an orientation that is not read here, such as transposed or unknown."
        raise InputError("US-ORIENT", fact, "Record or convert them as MF, MN, UF or UN.")
    return _FLIPS[orientation[:2]]


def _inside_clip(config: PlusConfig, shape: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the clip rectangle, both ends included; all of them without one."""
    if max(shape[1:]) > _LONGEST_SIDE:
        fact = f"the frames have a side of {max(shape[1:])} pixels, at most {_LONGEST_SIDE} are read."
        raise InputError("VOL-LIMIT", fact, "Export the frames again.")
    column, row, width, height = config.clip or (0.0, 0.0, float(shape[2]), float(shape[1]))
    rows, columns = (
        np.arange(max(np.ceil(low), 0), min(np.floor(low + length), size - 1) + 1, dtype=np.int64)
        for low, length, size in ((row, height, shape[1]), (column, width, shape[2]))
    )
    if min(len(rows), len(columns)) < 2:
        fact = f"the clip rectangle leaves {len(rows)} rows and {len(columns)} columns of the images."
        raise InputError("US-CLIP", fact, "Correct ClipRectangleOrigin and ClipRectangleSize in the PLUS configuration.")
    return rows, columns


def _place(keys: Mapping[str, str], count: int, config: PlusConfig) -> _Placed:
    """Chain the transforms from the image to the tracker's reference, frame by frame; only frames that are all OK are used."""
    numbers, frames = _fields_of_frames(keys, count)
    moving = {ends for name in {name for fields in frames for name in fields} if (ends := _ends(name)) is not None}
    fixed = dict(config.transforms)
    fixed |= {ends: _plus_config.matrix(text) for name, text in keys.items() if (ends := _ends(name)) is not None}
    worlds = ((one, _chain(config.image, one, {*moving, *fixed})) for one in (config.reference, *_WORLDS))
    world, chain = next(((one, chain) for one, chain in worlds if chain), ("", []))
    if not chain:
        raise InputError(
            "US-CALIBRATION",
            f"no chain of transforms leads from the image to the tracker: {len(moving)} are tracked, {len(fixed)} are fixed.",
            "Put the PLUS configuration with the probe's calibration (ImageToProbe) beside the sequence, as NAME.xml.",
        )
    ok = np.array([fields.get("ImageStatus", "OK") == "OK" for fields in frames])
    steps: list[Float64] = []
    for (start, end), forward in chain:
        if (start, end) in moving:
            step, fine = _tracked(frames, f"{start}To{end}Transform")
            ok &= fine
        else:
            step = np.broadcast_to(fixed[start, end], (len(frames), 4, 4))
        steps.append(step if forward else _inverted(step))
    to_mm: Float64 = np.tile(np.eye(4), (int(ok.sum()), 1, 1))
    for step in steps:
        _refuse_impossible(step[ok], numbers[ok])
        to_mm = step[ok] @ to_mm
    used = numbers[ok]
    if len(used) < 2:
        fact = f"{len(used)} of {count} frames can be used: a volume needs two whose status is OK."
        raise InputError("US-FEW", fact, "Record again with the tools in the tracker's sight.")
    return _Placed(used, to_mm, (_frame_of(world, config), *_dropped(used, count)))


def _fields_of_frames(keys: Mapping[str, str], count: int) -> tuple[NDArray[np.int64], list[dict[str, str]]]:
    """Return which frames the header speaks of, and the fields of each; it may announce many more."""
    frames: dict[int, dict[str, str]] = {}
    for key, value in keys.items():
        found = re.fullmatch(r"Seq_Frame(\d{1,9})_(\w+)", key)
        if found and int(found[1]) < count:
            frames.setdefault(int(found[1]), {})[found[2]] = value
    numbers = sorted(frames)
    return np.array(numbers, dtype=np.int64), [frames[number] for number in numbers]


def _ends(name: str) -> tuple[str, str] | None:
    """Return where a transform begins and ends, from the name of its field."""
    found = re.fullmatch(_NAME, name)
    return (found[1], found[2]) if found else None


def _chain(start: str, end: str, known: set[tuple[str, str]]) -> list[_Link]:
    """Return the shortest chain of known transforms, each with whether it is taken forward; empty where there is none."""
    leaving: dict[str, list[tuple[str, _Link]]] = {}
    for near, far in sorted(known):
        leaving.setdefault(near, []).append((far, ((near, far), True)))
        leaving.setdefault(far, []).append((near, ((near, far), False)))
    came: dict[str, tuple[str, _Link] | None] = {start: None}
    waiting = [start]
    for here in waiting:
        for there, link in leaving.get(here, []):
            if there not in came:
                came[there] = (here, link)
                waiting.append(there)
    chain: list[_Link] = []
    while (step := came.get(end)) is not None:
        end, link = step
        chain.append(link)
    return chain[::-1]


def _tracked(frames: Sequence[Mapping[str, str]], name: str) -> tuple[Float64, NDArray[np.bool_]]:
    """Return one transform of all frames, (n, 4, 4), and whether each frame has it with the status OK."""
    fine = np.array([name in fields and fields.get(f"{name}Status", "OK") == "OK" for fields in frames])
    return np.stack([_plus_config.matrix(fields.get(name, "")) for fields in frames]), fine


def _inverted(step: Float64) -> Float64:
    """Return inverse matrices, and NaN for those that have none."""
    good = _plus_config.is_placement(step)
    inverse: Float64 = np.linalg.inv(np.where(good[:, None, None], step, np.eye(4)))
    return np.where(good[:, None, None], inverse, np.nan)


def _refuse_impossible(step: Float64, numbers: NDArray[np.int64]) -> None:
    """Refuse matrices that are said to be OK and are not."""
    wrong = numbers[~_plus_config.is_placement(step)]
    if wrong.size:
        fact = (
            f"a transform of frame {wrong[0]} ({wrong.size} frames in all) is said to be right, "
            "and is no 4x4 matrix of finite numbers that can be inverted."
        )
        raise InputError("US-POSE", fact, "Record again, or give such frames another status than OK.")


def _frame_of(world: str, config: PlusConfig) -> Finding:
    body = "the tracker's reference body" if world == config.reference else "the tracker itself"
    fact = (
        f"positions are those of {body}, not of the patient: left, back and head are not known, "
        "and orientation letters mean the tracker's axes."
    )
    return Finding("US-FRAME", Verdict.WARN, fact, hint="Do not read left or right from the result.")


def _dropped(used: NDArray[np.int64], count: int) -> list[Finding]:
    lost = count - len(used)
    if not lost:
        return []
    first = int(np.flatnonzero(np.append(used, -1) != np.arange(len(used) + 1))[0])
    fact = f"{lost} of {count} frames are left out, because a status is not OK or a transform is missing; the first is {first}."
    return [Finding("US-STATUS", Verdict.WARN, fact, {"dropped": lost, "frames": count, "first_dropped": first})]


def _poses(placed: _Placed, rows: NDArray[np.int64], columns: NDArray[np.int64], options: ReadOptions) -> SlicePoses:
    """Return poses of the cut images. Only the steps along rows and columns count, so that a mirrored probe is no harm."""
    across, down = placed.to_mm[:, :3, 0], placed.to_mm[:, :3, 1]
    pitches = np.linalg.norm([across, down], axis=-1)
    if not (pitches.min() > _PIXEL_MM[0] and pitches.max() < _PIXEL_MM[1]):
        fact = f"pixels would be {pitches.min():.3g} to {pitches.max():.3g} mm wide."
        raise InputError("US-POSE", fact, "Is the calibration that of ImageToProbe, from pixels to mm?")
    normal = np.cross(across, down)
    poses = np.tile(np.eye(4), (len(placed.used), 1, 1))
    poses[:, :3, 0] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    poses[:, :3, 1], poses[:, :3, 2] = down, across
    poses[:, :3, 3] = (placed.to_mm @ [columns[0], rows[0], 0, 1])[:, :3]
    thickness = np.full(len(poses), options.thickness_mm or _BEAM_MM)
    try:
        return SlicePoses(poses, (len(rows), len(columns)), thickness, SliceProfile(options.profile or "gaussian"))
    except GeometryError as error:
        raise InputError("US-POSE", f"the calibration leans too much: {error.fact}.", "Calibrate the probe again.") from error


def _lean(poses: SlicePoses) -> list[Finding]:
    """Say that rows and columns of pixels are not perpendicular, which is used as it is."""
    steps = poses.to_lps_mm[:, :3, 1:3] / poses.pixel_spacing_mm[:, None]
    lean = float(np.abs((steps[..., 0] * steps[..., 1]).sum(axis=1)).max())
    if lean < _LEAN_WORTH_SAYING:
        return []
    degrees = float(np.degrees(np.arcsin(lean)))
    fact = f"the calibration makes rows and columns lean by {degrees:.1f} degrees; it is used as it is."
    return [Finding("US-LEAN", Verdict.OK, fact, {"lean_deg": degrees})]


def _beam(options: ReadOptions) -> list[Finding]:
    if options.thickness_mm is not None:
        fact = f"a beam thickness of {options.thickness_mm:g} mm was given."
        return [Finding("US-BEAM", Verdict.OK, fact, {"thickness_mm": options.thickness_mm})]
    fact = f"the file does not say how thick the beam is; {_BEAM_MM:g} mm are assumed."
    return [Finding("US-BEAM", Verdict.WARN, fact, {"thickness_mm": _BEAM_MM}, hint="Give it: thickness_mm, or --thickness.")]


def _profile(options: ReadOptions) -> list[Finding]:
    if options.profile is None:
        return []
    return [Finding("US-BEAM", Verdict.OK, f"the profile {options.profile} was given for the beam.")]
