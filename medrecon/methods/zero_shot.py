"""A small network that learns from the scan itself what thick slices take away, within a given time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.findings import Finding, Verdict
from medrecon.core.progress import Tick, silent
from medrecon.core.settings import Config
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medrecon.methods._own_images import Judgement, OwnImages
    from medrecon.methods._self_taught import Budget, Lesson, Pupil
    from medrecon.operators.slice_sampler import SliceSampler

    _Judged = tuple[Pupil, Judgement]

INPUT = "slices"
PREVIEW = "consistent_spline"  # where it starts from

_SHARES = (0.03, 0.9)  # of the time: when the classical volume is made, when training is done
_RESERVE, _OVERHEAD = 1.15, 0.03  # of the time to answer, and of all time: kept for what comes after training
_EPS = 0.01  # as `consistent_spline` has it
_TOLERANCE, _ITERATIONS = 1e-2, 30
_INPUTS = 3
_SHIPPED = "zero_shot"
_HELPS_DB = 0.05  # on images held back, from which on shipped weights are worth starting from


class ZeroShotConfig(Config):
    """Settings of `zero_shot`."""

    seconds: Annotated[
        float, Field(gt=0, le=86400, allow_inf_nan=False, description="for everything, by the clock; the steps follow from it")
    ] = 200.0
    steps: Annotated[
        int | None, Field(ge=1, le=10_000_000, description="of training, in place of the seconds: the same result every time")
    ] = None
    weights: str = Field("auto", description="where training starts: auto (shipped weights, if they help), none, or a file")
    rate: Annotated[float, Field(gt=0, le=0.1, description="highest learning rate")] = 1e-3
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="of the first weights and of the patches that are drawn")] = 0
    margin_db: Annotated[
        float, Field(ge=0, le=20, description="gain on images held back below which the result is that of consistent_spline")
    ] = 0.3
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="of the convolutions; auto: the faster one")


def zero_shot(A: SliceSampler, y: Tensor, config: ZeroShotConfig, tick: Tick) -> Reconstructed:
    """Train a network on the scan's own sharp images and let it fill in the depth. After Zhao et al. 2021, IEEE TMI 40, 805.

    Images are sharp along their rows and columns. Made as coarse along one of them as the scan is along its depth, with
    the same profile, thickness and step, they teach a network what is missing; it starts from weights trained on volumes
    drawn from nothing, if those help here, and keeps them if training does harm. It fills in the depth in both planes across the
    slices; the mean counts, and how far the two are apart is the uncertainty. On images that were held back it must beat
    `consistent_spline`, and counts as much as it does there; otherwise that volume is returned. Slicing the result again
    gives the slices back.

    Parameters
    ----------
    A : SliceSampler
        One stack of at least 6 parallel slices in equal steps, along axes of the grid; a tilted gantry is no obstacle.
    y : (n, rows, columns) Tensor
        The images; pixels that were not measured may hold anything.
    config : ZeroShotConfig
    tick : Tick

    Returns
    -------
    Reconstructed
        With a finding: ``ZERO-TRAINED`` says what was trained and what it gained, ``ZERO-SPLINE`` why `consistent_spline`
        was returned instead.

    Raises
    ------
    WeightsError
        ``MDL-...``, see `medrecon.networks.weights.load`.
    """
    from medrecon.methods._both_planes import in_both_planes
    from medrecon.methods._consistency import ConsistentSet
    from medrecon.methods._iterations import part_of
    from medrecon.methods._own_images import OwnImages
    from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline

    clock = _Clock(config)
    y = y.float()
    classical = consistent_spline(A, y, ConsistentSplineConfig(), part_of(tick, 0, _SHARES[0]))
    images = OwnImages.of(A, y, _EPS)
    if isinstance(images, str):
        tick(1.0)
        return Reconstructed(classical, None, (_kept(images, Verdict.WARN),))
    pupil, start = _pupil(images, y.device, config)
    lesson = _train(pupil, images, clock.left(pupil, images), config, part_of(tick, *_SHARES))
    pupil, verdict = _better(pupil, start, images)
    undone = start is not None and pupil is start[0]
    if verdict.gain_db < config.margin_db:
        tick(1.0)
        return Reconstructed(classical, None, (_kept(_no_gain(verdict, lesson, config), Verdict.OK),))
    x, apart = in_both_planes(pupil, images, part_of(tick, _SHARES[1], 1))
    x = classical.mul_(1 - verdict.share).add_(x, alpha=verdict.share)
    ConsistentSet(A, y, _EPS, _TOLERANCE, _ITERATIONS).approach(x)
    tick(1.0)
    return Reconstructed(x, apart.mul_(verdict.share), (_trained(pupil, lesson, verdict, config, undone),))


class _Clock:
    """What is left of the time for training, once what comes after it is taken off."""

    def __init__(self, config: ZeroShotConfig) -> None:
        import time

        self._config = config
        self._now = time.monotonic
        self._began = self._now()

    def left(self, pupil: Pupil, images: OwnImages) -> Budget:
        from medrecon.methods._self_taught import Budget

        if self._config.steps is not None:
            return Budget(self._config.seconds, self._config.steps)
        after = _RESERVE * self._seconds_to_answer(pupil, images) + _OVERHEAD * self._config.seconds
        return Budget(max(self._config.seconds - after - (self._now() - self._began), 0.0))

    def _seconds_to_answer(self, pupil: Pupil, images: OwnImages) -> float:
        """Estimate how long the network takes for both planes, from a few of their rows, the first time not counted."""
        from medrecon.methods._both_planes import PIXELS_AT_ONCE, answers

        rows = images.depth.whole().to(pupil.device)
        seen = images.normalised.transpose(0, 1)
        some = seen[: max(1, PIXELS_AT_ONCE // (seen.shape[1] * seen.shape[2]))]
        for _ in range(2):
            began = self._now()
            answers(pupil, rows, some, silent)
        return 2 * (self._now() - began) * len(seen) / len(some)


def _pupil(images: OwnImages, device: torch.device, config: ZeroShotConfig) -> tuple[Pupil, _Judged | None]:
    """Return who is to learn, and a judged copy with the shipped weights that it starts from; none with other weights."""
    import copy

    from medrecon.methods._both_planes import settled
    from medrecon.methods._own_images import judge
    from medrecon.networks import weights

    if config.weights == "auto" and _SHIPPED in weights.shipped():
        start = settled(_with(_loaded(_SHIPPED), images, device, config), images, config.precision)
        verdict = judge(start, images)
        if verdict.gain_db > _HELPS_DB:
            return dataclasses.replace(start, network=copy.deepcopy(start.network)), (start, verdict)
    network = _fresh(config.seed) if config.weights in ("auto", "none") else _loaded(config.weights)
    return _with(network, images, device, config), None


def _with(network: torch.nn.Module, images: OwnImages, device: torch.device, config: ZeroShotConfig) -> Pupil:
    import torch

    from medrecon.methods._self_taught import Pupil
    from medrecon.networks.precision import fastest

    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's types
    half = config.precision == "bfloat16" or (config.precision == "auto" and fastest(str(device)).dtype is torch.bfloat16)
    return Pupil(network, device, half, images.depth.step, images.depth.thickness)


def _fresh(seed: int) -> torch.nn.Module:
    import torch

    from medrecon.networks.wdsr import Wdsr, WdsrConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Wdsr(WdsrConfig(inputs=_INPUTS))


def _loaded(name: str) -> torch.nn.Module:
    from medrecon.core.errors import WeightsError
    from medrecon.networks import weights
    from medrecon.networks.wdsr import Wdsr

    network = weights.load(name).module
    if not isinstance(network, Wdsr) or network.config.inputs != _INPUTS:
        raise WeightsError("MDL-MANIFEST", f"the weights are not those of a wdsr network with {_INPUTS} inputs")
    return network


def _better(pupil: Pupil, start: _Judged | None, images: OwnImages) -> _Judged:
    """Return who does better on the images held back: who has learned, or who has not yet."""
    from medrecon.methods._own_images import judge

    verdict = judge(pupil, images)
    return start if start is not None and start[1].gain_db > verdict.gain_db else (pupil, verdict)


def _train(pupil: Pupil, images: OwnImages, budget: Budget, config: ZeroShotConfig, tick: Tick) -> Lesson:
    import numpy as np

    from medrecon.methods._self_taught import Patches, teach

    patches = Patches(images.to_learn(), np.random.default_rng(config.seed))
    return teach(pupil, images.depth, patches, budget, config.rate, images.coarse, tick)


def _kept(why: str, verdict: Verdict) -> Finding:
    hint = "Resample to one regular stack along the grid, or take consistent_spline." if verdict is Verdict.WARN else ""
    return Finding("ZERO-SPLINE", verdict, f"zero_shot returned what consistent_spline made: {why}", hint=hint)


def _no_gain(judgement: Judgement, lesson: Lesson, config: ZeroShotConfig) -> str:
    return (
        f"after {lesson.steps} steps the network was {judgement.gain_db:+.2f} dB from it on images held back, "
        f"{config.margin_db:g} dB are asked for (margin_db)"
    )


def _trained(pupil: Pupil, lesson: Lesson, judgement: Judgement, config: ZeroShotConfig, undone: bool) -> Finding:
    size = sum(values.numel() for values in pupil.network.parameters())
    kept = ", which did not help, so that it stays as it was before" if undone else ""
    fact = (
        f"a network of {size} weights was trained on this scan for {lesson.steps} steps in {lesson.seconds:.0f} s{kept}; on "
        f"images held back it was {judgement.gain_db:.2f} dB better than consistent_spline, with a share of {judgement.share:.2f}"
    )
    numbers = {
        "steps": lesson.steps,
        "planned_steps": lesson.planned,
        "training_s": round(lesson.seconds, 1),
        "seed": config.seed,
        "training_undone": undone,
        "held_back_gain_db": round(judgement.gain_db, 3),
        "share": round(judgement.share, 3),
        "bfloat16": pupil.half,
    }
    return Finding("ZERO-TRAINED", Verdict.OK, fact, numbers)
