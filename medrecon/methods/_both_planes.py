"""What a network of planes makes of a volume: asked in both planes across the slices, of which the mean counts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from medrecon.core.progress import Tick
from medrecon.methods._coarse_rows import CoarseRows
from medrecon.methods._own_images import OwnImages
from medrecon.methods._self_taught import Pupil
from medrecon.networks.precision import Wanted, settle

PIXELS_AT_ONCE = 65536
_AGREES = 0.05  # of what the network adds, which is itself some per cent of the range
_TRIED = 16  # rows and columns to each side of the middle


def in_both_planes(pupil: Pupil, images: OwnImages, tick: Tick) -> tuple[Tensor, Tensor]:
    """Return the mean of what a network makes of the two planes across the slices, and how far they are apart, on the grid."""
    rows = images.depth.whole().to(pupil.device)
    seen = images.normalised
    x = answers(pupil, rows, seen.transpose(0, 1), lambda share: tick(share / 2)).transpose(0, 1)
    other = answers(pupil, rows, seen.permute(2, 0, 1), lambda share: tick((1 + share) / 2)).permute(1, 2, 0)
    apart = (x - other).abs_().mul_(images.span)
    x = x.add_(other).mul_(images.span / 2)
    for plane, weights in zip(x, rows.start, strict=True):
        plane += (images.planes * weights[:, None, None]).sum(dim=0)
    back = _inverse(images.depth.axes)
    return x.permute(back).contiguous(), apart.permute(back).contiguous()


def answers(pupil: Pupil, rows: CoarseRows, seen: Tensor, tick: Tick) -> Tensor:
    """Return what the network adds to images (count, coarse, width), on the fine rows: (count, fine, width)."""
    count, coarse, width = seen.shape
    at_once = max(1, PIXELS_AT_ONCE // (coarse * width))
    answers = seen.new_empty((count, rows.fine, width))
    with torch.inference_mode():
        for first in range(0, count, at_once):
            answers[first : first + at_once] = pupil.answer(seen[first : first + at_once], rows)
            tick(min(first + at_once, count) / count)
    return answers


def settled(pupil: Pupil, images: OwnImages, wanted: Wanted) -> Pupil:
    """Return a trained network in the arithmetic that suits the device, checked against float32 on the middle of the scan."""
    rows, seen = images.depth.whole().to(pupil.device), images.normalised
    middle = (n // 2 for n in seen.shape[1:])
    some = seen[(slice(None), *(slice(max(m - _TRIED, 0), m + _TRIED) for m in middle))].transpose(0, 1)

    def trial(_: nn.Module, dtype: torch.dtype) -> Tensor:
        with torch.no_grad():
            return replace(pupil, half=dtype is torch.bfloat16).answer(some, rows)

    found = settle(pupil.network, trial, str(pupil.device), wanted, _AGREES)
    return replace(pupil, half=found.arithmetic.dtype is torch.bfloat16)


def _inverse(axes: tuple[int, int, int]) -> tuple[int, int, int]:
    return axes.index(0), axes.index(1), axes.index(2)
