"""A small 3D U-Net that says what to add to a volume.

Without normalisation, so that a value keeps its meaning, and with a last layer of zeros, so that an untrained network
changes nothing. It knows no geometry: what a scan says about the volume comes in as further channels.
"""

from __future__ import annotations

import itertools
from typing import Annotated

import torch
from monai.networks.blocks import Convolution, ResidualUnit
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medrecon.core.settings import Config

Width = Annotated[int, Field(ge=4, le=256)]

_ACTIVATION = ("LEAKYRELU", {"negative_slope": 0.1, "inplace": True})


class ResidualUnetConfig(Config):
    """Settings of `ResidualUnet`."""

    channels: int = Field(4, ge=1, le=64, description="of the input")
    widths: tuple[Width, ...] = Field(
        (16, 32, 64), min_length=1, max_length=6, description="features at each scale, finest first"
    )
    units: int = Field(2, ge=1, le=4, description="convolutions of each residual block")


class ResidualUnet(nn.Module):
    """Find artefacts on several scales and return the volume that takes them away when it is added."""

    def __init__(self, config: ResidualUnetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        pairs = list(itertools.pairwise(widths))
        self.first = _block(config.channels, widths[0], config.units)
        self.down = nn.ModuleList(_down(fine, coarse, config.units) for fine, coarse in pairs)
        self.up = nn.ModuleList(_rise(coarse, fine) for fine, coarse in reversed(pairs))
        self.join = nn.ModuleList(_block(2 * fine, fine, config.units) for fine, _ in reversed(pairs))
        self.last = nn.Conv3d(widths[0], 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias if self.last.bias is not None else self.last.weight)

    @property
    def step(self) -> int:
        """Sides that are multiples of this are not padded."""
        return int(2 ** len(self.down))

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction.

        Parameters
        ----------
        x : (batch, channels, slices, rows, columns)
            Any size; sides are padded inside with their outermost voxels.

        Returns
        -------
        (batch, 1, slices, rows, columns)
        """
        size = x.shape[-3:]
        fine = self.first(_padded(x, self.step))
        kept = [fine]
        for down in self.down:
            kept.append(down(kept[-1]))
        found = kept.pop()
        for up, join in zip(self.up, self.join, strict=True):
            found = join(torch.cat([up(found), kept.pop()], dim=1))
        correction: Tensor = self.last(found)
        return correction[..., : size[0], : size[1], : size[2]]


def _block(given: int, made: int, units: int) -> nn.Module:
    block: nn.Module = ResidualUnit(3, given, made, subunits=units, act=_ACTIVATION, norm=None)
    return block


def _down(fine: int, coarse: int, units: int) -> nn.Module:
    halved = Convolution(3, fine, coarse, strides=2, kernel_size=2, padding=0, act=_ACTIVATION, norm=None)
    return nn.Sequential(halved, _block(coarse, coarse, units))


def _rise(coarse: int, fine: int) -> nn.Module:
    settings = {"strides": 2, "kernel_size": 2, "padding": 0, "output_padding": 0}
    doubled: nn.Module = Convolution(3, coarse, fine, act=_ACTIVATION, norm=None, is_transposed=True, **settings)
    return doubled


def _padded(x: Tensor, step: int) -> Tensor:
    """Repeat the last slices, rows and columns up to multiples of `step`."""
    missing = [-n % step for n in x.shape[-3:]]
    if not any(missing):
        return x
    return functional.pad(x, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")
