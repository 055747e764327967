"""A trained network between slices: from a scan to a volume, and what the scan's own sharp directions say about it.

Along the rows and columns of its images a thick-slice scan is sharp. Turned by a quarter, its volume is therefore a truth that
can be sliced as the scanner slices, restored, and compared: to tune the network, and to decide how far to trust it.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from medrecon.core.errors import UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.progress import Tick, silent
from medrecon.methods._slice_pairs import SlicePair, Slicing, brightness, frame_of
from medrecon.networks import weights
from medrecon.networks.manifest import Manifest
from medrecon.networks.precision import Settled, settle
from medrecon.networks.recurrent_inference import RecurrentInference, SliceFrame
from medrecon.networks.tiling import TilingConfig, predict
from medrecon.operators.slice_sampler import SliceSampler

_PARALLEL = 0.9999  # cosine between normals that count as one
_ALIKE = 0.02  # relative difference between distances that count as one
_SIDE = 40  # pixels of a patch in the plane
_PATCHES, _TUNED_PATCHES = 12, 48
_SLICES = 14  # across a patch, where the scan has room for them
_FEWEST = 5
_HALO, _PLACES = 24, 3_000_000  # pixels at the edge of a window that count for nothing; places of slices in a window
_RATE, _BATCH = 3e-4, 3
_SQUARES = 4.0  # weight of the squared error beside the absolute one


@dataclass(frozen=True, slots=True, eq=False)
class OwnDirections:
    """Patches of a scan's volume, turned so that a sharp direction takes the place of the thick one.

    Parameters
    ----------
    truths : tuple of (depth, rows, columns) Tensor
    slicing : Slicing
        How the scanner slices.
    """

    truths: tuple[Tensor, ...]
    slicing: Slicing

    @classmethod
    def of(cls, A: SliceSampler, x: Tensor, seed: int) -> Self | None:
        """Cut patches where the volume changes most, some along each of the two sharp directions; None where there is no room."""
        slicing = _slicing_of(A)
        depth = int(A.geometry.axis[0])
        sharp = [axis for axis in range(3) if axis != depth]
        rng = np.random.default_rng(seed)
        truths = [patch for k in range(_TUNED_PATCHES + _PATCHES) if (patch := _patch(x, sharp[k % 2], slicing, rng)) is not None]
        fits = truths and min(len(patch) for patch in truths) >= replace(slicing, slices=_FEWEST).planes
        return cls(tuple(truths), slicing) if fits else None

    def pair(self, number: int, functions: int) -> SlicePair:
        """Return one patch, sliced."""
        truth = self.truths[number]
        slices = 1 + int(((len(truth) - 1) * self.slicing.spacing_mm - 2 * self.slicing.first_mm) / self.slicing.step_mm + 1e-6)
        slicing = replace(self.slicing, slices=slices)
        return SlicePair.of(truth[: slicing.planes].contiguous(), slicing, functions)


@dataclass(frozen=True, eq=False)
class Restorer:
    """A network with its weights, ready for slices."""

    module: RecurrentInference
    manifest: Manifest
    device: str
    tuned_steps: int = 0

    @classmethod
    def load(cls, name_or_path: str, device: str) -> Self:
        """Load weights; raise `WeightsError` where they are missing, damaged, or those of another network."""
        loaded = weights.load(name_or_path, device)
        if not isinstance(loaded.module, RecurrentInference):
            raise UsageError(
                "NET-KIND",
                f"these are weights of the network {loaded.manifest.network}, wanted is recurrent_inference",
                "`medrecon methods` tells which weights a method takes.",
            )
        return cls(loaded.module, loaded.manifest, device)

    @property
    def functions(self) -> int:
        """Functions of the depth that the network paints with."""
        return self.module.config.functions

    @torch.no_grad()
    def volume(self, A: SliceSampler, y: Tensor, classical: Tensor, tick: Tick) -> Tensor:
        """Return what the network makes of the slices and a classical volume, in the axes and the unit of A."""
        frame, order = frame_of(A, self.functions)
        axis = int(A.geometry.axis[0])
        images = A.masked(y.float())[torch.from_numpy(order.copy()).to(y.device)]
        images = images if _rows_first(A) else images.transpose(1, 2)
        low, span = brightness(images)
        depth_first = classical.movedim(axis, 0)
        seen = frame.to(y.device).seen((depth_first - low) / span, (images - low) / span)
        ready = self._settled(seen, frame)
        side = int(max((_PLACES / len(images)) ** 0.5, 2 * _HALO + 16))
        windows = TilingConfig(window=(len(images), side, side), halo=(0, _HALO, _HALO), least=(len(images), 16, 16))
        strokes = predict(_Bound(ready.module, frame), seen[None].cpu(), windows, self.device, tick).volume[0].to(y.device)
        made = frame.to(y.device).painted(depth_first, strokes.mul_(span))
        return made.movedim(0, axis).contiguous()

    def tuned(self, own: OwnDirections | None, seconds: float, tick: Tick = silent) -> Restorer:
        """Return the network after some seconds of training on the scan's own sharp directions."""
        if own is None or seconds <= 0:
            return self
        module = copy.deepcopy(self.module).train()
        optimiser = torch.optim.Adam(module.parameters(), _RATE)
        pairs = [own.pair(k, self.functions).to(torch.device(self.device)) for k in range(_PATCHES, len(own.truths))]
        rng, began, steps, share = np.random.default_rng(0), time.monotonic(), 0, 0.0
        while (share := (time.monotonic() - began) / seconds) < 1:
            optimiser.param_groups[0]["lr"] = _RATE * min(1.0, (steps + 1) / 10) * (1 - share)
            _tuning_step(module, optimiser, [pairs[k] for k in rng.integers(len(pairs), size=_BATCH)])
            steps += 1
            tick(min(share, 1.0))
        return replace(self, module=module.eval(), tuned_steps=steps)

    @torch.no_grad()
    def share(self, own: OwnDirections | None) -> float:
        """Return which share of the network, beside `consistent_spline`, comes nearest to the patches as they were.

        The least squares over all patches; 0 where there are none or the network does not help.
        """
        if own is None:
            return 0.0
        along = squares = 0.0
        for number in range(min(_PATCHES, len(own.truths))):
            pair = own.pair(number, self.functions).to(torch.device(self.device))
            strokes = self.module(pair.seen[None], [pair.frame])[-1][0]
            wanted = pair.truth - pair.classical
            change = pair.missed(strokes) + wanted
            along += float((change * wanted).double().sum())
            squares += float(change.double().square().sum())
        return min(max(along / squares, 0.0), 1.0) if squares > 0 else 0.0

    def findings(self, A: SliceSampler) -> tuple[Finding, ...]:
        """Say where the scan lies outside what the network was trained on."""
        return self.manifest.outside_training(float(A.geometry.plane_step_mm.mean()), float(A.poses.thickness_mm.mean()))

    def _settled(self, seen: Tensor, frame: SliceFrame) -> Settled:
        """Choose the arithmetic, checked on the middle of the scan itself."""
        rows, columns = (slice(max(n // 2 - 16, 0), n // 2 + 16) for n in seen.shape[2:])
        example, frame = seen[None, :, :, rows, columns], frame.to(seen.device)

        def trial(network: nn.Module, _: torch.dtype) -> Tensor:
            strokes: Tensor = network(example, [frame])[-1]
            return strokes

        return settle(self.module, trial, self.device)


class _Bound(nn.Module):
    """The network bound to one frame: from a window of slices to its strokes."""

    def __init__(self, network: nn.Module, frame: SliceFrame) -> None:
        super().__init__()
        self.network, self.frame = network, frame

    def forward(self, seen: Tensor) -> Tensor:
        """Return the strokes (batch, functions, n, rows, columns) of what is seen (batch, 2 + functions, n, rows, columns)."""
        frame = self.frame.to(seen.device)
        strokes: Tensor = self.network(seen, [frame] * len(seen))[-1]
        return strokes


def unlearned(A: SliceSampler) -> UsageError | None:
    """Return why the network has not learned to handle these slices, if it has not."""
    normals = A.poses.normals
    hint = "Use the method consistent_spline."
    if len(np.unique(A.stack)) > 1 or float((normals @ normals[0]).min()) < _PARALLEL or len(A.poses) < _FEWEST:
        fact = (
            f"the network fills the space in one stack of at least {_FEWEST} parallel slices; here are {len(A.poses)} slices in "
        )
        return UsageError("NET-STACKS", f"{fact}{len(np.unique(A.stack))} stacks or several directions", hint)
    if (
        A.factors is None
        or len(A.factors.groups) != 1
        or not all(run.rows.is_identity and run.columns.is_identity for run in A.factors.groups[0].runs)
    ):
        fact = "the network needs slices that lie along the grid, and voxels as large as pixels in their plane"
        return UsageError("NET-GRID", fact, f"{hint} Or leave grid.spacing_mm to the scan.")
    return None


def fell_back(problem: UsageError) -> Finding:
    """Say that a classical method was used, and why."""
    return Finding(
        "NET-FALLBACK", Verdict.OK, f"consistent_spline was used instead of the network: {problem.fact}", hint=problem.hint or ""
    )


def told(share: float) -> Finding:
    """Say how much of the network is in the volume."""
    return Finding(
        "NET-SHARE",
        Verdict.OK,
        f"the scan's own rows and columns gave the network a share of {share:.0%} beside consistent_spline",
        {"network_share": share},
        hint="The uncertainty map shows how far the two are apart.",
    )


def _tuning_step(module: RecurrentInference, optimiser: torch.optim.Optimizer, pairs: list[SlicePair]) -> None:
    with torch.enable_grad():
        optimiser.zero_grad()
        for pair in pairs:
            missed = pair.missed(module(pair.seen[None], [pair.frame])[-1][0])
            torch.autograd.backward(missed.abs().mean() + _SQUARES * missed.square().mean())
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()


def _slicing_of(A: SliceSampler) -> Slicing:
    """Return how the scanner slices, as it would along another axis of the grid with the same voxels."""
    thickness = float(A.poses.thickness_mm.mean())
    step = float(np.median(np.diff(np.sort(A.poses.depths_mm))))
    spacing = float(A.geometry.plane_step_mm.mean())
    return Slicing(spacing, thickness, step, max((thickness - spacing) / 2, 0.0), _SLICES, A.poses.profile)


def _patch(x: Tensor, axis: int, slicing: Slicing, rng: np.random.Generator) -> Tensor | None:
    """Cut the busiest of a few random patches, `axis` first."""
    turned = x.movedim(axis, 0)
    size = [min(n, wanted) for n, wanted in zip(turned.shape, (slicing.planes, _SIDE, _SIDE), strict=True)]
    best, most = None, -1.0
    for _ in range(4):
        start = [int(rng.integers(n - s + 1)) for n, s in zip(turned.shape, size, strict=True)]
        patch = turned[tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))]
        busy = float(patch.diff(dim=0).abs().mean()) if size[0] > 1 else 0.0
        if busy > most:
            best, most = patch, busy
    return best


def _rows_first(A: SliceSampler) -> bool:
    """Whether the rows of the images run along the earlier of the volume's two other axes."""
    if A.factors is None:
        raise ValueError("slices oblique to the grid")
    axes = A.factors.groups[0].axes
    return axes[1] < axes[2]
