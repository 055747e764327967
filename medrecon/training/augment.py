"""Take a patch out of a volume at a random place, rotated, shifted, scaled, flipped, bent, with another contrast.

All random numbers are drawn first; then the patch is interpolated once, in millimetres, so that a rotation of
anisotropic voxels is a rotation and no shear. Only what the patch needs of the volume is touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medrecon.core.volume import Quantity, Volume
from medrecon.training.config import AugmentConfig
from medrecon.training.drawn import Drawn

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
_Box = tuple[slice, slice, slice]

_TRIES = 32  # places to look at before an empty one is accepted
_LEAST_SHOWN = 0.02  # of a patch that must be more than background
_BACKGROUND = 0.05  # of the range of values counts as background
_LOOKED_AT = 50_000  # voxels of a volume for its range
_AIR_HU = -1000.0
_MARGIN = 4  # voxels around what is needed, for the smoothing


def patch(volume: Volume, shape: Shape, spacing_mm: Triple | None, config: AugmentConfig, random: torch.Generator) -> Drawn:
    """Draw a changed patch.

    Parameters
    ----------
    volume : Volume
    shape : (slices, rows, columns) of the patch
    spacing_mm : of the patch; the volume's own where None
    config : AugmentConfig
    random : torch.Generator
        The only source of chance.
    """
    spacing = spacing_mm or volume.spacing_mm
    index, box = _interesting(volume, shape, spacing, config, random)
    voxels = _sampled(volume, index, box, spacing)
    return Drawn(_recoloured(voxels, volume.quantity, config, random), spacing, volume.quantity)


def _interesting(
    volume: Volume, shape: Shape, spacing: Triple, config: AugmentConfig, random: torch.Generator
) -> tuple[Tensor, _Box]:
    """Draw places until the volume shows something there; return where the patch's voxels lie, and the part they need."""
    level = _above_background(volume)
    step = torch.tensor(volume.spacing_mm)[:, None, None, None]
    for attempt in range(_TRIES):
        index = _Place.drawn(volume, shape, spacing, config, random).positions_mm(shape, spacing) / step
        seen = volume.voxels[_box(volume.grid.shape, index, 0)][::2, ::2, ::2]
        if attempt == _TRIES - 1 or np.count_nonzero(seen > level) >= _LEAST_SHOWN * seen.size:
            break
    return index, _box(volume.grid.shape, index, _MARGIN)


