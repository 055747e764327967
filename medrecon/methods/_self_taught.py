"""A network that learns from the scan itself: patches of its own images, made coarse as slices are along the depth.

The images of a scan are sharp along both of their axes. Along one of them they are made as coarse as the scan is across
its slices, with the scan's own profile, thickness and step; the network learns to bring back what that takes away.
Everything that is drawn comes from one seed, so that steps, seed and threads decide the outcome.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medrecon.core.progress import Tick
from medrecon.methods._coarse_rows import CoarseRows, RegularDepth
from medrecon.networks.recurrent_inference import RecurrentInference

Float32 = NDArray[np.float32]

COARSE_ROWS, WIDTH, BATCH = 16, 48, 16  # of a patch
_RIM = 3  # columns at each side of a patch that do not count: the network sees no further there
_FLAT = 0.05  # a patch with a smaller range is drawn anew
_DRAWS = 20
_CLIP = 1.0  # longest gradient
_WARM_UP = 50  # steps over which the learning rate rises
_TIMED, _UNTIMED = 12, 3  # steps that tell how long one takes, and steps before, which are slower
_DIGITS = 3  # of the fraction of a plane at which slices lie, to count as one
_MOST_WINDOWS = 64
_OVERTIME = 1.3  # times the planned time, after which training ends early


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: a number of steps, or the seconds from which it is worked out.

    Parameters
    ----------
    seconds : float
        From now, by the clock; the number of steps is fixed once the first ones were timed.
    steps : int, optional
        Wins over the seconds, and makes the outcome the same on every run.
    """

    seconds: float
    steps: int | None = None


class Patches:
    """Patches of images, drawn where something is to be seen.

    Parameters
    ----------
    stacks : list of (n, rows, columns) float32
        Images whose rows are to be made coarse.
    rng : numpy Generator
    """

    def __init__(self, stacks: list[Float32], rng: np.random.Generator) -> None:
        self.rng = rng
        self._images = [image for stack in stacks for image in stack]
        self._width = min(WIDTH, *(image.shape[1] for image in self._images))
        edges = np.array([_mean_slope(image) for image in self._images], dtype=np.float64)
        self._share = edges / edges.sum() if edges.sum() > 0 else np.full(len(edges), 1 / len(edges))

    def draw(self, count: int, height: int) -> Tensor:
        """Return patches (count, height, at most WIDTH), some of them mirrored."""
        return torch.from_numpy(np.stack([self._one(height) for _ in range(count)]))

    def _one(self, height: int) -> Float32:
        for _ in range(_DRAWS):
            patch = self._any(height, self._width)
            if np.ptp(patch) >= _FLAT:
                break
        mirrored = self.rng.random(2) < 0.5
        return np.ascontiguousarray(patch[:: -1 if mirrored[0] else 1, :: -1 if mirrored[1] else 1])

    def _any(self, height: int, width: int) -> Float32:
        image = self._images[int(self.rng.choice(len(self._images), p=self._share))]
        top, left = (int(self.rng.integers(size - wanted + 1)) for size, wanted in zip(image.shape, (height, width), strict=True))
        patch: Float32 = image[top : top + height, left : left + width]
        return patch


@dataclass(frozen=True, eq=False)
class Pupil:
    """A network, and how it is run: in which numbers, on which device, told what about the slices.

    Parameters
    ----------
    network : nn.Module
        A `medrecon.networks.wdsr.Wdsr` with three inputs, image, steps and thickness, or a `RecurrentInference`.
    device : torch.device
    half : bool
        Whether convolutions run in bfloat16.
    step, thickness : float
        Fine rows to a coarse one; thickness of a slice in steps.
    """

    network: nn.Module
    device: torch.device
    half: bool
    step: float
    thickness: float

    def answer(self, images: Tensor, rows: CoarseRows) -> Tensor:
        """Return what is missing between the rows of coarse images (batch, coarse, columns), on the fine rows."""
        with self._arithmetic():
            return answer(self.network, images, rows, self.step, self.thickness)

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            yield


@dataclass(frozen=True, slots=True)
class Lesson:
    """What training did: its steps, how many were planned, and the seconds that it took."""

    steps: int
    planned: int
    seconds: float


