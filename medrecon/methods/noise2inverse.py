"""Low-dose CT learns from itself: a small U-Net predicts what some views show from what the others show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"

_SHARES = (0.1, 0.9)  # of the time: when the parts are reconstructed, when the network is trained
_WARM_UP = 20  # steps in which the rate rises


class Noise2inverseConfig(Config):
    """Settings of `noise2inverse`."""

    splits: Annotated[int, Field(ge=2, le=8)] = Field(
        4, description="parts of the views; the network predicts each from the mean of the others"
    )
    window: Literal["ram-lak", "shepp-logan", "cosine", "hann", "hamming"] = Field(
        "ram-lak", description="of the filtered back projection of each part"
    )
    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = Field(
        120.0, description="of training, on this scan alone; not given: the steps decide, and the result is repeatable"
    )
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = Field(4000, description="of training at most; ends whichever comes first")
    batch: Annotated[int, Field(ge=1, le=64, description="patches in a step")] = 4
    patch: tuple[Annotated[int, Field(ge=4, le=256)], Annotated[int, Field(ge=8, le=256)]] = Field(
        (16, 48), description="slices of a patch, and rows and columns"
    )
    width: Annotated[
        int, Field(ge=4, le=128, description="features of the network at its finest scale, doubled at each coarser")
    ] = 16
    scales: Annotated[int, Field(ge=1, le=4, description="of the network, each half as fine as the one before")] = 2
    rate: Annotated[float, Field(gt=0, le=0.1, description="highest learning rate")] = 2e-3
    nonnegative: bool = Field(default=True, description="no attenuation below 0")
    seed: Annotated[int, Field(ge=0, description="of the first weights and the patches")] = 0


def noise2inverse(A: XRayTransform, y: Tensor, config: Noise2inverseConfig, tick: Tick) -> Reconstructed:
    """Train on the scan itself, each part of its views against the others. Hendriksen et al. 2020, IEEE TCI 6, 1320.

    Noise in one view says nothing about noise in another, so that a network which predicts the reconstruction of some
    views from that of the others learns what they share. No truth and no other scan is needed. The result is the mean
    of the predictions from all choices of others; their spread is the uncertainty.

    Parameters
    ----------
    A : XRayTransform
        Views that turn about one axis, as for `fdk`; each part must still have views enough not to streak.
    y : (views, rows, columns) Tensor
        Line integrals whose noise is independent from view to view.
    config : Noise2inverseConfig
    tick : Tick

    Returns
    -------
    Reconstructed
        Attenuation in 1/mm, and the spread of the predictions.
    """
    import torch

    from medrecon.methods._iterations import data_of, part_of

    parts = _parts(A, data_of(A, y), config, part_of(tick, 0, _SHARES[0]))
    scale = float(parts.mean(0).std().clamp(min=1e-12))
    parts /= scale
    with torch.random.fork_rng(devices=[parts.device] if parts.is_cuda else []):
        torch.manual_seed(config.seed)
        network = _trained(parts, config, part_of(tick, *_SHARES))
    mean, spread = _predicted(network, parts, part_of(tick, _SHARES[1], 1))
    x = mean * scale
    tick(1.0)
    return Reconstructed(x.clamp(min=0) if config.nonnegative else x, spread * scale)


def _parts(A: XRayTransform, y: Tensor, config: Noise2inverseConfig, tick: Tick) -> Tensor:
    """Return the back projection of every part of the views, (parts, slices, rows, columns)."""
    import torch

    from medrecon.methods._iterations import part_of
    from medrecon.methods.fdk import FdkConfig, fdk

    found = []
    for number in range(config.splits):
        which = list(range(number, len(A.views), config.splits))
        share = part_of(tick, number / config.splits, (number + 1) / config.splits)
        found.append(fdk(A.subset(which), y[which], FdkConfig(window=config.window), share))
    return torch.stack(found)


def _trained(parts: Tensor, config: Noise2inverseConfig, tick: Tick) -> nn.Module:
    """Train a fresh network on patches until steps or seconds are over."""
    import torch

    from medrecon import networks

    network = networks.build("residual_unet", {"channels": 1, "widths": [config.width * 2**k for k in range(config.scales)]}).to(
        parts.device
    )
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in torch's types
    optimiser = torch.optim.Adam(network.parameters(), config.rate)
    for given, wanted, share in _examples(parts, config):
        for group in optimiser.param_groups:
            group["lr"] = _rate(share, config)
        loss = (given + network(given) - wanted).square().mean()  # in float32: torch 2.13 trains small patches to NaN in bfloat16
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        tick(share)
    return network.eval()


def _examples(parts: Tensor, config: Noise2inverseConfig) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield patches of the mean of all parts but one, those of that one, and the finished share of the training."""
    import torch

    random, started = torch.Generator().manual_seed(config.seed), time.monotonic()
    size = [min(n, s) for n, s in zip(parts.shape[1:], (config.patch[0], config.patch[1], config.patch[1]), strict=True)]
    total = parts.sum(0)
    for step in range(config.steps):
        by_time = (time.monotonic() - started) / config.seconds if config.seconds is not None else 0.0
        share = max(step / config.steps, by_time)
        if share >= 1:
            return
        pairs = [_pair(parts, total, size, random) for _ in range(config.batch)]
        given, wanted = (torch.stack(side)[:, None] for side in zip(*pairs, strict=True))
        yield given.contiguous(memory_format=torch.channels_last_3d), wanted, share


def _pair(parts: Tensor, total: Tensor, size: list[int], random: Generator) -> tuple[Tensor, Tensor]:
    """Cut one patch, mirrored at random, from the mean of all parts but one, and from that one."""
    import torch

    held = int(torch.randint(len(parts), (), generator=random))
    first = [int(torch.randint(n - s + 1, (), generator=random)) for n, s in zip(total.shape, size, strict=True)]
    place = tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))
    mirror = [axis for axis in range(3) if int(torch.randint(2, (), generator=random))]
    one = parts[held][place]
    return ((total[place] - one) / (len(parts) - 1)).flip(mirror), one.flip(mirror)


def _rate(share: float, config: Noise2inverseConfig) -> float:
    """Return the learning rate: a straight rise over the first steps, then half a cosine to nothing."""
    from math import cos, pi

    return config.rate * min(1.0, (share * config.steps + 1) / _WARM_UP) * (1 + cos(pi * share)) / 2


def _predicted(network: nn.Module, parts: Tensor, tick: Tick) -> tuple[Tensor, Tensor]:
    """Return mean and spread of the predictions from all parts but one, for every one."""
    import torch

    from medrecon.methods._iterations import part_of
    from medrecon.networks.tiling import TilingConfig, predict

    tiling = TilingConfig(multiple=2 ** (len(network.config.widths) - 1))  # type: ignore[union-attr, arg-type]  # a ResidualUnet
    total, found = parts.sum(0), []
    for number, one in enumerate(parts):
        given = ((total - one) / (len(parts) - 1)).float().cpu()
        part = part_of(tick, number / len(parts), (number + 1) / len(parts))
        found.append(given + predict(network, given[None, None], tiling, parts.device.type, part).volume[0, 0])
    predictions = torch.stack(found).to(parts.device)
    return predictions.mean(0), predictions.std(0, correction=0)
