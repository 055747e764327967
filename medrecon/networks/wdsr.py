"""A small two-dimensional network that says what is missing between the rows of an image, at any place between them.

It works on the coarse rows, where one pixel stands for several, so that it costs as little as the coarse image is small.
For every coarse pixel it returns the coefficients of a few cosines along the missing direction. Whatever lies at a
fraction u of the step from its row is their sum at u, so that steps need not be whole multiples of the fine spacing.
Wide activation after Yu et al. 2018, arXiv:1808.08718.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon.core.settings import Config

_CALM = 0.2  # of the usual size: blocks that start near the identity learn faster here


class WdsrConfig(Config):
    """Settings of `Wdsr`."""

    inputs: int = Field(3, ge=1, le=16, description="channels of the coarse image")
    channels: int = Field(40, ge=4, le=256, description="features of every coarse pixel")
    blocks: int = Field(6, ge=1, le=64)
    expansion: int = Field(3, ge=1, le=8, description="by how much features are widened before they are cut off at 0")
    basis: int = Field(
        8, ge=1, le=64, description="cosines along the missing direction; at least as many as fine rows to a coarse one"
    )


class Wdsr(nn.Module):
    """Find what is missing between the rows of a coarse image, as cosines at any place between them."""

    def __init__(self, config: WdsrConfig) -> None:
        super().__init__()
        self.config = config
        self.head = _conv(config.inputs, config.channels)
        self.body = nn.Sequential(*(_WideBlock(config.channels, config.expansion) for _ in range(config.blocks)))
        self.tail = _conv(config.channels, config.basis)
        for values in self.tail.parameters():
            nn.init.zeros_(values)

    def forward(self, x: Tensor) -> Tensor:
        """Return the coefficients of the cosines; all zero before any training.

        Parameters
        ----------
        x : (batch, inputs, coarse rows, columns)
            Any size; sides are continued with their outermost pixels.

        Returns
        -------
        (batch, basis, coarse rows, columns) Tensor
        """
        features = self.head(x)
        coefficients: Tensor = self.tail(self.body(features) + features)
        return coefficients


def cosines(places: Tensor, basis: int) -> Tensor:
    """Return the cosines (n, basis) at places between -1/2 and 1/2 of the step between two coarse rows.

    At the middles of s equal parts they are the discrete cosine transform of length s: with ``basis >= s`` every set of
    values is possible there, as after a pixel shuffle.
    """
    orders = torch.arange(basis, dtype=places.dtype, device=places.device)
    return torch.cos(torch.pi * orders * (places[:, None] + 0.5))


class _WideBlock(nn.Module):
    """Widen pixel by pixel, cut off, narrow, and look at the neighbours."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, channels * expansion, 1)
        self.narrow = nn.Conv2d(channels * expansion, channels, 1)
        self.look = _conv(channels, channels)
        with torch.no_grad():
            self.look.weight.mul_(_CALM)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.look(self.narrow(torch.relu(self.widen(x))))
        return x + change


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")
