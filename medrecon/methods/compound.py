"""Frames of a freehand probe, or any posed slices, put into the voxels that they passed through."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from medrecon.core.progress import Tick
from medrecon.core.settings import Config
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.methods._sticks import Sticks
    from medrecon.operators.slice_sampler import SliceSampler

INPUT = "slices"

_INSERT_SHARE = 0.7  # of the time
_LEAST_WEIGHT = 0.125  # an eighth of a pixel must lie in a voxel for it to count as hit, as in IGSIO
_IGSIO_HITS = 255  # after which IGSIO's sixteen-bit counter is full
_IGSIO_STEPS = 8  # its sticks of nine voxels


class CompoundConfig(Config):
    """Settings of `compound`."""

    compounding: Annotated[
        Literal["mean", "latest", "maximum", "igsio_mean"],
        Field(
            description="what a voxel keeps of several pixels: their mean, the last or the brightest one; igsio_mean is the "
            "integer mean of IGSIO and PLUS, about 6 % too dark, to compare with their volumes"
        ),
    ] = "mean"
    interpolation: Annotated[
        Literal["nearest", "linear"], Field(description="a pixel goes to the nearest voxel, or shares itself among eight")
    ] = "linear"
    fill: Annotated[
        Literal["sticks", "igsio_sticks", "none"],
        Field(description="bridge holes between measured voxels; igsio_sticks counts steps instead of mm, in whole grey levels"),
    ] = "sticks"
    fill_mm: Annotated[
        float, Field(gt=0, le=50, description="longest hole that is bridged; what is not bridged stays not measured")
    ] = 3.0

    @model_validator(mode="after")
    def check_igsio(self) -> Self:
        """Refuse the integer mean with shared pixels."""
        if self.compounding == "igsio_mean" and self.interpolation != "nearest":
            raise ValueError("igsio_mean goes with interpolation nearest")
        return self


def compound(A: SliceSampler, y: Tensor, config: CompoundConfig, tick: Tick) -> Reconstructed:
    """Put every pixel into its voxel and bridge small holes. Lasso et al. 2014 (PLUS), IEEE Trans. Biomed. Eng. 61, 2527.

    The beam's thickness is not undone: a voxel holds what the images show where they pass through it. What was measured,
    what was bridged and what no image came near is told by the coverage.

    Parameters
    ----------
    A : SliceSampler
    y : (n, rows, columns) Tensor
        The images; pixels that were not measured may hold anything.
    config : CompoundConfig
    tick : Tick

    Returns
    -------
    Reconstructed
        x, float32, and its coverage; voxels that no image came near hold the darkest measured value.
    """
    import torch

    from medrecon.methods._sticks import fill

    x, known = _inserted(A, y, config, lambda share: tick(_INSERT_SHARE * share))
    filled = torch.zeros_like(known)
    if config.fill != "none":
        filled = fill(x, known, _sticks(A, config), lambda share: tick(_INSERT_SHARE + (1 - _INSERT_SHARE) * share))
    x = x.masked_fill_(~(known | filled), _darkest(A, y))
    tick(1.0)
    return Reconstructed(x.float(), coverage=2 * known.to(torch.uint8) + filled.to(torch.uint8))


def _darkest(A: SliceSampler, y: Tensor) -> float:
    import torch

    if A.measured is None:
        return float(y.min())
    lows = [float(y[k][torch.from_numpy(mask.copy()).to(y.device)].min()) for k, mask in enumerate(A.measured) if mask.any()]
    return min(lows, default=0.0)


def _sticks(A: SliceSampler, config: CompoundConfig) -> Sticks:
    from medrecon.methods._sticks import Sticks

    return Sticks(A.grid.spacing_mm, config.fill_mm, _IGSIO_STEPS if config.fill == "igsio_sticks" else 0)


def _inserted(A: SliceSampler, y: Tensor, config: CompoundConfig, tick: Tick) -> tuple[Tensor, Tensor]:
    """Return the volume and which of its voxels were hit, image after image."""
    import torch

    insert = {"mean": _add, "latest": _replace, "maximum": _raise, "igsio_mean": _add_as_igsio}[config.compounding]
    dtype = y.dtype if y.dtype == torch.float64 else torch.float32
    value = torch.zeros(A.domain, dtype=dtype, device=y.device)
    weight = torch.zeros_like(value)
    for k in range(len(y)):
        pixels, points = _measured_pixels(A, y, k)
        voxels, share, which = _targets(points, A.domain, config.interpolation == "linear")
        insert(value.view(-1), weight.view(-1), voxels, pixels[which].to(dtype), share.to(dtype))
        tick((k + 1) / len(y))
    known = weight >= _LEAST_WEIGHT
    if config.compounding == "mean":
        value /= weight.clamp_min(torch.finfo(dtype).tiny)
    return value, known


def _measured_pixels(A: SliceSampler, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the measured pixels of one image in their order, and where they stand in voxels, (n, 3) float64."""
    import torch

    rows, columns = A.poses.image_shape
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    start, down, across = (torch.from_numpy(part[k]) for part in (A.geometry.start, A.geometry.down, A.geometry.across))
    used = torch.ones((rows, columns), dtype=torch.bool) if A.measured is None else torch.from_numpy(A.measured[k].copy())
    points = start + row[used][:, None] * down + column[used][:, None] * across
    return y[k][used.to(y.device)], points.to(y.device)


