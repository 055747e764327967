"""Random volumes from nothing: what a network sees when it learns to fill the space between thick slices.

No patient is in them. A volume is drawn from label maps of brains, wrapped in a synthetic skull and scalp, or from random
blobs and sheets; every tissue gets a random brightness (as T1, as anything, or as CT has it), texture, and noise; coils
get their bias and the scanner its point spread. After Billot et al. 2023, Science Advances 9, eadd3607, but the image that
is to be restored keeps its own contrast.

Lengths are in mm, volumes are (slice, row, column), about 0 to 1, and drawn from a numpy generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

Shape = tuple[int, int, int]

_T1 = {  # brightness beside white matter = 0.75: FreeSurfer's label, mean
    0: 0.14, 2: 0.75, 3: 0.5, 4: 0.15, 5: 0.15, 7: 0.72, 8: 0.5, 10: 0.62, 11: 0.53, 12: 0.56, 13: 0.66, 14: 0.16,
    15: 0.16, 16: 0.66, 17: 0.5, 18: 0.5, 24: 0.14, 26: 0.52, 28: 0.66, 29: 0.4, 31: 0.4,
}  # fmt: skip
_CORTEX, _FLUID = 3, 0
_BRAIN_MARGIN_MM = 30.0  # around a label map, where skull, scalp and air are drawn
_TRIED = 64  # voxels at once, to find one in the brain


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmented head: labels at 1 mm, and how far a point outside the brain is from it.

    Parameters
    ----------
    labels : (slices, rows, columns) int16
    distance_mm : (slices, rows, columns) float32
        0 in the brain.
    """

    labels: NDArray[np.int16]
    distance_mm: NDArray[np.float32]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a NIfTI label map with 1 mm voxels, 0 where there is no brain."""
        import nibabel

        labels = np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj).astype(np.int16)
        labels = np.pad(labels, int(_BRAIN_MARGIN_MM))
        closed = ndimage.binary_closing(labels > 0, iterations=4)
        return cls(labels, ndimage.distance_transform_edt(~closed).astype(np.float32))


def random_volume(rng: np.random.Generator, shape: Shape, spacing_mm: float, brains: Sequence[LabelMap] = ()) -> Tensor:
    """Draw a volume of isotropic voxels.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (slices, rows, columns)
    spacing_mm : float
    brains : sequence of LabelMap
        Where there are any, eight of ten volumes are cut from one of them.

    Returns
    -------
    (slices, rows, columns) float32 Tensor
    """
    from_brain = bool(brains) and rng.random() < 0.8
    volume = _head(rng, shape, spacing_mm, brains[int(rng.integers(len(brains)))]) if from_brain else _shapes(rng, shape)
    volume = _blurred(volume, rng.uniform(0.25, 0.65))
    if rng.random() < 0.6:
        volume = volume * torch.exp(rng.uniform(0, 0.25) * _smooth_noise(rng, shape, max(shape) / 2))
    if rng.random() < 0.5:
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        volume = volume + rng.uniform(0, 0.025) * _blurred(noise, rng.uniform(0, 0.6))
    return volume


def _head(rng: np.random.Generator, shape: Shape, spacing_mm: float, brain: LabelMap) -> Tensor:
    brain, points = _cropped(brain, _warped_points(rng, shape, spacing_mm, brain))
    painted = torch.from_numpy(_painted(rng, brain))
    distance = torch.from_numpy(brain.distance_mm)
    order = "bilinear" if rng.random() < 0.7 else "nearest"  # as a scan of 1 mm, or with sharper edges than any
    inside = _sample(painted, points, order)
    outside = _sample(distance, points, "bilinear") + rng.uniform(0, 1.5) * _smooth_noise(rng, shape, 8 / spacing_mm)
    volume = _wrapped(rng, inside, outside, spacing_mm)
    return _textured(rng, volume)


def _painted(rng: np.random.Generator, brain: LabelMap) -> NDArray[np.float32]:
    """Give every label a brightness: as T1 has it, loosely, or any."""
    names = np.unique(brain.labels)
    if rng.random() < 0.6:
        means = np.array([_T1.get(int(name), 0.5) for name in names]) + rng.normal(0, 0.05, len(names))
        if rng.random() < 0.15:
            means = 0.9 - means
    elif rng.random() < 0.7:
        means = rng.uniform(0.05, 1.0, len(names))
    else:
        means = 0.45 + rng.normal(0, 0.03, len(names))  # as CT has it: hardly any contrast
    table = np.zeros(int(names.max()) + 1, dtype=np.float32)
    table[names] = means
    return table[brain.labels]


def _wrapped(rng: np.random.Generator, inside: Tensor, outside: Tensor, spacing_mm: float) -> Tensor:
    """Draw fluid, skull, scalp and air around a brain, with soft borders as wide as a voxel."""
    edge = 0.35 * spacing_mm
    as_ct = rng.random() < 0.3
    skull, marrow, fat = (1.0, 0.8, 0.35) if as_ct else rng.uniform((0.0, 0.1, 0.5), (0.15, 0.9, 1.3))
    muscle, air = (0.42, 0.0) if as_ct else rng.uniform((0.2, 0.0), (0.6, 0.03))
    borders = np.cumsum(rng.uniform((0.5, 1, 0.5, 1, 1, 0.5), (4, 3, 4, 3, 6, 4)))
    layers = (skull, marrow, skull, fat, muscle, air)
    volume = inside
    for border, brightness in zip(borders, layers, strict=True):
        share = torch.sigmoid((outside - border) / edge)
        volume = volume * (1 - share) + brightness * share
    return volume


def _shapes(rng: np.random.Generator, shape: Shape) -> Tensor:
    """Draw blobs and sheets of random brightness over one another, sharp or soft."""
    volume = torch.full(shape, float(rng.uniform(0, 0.6)))
    for _ in range(rng.integers(3, 12)):
        field = _smooth_noise(rng, shape, float(np.exp(rng.uniform(np.log(4), np.log(30)))))
        sheet = rng.random() < 0.35
        field = rng.uniform(0.05, 0.4) - field.abs() if sheet else field - rng.uniform(-0.5, 1.5)
        share = torch.sigmoid(field / rng.uniform(0.02, 0.25))
        volume = volume * (1 - share) + float(rng.uniform(0, 1)) * share
    return _textured(rng, volume)


def _textured(rng: np.random.Generator, volume: Tensor) -> Tensor:
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    texture = rng.uniform(0, 0.08) * _smooth_noise(rng, shape, rng.uniform(1.5, 5))
    return volume * (1 + texture)


def _warped_points(rng: np.random.Generator, shape: Shape, spacing_mm: float, brain: LabelMap) -> Tensor:
    """Return where each voxel looks into the label map, (slices, rows, columns, 3), by index."""
    size = np.array(brain.labels.shape, dtype=np.float64)
    turn = np.eye(3)[rng.permutation(3)] * rng.choice((-1, 1), 3)[:, None] @ _rotation(rng.normal(0, np.radians(12), 3))
    turn = turn @ np.diag(rng.uniform(0.85, 1.15, 3))
    centre = _near(rng, brain, within_mm=float(rng.choice((1, 15))))
    steps = np.stack(np.meshgrid(*((np.arange(n) - (n - 1) / 2) * spacing_mm for n in shape), indexing="ij"), axis=-1)
    points = steps @ turn.T + centre
    bend = torch.stack([_smooth_noise(rng, shape, 20 / spacing_mm) for _ in range(3)], dim=-1) * rng.uniform(0, 2.0)
    within: Tensor = (torch.from_numpy(points) + bend).clamp(torch.zeros(3), torch.from_numpy(size - 1))
    return within


def _near(rng: np.random.Generator, brain: LabelMap, within_mm: float) -> NDArray[np.int64]:
    """Draw a voxel in the brain or near it; looking at a few voxels is quicker than listing all that would do."""
    while True:
        tried = rng.integers(brain.labels.shape, size=(_TRIED, 3))
        good = brain.distance_mm[tuple(tried.T)] < within_mm
        if good.any():
            return np.asarray(tried[int(good.argmax())])


def _cropped(brain: LabelMap, points: Tensor) -> tuple[LabelMap, Tensor]:
    """Return the part of a label map that the points look into, and the points there, from -1 to 1, last axis first."""
    low, high = (edge.numpy() for edge in torch.aminmax(points.reshape(-1, 3), dim=0))
    first, last = np.floor(low).astype(int), np.ceil(high).astype(int) + 1
    part = tuple(slice(a, max(b, a + 2)) for a, b in zip(first, last, strict=True))
    half = (np.array(brain.labels[part].shape) - 1) / 2
    unit = (points - torch.from_numpy(first)) / torch.from_numpy(half) - 1
    return LabelMap(brain.labels[part], np.ascontiguousarray(brain.distance_mm[part])), unit.flip(-1).float()


def _rotation(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    matrix: NDArray[np.float64] = Rotation.from_euler("xyz", angles_rad).as_matrix()
    return matrix


def _sample(volume: Tensor, points: Tensor, mode: str) -> Tensor:
    drawn: Tensor = functional.grid_sample(volume[None, None], points[None], mode=mode, padding_mode="border", align_corners=True)
    return drawn[0, 0]


def _smooth_noise(rng: np.random.Generator, shape: Shape, length: float) -> Tensor:
    """Return noise of variance near 1 that changes over about `length` voxels."""
    coarse = tuple(max(2, int(np.ceil(n / length)) + 1) for n in shape)
    values = torch.from_numpy(rng.standard_normal(coarse, dtype=np.float32))
    fine: Tensor = functional.interpolate(values[None, None], shape, mode="trilinear", align_corners=True)
    return _blurred(fine[0, 0], min(length / 4, 3.0)) * 1.5


def _blurred(volume: Tensor, sigma: float) -> Tensor:
    if sigma < 0.2:
        return volume
    return torch.from_numpy(ndimage.gaussian_filter(volume.numpy(), sigma, truncate=3.0, mode="nearest"))
