"""A recurrent inference machine: descends towards the truth as it has learned to, asking the forward model at every step.

x_(t+1) = x_t + f(x_t, A* (A x_t - y), h_t), f with a gated recurrent unit. A is an input and no part of the weights, so
that one set of weights serves every slice thickness, gap and profile. After Putzky and Welling 2017, arXiv:1706.04008, and
Lonning et al. 2019, Medical Image Analysis 53, 64.

The work is done in planes across the slices, at the places of the slices, of which there are far fewer than voxels: what a
plane holds between one slice and the next is looked at, and painted, through a few smooth functions of the depth.
See `SliceFrame`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medrecon.core.settings import Config

GUIDES = 3
_FINE = 4.0  # differences between views of one plane are that much smaller than the plane
_STROKE = 0.3  # what is missing is small beside the plane; without it the first steps of training overshoot
_CALM = 0.2  # of the usual size: blocks that start near the identity learn faster here


class RecurrentInferenceConfig(Config):
    """Shape of a `RecurrentInference`."""

    channels: Annotated[int, Field(ge=4, le=256, description="features at every place")] = 40
    steps: Annotated[int, Field(ge=1, le=32, description="times that the forward model is asked")] = 2
    functions: Annotated[int, Field(ge=2, le=32, description="of the depth, between a slice and the next")] = 8
    blocks: Annotated[int, Field(ge=1, le=16, description="residual blocks between forward model and recurrent unit")] = 3
    expansion: Annotated[int, Field(ge=1, le=8, description="by how much features are widened before they are cut off at 0")] = 3


@dataclass(frozen=True, eq=False)
class SliceFrame:
    """How n parallel slices stand in planes of `depth` rows across them; all that a network is told of A.

    A plane near a known one is that plane plus `paints` times strokes, (n * functions) values for every column. Seen from
    the slices, everything that happens to it then happens to the strokes, and no plane is needed in between.

    Parameters
    ----------
    weights : (n, depth) Tensor
        A along the depth; rows add up to 1.
    start : (depth, n) Tensor
        From slices to the first plane.
    looks : (n * functions, depth) Tensor
        Samples of a plane at evenly spaced depths around every slice.
    paints : (depth, n * functions) Tensor
        Cosines of the depth around every slice, each row painted by its nearest slice.
    guide : (3,) Tensor
        Thickness over distance, distance and thickness over four rows, as logarithms.
    """

    weights: Tensor
    start: Tensor
    looks: Tensor
    paints: Tensor
    guide: Tensor

    @cached_property
    def meetings(self) -> tuple[Tensor, Tensor, Tensor]:
        """How strokes meet looks, strokes meet A, and what A misses meets looks; the last over the energy of a row of A."""
        energy = self.weights.square().sum(dim=1).mean()
        return self.looks @ self.paints, self.weights @ self.paints, self.looks @ self.weights.T / energy

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the first plane shows around the slices, (batch, n * functions, columns), and by how much it misses them.

        Parameters
        ----------
        images : (batch, n, columns) Tensor
            One plane's rows of the slices.
        """
        plane = self.start @ images
        return self.looks @ plane, self.weights @ plane - images

    def views(self, images: Tensor, seen: tuple[Tensor, Tensor], strokes: Tensor) -> Tensor:
        """Return x - y and A* (A x - y) around every slice, x being what was seen plus strokes.

        Parameters
        ----------
        images : (batch, n, columns) Tensor
        seen : as `seen` returns it
        strokes : (batch, functions, n, columns) Tensor

        Returns
        -------
        (batch, 2 * functions, n, columns) Tensor
        """
        stroke_look, stroke_slice, back = self.meetings
        batch, functions, n, columns = strokes.shape
        flat = strokes.transpose(1, 2).reshape(batch, n * functions, columns)
        around, wrong = seen[0] + stroke_look @ flat, back @ (seen[1] + stroke_slice @ flat)
        by_slice = [part.reshape(batch, n, functions, columns) for part in (around, wrong)]
        return torch.cat([by_slice[0] - images[:, :, None], by_slice[1]], dim=2).transpose(1, 2)


class RecurrentInference(nn.Module):
    """Unrolled, learned descent on planes that thick slices look at.

    Parameters
    ----------
    config : RecurrentInferenceConfig
    """

    def __init__(self, config: RecurrentInferenceConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.look = _conv(2 * config.functions + 1 + GUIDES, width)
        self.blocks = nn.ModuleList(Block(width, config.expansion) for _ in range(config.blocks))
        self.unit = GatedUnit(width)
        self.change = _conv(width, config.functions)
        for values in self.change.parameters():
            nn.init.zeros_(values)

    def forward(self, images: Tensor, frame: SliceFrame) -> list[Tensor]:
        """Return, after every step, the strokes that change the planes; `SliceFrame.paints` lays them on.

        Parameters
        ----------
        images : (batch, n, columns) Tensor
            Rows of the slices, of about 0 to 1, one plane across them each.
        frame : SliceFrame

        Returns
        -------
        list of (batch, functions, n, columns) Tensor, float32
        """
        images, dtype = images.float(), self._arithmetic(images.device.type)
        batch, n, columns = images.shape
        guide = frame.guide[None, :, None, None].expand(batch, -1, n, columns)
        fixed = torch.cat([images[:, None], guide], dim=1)
        with torch.autocast(images.device.type, enabled=False):
            seen = frame.seen(images)
        strokes = images.new_zeros(batch, self.config.functions, n, columns)
        state = _last(images.new_zeros(batch, self.config.channels, n, columns, dtype=dtype))
        made = []
        for _ in range(self.config.steps):
            with torch.autocast(images.device.type, enabled=False):
                views = frame.views(images, seen, strokes)
            change, state = self.step(_last(torch.cat([_FINE * views, fixed], dim=1).to(dtype)), state)
            strokes = strokes + _STROKE * change.float()
            made.append(strokes)
        return made

    def step(self, seen: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the change of the strokes, and the state after it."""
        features = self.look(seen) + state
        for block in self.blocks:
            features = block(features)
        state = self.unit(features, state)
        return self.change(features + state), state

    def _arithmetic(self, device: str) -> torch.dtype:
        """Return the type in which the work is done, states included: autocast alone would keep those in float32."""
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.look.weight.dtype


class Block(nn.Module):
    """Widen place by place, cut off, narrow, and look at the neighbours (Yu et al. 2018, arXiv:1808.08718)."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, channels * expansion, 1)
        self.narrow = nn.Conv2d(channels * expansion, channels, 1)
        self.neighbours = _conv(channels, channels)
        with torch.no_grad():
            self.neighbours.weight.mul_(_CALM)

    def forward(self, features: Tensor) -> Tensor:
        """Return features (batch, channels, n, columns), changed."""
        changed: Tensor = features + self.neighbours(self.narrow(functional.relu(self.widen(features))))
        return changed


class GatedUnit(nn.Module):
    """A gated recurrent unit at every place (Cho et al. 2014), its neighbours left to the convolutions around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.candidate = nn.Conv2d(2 * channels, channels, 1)
        nn.init.xavier_normal_(self.candidate.weight, gain=nn.init.calculate_gain("tanh"))

    def forward(self, new: Tensor, state: Tensor) -> Tensor:
        """Return the state after it has seen something new; both (batch, channels, n, columns)."""
        update, reset = torch.sigmoid(self.gates(torch.cat([new, state], dim=1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([new, reset * state], dim=1)))
        return torch.lerp(state, candidate, update)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def _last(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last)
