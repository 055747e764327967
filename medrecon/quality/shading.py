"""Draws a triangle surface with numpy alone: no OpenGL, no display, the same picture on every machine.

Orthographic, with a depth buffer, smooth normals, two lights and a darkening of what lies in furrows. Twice the wanted
size is drawn and then averaged, so that edges are smooth; the background is transparent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medrecon.core.grid import Float64
from medrecon.core.mesh import Surface
from medrecon.quality.pictures import Sides, Tile, letter

Float32 = NDArray[np.float32]

#: Where the viewer stands and which way is up, LPS.
VIEWPOINTS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "oblique": ((0.62, -0.72, 0.32), (0.0, 0.0, 1.0)),
    "anterior": ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
    "left": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "superior": ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
}
_KEY, _FILL = np.array([-0.45, 0.55, 0.70]), np.array([0.75, 0.05, 0.55])  # to the right, up, to the viewer
_COLOUR = np.array([238, 222, 200], dtype=np.float32)
_OVERSAMPLING = 2
_MOST_CANDIDATES = 2_000_000  # pixels tested at once; bounds the memory


@dataclass(frozen=True, slots=True)
class Camera:
    """An orthographic camera: unit vectors to the right, up and to the viewer, LPS."""

    right: Float64
    up: Float64
    viewer: Float64

    @property
    def sides(self) -> Sides:
        """Letters at the edges of its picture."""
        return Sides(left=letter(-self.right), right=letter(self.right), top=letter(self.up), bottom=letter(-self.up))


def camera(viewpoint: str) -> Camera:
    """Return the camera of one of `VIEWPOINTS`."""
    viewer, up = (np.array(v) / np.linalg.norm(v) for v in VIEWPOINTS[viewpoint])
    right = np.cross(up, viewer)
    right /= np.linalg.norm(right)
    return Camera(right, np.cross(viewer, right), viewer)


def draw(surface: Surface, viewpoints: Iterable[str] = tuple(VIEWPOINTS), size_px: int = 360) -> list[Tile]:
    """Draw a surface from several viewpoints, all at one scale.

    Returns
    -------
    list of Tile
        (size_px, size_px, 4) RGBA.
    """
    vertices, normals = surface.vertices_lps_mm, _vertex_normals(surface)
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    reach = float(np.linalg.norm(vertices - middle, axis=1).max()) or 1.0
    size = size_px * _OVERSAMPLING
    scale = size / (2.25 * reach)  # leaves room for the letters
    is_closed = surface.measures.get("watertight") is True
    tiles = []
    for name in viewpoints:
        eye = camera(name)
        axes = np.stack([eye.right, eye.up, eye.viewer], axis=1)
        x, y, z = ((vertices - middle) @ axes).T.astype(np.float32)
        screen = np.stack([x * scale + size / 2, size / 2 - y * scale, z], axis=1)
        triangles = surface.triangles[_area(screen[surface.triangles, :2]) < 0] if is_closed else surface.triangles
        depth, normal = _rasterise(screen, (normals @ axes).astype(np.float32), triangles, size)
        image = _shade(depth, normal, mm_per_pixel=1 / scale)
        tiles.append(Tile(_reduce(image), eye.sides, name, _OVERSAMPLING / scale))
    return tiles


def _area(corners: Float32) -> Float32:
    """Twice the signed area of triangles (n, 3, 2) on the screen; negative where they face the viewer, as y runs down."""
    (ax, ay), (bx, by), (cx, cy) = corners.transpose(1, 2, 0)
    return np.asarray((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))


def _vertex_normals(surface: Surface) -> Float64:
    """Return the unit normal at every vertex: the mean of its triangles' normals, weighted by their area."""
    corners = surface.vertices_lps_mm[surface.triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    count = len(surface.vertices_lps_mm)
    total = np.zeros((count, 3))
    for k in range(3):
        for c in range(3):
            total[:, c] += np.bincount(surface.triangles[:, k], faces[:, c], minlength=count)
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))


def _rasterise(screen: Float32, normals: Float32, triangles: NDArray[np.int64], size: int) -> tuple[Float32, Float32]:
    """Depth (size, size), minus infinity where there is nothing, and normal (size, size, 3) of what is in front."""
    depth = np.full(size * size, -np.inf, dtype=np.float32)
    normal = np.zeros((size * size, 3), dtype=np.float32)
    for chosen, pixel, weights in _candidates(screen, triangles, size):
        corners = triangles[chosen]
        z = (weights * screen[corners, 2]).sum(axis=1)
        np.maximum.at(depth, pixel, z)
        front = np.flatnonzero(z >= depth[pixel])
        normal[pixel[front]] = (weights[front, :, None] * normals[corners[front]]).sum(axis=1)
    return depth.reshape(size, size), normal.reshape(size, size, 3)