def _above_background(volume: Volume) -> float:
    """Return a value that air and background lie below."""
    values = volume.voxels.reshape(-1)[:: max(1, volume.voxels.size // _LOOKED_AT)]
    low, high = np.quantile(values, (0.005, 0.995))
    return float(low + _BACKGROUND * (high - low))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the patch lies in the volume: a linear map and a shift in mm, and a smooth displacement on a coarse grid."""

    linear: Tensor
    centre_mm: Tensor
    bend_mm: Tensor

    @classmethod
    def drawn(cls, volume: Volume, shape: Shape, spacing: Triple, config: AugmentConfig, random: torch.Generator) -> _Place:
        """Draw a place whose patch lies inside the volume where the volume is large enough."""
        extent = torch.tensor([(n - 1) * d for n, d in zip(volume.grid.shape, volume.spacing_mm, strict=True)])
        patch_mm = torch.tensor([(n - 1) * d for n, d in zip(shape, spacing, strict=True)])
        room = (extent - patch_mm).clamp_min(0.0)
        centre = extent / 2 + (torch.rand(3, generator=random) - 0.5) * room + _between(3, config.translation_mm, random)
        angles = _between(3, math.radians(config.rotation_deg), random)
        sizes = 1 + _between(3, config.scaling, random)
        flips = 1 - 2 * (torch.rand(3, generator=random) < config.flips).float()
        knots = [max(2, math.ceil(float(length) / config.elastic_every_mm) + 1) for length in patch_mm]
        bend = _between((3, *knots), config.elastic_mm, random)
        return cls(_rotation(angles) @ torch.diag(sizes * flips), centre, bend)

    def positions_mm(self, shape: Shape, spacing: Triple) -> Tensor:
        """Where the patch's voxels lie in the volume, (3, slices, rows, columns) mm from the volume's first voxel."""
        axes = [(torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * d for n, d in zip(shape, spacing, strict=True)]
        straight = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        moved = torch.einsum("ij,jzyx->izyx", self.linear, straight) + self.centre_mm[:, None, None, None]
        if not self.bend_mm.any():
            return moved
        bend = functional.interpolate(self.bend_mm[None], size=shape, mode="trilinear", align_corners=True)[0]
        return moved + bend


def _sampled(volume: Volume, index: Tensor, box: _Box, spacing: Triple) -> Tensor:
    """Interpolate the volume linearly, after smoothing it where the patch is coarser than the volume."""
    from monai.transforms import Resample

    smooth = [_blur_voxels(wide / fine) for wide, fine in zip(spacing, volume.spacing_mm, strict=True)]
    cut = np.array(volume.voxels[box], dtype=np.float32)
    source = _smoothed(torch.from_numpy(cut)[None], smooth)
    middle = torch.tensor([part.start + (n - 1) / 2 for part, n in zip(box, cut.shape, strict=True)])
    sampled = Resample(mode="bilinear", padding_mode="border")(source, grid=index - middle[:, None, None, None])
    values: Tensor = sampled.as_tensor()[0].contiguous()
    return values


def _box(shape: Shape, index: Tensor, margin: int) -> _Box:
    """Return the part of the volume that the positions need, and a margin."""
    low = [min(max(math.floor(float(axis.min())) - margin, 0), n - 1) for axis, n in zip(index, shape, strict=True)]
    high = [min(max(math.ceil(float(axis.max())) + margin, 0), n - 1) for axis, n in zip(index, shape, strict=True)]
    first, second, third = (slice(a, max(a, b) + 1) for a, b in zip(low, high, strict=True))
    return first, second, third


def _blur_voxels(ratio: float) -> float:
    """Width of the Gaussian, in fine voxels, that takes a fine voxel's box to a coarse one's; 0 where it is not coarser."""
    return math.sqrt((ratio**2 - 1) / 12) if ratio > 1.2 else 0.0


def _smoothed(source: Tensor, sigmas: list[float]) -> Tensor:
    from monai.networks.layers import GaussianFilter

    if not any(sigmas):
        return source
    smoothed: Tensor = GaussianFilter(3, [max(sigma, 1e-3) for sigma in sigmas])(source[None])[0]
    return smoothed


def _recoloured(voxels: Tensor, quantity: Quantity, config: AugmentConfig, random: torch.Generator) -> Tensor:
    """Change contrast and brightness; CT keeps air where it is, as another energy of the beam would."""
    from monai.transforms import AdjustContrast

    contrast, brightness, bend = (
        float(_between(1, limit, random)) for limit in (config.intensity, config.intensity, config.gamma)
    )
    if quantity is not Quantity.ARBITRARY:
        air = _AIR_HU if quantity is Quantity.HOUNSFIELD else 0.0
        return (voxels - air) * (1 + contrast) + air
    low, high = float(voxels.min()), float(voxels.max())
    if high <= low:
        return voxels
    curved = AdjustContrast(gamma=1 + bend)(voxels).as_tensor() if bend else voxels
    return (curved - low) * (1 + contrast) + low + brightness * (high - low)


def _between(shape: int | tuple[int, ...], limit: float, random: torch.Generator) -> Tensor:
    """Uniform numbers between -limit and limit."""
    return (2 * torch.rand(shape, generator=random) - 1) * limit


def _rotation(angles: Tensor) -> Tensor:
    """Rotation about the three axes in turn, (3, 3)."""
    from monai.transforms.utils import create_rotate

    turn: Tensor = create_rotate(3, [float(angle) for angle in angles], backend="torch")
    return turn[:3, :3].to(torch.float32)
