"""A recurrent inference machine: descends towards the truth as it has learned to, asking the forward model at every step.

x_(t+1) = x_t + f(x_t, A* (A x_t - y), h_t), f with two gated recurrent units. A is an input and no part of the weights, so
that one set of weights serves every slice thickness, gap and profile. After Putzky and Welling 2017, arXiv:1706.04008, and
Lonning et al. 2019, Medical Image Analysis 53, 64.

The work is done at the places of the slices, of which there are far fewer than voxels: what the volume holds between one
slice and the next is looked at, and painted, through a few smooth functions of the depth. See `SliceFrame`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medrecon.core.grid import Float64
from medrecon.core.settings import Config

GUIDES = 3
_FINE = 4.0  # differences between views of one volume are that much smaller than the volume
_STROKE = 0.03  # what is missing is small beside the volume; without it the first steps of training overshoot
_SMALL = 0.03  # first weights of what is added to a shortcut


class RecurrentInferenceConfig(Config):
    """Shape of a `RecurrentInference`."""

    channels: Annotated[int, Field(ge=4, le=256, description="features at every place")] = 40
    steps: Annotated[int, Field(ge=1, le=32, description="times that the forward model is asked")] = 3
    functions: Annotated[int, Field(ge=2, le=32, description="of the depth, between a slice and the next")] = 8
    blocks: Annotated[int, Field(ge=1, le=16, description="residual blocks between the two recurrent units")] = 2


@dataclass(frozen=True, eq=False)
class SliceFrame:
    """How one stack of n parallel slices stands in a volume of `depth` planes; all that a network is told of A.

    A volume near a known one is that volume plus `paints` times strokes, (n * functions) values for every pixel. Seen from
    the slices, everything that happens to it then happens to the strokes, and no volume is needed in between.

    Parameters
    ----------
    weights : (n, depth) Tensor
        A along the depth; rows add up to 1.
    looks : (n * functions, depth) Tensor
        Samples of a volume at evenly spaced depths around every slice.
    paints : (depth, n * functions) Tensor
        Cosines of the depth around every slice, each plane painted by its nearest slice.
    guide : (3,) Tensor
        Thickness over distance, distance and thickness over four planes, as logarithms.
    """

    weights: Tensor
    looks: Tensor
    paints: Tensor
    guide: Tensor

    @classmethod
    def of(cls, weights: Float64, depths: Float64, thickness: float, functions: int) -> Self:
        """Build the frame of slices at rising `depths`, in planes, `thickness` planes thick."""
        planes = weights.shape[1]
        steps = _steps(depths)
        offsets = (np.arange(functions) + 0.5) / functions - 0.5
        places = np.clip(depths[:, None] + offsets * steps[:, None], 0, planes - 1).reshape(-1)
        looks = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(planes)))
        step = float(np.median(steps))
        guide = np.log([thickness / step, step / 4, thickness / 4])
        arrays = weights, looks, _paints(depths, steps, planes, functions), guide
        return cls(*(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for array in arrays))

    def to(self, device: torch.device) -> Self:
        """Return the frame on a device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def seen(self, volume: Tensor, images: Tensor) -> Tensor:
        """Return what the network is given, (1 + 1 + functions, n, rows, columns).

        That are the slices, by how much the volume misses them, and the volume around them beside the slices themselves.
        """
        flat, n = volume.flatten(1), len(images)
        missed = (self.weights @ flat).reshape(images.shape) - images
        around = (self.looks @ flat).reshape(n, -1, *images.shape[1:]) - images[:, None]
        return torch.cat([images[None], missed[None], around.transpose(0, 1)])

    def painted(self, volume: Tensor, strokes: Tensor) -> Tensor:
        """Return a volume (depth, rows, columns) with strokes (functions, n, rows, columns) laid over it."""
        return volume + (self.paints @ _by_slice(strokes)).reshape(volume.shape)

    @cached_property
    def meetings(self) -> tuple[Tensor, Tensor, Tensor]:
        """How strokes meet looks, strokes meet A, and what A misses meets looks; the last over the energy of a row of A."""
        energy = self.weights.square().sum(dim=1).mean()
        return self.looks @ self.paints, self.weights @ self.paints, self.looks @ self.weights.T / energy