def _targets(points: Tensor, shape: tuple[int, int, int], shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return flat voxels, the share of a pixel that goes there, and which pixel it is: its nearest voxel, or eight around.

    They come in the order of the pixels.
    """
    import torch

    sizes = torch.tensor(shape, device=points.device)
    strides = torch.tensor((shape[1] * shape[2], shape[2], 1), device=points.device)
    corners = torch.tensor(list(itertools.product((0, 1), repeat=3)) if shared else [(0, 0, 0)], device=points.device)
    low = torch.floor(points if shared else points + 0.5)
    part = (points - low)[:, None]
    voxel = low.long()[:, None] + corners
    share = torch.where(corners == 1, part, 1 - part).prod(dim=2) if shared else torch.ones_like(part[..., 0])
    inside = ((voxel >= 0) & (voxel < sizes)).all(dim=2) & (share > 0)
    which = torch.nonzero(inside)[:, 0]
    return (voxel[inside] * strides).sum(dim=1), share[inside], which


def _add(value: Tensor, weight: Tensor, voxels: Tensor, pixels: Tensor, share: Tensor) -> None:
    """Sum up: the mean is made at the end."""
    value.index_add_(0, voxels, pixels * share)
    weight.index_add_(0, voxels, share)


def _replace(value: Tensor, weight: Tensor, voxels: Tensor, pixels: Tensor, share: Tensor) -> None:
    """Keep the last pixel, in the order of the image."""
    import torch

    some = share >= _LEAST_WEIGHT
    order = torch.argsort(voxels[some], stable=True)
    where, counts = torch.unique_consecutive(voxels[some][order], return_counts=True)
    value[where], weight[where] = pixels[some][order[torch.cumsum(counts, 0) - 1]], 1.0


def _raise(value: Tensor, weight: Tensor, voxels: Tensor, pixels: Tensor, share: Tensor) -> None:
    """Keep the brightest pixel."""
    import torch

    some = share >= _LEAST_WEIGHT
    fresh = voxels[some][weight[voxels[some]] == 0]
    value[fresh], weight[voxels[some]] = -torch.inf, 1.0
    value.scatter_reduce_(0, voxels[some], pixels[some], "amax")


def _add_as_igsio(value: Tensor, weight: Tensor, voxels: Tensor, pixels: Tensor, share: Tensor) -> None:  # noqa: ARG001
    """Take the running mean in whole grey levels, pixel by pixel: ever rounded down, so that it is too dark."""
    import torch

    order = torch.argsort(voxels, stable=True)
    _, counts = torch.unique_consecutive(voxels[order], return_counts=True)
    first = torch.cumsum(counts, 0) - counts
    for turn in range(int(counts.max()) if len(counts) else 0):
        chosen = order[(first + turn)[counts > turn]]
        where, new = voxels[chosen], pixels[chosen]
        old, hits = value[where], weight[where]
        running = torch.floor((new + hits * old) / (hits + 1))
        value[where] = torch.where(hits < _IGSIO_HITS, running, torch.floor(new / 256 + old * 255 / 256))
        weight[where] = (hits + 1).clamp_max(_IGSIO_HITS)
