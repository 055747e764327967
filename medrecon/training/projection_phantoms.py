"""Heads, chests and heaps of shapes drawn from random numbers, in Hounsfield units, to train on what X-rays see.

No patient is in them: organs are warped ellipsoids, bone is shells and thin sheets, tissue differs by tens of units and
carries a texture. Label maps of brains, where there are any, get a skull and a skin of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Kind = Literal["head", "chest", "shapes", "labels"]
Shape = tuple[int, int, int]

AIR_HU = -1000.0
_WHOLE, _MOST_GONE = 0.5, 0.25  # share of bodies that go on beyond the volume; of the others' slices, at each end
_ROOM_MM = 8.0  # between the body and the side of the volume

#: Hounsfield units of label classes: cerebrospinal fluid, white matter, grey matter, by FreeSurfer's numbers.
_FLUID, _WHITE = (4, 5, 14, 15, 24, 31), (2, 7, 16, 28)


def draw(
    kind: Kind, shape: Shape, spacing_mm: float, rng: np.random.Generator, labels: NDArray[np.int_] | None = None
) -> Float32:
    """Draw one phantom.

    Parameters
    ----------
    kind : str
        ``head``, ``chest``, ``shapes``, or ``labels``: a head around the brain in `labels`.
    shape : (slices, rows, columns)
        The body ends inside the rows and columns; slices cut through it.
    spacing_mm : float
        Voxels are cubes.
    rng : numpy.random.Generator
    labels : (slices, rows, columns) int array of 1 mm, optional
        FreeSurfer numbers, head up; wanted by ``labels`` only.

    Returns
    -------
    (slices, rows, columns) float32 array
        Hounsfield units, from -1000 to about 3000.
    """
    space = _Space.random(shape, spacing_mm, rng)
    if kind == "labels" and labels is not None:
        drawn = _labelled_head(space, labels)
    else:
        painters: dict[str, Callable[[_Space], Float32]] = {"head": _head, "chest": _chest, "shapes": _shapes}
        drawn = painters.get(kind, _head)(space)
    return _blurred(space, drawn).clip(AIR_HU, 3500)


def lesion(shape: Shape, spacing_mm: float, centre_mm: Sequence[float], radius_mm: float, contrast_hu: float) -> Float32:
    """Return what a ball of one contrast adds to a volume, its border one voxel wide.

    Parameters
    ----------
    centre_mm : (slice, row, column) distances from the volume's middle
    """
    middle = [(np.arange(n) - (n - 1) / 2) * spacing_mm - c for n, c in zip(shape, centre_mm, strict=True)]
    far = np.sqrt(sum(axis.reshape([-1 if k == i else 1 for k in range(3)]) ** 2 for i, axis in enumerate(middle)))
    inside: Float32 = (np.clip((radius_mm - far) / spacing_mm + 0.5, 0, 1) * contrast_hu).astype(np.float32)
    return inside


def ended(hu: Float32, rng: np.random.Generator) -> Float32:
    """Let every other body end within the volume, flat, with air beyond: as CT does that was laid into a larger box.

    Parameters
    ----------
    hu : (slices, rows, columns) float32 array
        Hounsfield units.
    rng : numpy.random.Generator

    Returns
    -------
    (slices, rows, columns) float32 array
        Up to a quarter of the slices at each end are air, the next one in part.
    """
    if rng.random() < _WHOLE:
        return hu
    kept = hu.copy()
    for end in (kept, kept[::-1]):
        gone = int(rng.integers(0, round(len(hu) * _MOST_GONE) + 1))
        end[:gone] = AIR_HU
        end[gone] = AIR_HU + np.float32(rng.uniform(0, 1)) * (end[gone] - AIR_HU)
    return kept


@dataclass(frozen=True, eq=False)
class _Space:
    """A grid whose coordinates are bent a little, so that ellipsoids drawn in it look grown.

    Parameters
    ----------
    at_mm : three float32 arrays
        Bent distances from the middle, along slices, rows and columns.
    half_mm : float
        From the middle to the side.
    """

    shape: Shape
    spacing_mm: float
    rng: np.random.Generator
    at_mm: tuple[Float32, Float32, Float32]
    half_mm: float

    @classmethod
    def random(cls, shape: Shape, spacing_mm: float, rng: np.random.Generator) -> _Space:
        axes = [((np.arange(n) - (n - 1) / 2) * spacing_mm).astype(np.float32) for n in shape]
        straight = np.meshgrid(*axes, indexing="ij", sparse=True)
        amount = rng.uniform(1, 5)
        bent = [axis + np.float32(amount) * _noise(shape, 45 / spacing_mm, rng) for axis in straight]
        half = (min(shape[1:]) - 1) / 2 * spacing_mm - _ROOM_MM
        return cls(shape, spacing_mm, rng, (bent[0], bent[1], bent[2]), half)

    def noise(self, scale_mm: float) -> Float32:
        """Random values of mean 0 and spread 1, smooth over `scale_mm`."""
        return _noise(self.shape, scale_mm / self.spacing_mm, self.rng)

    def fractal(self, scale_mm: float, octaves: int = 3) -> Float32:
        """Noise on several scales, each half as coarse and half as strong as the one before."""
        parts = [self.noise(scale_mm / 2**k) / 2**k for k in range(octaves)]
        total: Float32 = sum(parts[1:], start=parts[0]) / np.float32(1.2)
        return total

    def ellipsoid(self, centre_mm: Sequence[float], radii_mm: Sequence[float]) -> Float32:
        """Distance from the middle of a randomly turned ellipsoid, in its radii: 1 on the surface."""
        turn = self.rng.uniform(-0.35, 0.35)
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        z, y, x = (a - np.float32(b) for a, b in zip(self.at_mm, centre_mm, strict=True))
        rows, columns = c * y - s * x, s * y + c * x
        pairs = zip((z, rows, columns), radii_mm, strict=True)
        far: Float32 = np.sqrt(sum((a / np.float32(r)) ** 2 for a, r in pairs))
        return far

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def anywhere(self, share: float) -> list[float]:
        """Return a random place within a share of the half width; any slice."""
        deep = (self.shape[0] - 1) / 2 * self.spacing_mm
        reach = share * self.half_mm
        return [self.uniform(-deep, deep), self.uniform(-reach, reach), self.uniform(-reach, reach)]


def _head(space: _Space) -> Float32:
    """Draw scalp, skull of two tables, brain with ventricles; low down a skull base with air cells and a face."""
    width = space.half_mm * space.uniform(0.72, 0.98)
    radii = (width * space.uniform(0.95, 1.3), width, width * space.uniform(0.72, 0.92))
    height = space.uniform(-0.55, 0.75) * radii[0]  # of the scanned middle above the head's
    depth_mm = (1 - space.ellipsoid((-height, 0, 0), radii)) * np.float32(radii[2])
    depth_mm += np.float32(space.uniform(0.5, 2.5)) * space.noise(30)
    skin = np.float32(space.uniform(2, 9)) * (1 + np.float32(0.5) * space.noise(40)).clip(0.25)
    bone = np.float32(space.uniform(4, 9)) * (1 + np.float32(0.35) * space.noise(25)).clip(0.3)
    hu = np.full(space.shape, AIR_HU, np.float32)
    _fill(hu, depth_mm > 0, _soft(space, fat_share=0.5))
    _fill(hu, depth_mm > skin + bone, _brain(space, radii, height))
    _fill(hu, (depth_mm > skin) & (depth_mm < skin + bone), _calvaria(space, (depth_mm - skin) / bone))
    if space.rng.random() < 0.75:
        _face(space, hu, depth_mm, height, radii)
    _details(space, hu, depth_mm)
    return hu


def _calvaria(space: _Space, across: Float32) -> Float32:
    """Bone from its outer table (0) to its inner (1), with marrow between."""
    cortical = space.uniform(900, 1800)
    marrow = space.uniform(300, 900) + np.float32(150) * space.fractal(8)
    table = space.uniform(0.15, 0.4)
    spongy = ((across > table) & (across < 1 - table)) if space.rng.random() < 0.75 else np.zeros(1, bool)
    compact = np.float32(cortical) + np.float32(80) * space.noise(15)
    found: Float32 = np.where(spongy, marrow, compact).astype(np.float32)
    return found


def _brain(space: _Space, radii: Sequence[float], height: float) -> Float32:
    """White and grey matter in folds, ventricles and furrows of fluid, lesions of any kind."""
    base, step = space.uniform(25, 40), space.uniform(3, 12)
    folds = np.abs(space.noise(14))
    hu = np.where(folds < 0.5, np.float32(base + step), np.float32(base)).astype(np.float32)
    _fill(hu, folds < space.uniform(0.0, 0.1), np.float32(space.uniform(0, 12)))
    for side in (-1, 1):
        centre = (-height + space.uniform(-5, 15), space.uniform(-15, 15), side * space.uniform(6, 16))
        ventricle = space.ellipsoid(centre, [radii[1] * space.uniform(a, b) for a, b in ((0.06, 0.2), (0.15, 0.4), (0.04, 0.12))])
        _fill(hu, ventricle < 1, np.float32(space.uniform(-2, 12)))
    if space.rng.random() < 0.3:  # calcified falx and pineal gland
        _fill(hu, np.abs(space.at_mm[2]) < space.uniform(0.3, 1.0), np.float32(space.uniform(50, 200)))
    _lesions(space, hu, 0.6, int(space.rng.integers(0, 6)))
    return hu


def _face(space: _Space, hu: Float32, depth_mm: Float32, height: float, radii: Sequence[float]) -> None:
    """Below a bent plane: muscle and fat, a base of thin bone around air cells, eyes, teeth, jaws and vertebrae."""
    z, y, x = space.at_mm
    level = np.float32(-height - space.uniform(0.1, 0.5) * radii[0])
    below = (level - z) + np.float32(space.uniform(0.0, 0.8)) * (-y) * np.float32(0.5) + np.float32(3) * space.noise(18)
    region = (below > 0) & (depth_mm > 1.5)
    _fill(hu, region & (depth_mm > space.uniform(3, 9)), _soft(space, fat_share=0.3))
    ridge = (np.abs(below) < space.uniform(1.5, 5)) & (depth_mm > 3)
    _fill(hu, ridge, np.float32(space.uniform(500, 1400)) + np.float32(200) * space.noise(6))
    front = -y / np.float32(radii[1]) + np.float32(0.25) * space.noise(25)
    cells = space.fractal(space.uniform(9, 22))
    walls = np.abs(cells) < space.uniform(0.05, 0.22)
    hollow = region & (cells > space.uniform(-0.3, 0.8)) & (front > space.uniform(-0.1, 0.4)) & (depth_mm > 8)
    mastoid = region & (np.abs(x) > 0.55 * radii[2]) & (np.abs(y) < 0.4 * radii[1]) & (depth_mm > 6) & (space.noise(4) > 0.3)
    _fill(hu, hollow | mastoid, np.float32(AIR_HU))
    _fill(hu, region & walls & (depth_mm > 4), np.float32(space.uniform(250, 1100)) + np.float32(250) * space.noise(5))
    for _ in range(int(space.rng.integers(2, 9))):
        _shell(space, hu, space.anywhere(0.6), depth_mm)
    for _ in range(int(space.rng.integers(0, 12))):
        tooth = space.ellipsoid(_in_front(space, radii), [space.uniform(2, 6) for _ in range(3)])
        _fill(hu, (tooth < 1) & region, np.float32(space.uniform(1500, 2900)))


def _in_front(space: _Space, radii: Sequence[float]) -> list[float]:
    angle = space.uniform(-0.9, 0.9)
    reach = radii[1] * space.uniform(0.6, 0.85)
    return [space.anywhere(0)[0], -reach * float(np.cos(angle)), reach * 0.6 * float(np.sin(angle))]


def _shell(space: _Space, hu: Float32, centre_mm: Sequence[float], depth_mm: Float32) -> None:
    """Draw a bone with a softer inside, an eye or an airway, wherever the body is deep enough."""
    radius = space.uniform(3, 16)
    far = space.ellipsoid(centre_mm, [radius * space.uniform(0.6, 2.0) for _ in range(3)])
    outside, wall = depth_mm > 2, 1 - space.uniform(0.12, 0.45)
    inner, outer = ((300, 1400), (15, 40), (AIR_HU, 60))[int(space.rng.integers(3))], space.uniform(500, 1600)
    _fill(hu, (far < 1) & outside, np.float32(outer))
    _fill(hu, (far < wall) & outside, np.float32(space.uniform(*inner) if inner[0] != AIR_HU else AIR_HU))


def _chest(space: _Space) -> Float32:
    """Draw a wide body with lungs, heart, spine and ribs."""
    width = space.half_mm * space.uniform(0.85, 1.0)
    radii = (width * 4, width * space.uniform(0.6, 0.8), width)
    depth_mm = (1 - space.ellipsoid((0, 0, 0), radii)) * np.float32(radii[1])
    hu = np.full(space.shape, AIR_HU, np.float32)
    _fill(hu, depth_mm > 0, _soft(space, fat_share=0.6))
    wall = space.uniform(0.1, 0.2) * width
    _fill(hu, depth_mm > wall, np.float32(space.uniform(30, 60)) + np.float32(5) * space.fractal(20))
    _ribs(space, hu, depth_mm - np.float32(wall))
    for side in (-1, 1):
        lung = space.ellipsoid((0, -0.05 * width, side * 0.42 * width), (width * 2, 0.45 * width, 0.36 * width))
        _fill(hu, (lung < 1) & (depth_mm > wall + 4), _lung(space))
    heart = space.ellipsoid((0, -0.15 * width, 0.1 * width), (0.5 * width, 0.28 * width, 0.3 * width))
    _fill(hu, heart < 1, np.float32(space.uniform(30, 60)))
    spine = space.ellipsoid((0, 0.35 * width, 0), (width * 4, 0.13 * width, 0.14 * width))
    _fill(hu, spine < 1, np.float32(space.uniform(150, 400)) + np.float32(60) * space.noise(4))
    _fill(hu, (spine < 1) & (spine > 0.85), np.float32(space.uniform(500, 1000)))
    _details(space, hu, depth_mm)
    return hu


def _lung(space: _Space) -> Float32:
    """Air and tissue, with vessels where two smooth fields cross zero together."""
    base = np.float32(space.uniform(-900, -750)) + np.float32(25) * space.fractal(12)
    vessels = np.hypot(space.noise(16), space.noise(16)) < space.uniform(0.1, 0.3)
    found: Float32 = np.where(vessels, np.float32(space.uniform(0, 60)), base).astype(np.float32)
    return found


def _ribs(space: _Space, hu: Float32, inward_mm: Float32) -> None:
    """Slanting bands of bone in the wall of the chest."""
    z, y, _ = space.at_mm
    phase = (z + np.float32(space.uniform(0.3, 0.7)) * y) / np.float32(space.uniform(18, 28)) + np.float32(0.1) * space.noise(40)
    rib = (np.abs(phase - np.round(phase)) < space.uniform(0.15, 0.25)) & (inward_mm > -7) & (inward_mm < 0)
    _fill(hu, rib, np.float32(space.uniform(500, 1100)))
    _fill(hu, rib & (inward_mm > -5) & (inward_mm < -2), np.float32(space.uniform(150, 400)))


def _shapes(space: _Space) -> Float32:
    """Draw a body of any value with a dozen shapes in it, round, square and hollow: what is neither head nor chest."""
    radii = [space.half_mm * space.uniform(0.5, 1.0) for _ in range(2)]
    depth_mm = (1 - space.ellipsoid((0, 0, 0), (space.half_mm * space.uniform(0.6, 4), *radii))) * np.float32(min(radii))
    hu = np.full(space.shape, AIR_HU, np.float32)
    _fill(hu, depth_mm > 0, np.float32(space.uniform(-150, 150)) + np.float32(space.uniform(0, 12)) * space.fractal(20))
    for _ in range(int(space.rng.integers(6, 30))):
        _shape(space, hu, depth_mm > 1)
    _details(space, hu, depth_mm)
    return hu


def _shape(space: _Space, hu: Float32, allowed: NDArray[np.bool_]) -> None:
    centre, radii = space.anywhere(0.8), [space.uniform(2, 30) for _ in range(3)]
    if space.rng.random() < 0.35:
        parts = zip(space.at_mm, centre, radii, strict=True)
        far: Float32 = np.maximum.reduce([np.abs(axis - np.float32(c)) / np.float32(r) for axis, c, r in parts])
    else:
        far = space.ellipsoid(centre, radii)
    values = ((-20, 80), (-1000, -1000), (200, 1800), (-120, -60))[int(space.rng.choice(4, p=(0.45, 0.15, 0.3, 0.1)))]
    hollow = space.uniform(0.5, 0.9) if space.rng.random() < 0.3 else 0.0
    _fill(hu, (far < 1) & (far >= hollow) & allowed, np.float32(space.uniform(*values)))


def _labelled_head(space: _Space, labels: NDArray[np.int_]) -> Float32:
    """Draw a head whose brain has the classes of a label map and whose skull follows that brain's surface."""
    from scipy import ndimage

    scale = space.uniform(0.85, 1.1)
    brain = _sampled(space, labels, scale)
    out_mm = ndimage.distance_transform_edt(brain == 0, sampling=space.spacing_mm).astype(np.float32)
    out_mm += np.float32(0.8) * space.noise(20)
    fluid, bone, skin = space.uniform(1, 4), space.uniform(4, 9), space.uniform(3, 9)
    thick = np.float32(bone) * (1 + np.float32(0.3) * space.noise(25)).clip(0.3)
    hu = np.full(space.shape, AIR_HU, np.float32)
    _fill(hu, out_mm < fluid + thick + skin, _soft(space, fat_share=0.5))
    _fill(hu, (out_mm < fluid + thick) & (out_mm >= fluid), _calvaria(space, (fluid + thick - out_mm) / thick))
    _fill(hu, out_mm < fluid, np.float32(space.uniform(0, 15)))
    values = {label: space.uniform(0, 12) for label in _FLUID} | {label: space.uniform(22, 32) for label in _WHITE}
    for label in np.unique(brain[brain > 0]):
        _fill(hu, brain == label, np.float32(values.get(int(label), space.uniform(32, 44))))
    inside_mm = fluid + thick + skin - out_mm
    if space.rng.random() < 0.5:
        radii = (space.half_mm, space.half_mm * 0.9, space.half_mm * 0.75)
        _face(space, hu, np.where(out_mm > fluid, inside_mm, 0).astype(np.float32), space.uniform(-0.3, 0.4) * radii[0], radii)
    _lesions(space, hu, 0.4, int(space.rng.integers(0, 4)))
    _details(space, hu, inside_mm)
    return hu


