"""What is done to detector rows before the ramp filter: fill dead pixels, and carry rows on beyond the detector.

A row that ends inside the patient is carried on smoothly, so that the ramp does not see an edge there: twice the edge
value less the mirrored row, faded out. Ohnesorge et al. 2000, Med. Phys. 27, 39.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EDGE_COLUMNS = 3  # averaged, so that the extension does not start from one noisy pixel
_TRUNCATED_ABOVE = 0.02  # of the largest line integral
_FADE_POWER = 0.75


def fill_unmeasured(rows: Tensor, measured: Tensor) -> Tensor:
    """Interpolate along the last axis where nothing was measured; rows without any measurement become 0."""
    columns = rows.shape[-1]
    at = torch.arange(columns, device=rows.device).expand(rows.shape)
    left = torch.where(measured, at, -1).cummax(dim=-1).values
    right = columns - 1 - torch.where(measured.flip(-1), at, -1).cummax(dim=-1).values.flip(-1)
    some = left.amax(dim=-1, keepdim=True) >= 0
    near_left = torch.where(left < 0, right, left).clamp(0, columns - 1)
    near_right = torch.where(right > columns - 1, left, right).clamp(0, columns - 1)
    share = (at - near_left) / (near_right - near_left).clamp(min=1)
    held = torch.where(measured, rows, 0)
    filled = torch.lerp(held.gather(-1, near_left), held.gather(-1, near_right), share.to(rows.dtype))
    return torch.where(measured, rows, torch.where(some, filled, 0))


def is_truncated(projections: Tensor) -> bool:
    """Whether the object reaches beyond the sides of the detector in at least one view in twenty."""
    edges = torch.cat([projections[..., :_EDGE_COLUMNS], projections[..., -_EDGE_COLUMNS:]], dim=-1)
    largest = float(projections.max())
    shares = edges.abs().mean(dim=(-1, -2))
    return largest > 0 and float(torch.quantile(shares, 0.95)) > _TRUNCATED_ABOVE * largest


def extend(rows: Tensor, columns: int, faded: int) -> Tensor:
    """Put `columns` more on both sides, of which the innermost `faded` carry the row on, and the rest are 0."""
    faded = min(faded, columns, rows.shape[-1] - 1)
    extended = torch.nn.functional.pad(rows, (columns, columns))
    if faded > 0:
        steps = torch.arange(1, faded + 1, device=rows.device, dtype=rows.dtype)
        fade = torch.sin(torch.pi / 2 * (1 - steps / (faded + 1))) ** _FADE_POWER
        extended[..., columns - faded : columns] = (_continued(rows)[..., :faded] * fade).flip(-1)
        extended[..., -columns : extended.shape[-1] - columns + faded] = _continued(rows.flip(-1))[..., :faded] * fade
    return extended


def _continued(rows: Tensor) -> Tensor:
    """Carry on to the left, nearest first: never below 0, so that a row that ends at 0 stays there."""
    edge = rows[..., :_EDGE_COLUMNS].mean(dim=-1, keepdim=True)
    return (2 * edge - rows[..., 1:]).clamp(min=0)
