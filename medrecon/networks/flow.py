"""A small pyramid network for the motion between two neighbouring slices.

Coarse to fine, as in PWC-Net (Sun et al. 2018, CVPR 8934): at each level the second slice's features are brought to the
first by the flow so far, compared with them within a small radius, and the flow is corrected. Nothing here knows how it
is trained; without training the flow is zero.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medrecon.core.settings import Config

_SLOPE = 0.1


class FlowConfig(Config):
    """Settings of `Flow`."""

    levels: int = Field(4, ge=1, le=7, description="halvings; the largest motion found is about radius * 2**levels pixels")
    channels: int = Field(24, ge=4, le=128, description="features at every level")
    radius: int = Field(2, ge=1, le=4, description="pixels around a place that are compared at each level")
    layers: int = Field(3, ge=1, le=8, description="convolutions that correct the flow at each level")


class Flow(nn.Module):
    """Find the in-plane motion between two slices, coarse to fine."""

    heart_channels = (1, 1)

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.first = _convolution(1, width)
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(width, width, 2), _convolution(width, width)) for _ in range(config.levels)
        )
        self.correct = nn.ModuleList(_corrector(config) for _ in range(config.levels + 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the flow that brings `second` to `first`.

        Parameters
        ----------
        first, second : (batch, 1, rows, columns)
            Slices with values of about 0 to 1.

        Returns
        -------
        (batch, 2, rows, columns)
            Motion in pixels, rows then columns: ``first(x)`` resembles ``second(x + flow(x))``.
        """
        rows, columns = first.shape[-2:]
        pyramids = self._features(self._padded(first)), self._features(self._padded(second))
        flow = torch.zeros_like(pyramids[0][-1][:, :2])
        for level, correct in reversed(list(enumerate(self.correct))):
            ours, theirs = pyramids[0][level], pyramids[1][level]
            if flow.shape[-2:] != ours.shape[-2:]:
                flow = 2 * functional.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
            cost = _correlation(ours, warp(theirs, flow), self.config.radius)
            flow = flow + correct(torch.cat([ours, cost, flow], dim=1))
        return flow[..., :rows, :columns]

    def _features(self, image: Tensor) -> list[Tensor]:
        """Return the features of an image, finest first."""
        pyramid = [self.first(image)]
        for halve in self.down:
            pyramid.append(halve(pyramid[-1]))
        return pyramid

    def _padded(self, image: Tensor) -> Tensor:
        """Return an image whose sides can be halved at every level."""
        step = 2**self.config.levels
        rows, columns = image.shape[-2:]
        return functional.pad(image, (0, -columns % step, 0, -rows % step), mode="replicate")


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Sample an image at ``x + flow(x)``, bilinearly; what lies outside takes the value of the edge.

    Parameters
    ----------
    image : (batch, channels, rows, columns)
    flow : (batch, 2, rows, columns), pixels, rows then columns
    """
    rows, columns = image.shape[-2:]
    r = torch.arange(rows, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 0]
    c = torch.arange(columns, device=flow.device, dtype=flow.dtype)[None, :] + flow[:, 1]
    places = torch.stack([(2 * c + 1) / columns - 1, (2 * r + 1) / rows - 1], dim=-1)
    return functional.grid_sample(image, places, mode="bilinear", padding_mode="border", align_corners=False)


def _correlation(ours: Tensor, theirs: Tensor, radius: int) -> Tensor:
    """Compare features with those of all places within a radius: (batch, (2 radius + 1)^2, rows, columns)."""
    rows, columns = ours.shape[-2:]
    around = functional.pad(theirs, (radius,) * 4)
    shifts = [(r, c) for r in range(2 * radius + 1) for c in range(2 * radius + 1)]
    return torch.stack([(ours * around[..., r : r + rows, c : c + columns]).mean(dim=1) for r, c in shifts], dim=1)


def _corrector(config: FlowConfig) -> nn.Sequential:
    """Layers from features, comparison and flow to a correction, which is zero before training."""
    width = config.channels
    entry = _convolution(width + (2 * config.radius + 1) ** 2 + 2, width)
    last = nn.Conv2d(width, 2, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias if last.bias is not None else last.weight)
    return nn.Sequential(entry, *(_convolution(width, width) for _ in range(config.layers - 1)), last)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.LeakyReLU(_SLOPE))
