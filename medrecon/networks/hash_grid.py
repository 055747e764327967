"""A volume as a function of place: tables of features on grids of rising fineness, and a small network that reads them.

Coarse grids have an entry for every node. Fine ones share entries between nodes by a hash, and training lets the nodes that
matter win. Plain torch, on any device. Müller et al. 2022, ACM Trans. Graph. 41(4), 102.
"""

from __future__ import annotations

import itertools

import torch
from pydantic import Field
from torch import Tensor, nn

from medrecon.core.settings import Config

_PRIMES = (1, 2654435761, 805459861)
_SMALL = 1e-4  # first entries of the tables


class HashGridConfig(Config):
    """Settings of `HashGrid`."""

    levels: int = Field(8, ge=1, le=24, description="grids")
    coarsest: int = Field(8, ge=2, le=256, description="cells along each side of the coarsest grid")
    finest: int = Field(64, ge=2, le=4096, description="cells along each side of the finest grid")
    features: int = Field(2, ge=1, le=8, description="numbers at each node")
    table_log2: int = Field(15, ge=4, le=24, description="entries of each table, as a power of two")
    width: int = Field(32, ge=1, le=256, description="of the network's layers")
    depth: int = Field(2, ge=1, le=8, description="layers before the last")


class HashGrid(nn.Module):
    """Give the value of a volume at any place in the unit cube."""

    def __init__(self, config: HashGridConfig) -> None:
        super().__init__()
        self.config = config
        growth = (config.finest / config.coarsest) ** (1 / max(config.levels - 1, 1))
        self.cells = tuple(round(config.coarsest * growth**level) for level in range(config.levels))
        most = 2**config.table_log2
        self.tables = nn.ParameterList(
            nn.Parameter(_SMALL * (2 * torch.rand(min((cells + 1) ** 3, most), config.features) - 1)) for cells in self.cells
        )
        sizes = [config.levels * config.features, *[config.width] * config.depth]
        layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.reader = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, places: Tensor) -> Tensor:
        """Return the values at places.

        Parameters
        ----------
        places : (n, 3), each from 0 to 1

        Returns
        -------
        (n,) Tensor
        """
        features = [_interpolated(table, cells, places) for table, cells in zip(self.tables, self.cells, strict=True)]
        values: Tensor = self.reader(torch.cat(features, dim=1))
        return values[:, 0]


def _interpolated(table: Tensor, cells: int, places: Tensor) -> Tensor:
    """Return the features of one grid at places, linear between its nodes, (n, features)."""
    scaled = places * cells
    low = scaled.floor().clamp(0, cells - 1)
    share = scaled - low
    node = low.long()
    found = table.new_zeros((len(places), table.shape[1]))
    for corner in itertools.product((0, 1), repeat=3):
        step = torch.tensor(corner, device=places.device)
        weight = torch.where(step == 1, share, 1 - share).prod(dim=1, keepdim=True)
        found = found + weight * table[_entry(node + step, cells, len(table))]
    return found


def _entry(node: Tensor, cells: int, entries: int) -> Tensor:
    """Return where in the table a node (n, 3) stands: in order where all have room, by the hash otherwise."""
    if (cells + 1) ** 3 <= entries:
        return (node[:, 0] * (cells + 1) + node[:, 1]) * (cells + 1) + node[:, 2]
    mixed = node[:, 0] * _PRIMES[0] ^ node[:, 1] * _PRIMES[1] ^ node[:, 2] * _PRIMES[2]
    return mixed % entries