def _sampled(space: _Space, labels: NDArray[np.int_], scale: float) -> NDArray[np.int_]:
    """Return the label map along the bent coordinates, nearest voxel, a random height in the middle; 0 outside."""
    lift = space.uniform(-0.25, 0.25) * labels.shape[0]
    index = [
        np.rint(axis / np.float32(scale) + np.float32((n - 1) / 2 + (lift if k == 0 else 0))).astype(np.int32)
        for k, (axis, n) in enumerate(zip(space.at_mm, labels.shape, strict=True))
    ]
    inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(index, labels.shape, strict=True)])
    found = labels[tuple(i.clip(0, n - 1) for i, n in zip(index, labels.shape, strict=True))]
    chosen: NDArray[np.int_] = np.where(inside, found, 0)
    return chosen


def _soft(space: _Space, fat_share: float) -> Float32:
    """Muscle and fat in patches."""
    muscle, fat = space.uniform(30, 70), space.uniform(-120, -60)
    found: Float32 = np.where(space.fractal(18) > (0.5 - fat_share) * 2, np.float32(muscle), np.float32(fat)).astype(np.float32)
    return found


def _lesions(space: _Space, hu: Float32, share: float, count: int) -> None:
    """Balls that differ from what is around them by 5 to 80 units, up or down."""
    for _ in range(count):
        radius = space.uniform(1.5, 12)
        inside = space.ellipsoid(space.anywhere(share), [radius * space.uniform(0.7, 1.4) for _ in range(3)]) < 1
        hu[inside] += np.float32(space.rng.choice((-1, 1)) * np.exp(space.uniform(np.log(5), np.log(80))))