def answer(network: nn.Module, images: Tensor, rows: CoarseRows, step: float, thickness: float) -> Tensor:
    """Return what a network finds missing between the rows of coarse images (batch, coarse, columns), on the fine rows."""
    if isinstance(network, RecurrentInference):
        coefficients = network(images, rows.frame(network.config.functions, step, thickness))[-1]
    else:
        known = torch.full_like(images, math.log2(step) / 3), torch.full_like(images, thickness)
        coefficients = network(torch.stack([images, *known], dim=1).contiguous(memory_format=torch.channels_last))
    return rows.detail(coefficients.float())


def inner(step: float) -> tuple[slice, slice, slice]:
    """Return the part of patches (batch, fine, columns) that is not near their rim, where a network sees too little."""
    cut = math.ceil(step)
    return slice(None), slice(cut, -cut), slice(_RIM, -_RIM)


def teach(pupil: Pupil, depth: RegularDepth, patches: Patches, budget: Budget, rate: float, coarse: int, tick: Tick) -> Lesson:
    """Train a network, in place, on patches made coarse: squared error, Adam, a learning rate that falls as a cosine.

    Parameters
    ----------
    pupil : Pupil
    depth : RegularDepth
    patches : Patches
    budget : Budget
    rate : float
        The highest learning rate.
    coarse : int
        Coarse rows of a patch.
    tick : Tick
    """
    optimiser = torch.optim.Adam(pupil.network.parameters(), rate, betas=(0.9, 0.99))
    windows = [depth.window(first, coarse).to(pupil.device) for first in _first_rows(depth, coarse)]
    plan = _Plan(budget)
    unit = 0.0
    pupil.network.train()
    for step in plan:
        rows = windows[int(patches.rng.integers(len(windows)))]
        missed, error = _errors(pupil, rows, patches.draw(BATCH, rows.fine).to(pupil.device))
        unit = unit or float(missed) or 1.0
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * plan.share))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(error / unit)
        nn.utils.clip_grad_norm_(pupil.network.parameters(), _CLIP)
        optimiser.step()
        tick(plan.share)
    pupil.network.eval()
    return plan.lesson


def _errors(pupil: Pupil, rows: CoarseRows, fine: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of the start, and that after the network's answer, away from the rim."""
    images = rows.weights @ fine
    missed = rows.start @ images - fine
    error = missed + pupil.answer(images, rows)
    part = inner(pupil.step)
    return missed[part].square().mean(), error[part].square().mean()


def _first_rows(depth: RegularDepth, coarse: int) -> list[int]:
    """Return where windows begin that differ in how slices lie between the planes, at most so many."""
    fractions: dict[float, int] = {}
    for first in range(len(depth.at) - coarse + 1):
        fractions.setdefault(round(depth.at[first] % 1, _DIGITS) % 1, first)
    return list(fractions.values())[:_MOST_WINDOWS]


class _Plan:
    """Count the steps of a budget; `share` is the finished part of them."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._began = self._timed_from = time.monotonic()
        self._planned = budget.steps
        self._done = 0

    def __iter__(self) -> Iterator[int]:
        while not self._is_over():
            yield self._done
            self._done += 1
            if self._done == _UNTIMED:
                self._timed_from = time.monotonic()
            if self._planned is None and self._done == _UNTIMED + _TIMED:
                each = (time.monotonic() - self._timed_from) / _TIMED
                self._planned = max(self._done, round(self._budget.seconds / max(each, 1e-6)))

    @property
    def share(self) -> float:
        """Finished part of the steps; 0 until they are planned."""
        return 0.0 if not self._planned else min(self._done / self._planned, 1.0)

    @property
    def lesson(self) -> Lesson:
        return Lesson(self._done, self._planned or self._done, time.monotonic() - self._began)

    def _is_over(self) -> bool:
        late = self._budget.steps is None and time.monotonic() - self._began > _OVERTIME * self._budget.seconds
        return late or (self._planned is not None and self._done >= self._planned)


def _mean_slope(image: Float32) -> float:
    return float(np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean())
