"""A learned volume between thick slices, by the shipped recurrent network, as far as the scan itself says it can be trusted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from medrecon.core.errors import UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.progress import Tick
from medrecon.core.settings import Config
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medrecon.methods._own_images import Judgement, OwnImages
    from medrecon.methods._self_taught import Pupil
    from medrecon.networks.weights import LoadedNet
    from medrecon.operators.slice_sampler import SliceSampler

INPUT = "slices"
PREVIEW = "consistent_spline"  # where it starts from

_CLASSICAL, _LEARNING, _LEARNED = 0.2, 0.3, 0.95  # share of the time after which each step is done
_EPS, _TOLERANCE, _ITERATIONS = 0.01, 1e-2, 30  # as `consistent_spline` has them
_TUNING_RATE = 1e-3


class RecurrentConfig(Config):
    """Settings of `recurrent`."""

    weights: Annotated[str, Field(description="a shipped name or a safetensors file")] = "recurrent"
    fine_tune_s: Annotated[float, Field(ge=0, le=3600, description="seconds of training on the scan itself; 0: none")] = 0.0
    trust: Annotated[
        float, Field(ge=0, le=1, description="largest share of the network in the result; the scan itself may set a smaller one")
    ] = 1.0
    fallback: Annotated[
        bool, Field(description="take consistent_spline for slices that the network has not learned; the result says so")
    ] = True
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="of the patches that it is tuned with")] = 0


def recurrent(A: SliceSampler, y: Tensor, config: RecurrentConfig, tick: Tick) -> Reconstructed:
    """Descend towards the truth as a network has learned to. Putzky and Welling 2017, arXiv:1706.04008.

    A recurrent inference machine, trained on volumes drawn from nothing, is asked in both planes across the slices; the mean
    counts, and how far the two are apart is the uncertainty. How much of it goes into the result, from 0 (`consistent_spline`
    alone) to `trust`, is decided by the scan: some of its sharp images are made as coarse along one direction as the scan is
    along its depth, and restored both ways. Slicing the result again gives the slices back.

    Parameters
    ----------
    A : SliceSampler
        One stack of at least 6 parallel slices in equal steps, along axes of the grid.
    y : (n, rows, columns) Tensor
        The images; pixels that were not measured may hold anything.
    config : RecurrentConfig
    tick : Tick

    Returns
    -------
    Reconstructed
        With a finding: ``NET-SHARE`` tells the network's share, ``NET-FALLBACK`` why there is none.

    Raises
    ------
    UsageError
        ``NET-STACKS`` without the fallback, where the network has not learned to handle such slices; ``NET-KIND``.
    WeightsError
        ``MDL-...``, where the weights are missing or damaged.
    """
    from medrecon.methods._both_planes import in_both_planes
    from medrecon.methods._consistency import ConsistentSet
    from medrecon.methods._iterations import part_of
    from medrecon.methods._own_images import OwnImages
    from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline

    y, net = y.float(), _loaded(config.weights)
    images = OwnImages.of(A, y, _EPS)
    if isinstance(images, str) and not config.fallback:
        raise UsageError("NET-STACKS", f"the network has not learned such slices: {images}", "Use the method consistent_spline.")
    x = consistent_spline(A, y, ConsistentSplineConfig(), part_of(tick, 0, 1.0 if isinstance(images, str) else _CLASSICAL))
    if isinstance(images, str):
        return Reconstructed(x, findings=(_fell_back(images),))
    pupil, verdict = _tuned(_pupil(net, images, y.device), images, config, part_of(tick, _CLASSICAL, _LEARNING))
    share = min(config.trust, verdict.share)
    made, apart = in_both_planes(pupil, images, part_of(tick, _LEARNING, _LEARNED))
    x = x.mul_(1 - share).add_(made, alpha=share)
    ConsistentSet(A, y, _EPS, _TOLERANCE, _ITERATIONS).approach(x)
    tick(1.0)
    outside = net.manifest.outside_training(float(A.geometry.plane_step_mm.mean()), float(A.poses.thickness_mm.mean()))
    return Reconstructed(x, apart.mul_(share), (*outside, _told(share, verdict)))


def _loaded(name: str) -> LoadedNet:
    from medrecon.networks import weights
    from medrecon.networks.recurrent_inference import RecurrentInference

    net = weights.load(name)
    if not isinstance(net.module, RecurrentInference):
        raise UsageError(
            "NET-KIND",
            f"these are weights of the network {net.manifest.network}, wanted is recurrent_inference",
            "`medrecon methods` tells which weights a method takes.",
        )
    return net


def _pupil(net: LoadedNet, images: OwnImages, device: torch.device) -> Pupil:
    import torch

    from medrecon.methods._both_planes import settled
    from medrecon.methods._self_taught import Pupil

    network = net.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's types
    return settled(Pupil(network, device, False, images.depth.step, images.depth.thickness), images, "auto")


def _tuned(pupil: Pupil, images: OwnImages, config: RecurrentConfig, tick: Tick) -> tuple[Pupil, Judgement]:
    """Return the network after some seconds of training on the scan itself, if that helps, and how it does."""
    import copy

    import numpy as np

    from medrecon.methods._own_images import judge
    from medrecon.methods._self_taught import Budget, Patches, teach

    before = judge(pupil, images)
    if config.fine_tune_s == 0:
        return pupil, before
    taught = dataclasses.replace(pupil, network=copy.deepcopy(pupil.network))
    patches = Patches(images.to_learn(), np.random.default_rng(config.seed))
    teach(taught, images.depth, patches, Budget(config.fine_tune_s), _TUNING_RATE, images.coarse, tick)
    after = judge(taught, images)
    return (taught, after) if after.gain_db > before.gain_db else (pupil, before)


def _fell_back(why: str) -> Finding:
    hint = "Resample to one regular stack along the grid, or take consistent_spline."
    return Finding("NET-FALLBACK", Verdict.OK, f"consistent_spline was used instead of the network: {why}", hint=hint)


def _told(share: float, verdict: Judgement) -> Finding:
    """Say how much of the network is in the volume."""
    return Finding(
        "NET-SHARE",
        Verdict.OK,
        f"on images held back the network was {verdict.gain_db:.2f} dB better than consistent_spline; its share is {share:.0%}",
        {"network_share": round(share, 3), "held_back_gain_db": round(verdict.gain_db, 3)},
        hint="The uncertainty map shows how far its two planes are apart.",
    )
