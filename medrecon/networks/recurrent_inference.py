"""A recurrent inference machine: descends towards the truth as it has learned to, asking the forward model at every step.

x_(t+1) = x_t + f(x_t, A* (A x_t - y), guide, h_t), f with two gated recurrent units. A is an input and no part of the
weights, so that one set of weights serves every slice thickness, gap and profile. After Putzky and Welling 2017,
arXiv:1706.04008, and Lonning et al. 2019, Medical Image Analysis 53, 64.

Depth is the first axis of a volume. In the plane, blocks of pixels become channels: most of the work is done at a
quarter of the places, where the field of view is wider and a processor's matrix units are full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medrecon.core.settings import Config

#: Maps volumes (batch, 1, depth, rows, columns) to A* (A x - y) of each, over the energy of one row of A.
Misfit = Callable[[Tensor], Tensor]


_FINE = 8.0  # differences between views of one volume are that much smaller than the volume


class RecurrentInferenceConfig(Config):
    """Shape of a `RecurrentInference`."""

    channels: Annotated[int, Field(ge=4, le=256, description="features at every place")] = 32
    steps: Annotated[int, Field(ge=1, le=32, description="times that the forward model is asked")] = 4
    guides: Annotated[int, Field(ge=0, le=16, description="channels that say where the slices lie")] = 4
    block: Annotated[int, Field(ge=1, le=4, description="pixels in the plane, each way, that become channels")] = 2


class RecurrentInference(nn.Module):
    """Unrolled, learned descent on a volume that measured slices look at.

    Parameters
    ----------
    config : RecurrentInferenceConfig
    """

    def __init__(self, config: RecurrentInferenceConfig) -> None:
        super().__init__()
        self.config = config
        own = config.block**2
        self.look = nn.Conv3d(3 * own + config.guides, config.channels, 3, padding=1)
        self.near = GatedUnit(config.channels)
        self.mix = nn.Conv3d(config.channels, config.channels, 3, padding=1)
        self.mix_again = nn.Conv3d(config.channels, config.channels, 3, padding=1)
        self.far = GatedUnit(config.channels)
        self.change = nn.Conv3d(config.channels, own, 3, padding=1)
        for layer in (self.look, self.mix, self.mix_again):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)  # type: ignore[arg-type]  # torch types a bias as optional

    def forward(self, start: Tensor, misfit: Misfit, guide: Tensor, steps: int | None = None) -> list[Tensor]:
        """Return the volume after every step.

        Parameters
        ----------
        start : (batch, 2, depth, rows, columns) Tensor
            What a classical method made of the slices, and a second view of it; the first is what is improved.
        misfit : callable
        guide : (batch, guides, depth, rows, columns) Tensor
            Rows and columns may be 1 where all pixels of a plane share the values.
        steps : int, optional
            Instead of the configured number.

        Returns
        -------
        list of (batch, 1, depth, rows, columns) Tensor, float32
        """
        x = start[:, :1].float()
        places = (x.shape[2], -(-x.shape[3] // self.config.block), -(-x.shape[4] // self.config.block))
        guides = _per_block(guide, self.config.block).expand(-1, -1, *places).to(start.dtype)
        fixed = guides.contiguous(memory_format=torch.channels_last_3d)
        near = far = fixed.new_zeros(len(start), self.config.channels, *places).to(memory_format=torch.channels_last_3d)
        volumes = []
        for _ in range(steps or self.config.steps):
            news = x, _FINE * misfit(x), _FINE * (start[:, 1:] - x)
            seen = [_to_blocks(values.to(start.dtype), self.config.block) for values in news]
            change, near, far = self.step(torch.cat([*seen, fixed], dim=1), near, far)
            x = x + _from_blocks(change.float(), self.config.block)[..., : x.shape[-2], : x.shape[-1]]
            volumes.append(x)
        return volumes

    def step(self, seen: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the change in blocks and the two states after it."""
        near = self.near(functional.relu(self.look(seen)), near)
        mixed = functional.relu(self.mix(near))
        far = self.far(functional.relu(self.mix_again(mixed)) + mixed, far)
        return self.change(far), near, far


class GatedUnit(nn.Module):
    """A gated recurrent unit at every place (Cho et al. 2014), its neighbours left to the convolutions around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv3d(2 * channels, 2 * channels, 1)
        self.candidate = nn.Conv3d(2 * channels, channels, 1)
        nn.init.xavier_normal_(self.candidate.weight, gain=nn.init.calculate_gain("tanh"))

    def forward(self, new: Tensor, state: Tensor) -> Tensor:
        """Return the state after it has seen something new; both (batch, channels, depth, rows, columns)."""
        update, reset = torch.sigmoid(self.gates(torch.cat([new, state], dim=1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([new, reset * state], dim=1)))
        return torch.lerp(state, candidate, update)


def _to_blocks(volume: Tensor, block: int) -> Tensor:
    """Turn (batch, 1, depth, rows, columns) into (batch, block^2, depth, rows / block, columns / block), ends repeated."""
    batch, _, depth, rows, columns = volume.shape
    more_rows, more_columns = -rows % block, -columns % block
    if more_rows or more_columns:
        volume = functional.pad(volume, (0, more_columns, 0, more_rows, 0, 0), mode="replicate")
    planes = functional.pixel_unshuffle(volume.reshape(batch * depth, 1, rows + more_rows, columns + more_columns), block)
    blocks = planes.reshape(batch, depth, *planes.shape[1:]).transpose(1, 2)
    return blocks.contiguous(memory_format=torch.channels_last_3d)


def _from_blocks(blocks: Tensor, block: int) -> Tensor:
    batch, own, depth, rows, columns = blocks.shape
    planes = functional.pixel_shuffle(blocks.transpose(1, 2).reshape(batch * depth, own, rows, columns), block)
    return planes.reshape(batch, 1, depth, rows * block, columns * block)


def _per_block(guide: Tensor, block: int) -> Tensor:
    """Take the guide at the first pixel of every block."""
    return guide if guide.shape[-1] == 1 and guide.shape[-2] == 1 else guide[..., ::block, ::block]
