"""How noisy projections are, judged from the projections alone.

The mixed second difference of neighbouring pixels holds hardly anything but noise: Immerkaer 1996, Comput. Vis. Image
Underst. 64, 300. The noise grows with attenuation, so the median is taken among pixels of like value, and the mean
square over all of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CLASSES = 24
_PIXELS = 1 << 21
_FEWEST_PER_CLASS = 200
_MEDIAN_OF_NORMAL = 0.6745


def noise_rms(y: Tensor, measured: Tensor | None = None) -> float:
    """Return the root mean square of the noise of projections (views, rows, columns)."""
    every = max(1, y.numel() // _PIXELS)
    y = y[::every].float().cpu()
    rough, smooth = _split(y)
    usable = torch.ones_like(rough, dtype=torch.bool)
    if measured is not None:
        usable = _split(measured[::every].cpu().float())[1] > 1 - 1e-6
    rough, smooth = rough[usable], smooth[usable]
    if len(rough) == 0:
        return 0.0
    order = torch.argsort(smooth)
    classes = max(1, min(_CLASSES, len(order) // _FEWEST_PER_CLASS))
    deviations = [(part.numel(), float(rough[part].abs().median()) / _MEDIAN_OF_NORMAL) for part in order.chunk(classes)]
    return math.sqrt(sum(n * deviation**2 for n, deviation in deviations) / len(order))


def _split(y: Tensor) -> tuple[Tensor, Tensor]:
    """Second differences with the noise's own variance, and local means, in the inner pixels."""
    rough, smooth = _along(y, 2)
    if y.shape[1] >= 3:
        rough, _ = _along(rough, 1)
        _, smooth = _along(smooth, 1)
    return rough, smooth


def _along(y: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    size = y.shape[axis]
    if size < 3:
        return torch.zeros_like(y), y
    before, here, after = (y.narrow(axis, k, size - 2) for k in range(3))
    return (before - 2 * here + after) / 6**0.5, (before + here + after) / 3
