"""A volume as a function of place, fitted to one scan: few views, without any training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from medrecon.core.findings import Finding, Verdict
from medrecon.core.progress import Tick
from medrecon.core.settings import Config
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medrecon.core.grid import Grid
    from medrecon.operators.slice_sampler import SliceSampler
    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"

_BRIGHT = 4.0  # times the mean that the scan is explained by: about what the field counts as 1
_SOFT = 0.01  # differences below, in units of the field, are smoothed as by diffusion
_AT_ONCE = 2**17  # places, for which gradients are kept at one time
_UNTIMED, _TIMED = 2, 5  # steps before, and steps that tell how long one takes
_PLANNED_SHARE = 0.9  # of the time


class NeuralFieldConfig(Config):
    """Settings of `neural_field`."""

    seconds: Annotated[
        float, Field(gt=0, le=86400, allow_inf_nan=False, description="for everything, by the clock; the steps follow from it")
    ] = 300.0
    steps: Annotated[int | None, Field(ge=1, le=1_000_000, description="in place of the seconds: the same result every time")] = (
        None
    )
    levels: Annotated[int, Field(ge=1, le=24, description="grids of features, up to the fineness of the voxels")] = 8
    table_log2: Annotated[int, Field(ge=4, le=24, description="entries of each grid's table, as a power of two")] = 16
    smooth: Annotated[float, Field(ge=0, le=10, description="weight of the total variation beside the misfit, both relative")] = (
        0.02
    )
    rate: Annotated[float, Field(gt=0, le=1, description="highest learning rate")] = 1e-2
    nonnegative: bool = Field(default=True, description="no value below 0")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="of the first tables and weights")] = 0


def neural_field(A: XRayTransform | SliceSampler, y: Tensor, config: NeuralFieldConfig, tick: Tick) -> Reconstructed:
    """Fit tables of features and a small network to the scan. Zha, Zhang and Li 2022, MICCAI, LNCS 13436, 442 (NAF).

    Every step evaluates the field at all voxels, compares the volume with some of the views through A, and sends A* of what
    is missed back through the field. Nothing is learned from other scans. Coarse grids fill in what no ray decided, so that
    little streaks; the total variation does the rest.

    Parameters
    ----------
    A : XRayTransform, or SliceSampler
        Posed slices are taken from Python only; there `consistent_spline` is the method to beat.
    y : Tensor
        Line integrals (views, rows, columns), or images (n, rows, columns).
    config : NeuralFieldConfig
    tick : Tick

    Returns
    -------
    Reconstructed
        With the finding ``FIELD-FITTED``: steps, seed, and the share of the data that the volume still misses.
    """
    import torch

    from medrecon.networks.hash_grid import HashGrid, HashGridConfig

    parts = _parts(A, y.float())
    unit = _unit(A, y)
    grid = A.grid
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        settings = HashGridConfig(
            levels=config.levels, coarsest=min(8, max(grid.shape)), finest=max(8, *grid.shape), table_log2=config.table_log2
        )
        field = HashGrid(settings).to(y.device)
    places = unit_places(grid).to(y.device)
    steps, missed = _fit(field, places, parts, unit, grid, config, tick)
    x = _volume(field, places, config).reshape(grid.shape).mul_(unit)
    tick(1.0)
    numbers = {"steps": steps, "seed": config.seed, "missed": round(missed, 5)}
    size = sum(values.numel() for values in field.parameters())
    fact = f"a field of {size} numbers was fitted in {steps} steps; it misses {missed:.2%} of the data"
    return Reconstructed(x, None, (Finding("FIELD-FITTED", Verdict.OK, fact, numbers),))


def unit_places(grid: Grid) -> Tensor:
    """Return the voxel centres (voxels, 3) in a cube of side 1 around the grid; lengths keep their proportions."""
    import torch

    size = torch.tensor([n * mm for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)], dtype=torch.float64)
    axes = [
        (torch.arange(n, dtype=torch.float64) + 0.5) * mm / size.max() for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)
    ]
    return torch.cartesian_prod(*axes).float()


def _fit(
    field: nn.Module,
    places: Tensor,
    parts: list[tuple[XRayTransform | SliceSampler, Tensor]],
    unit: float,
    grid: Grid,
    config: NeuralFieldConfig,
    tick: Tick,
) -> tuple[int, float]:
    """Descend the misfit; return the steps, and the relative misfit over the last round of views."""
    import math
    import time

    import torch

    optimiser = torch.optim.Adam(field.parameters(), config.rate, betas=(0.9, 0.99), eps=1e-15)
    planned, step, began = config.steps, 0, time.monotonic()
    timed_from, missed = began, [1.0] * len(parts)
    while planned is None or step < planned:
        A, y = parts[step % len(parts)]
        optimiser.param_groups[0]["lr"] = config.rate * 0.5 * (1 + math.cos(math.pi * (step / planned if planned else 0.0)))
        optimiser.zero_grad(set_to_none=True)
        missed[step % len(parts)] = _step(field, places, A, y / unit, grid, config)
        optimiser.step()
        step += 1
        if step == _UNTIMED:
            timed_from = time.monotonic()
        if planned is None and step == _UNTIMED + _TIMED:
            each = (time.monotonic() - timed_from) / _TIMED
            planned = max(step, int((config.seconds * _PLANNED_SHARE - (time.monotonic() - began)) / max(each, 1e-6)))
        tick(0.99 * step / planned if planned else 0.0)
    return step, sum(missed) / len(missed)


def _step(
    field: nn.Module, places: Tensor, A: XRayTransform | SliceSampler, y: Tensor, grid: Grid, config: NeuralFieldConfig
) -> float:
    """Leave the gradient in the field's weights, and return what the volume misses of `y`, relative.

    The gradient with respect to the voxels comes first; then the field is evaluated again, some places at a time, so that
    memory does not grow with the volume.
    """
    import torch

    x = _volume(field, places, config).reshape(grid.shape)
    residual = A.forward(x) - y
    if A.measured is not None:
        residual = torch.where(torch.as_tensor(A.measured, device=y.device), residual, 0)
    energy = float(y.square().sum()) or 1.0
    gradient = A.adjoint(residual).mul_(2 / energy)
    if config.smooth > 0:
        gradient += config.smooth * _variation_gradient(x, grid)
    pulls = gradient.flatten()
    for some in _some(places):
        torch.autograd.backward(_value(field, places[some], config), pulls[some])
    return float(residual.norm() / energy**0.5)


def _variation_gradient(x: Tensor, grid: Grid) -> Tensor:
    """Return the gradient of the mean smoothed total variation."""
    import torch

    x = x.detach().requires_grad_()
    finest = min(grid.spacing_mm)
    variation = x.new_zeros(())
    for axis, mm in enumerate(grid.spacing_mm):
        if x.shape[axis] > 1:
            variation = variation + (torch.diff(x, dim=axis).square() + _SOFT**2).sqrt().mean() * (finest / mm)
    (gradient,) = torch.autograd.grad(variation, x)
    return gradient


def _value(field: nn.Module, places: Tensor, config: NeuralFieldConfig) -> Tensor:
    from torch.nn.functional import softplus

    value: Tensor = field(places)
    return softplus(10 * value - 2) / 10 if config.nonnegative else value


def _volume(field: nn.Module, places: Tensor, config: NeuralFieldConfig) -> Tensor:
    import torch

    with torch.no_grad():
        return torch.cat([_value(field, places[some], config) for some in _some(places)])


def _some(places: Tensor) -> list[slice]:
    return [slice(first, first + _AT_ONCE) for first in range(0, len(places), _AT_ONCE)]


def _unit(A: XRayTransform | SliceSampler, y: Tensor) -> float:
    """Return what the field counts as 1: a few times the constant that explains the data best."""
    import torch

    seen = A.forward(torch.ones(A.domain, device=y.device))
    length = float(seen.square().sum())
    mean = float((seen * y).sum()) / length if length > 0 else 0.0
    return _BRIGHT * abs(mean) or 1.0


def _parts(A: XRayTransform | SliceSampler, y: Tensor) -> list[tuple[XRayTransform | SliceSampler, Tensor]]:
    """Return the views in groups that each look from all around; slices stay together."""
    from medrecon.methods._iterations import data_of, groups_of
    from medrecon.operators.xray_transform import XRayTransform

    if isinstance(A, XRayTransform):
        return [(part, data) for part, data in groups_of(A, data_of(A, y), "auto")]
    return [(A, A.masked(y))]
