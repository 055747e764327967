"""Motion between neighbouring slices, learned without knowing it: the flow is right where one slice explains the other.

Half of the pairs are neighbouring planes of random blobs, as bodies change from slice to slice; the others are one plane
and the same plane bent, whose motion is known, though the loss never looks at it: validation does. Volumes from disk,
where the recipe names any, give neighbouring slices instead of blobs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medrecon.core.settings import Config
from medrecon.networks.flow import warp
from medrecon.training.losses import census_difference, charbonnier, edge_aware_roughness
from medrecon.training.tasks import Batch, Context, generator

_VALIDATION = 2**31  # seeds from here on are never trained on
_SCALES = (8, 16, 32)  # pixels over which blobs change
_LEVELS = 4


class FlowConfig(Config):
    """Settings of the task `flow`."""

    pixels: int = Field(96, ge=32, le=1024, description="rows and columns of a slice")
    motion: float = Field(6.0, gt=0, le=64, description="largest motion of the bent pairs, pixels")
    apart: int = Field(3, ge=1, le=16, description="how many planes neighbouring slices are apart at most")
    noise: float = Field(0.02, ge=0, le=0.5, description="largest standard deviation of the noise, of values from 0 to 1")
    census: float = Field(1.0, ge=0, description="weight of the census difference")
    brightness: float = Field(0.5, ge=0, description="weight of the plain difference")
    smooth: float = Field(0.1, ge=0, description="weight of the roughness of the flow")
    occlusion: float = Field(1.0, gt=0, description="pixels by which forth and back may miss before a place counts as hidden")
    pairs: int = Field(16, ge=1, description="pairs of the validation")


class Flow:
    """Learn the motion between two slices from how well it explains one by the other."""

    def __init__(self, settings: FlowConfig, context: Context) -> None:
        self.settings, self.context = settings, context

    def batch(self, seed: int, index: int) -> Batch:
        """Make pairs of slices, (batch, 1, rows, columns), values from 0 to 1."""
        random = generator(seed, index)
        pairs = [self._pair(random, number % 2 == index % 2) for number in range(self.context.batch)]
        first, second = (torch.stack(images) for images in zip(*pairs, strict=True))
        return {"first": first, "second": second}

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return how badly the flows, forth and back, explain each slice by the other, and how rough they are."""
        first, second = batch["first"], batch["second"]
        forth, back = network(first, second).float(), network(second, first).float()
        total: Tensor = forth.sum() + back.sum()
        if not torch.isfinite(total):  # torch's gradient of sampling at such places leaves its memory
            return total
        with torch.autocast(first.device.type, enabled=False):
            return (self._misfit(first, second, forth, back) + self._misfit(second, first, back, forth)) / 2

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measure the flow of bent pairs against the bend, and how much of the motion it explains."""
        missed, moved = [], []
        for number in range(self.settings.pairs):
            first, second, bend = (part.to(self.context.device) for part in self._bent(generator(_VALIDATION, number)))
            flow = network(first[None], second[None])[0].float()
            inner = (slice(None), *(slice(self.settings.pixels // 8, -(self.settings.pixels // 8)),) * 2)
            missed.append(float((flow - bend)[inner].square().sum(0).sqrt().mean()))
            moved.append(float(bend[inner].square().sum(0).sqrt().mean()))
        return {"missed_px": sum(missed) / len(missed), "missed_share": sum(missed) / sum(moved)}

    def describe(self) -> dict[str, Any]:
        """Tell what was trained on."""
        source = "neighbouring slices of the recipe's volumes" if len(self.context.volumes) else "planes of random blobs"
        return {"training_data": f"{source}, and bent planes; no truth but in the validation", "modalities": ("any",)}

    def _misfit(self, first: Tensor, second: Tensor, forth: Tensor, back: Tensor) -> Tensor:
        settings = self.settings
        seen = _seen(forth, back, settings.occlusion)
        brought = warp(second, forth)
        explained = settings.census * census_difference(first, brought, seen)
        explained = explained + settings.brightness * charbonnier(first - brought, seen)
        return explained + settings.smooth * edge_aware_roughness(forth, first)

    def _pair(self, random: torch.Generator, bent: bool) -> tuple[Tensor, Tensor]:
        first, second = self._bent(random)[:2] if bent else self._neighbours(random)
        return _noisy(first, self.settings.noise, random), _noisy(second, self.settings.noise, random)

    def _bent(self, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One plane, the same plane bent, and the flow between them: ``first(x) = second(x + flow(x))``."""
        side = self.settings.pixels
        second = self._planes(random, 1)
        scale = float(torch.rand((), generator=random)) * self.settings.motion
        flow = torch.stack([_smooth((1, side, side), side // 3, random)[0] for _ in range(2)]) * scale
        return warp(second[None], flow[None])[0], second, flow

    def _neighbours(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        apart = int(torch.randint(1, self.settings.apart + 1, (), generator=random))
        planes = self._planes(random, apart + 1)
        return planes[:1], planes[-1:]

    def _planes(self, random: torch.Generator, count: int) -> Tensor:
        """Neighbouring planes, (count, rows, columns), from 0 to 1: of a volume from disk where there are any."""
        side = self.settings.pixels
        if not len(self.context.volumes):
            return _blobs((count, side, side), random)
        voxels = self.context.volumes.draw(random, (count, side, side)).voxels
        low, high = torch.quantile(voxels.flatten()[:: max(1, voxels.numel() // 2**20)], torch.tensor([0.01, 0.99]))
        scaled: Tensor = ((voxels - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
        return scaled


def _seen(forth: Tensor, back: Tensor, limit: float) -> Tensor:
    """Where a pixel is in both slices: 1 where going forth and back returns within `limit` pixels; (batch, 1, rows, columns)."""
    missed = (forth + warp(back, forth)).square().sum(dim=1, keepdim=True)
    return (missed < limit**2 + 0.05 * forth.square().sum(dim=1, keepdim=True)).float().detach()


def _blobs(shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
    """Tissues of random brightness with smooth borders, and texture, from 0 to 1."""
    scale = _SCALES[int(torch.randint(len(_SCALES), (), generator=random))]
    field = _smooth(shape, scale, random)
    brightness = torch.rand(_LEVELS + 1, generator=random)
    limits = (2 * torch.rand(_LEVELS, generator=random) - 1).sort().values
    image = brightness[0] * torch.ones(shape)
    for limit, step in zip(limits, brightness.diff(), strict=True):
        image = image + step * torch.sigmoid((field - limit) * scale)
    return (image + 0.1 * _smooth(shape, 3, random)).clamp(0, 1)


def _smooth(shape: tuple[int, int, int], scale: int, random: torch.Generator) -> Tensor:
    """Noise that changes over about `scale` pixels, with a largest value of 1."""
    knots = [max(4, math.ceil(n / scale) + 3) for n in shape]
    coarse = torch.randn((1, 1, *knots), generator=random)
    size = [max(k * scale, n) for k, n in zip(knots, shape, strict=True)]
    fine = functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0, 0]
    for axis in range(3):
        fine = _running_mean(fine, axis, scale)
    part = fine[: shape[0], -shape[1] :, -shape[2] :]
    return part / part.abs().amax().clamp_min(1e-6)


def _running_mean(values: Tensor, axis: int, length: int) -> Tensor:
    """Mean over `length` neighbours along an axis, which becomes shorter by as many less one where it can."""
    length = min(length, values.shape[axis])
    mean: Tensor = values.unfold(axis, length, 1).mean(dim=-1)
    return mean


def _noisy(image: Tensor, most: float, random: torch.Generator) -> Tensor:
    sigma = float(torch.rand((), generator=random)) * most
    return image + sigma * torch.randn(image.shape, generator=random)
