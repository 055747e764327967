"""Turns arrays into pictures of a patient: right way up, true to scale, with letters that say which side is which.

Only numpy and Pillow are used. Pictures follow the radiological convention: axial as seen from the feet, coronal from
the front, sagittal from the left; the patient's left is on the right of the picture. The planes are index planes of
the grid, nothing is resampled across them; the letters come from the directions of the picture itself.
"""

from __future__ import annotations

import base64
import io
import itertools
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from medrecon.core.grid import Float64, Grid
from medrecon.core.projections import ProjectionScan
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.volume import Quantity, Volume

Plane = Literal["axial", "coronal", "sagittal"]
Picture = NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

#: What the eye wants of each plane, LPS: through the picture, down it, and to its right.
_WANTED: dict[Plane, NDArray[np.float64]] = {
    "axial": np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=np.float64),
    "coronal": np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]], dtype=np.float64),
    "sagittal": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=np.float64),
}
_FURTHEST_PLANE = 12  # how far to look for a plane that was measured
_LETTERS = ("LR", "PA", "SI")
_BRAIN_AND_SOFT_TISSUE = (-160.0, 240.0)  # the usual soft tissue window, Hounsfield units


@dataclass(frozen=True, slots=True)
class Sides:
    """Letters at the edges of a picture."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True, slots=True)
class View:
    """How the index axes of a grid lie in a picture.

    Parameters
    ----------
    plane : str
    axes : (through, down, right)
        Index axis across the picture, down it, and to its right.
    flipped : (through, down, right)
        Whether an index grows against what the picture wants.
    sides : Sides
    """

    plane: Plane
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    sides: Sides

    def cut(self, array: NDArray[Value], index: int) -> NDArray[Value]:
        """Return plane `index` of an array (slice, row, column), the right way round."""
        plane: NDArray[Value] = np.moveaxis(array, self.axes, (0, 1, 2))[index]
        return plane[:: -1 if self.flipped[1] else 1, :: -1 if self.flipped[2] else 1]


@dataclass(frozen=True, slots=True)
class Window:
    """Values that are shown as black and as white."""

    low: float
    high: float

    def grey(self, values: NDArray[np.generic]) -> Picture:
        """Map values to 0...255."""
        share = (np.asarray(values, dtype=np.float32) - self.low) / (self.high - self.low)
        return np.asarray(np.clip(np.nan_to_num(share) * 255 + 0.5, 0, 255), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture with square pixels.

    Parameters
    ----------
    image : (h, w) or (h, w, 3) uint8
    sides : Sides
    label : str
        Where in the patient it lies, such as ``S 12 mm``.
    mm_per_pixel : float
    """

    image: Picture
    sides: Sides
    label: str
    mm_per_pixel: float

    @property
    def width_px(self) -> int:
        """Width in pixels."""
        return int(self.image.shape[1])

    @property
    def height_px(self) -> int:
        """Height in pixels."""
        return int(self.image.shape[0])


def letter(direction_lps: ArrayLike) -> str:
    """Return the side of the patient that a direction points to: L, R, P, A, S or I."""
    direction = np.asarray(direction_lps, dtype=np.float64)
    axis = int(np.argmax(np.abs(direction)))
    return _LETTERS[axis][int(direction[axis] < 0)]


def view_of(directions: Float64, plane: Plane) -> View:
    """Choose how to show a grid, whose index axes point along the columns of `directions` (LPS), as one plane."""
    wanted = _WANTED[plane]
    axes = max(
        itertools.permutations(range(3)), key=lambda order: sum(abs(wanted[k] @ directions[:, order[k]]) for k in range(3))
    )
    signs = [float(np.sign(wanted[k] @ directions[:, axes[k]])) or 1.0 for k in range(3)]
    down, right = signs[1] * directions[:, axes[1]], signs[2] * directions[:, axes[2]]
    sides = Sides(left=letter(-right), right=letter(right), top=letter(-down), bottom=letter(down))
    through, flip_down, flip_right = (sign < 0 for sign in signs)
    return View(plane, (axes[0], axes[1], axes[2]), (through, flip_down, flip_right), sides)


def window_for(scan: SliceScan | ProjectionScan, volume: Volume) -> Window:
    """Choose what is black and white in a result."""
    return window_of(scan) if isinstance(scan, SliceScan) else window_of_volume(volume)


def window_of_volume(volume: Volume) -> Window:
    """Choose what is black and white in a volume: soft tissue for Hounsfield units, else all but the extreme values."""
    if volume.quantity is Quantity.HOUNSFIELD:
        return Window(*_BRAIN_AND_SOFT_TISSUE)
    stride = max(1, round((volume.voxels.size / 1e6) ** (1 / 3)))
    every = (slice(None, None, stride),) * 3
    values = volume.voxels[every] if volume.seen is None else volume.voxels[every][volume.seen[every]]
    values = values[np.isfinite(values)]
    low, high = (float(v) for v in np.percentile(values, (1.0, 99.8))) if values.size else (0.0, 1.0)
    return Window(low, high if high > low else low + 1.0)