def _candidates(
    screen: Float32, triangles: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Float32]]:
    """Yield triangle number, flat pixel number and barycentric weights of every pixel centre that a triangle covers.

    Triangles with boxes of similar size are handled together, so that each group is one array operation.
    """
    corners = screen[triangles, :2]
    a, b, c = corners.transpose(1, 0, 2)
    low, high = np.floor(np.minimum(np.minimum(a, b), c)), np.ceil(np.maximum(np.maximum(a, b), c))
    width = np.maximum(high[:, 0] - low[:, 0], high[:, 1] - low[:, 1])
    done = np.zeros(len(triangles), dtype=bool)
    for box in 2 ** np.arange(1, int(np.ceil(np.log2(size))) + 2):
        group = np.flatnonzero(~done & (width <= box))
        done[group] = True
        step = max(1, _MOST_CANDIDATES // int(box) ** 2)
        for start in range(0, len(group), step):
            yield from _covered(corners, low, group[start : start + step], int(box), size)


def _covered(
    corners: Float32, low: Float32, group: NDArray[np.int64], box: int, size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Float32]]:
    """Test all pixels of equally large boxes at once."""
    a, b, c = (corners[group, k, :, None] for k in range(3))
    offset = np.arange(box, dtype=np.float32)
    x = low[group, 0, None] + np.tile(offset, box)
    y = low[group, 1, None] + np.repeat(offset, box)
    area = _area(corners[group])[:, None]
    px, py = x + 0.5, y + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        second = ((px - a[:, 0]) * (c[:, 1] - a[:, 1]) - (py - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
        third = ((b[:, 0] - a[:, 0]) * (py - a[:, 1]) - (b[:, 1] - a[:, 1]) * (px - a[:, 0])) / area
        first = 1 - second - third
    inside = (np.minimum(np.minimum(first, second), third) >= -1e-4) & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    which, where = np.nonzero(inside)
    pixel = (y[which, where] * size + x[which, where]).astype(np.int64)
    yield group[which], pixel, np.stack([first[inside], second[inside], third[inside]], axis=1)


def _shade(depth: Float32, normal: Float32, mm_per_pixel: float) -> Float32:
    """Light the surface; returns (size, size, 4) with colour multiplied by alpha, 0...255."""
    there = np.isfinite(depth)
    length = np.linalg.norm(normal, axis=2, keepdims=True)
    unit = normal / np.maximum(length, 1e-6)
    unit *= np.where(unit[..., 2:] < 0, -1, 1)  # seen from inside where a surface is open
    key, fill = (np.maximum(unit @ (light / np.linalg.norm(light)).astype(np.float32), 0) for light in (_KEY, _FILL))
    light = 0.30 + 0.72 * key + 0.20 * fill
    light *= 0.76 + 0.24 * unit[..., 2]  # edges that turn away are darker
    light *= _openness(depth, there, mm_per_pixel)
    gloss = 26 * key**24
    colour = np.clip(_COLOUR * np.minimum(light, 1.08)[..., None] + gloss[..., None], 0, 255)
    return np.concatenate([colour, np.full((*there.shape, 1), 255, dtype=np.float32)], axis=2) * there[..., None]


def _openness(depth: Float32, there: NDArray[np.bool_], mm_per_pixel: float) -> Float32:
    """Share of light that reaches a place: less where its surroundings stand nearer to the viewer, as in a furrow."""
    coarse = (slice(None, None, _OVERSAMPLING),) * 2  # what is blurred anyway needs no fine pixels
    weight = there[coarse].astype(np.float32)
    filled = np.where(there[coarse], depth[coarse], 0).astype(np.float32)
    result = np.ones_like(filled)
    for width in (filled.shape[0] / 90, filled.shape[0] / 30):
        around = ndimage.gaussian_filter(filled, width) / np.maximum(ndimage.gaussian_filter(weight, width), 1e-3)
        buried = np.clip((around - filled) / (width * _OVERSAMPLING * mm_per_pixel), 0, 2)
        result *= 1 / (1 + 0.5 * buried)
    return result.repeat(_OVERSAMPLING, axis=0).repeat(_OVERSAMPLING, axis=1)


def _reduce(image: Float32) -> NDArray[np.uint8]:
    """Average blocks of pixels and undo the multiplication by alpha."""
    size = image.shape[0] // _OVERSAMPLING
    mean = image.reshape(size, _OVERSAMPLING, size, _OVERSAMPLING, 4).mean(axis=(1, 3))
    mean[..., :3] *= 255 / np.maximum(mean[..., 3:], 1)
    return np.asarray(np.rint(np.clip(mean, 0, 255)), dtype=np.uint8)
