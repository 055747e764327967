"""Learned primal-dual: a few unrolled steps between volume and projections, each corrected by a small network.

Adler and Oktem 2018, IEEE Trans. Med. Imaging 37, 1322. A is an input and no part of the weights. Convolutions in the
projections run over rows and columns of single views, so that any number of views, at any angle, is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon.core.settings import Config

if TYPE_CHECKING:
    from medrecon.operators.linear import LinearOperator

_SLOPE = 0.1


class PrimalDualConfig(Config):
    """Settings of `PrimalDual`."""

    steps: int = Field(4, ge=1, le=20, description="unrolled; each applies A and its adjoint once")
    memory: int = Field(3, ge=1, le=16, description="volumes, and sets of projections, that are carried from step to step")
    width: int = Field(16, ge=4, le=128, description="features between")


class PrimalDual(nn.Module):
    """Go to and fro between volume and projections; without training the start comes back."""

    def __init__(self, config: PrimalDualConfig) -> None:
        super().__init__()
        self.config = config
        memory, width = config.memory, config.width
        self.dual = nn.ModuleList(_network(memory + 2, width, memory, (1, 3, 3)) for _ in range(config.steps))
        self.primal = nn.ModuleList(_network(memory + 1, width, memory, (3, 3, 3)) for _ in range(config.steps))

    def forward(self, A: LinearOperator, y: Tensor, start: Tensor, norm: float) -> Tensor:
        """Return the volume.

        Parameters
        ----------
        A : LinearOperator
            From volumes (slices, rows, columns) to projections (views, rows, columns); differentiable.
        y : (views, rows, columns)
            What A makes of the volume, in the unit of the volume: line integrals over water's attenuation per mm.
        start : (slices, rows, columns)
            Of a classical method, such as `fdk`, in units of water.
        norm : float
            Of A, by which it is divided.
        """
        memory = self.config.memory
        primal = start.expand(memory, *start.shape)
        measured = y[None] / norm
        dual = torch.zeros_like(measured).expand(memory, *y.shape)
        for in_projections, in_volume in zip(self.dual, self.primal, strict=True):
            shown = A(primal[1 % memory])[None] / norm
            dual = dual + in_projections(torch.cat([dual, shown, measured])[None])[0]
            asked = A.H(dual[0])[None] / norm
            primal = primal + in_volume(torch.cat([primal, asked])[None])[0]
        found: Tensor = primal[0]
        return found


def _network(given: int, width: int, made: int, kernel: tuple[int, int, int]) -> nn.Module:
    """Three convolutions, the last of which begins as zero."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    last = nn.Conv3d(width, made, kernel, padding=padding)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # torch types a bias as optional
    return nn.Sequential(
        nn.Conv3d(given, width, kernel, padding=padding),
        nn.LeakyReLU(_SLOPE),
        nn.Conv3d(width, width, kernel, padding=padding),
        nn.LeakyReLU(_SLOPE),
        last,
    )