class RecurrentInference(nn.Module):
    """Unrolled, learned descent on a volume that thick slices look at.

    Parameters
    ----------
    config : RecurrentInferenceConfig
    """

    def __init__(self, config: RecurrentInferenceConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.look = nn.Conv3d(2 * config.functions + 1 + GUIDES, width, 3, padding=1)
        self.near = GatedUnit(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.blocks))
        self.far = GatedUnit(width)
        self.change = nn.Conv3d(2 * width, config.functions, 3, padding=1)
        nn.init.kaiming_normal_(self.look.weight, nonlinearity="relu")
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)  # type: ignore[arg-type]  # torch types a bias as optional

    def forward(self, seen: Tensor, frames: list[SliceFrame], steps: int | None = None) -> list[Tensor]:
        """Return, after every step, the strokes that change the volume; see `SliceFrame.painted`.

        Parameters
        ----------
        seen : (batch, 2 + functions, n, rows, columns) Tensor
            As `SliceFrame.seen` gives it, for slices of about 0 to 1.
        frames : list of SliceFrame
            One for each entry of the batch.
        steps : int, optional
            Instead of the configured number.

        Returns
        -------
        list of (batch, functions, n, rows, columns) Tensor, float32
        """
        seen, dtype, places = seen.float(), self._arithmetic(seen.device.type), seen.shape[2:]
        guides = torch.stack([frame.guide for frame in frames])[:, :, None, None, None].expand(-1, -1, *places)
        fixed = torch.cat([seen[:, :1], guides], dim=1)
        strokes = seen.new_zeros(len(seen), self.config.functions, *places)
        near = far = _last(seen.new_zeros(len(seen), self.config.channels, *places, dtype=dtype))
        made = []
        for _ in range(steps or self.config.steps):
            with torch.autocast(seen.device.type, enabled=False):
                views = torch.stack([_view(*parts) for parts in zip(frames, seen, strokes, strict=True)])
            change, near, far = self.step(_last(torch.cat([_FINE * views, fixed], dim=1).to(dtype)), near, far)
            strokes = strokes + _STROKE * change.float()
            made.append(strokes)
        return made

    def step(self, seen: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the change of the strokes, and the two states after it."""
        near = self.near(functional.relu(self.look(seen)), near)
        features = near
        for block in self.blocks:
            features = block(features)
        far = self.far(features, far)
        return self.change(torch.cat([features, far], dim=1)), near, far

    def _arithmetic(self, device: str) -> torch.dtype:
        """Return the type in which the work is done, states included: autocast alone would keep those in float32."""
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.look.weight.dtype


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016), one across slices and rows, one across slices and columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, channels, (3, 3, 1), padding=(1, 1, 0))
        self.second = nn.Conv3d(channels, channels, (3, 1, 3), padding=(1, 0, 1))
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.normal_(self.second.weight, std=_SMALL / channels**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Return features (batch, channels, n, rows, columns), changed."""
        changed: Tensor = features + self.second(functional.relu(self.first(features)))
        return changed


class GatedUnit(nn.Module):
    """A gated recurrent unit at every place (Cho et al. 2014), its neighbours left to the convolutions around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv3d(2 * channels, 2 * channels, 1)
        self.candidate = nn.Conv3d(2 * channels, channels, 1)
        nn.init.xavier_normal_(self.candidate.weight, gain=nn.init.calculate_gain("tanh"))

    def forward(self, new: Tensor, state: Tensor) -> Tensor:
        """Return the state after it has seen something new; both (batch, channels, n, rows, columns)."""
        update, reset = torch.sigmoid(self.gates(torch.cat([new, state], dim=1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([new, reset * state], dim=1)))
        return torch.lerp(state, candidate, update)


def _view(frame: SliceFrame, seen: Tensor, strokes: Tensor) -> Tensor:
    """Return x and A* (A x - y) around every slice, (2 * functions, n, rows, columns), x being what was seen plus strokes."""
    stroke_look, stroke_slice, back = frame.meetings
    flat, n = _by_slice(strokes), seen.shape[1]
    missed = seen[1].flatten(1) + stroke_slice @ flat
    around = (stroke_look @ flat).reshape(n, -1, *seen.shape[2:]).transpose(0, 1) + seen[2:]
    wrong = (back @ missed).reshape(n, -1, *seen.shape[2:]).transpose(0, 1)
    return torch.cat([around, wrong])


def _by_slice(strokes: Tensor) -> Tensor:
    """Lay strokes (functions, n, rows, columns) out as (n * functions, rows * columns)."""
    return strokes.transpose(0, 1).flatten(2).flatten(0, 1)


def _last(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last_3d)


def _steps(depths: Float64) -> Float64:
    """Return how far each slice's surroundings reach: the mean distance to its neighbours."""
    if len(depths) == 1:
        return np.ones(1)
    gaps = np.diff(depths)
    steps: Float64 = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    return steps


def _paints(depths: Float64, steps: Float64, planes: int, functions: int) -> Float64:
    """Return cosines of the depth around every slice, for the planes that are nearest to it; at the ends they are held."""
    plane = np.arange(planes)
    nearest = np.abs(plane[:, None] - depths).argmin(axis=1)
    offset = np.clip((plane - depths[nearest]) / steps[nearest], -1, 1)
    paints = np.zeros((planes, len(depths), functions))
    paints[plane, nearest] = np.cos(np.pi * np.arange(functions) * (offset[:, None] + 0.5))
    return paints.reshape(planes, -1)
