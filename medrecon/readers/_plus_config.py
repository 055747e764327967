"""The configuration of PLUS that lies beside tracked frames: calibration, clip rectangle and fan.

Only what places and cuts images is read; settings of reconstruction are ours to choose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import InputError
from medrecon.core.grid import Float64
from medrecon.readers import _xml

if TYPE_CHECKING:
    from lxml.etree import _Element

_MARK = b"<PlusConfiguration"
_MOST_FILES = 64  # configurations looked at in one folder
_AGAIN = "Export the configuration again."


@dataclass(frozen=True, slots=True)
class Fan:
    """What a curved probe sees of its images, in pixels: between two angles from straight down, and two radii."""

    origin: tuple[float, float]
    angles_rad: tuple[float, float]
    radii: tuple[float, float]

    def holds(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether pixels lie in the fan, (rows, columns)."""
        across, down = columns[None, :] - self.origin[0], rows[:, None] - self.origin[1]
        left, right = sorted(math.tan(angle) for angle in self.angles_rad)
        radius = np.hypot(across, down)
        inside = (down >= 0) & (across >= left * down) & (across <= right * down)
        return np.asarray(inside & (radius >= self.radii[0]) & (radius <= self.radii[1]))


@dataclass(frozen=True, slots=True)
class PlusConfig:
    """What a configuration says about images.

    Parameters
    ----------
    transforms : mapping
        (from, to) -> (4, 4), in mm; that of the image takes pixels.
    clip : (column, row, width, height), optional
        In pixels; both ends count, as in IGSIO.
    fan : Fan, optional
    image, reference : str
        What the frames of the image and of the volume are called.
    """

    transforms: Mapping[tuple[str, str], Float64] = field(default_factory=dict)
    clip: tuple[float, float, float, float] | None = None
    fan: Fan | None = None
    image: str = "Image"
    reference: str = "Reference"

    def says_the_same(self, other: PlusConfig) -> bool:
        """Whether both would place and cut images alike."""
        mine, others = ({k: v.tolist() for k, v in one.transforms.items()} for one in (self, other))
        facts = ((one.clip, one.fan, one.image, one.reference) for one in (self, other))
        return mine == others and next(facts) == next(facts)


def path_beside(sequence: Path) -> Path | None:
    """Return the configuration that belongs to a sequence: the one with its name, else the only one in its folder.

    Raises
    ------
    InputError
        ``US-CONFIG`` where several in the folder contradict each other.
    """
    stem = sequence.name
    while (shorter := Path(stem).stem) != stem:
        stem = shorter
        named = sequence.with_name(f"{stem}.xml")
        if _is_plus(named):
            return named
    found = sorted(path for path in itertools.islice(sequence.parent.glob("*.xml"), _MOST_FILES) if _is_plus(path))
    if len(found) > 1:
        first, *others = map(read, found)
        if not all(map(first.says_the_same, others)):
            fact = f"{len(found)} PLUS configurations lie beside the frames and contradict each other."
            raise InputError("US-CONFIG", fact, "Give the right one the name of the sequence, ending in .xml.")
    return found[0] if found else None


def read(path: Path) -> PlusConfig:
    """Read one configuration; raise `InputError` (``US-CONFIG``) for what cannot be understood."""
    try:
        root = _xml.parsed(path)
    except InputError as error:
        raise InputError("US-CONFIG", f"the PLUS configuration cannot be read: {error.fact}", _AGAIN) from error
    transforms = dict(map(_transform, root.iterfind(".//CoordinateDefinitions/Transform")))
    wanted = list(root.iter("VolumeReconstruction"))
    found = [_cut(element) for element in wanted]
    if any(one != found[0] for one in found):
        raise InputError("US-CONFIG", "the PLUS configuration cuts the images in two different ways.", "Leave one of them.")
    if not found:
        return PlusConfig(transforms)
    image, reference = (wanted[0].get(f"{name}CoordinateFrame", name) for name in ("Image", "Reference"))
    return PlusConfig(transforms, *found[0], image, reference)


def matrix(text: str) -> Float64:
    """Return a 4x4 matrix of 16 numbers; NaN throughout where the text holds something else."""
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.empty(0)
    return values.reshape(4, 4) if values.size == 16 else np.full((4, 4), np.nan)


def is_placement(matrices: Float64) -> NDArray[np.bool_]:
    """Whether 4x4 matrices are finite, affine and can be inverted; mirrored ones are."""
    finite = np.asarray(np.isfinite(matrices).all(axis=(-2, -1)))
    some = np.where(finite[..., None, None], matrices, np.eye(4))
    affine = (np.abs(some[..., 3, :] - [0, 0, 0, 1]) < 1e-6).all(axis=-1)
    placed: NDArray[np.bool_] = finite & affine & (np.linalg.cond(some[..., :3, :3]) < 1e6)
    return placed


def _is_plus(path: Path) -> bool:
    return path.is_file() and _xml.looks_like(path, b"<", _MARK)


def _transform(element: _Element) -> tuple[tuple[str, str], Float64]:
    names = element.get("From", ""), element.get("To", "")
    found = matrix(element.get("Matrix", ""))
    if not all(names) or not is_placement(found):
        raise InputError("US-CONFIG", "a transform of the PLUS configuration is no matrix that can be inverted.", _AGAIN)
    return names, found


def _cut(element: _Element) -> tuple[tuple[float, float, float, float] | None, Fan | None]:
    """Return clip rectangle and fan of one reconstruction; without a size, or with angles of zero, there is none."""
    clip, fan = None, None
    size = _numbers(element, "ClipRectangleSize", 2)
    if size is not None and min(size) > 0:
        column, row = _numbers(element, "ClipRectangleOrigin", 2) or (0.0, 0.0)
        clip = (column, row, size[0], size[1])
    angles, origin = _numbers(element, "FanAnglesDeg", 2), _numbers(element, "FanOriginPixel", 2)
    if angles is not None and any(angles):
        if origin is None or max(map(abs, angles)) >= 90:
            raise InputError(
                "US-CONFIG", "the fan of the PLUS configuration has no origin, or angles from 90 degrees on.", _AGAIN
            )
        start, stop = (_numbers(element, f"FanRadius{name}Pixel", 1) for name in ("Start", "Stop"))
        radii = (start[0] if start else 0.0, stop[0] if stop else math.inf)
        fan = Fan((origin[0], origin[1]), (math.radians(angles[0]), math.radians(angles[1])), radii)
    return clip, fan


def _numbers(element: _Element, name: str, count: int) -> tuple[float, ...] | None:
    text = element.get(name)
    if text is None:
        return None
    try:
        values = tuple(map(float, text.split()))
    except ValueError:
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        raise InputError("US-CONFIG", f"{name} of the PLUS configuration does not hold {count} finite number(s).", _AGAIN)
    return values