def _details(space: _Space, hu: Float32, depth_mm: Float32) -> None:
    """Texture of a few units everywhere in the body, and now and then calcium, metal or gas smaller than a voxel is wide."""
    body = hu > -300
    hu[body] += (np.float32(space.uniform(0, 6)) * space.fractal(4, 2))[body]
    for _ in range(int(space.rng.integers(0, 6))):
        speck = space.ellipsoid(space.anywhere(0.6), [space.uniform(0.8, 3) for _ in range(3)]) < 1
        _fill(hu, speck & (depth_mm > 3), np.float32(space.rng.choice((-1000, 300, 800, 1500))))


def _blurred(space: _Space, hu: Float32) -> Float32:
    """Soften as a scanner would that made this volume: a little in the plane, more across slices."""
    from scipy import ndimage

    plane, across = space.uniform(0, 1.2), space.uniform(0, 2.5) if space.rng.random() < 0.6 else 0.0
    sigma = [across / space.spacing_mm, plane / space.spacing_mm, plane / space.spacing_mm]
    found: Float32 = ndimage.gaussian_filter(hu, sigma, mode="nearest", truncate=3)
    return found


def _fill(hu: Float32, where: NDArray[np.bool_], value: Float32 | np.float32) -> None:
    np.copyto(hu, value, where=where)


def _noise(shape: Shape, scale: float, rng: np.random.Generator) -> Float32:
    """Random values on a coarse grid, a node every `scale` voxels and shifted at random, interpolated; mean 0, spread 1."""
    import torch
    from torch.nn.functional import interpolate

    scale = max(scale, 1.0)
    coarse = [int(np.ceil(n / scale)) + 2 for n in shape]
    nodes = torch.from_numpy(rng.standard_normal(coarse, dtype=np.float32))[None, None]
    fine = [round(n * scale) for n in coarse]
    most = [f - n for f, n in zip(fine, shape, strict=True)]
    grown = interpolate(nodes, size=fine, mode="trilinear", align_corners=False)[0, 0].numpy()
    first = [int(rng.integers(0, m + 1)) for m in most]
    part = grown[tuple(slice(f, f + n) for f, n in zip(first, shape, strict=True))]
    found: Float32 = (part - part.mean()) / (part.std() + np.float32(1e-6))
    return found