def window_of(scan: SliceScan) -> Window:
    """Choose what is black and white: the window of the series for Hounsfield units, else all but the extreme values."""
    if scan.quantity is Quantity.HOUNSFIELD:
        return _header_window(scan) or Window(*_BRAIN_AND_SOFT_TISSUE)
    values = scan.pixels[:: max(1, len(scan.pixels) // 40), ::2, ::2]
    if scan.measured is not None:
        values = values[scan.measured[:: max(1, len(scan.pixels) // 40), ::2, ::2]]
    values = values[np.isfinite(values)]
    low, high = (float(v) for v in np.percentile(values, (1.0, 99.7))) if values.size else (0.0, 1.0)
    return Window(low, high if high > low else low + 1.0)


def positions(volume: Volume, view: View, window: Window, count: int) -> list[int]:
    """Choose `count` planes, evenly spread over the part of the volume that shows something, in reading order."""
    bright = volume.voxels > window.low + 0.15 * (window.high - window.low)
    if volume.seen is not None:
        bright &= volume.seen
    share = bright.mean(axis=tuple(axis for axis in range(3) if axis != view.axes[0]))
    shown = np.flatnonzero(share > 0.05 * share.max()) if share.any() else np.arange(len(share))
    first, last = int(shown[0]), int(shown[-1])
    chosen = [round(first + (last - first) * (k + 1) / (count + 1)) for k in range(count)]
    return chosen[::-1] if view.flipped[0] else chosen


def within_a_slice(scan: SliceScan, grid: Grid, view: View, index: int) -> int:
    """Return the nearest plane whose middle was measured: a plane that lies wholly in a gap has no picture to compare with."""
    count = grid.shape[view.axes[0]]
    planes = sorted(range(count), key=lambda k: abs(k - index))[: 2 * _FURTHEST_PLANE + 1]
    middles = np.tile((np.asarray(grid.shape) - 1) / 2, (len(planes), 1))
    middles[:, view.axes[0]] = planes
    _, there = nearest_measured(scan, grid.to_lps(middles))
    return planes[int(np.argmax(there))] if there.any() else index


def reconstructed(volume: Volume, view: View, index: int, window: Window, mm_per_pixel: float) -> Tile:
    """Show one plane of a volume, smoothly enlarged or reduced to square pixels."""
    grey = window.grey(view.cut(volume.voxels, index))
    shape = _shape_px(volume.grid, view, mm_per_pixel)
    image = np.asarray(Image.fromarray(grey).resize(shape[::-1], Image.Resampling.BICUBIC))
    return Tile(image, view.sides, _label(volume.grid, view, index), mm_per_pixel)


def measured(scan: SliceScan, grid: Grid, view: View, index: int, window: Window, mm_per_pixel: float) -> Tile:
    """Show what was measured in the same plane: every slice as thick as it is, nothing in the gaps, nothing smoothed."""
    values, there = nearest_measured(scan, _points(grid, view, index, mm_per_pixel))
    return Tile(np.where(there, window.grey(values), 0).astype(np.uint8), view.sides, _label(grid, view, index), mm_per_pixel)


def coloured(
    classes: NDArray[np.uint8], colours: ArrayLike, grid: Grid, view: View, index: int, behind: Tile, strength: float = 0.42
) -> Tile:
    """Lay one colour per class (n, 3) over the grey picture of the same plane."""
    shape = behind.image.shape[:2]
    plane = np.asarray(
        Image.fromarray(np.asarray(view.cut(classes, index), dtype=np.uint8)).resize(shape[::-1], Image.Resampling.NEAREST)
    )
    tint = np.asarray(colours, dtype=np.float32)[plane]
    image = (1 - strength) * behind.image[..., None] + strength * tint
    return Tile(np.rint(image).astype(np.uint8), view.sides, _label(grid, view, index), behind.mm_per_pixel)


def of_slice(image: NDArray[np.generic], poses: SlicePoses, k: int, mm_per_pixel: float, colours: Picture, limit: float) -> Tile:
    """Show one value per pixel of slice `k` in colours (256, 3), from -limit to limit, as the slice lies in the patient."""
    steps = poses.to_lps_mm[k, :3, :3]
    grid = Grid((1, *poses.image_shape), _affine(steps, poses.to_lps_mm[k, :3, 3]))
    view = view_of(grid.directions, _nearest_plane(poses.normals[k]))
    level = Window(-limit, limit).grey(np.nan_to_num(np.asarray(image, dtype=np.float32)))
    shape = _shape_px(grid, view, mm_per_pixel)
    shown = Image.fromarray(np.ascontiguousarray(view.cut(level[None], 0))).resize(shape[::-1], Image.Resampling.BILINEAR)
    return Tile(colours[np.asarray(shown)], view.sides, f"slice {k + 1}", mm_per_pixel)


def nearest_measured(scan: SliceScan, points_lps_mm: Float64) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Value of the nearest pixel at points (..., 3), and whether a slice is there at all, half a thickness to either side."""
    values = np.zeros(points_lps_mm.shape[:-1], dtype=np.float32)
    distance = np.full(points_lps_mm.shape[:-1], np.inf)
    for part in _parallel_parts(scan):
        found, away, there = _nearest_in(part, points_lps_mm)
        closer = there & (away < distance)
        values[closer], distance[closer] = found[closer], away[closer]
    return values, np.isfinite(distance)


def diverging() -> Picture:
    """Colours (256, 3) for differences: blue below zero, nearly black at zero, orange above."""
    stops = np.array([[110, 190, 255], [35, 95, 190], [18, 18, 22], [190, 80, 20], [255, 190, 90]], dtype=np.float64)
    at = np.linspace(0, 255, len(stops))
    return np.stack([np.interp(np.arange(256), at, stops[:, c]) for c in range(3)], axis=1).astype(np.uint8)


def scale_for(grid: Grid, longest_px: int) -> float:
    """Return mm per pixel such that no plane of the grid is longer than `longest_px` pixels."""
    return max(n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)) / longest_px


def png(image: Picture) -> bytes:
    """Encode without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def jpeg(image: Picture, quality: int = 85) -> bytes:
    """Encode with little loss, for pictures whose size counts."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, subsampling=0)  # optimize=True fails on noise
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """Return an encoded picture as text that a page can carry within itself."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _header_window(scan: SliceScan) -> Window | None:
    """Read the window that the series itself asks for, where it is one number each."""
    found = [scan.source.header.get(tag, {}).get("Value", []) for tag in ("00281050", "00281051")]
    if any(len(values) == 0 or not isinstance(values[0], int | float) for values in found):
        return None
    center, width = (float(values[0]) for values in found)
    return Window(center - width / 2, center + width / 2) if np.isfinite(center) and width >= 1 else None


def _shape_px(grid: Grid, view: View, mm_per_pixel: float) -> tuple[int, int]:
    """Height and width of the picture of a plane."""
    height, width = (max(1, round(grid.shape[a] * grid.spacing_mm[a] / mm_per_pixel)) for a in view.axes[1:])
    return height, width


def _points(grid: Grid, view: View, index: int, mm_per_pixel: float) -> Float64:
    """LPS position of every pixel of the picture, (h, w, 3); the picture ends where the outer voxels end."""
    indices = [np.zeros(1)] * 3
    for size, axis, flipped in zip(_shape_px(grid, view, mm_per_pixel), view.axes[1:], view.flipped[1:], strict=True):
        along = (np.arange(size) + 0.5) / size * grid.shape[axis] - 0.5
        indices[axis] = along[::-1] if flipped else along
    indices[view.axes[0]] = np.array([float(index)])
    stacked = np.stack(np.meshgrid(*indices, indexing="ij"), axis=-1)
    return grid.to_lps(np.moveaxis(stacked, view.axes, (0, 1, 2))[0])


def _label(grid: Grid, view: View, index: int) -> str:
    """Where the middle of a plane lies along the patient's axis across it."""
    middle = (np.asarray(grid.shape) - 1) / 2
    middle[view.axes[0]] = index
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}[view.plane]
    millimetres = float(grid.to_lps(middle)[axis])
    return f"{_LETTERS[axis][int(millimetres < 0)]} {abs(millimetres):.0f} mm"


def _nearest_plane(normal: Float64) -> Plane:
    """Name the anatomical plane that an image with this normal is closest to."""
    planes: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
    return planes[int(np.argmax(np.abs(normal)))]


def _affine(steps: Float64, origin: Float64) -> Float64:
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = origin
    return affine


def _parallel_parts(scan: SliceScan) -> list[SliceScan]:
    """Split a scan into sets of parallel images; images of a stack that are not parallel stand alone."""
    parts = []
    for stack in scan.stacks():
        parts += [stack] if stack.poses.are_parallel else [stack.take([k]) for k in range(len(stack.poses))]
    return parts


def _nearest_in(part: SliceScan, points: Float64) -> tuple[NDArray[np.float32], Float64, NDArray[np.bool_]]:
    """Value, distance to the slice, and whether there is one, for parallel images and points (..., 3)."""
    poses, depth = part.poses, points @ part.poses.normals[0]
    order = np.argsort(poses.depths_mm)
    between = (poses.depths_mm[order][1:] + poses.depths_mm[order][:-1]) / 2
    nearest = order[np.searchsorted(between, depth)]
    away = np.abs(depth - poses.depths_mm[nearest])
    inverse = np.linalg.inv(poses.to_lps_mm[0, :3, :3])
    pixel = np.rint((points - poses.to_lps_mm[nearest, :3, 3]) @ inverse.T)[..., 1:].astype(np.int64)
    rows, columns = poses.image_shape
    inside = (pixel >= 0).all(axis=-1) & (pixel < [rows, columns]).all(axis=-1)
    place = (nearest, np.clip(pixel[..., 0], 0, rows - 1), np.clip(pixel[..., 1], 0, columns - 1))
    there = inside & (away <= poses.thickness_mm[nearest] / 2 + 1e-6)
    if part.measured is not None:
        there &= part.measured[place]
    return part.pixels[place], away, there
