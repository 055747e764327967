"""Losses: supervised, self-supervised, and photometric for motion between slices. MONAI's where MONAI has them.

All take float32 tensors (batch, channel, ...) and return a scalar; inside mixed precision they compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from medrecon.operators.linear import LinearOperator
from medrecon.training.config import LossConfig

_CHARBONNIER = 1e-3  # below this difference the penalty is quadratic; images are about 0 to 1
_CENSUS_SOFTNESS = 0.81  # Meister et al. 2018, AAAI 7251
_SSIM_WINDOW = 7


def supervised(config: LossConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the weighted loss of a recipe, a function of (output, target)."""
    parts: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "l1": functional.l1_loss,
        "l2": functional.mse_loss,
        "gradient": gradient_difference,
        "ssim": structural_dissimilarity,
    }
    chosen = [(weight, parts[name]) for name, weight in config.model_dump().items() if weight > 0]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(output.device.type, enabled=False):
            x, truth = output.float(), target.float()
            return torch.stack([weight * part(x, truth) for weight, part in chosen]).sum()

    return loss


def gradient_difference(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of the steps between neighbours, over all axes longer than 1."""
    axes = [axis for axis in range(2, output.ndim) if output.shape[axis] > 1]
    steps = [(output.diff(dim=axis) - target.diff(dim=axis)).abs().mean() for axis in axes]
    return torch.stack(steps).mean() if steps else output.new_zeros(())


def structural_dissimilarity(output: Tensor, target: Tensor) -> Tensor:
    """Return 1 - SSIM for values of about 0 to 1 (Wang et al. 2004), over windows of 7 or the shortest side."""
    from monai.losses.ssim_loss import SSIMLoss

    window = min(_SSIM_WINDOW, *output.shape[2:])
    value: Tensor = SSIMLoss(spatial_dims=output.ndim - 2, data_range=1.0, win_size=window)(output, target)
    return value


def split_difference(network: Callable[[Tensor], Tensor], parts: Tensor) -> Tensor:
    """Return the self-supervised loss of images made from independent halves of one measurement.

    Noise in one part says nothing about noise in another, so that a network which predicts a part from the others
    learns the structure they share: Hendriksen et al. 2020, Noise2Inverse, IEEE Trans. Comput. Imaging 6, 1320.

    Parameters
    ----------
    network : callable
        Takes and gives (batch, 1, ...).
    parts : (parts, batch, 1, ...) Tensor
        Reconstructions, each from its own share of the measurements.
    """
    total = parts.sum(dim=0)
    rest = (total - parts) / (len(parts) - 1)
    return torch.stack([functional.mse_loss(network(others), part) for others, part in zip(rest, parts, strict=True)]).mean()


def data_misfit(A: LinearOperator, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean square of ``A x - y`` over that of ``y``: no truth is needed, what A does not see is not judged.

    Parameters
    ----------
    A : LinearOperator
    x : Tensor of shape ``A.domain``
    y : Tensor of shape ``A.range``
    """
    with torch.autocast(x.device.type, enabled=False):
        return (A(x.float()) - y).square().mean() / y.square().mean().clamp_min(torch.finfo(torch.float32).tiny)


def charbonnier(difference: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean of a smooth absolute value, over `where` (weights from 0 to 1) if it is given."""
    penalty = (difference.square() + _CHARBONNIER**2).sqrt() - _CHARBONNIER
    return penalty.mean() if where is None else (penalty * where).sum() / where.expand_as(penalty).sum().clamp_min(1.0)


def census_difference(first: Tensor, second: Tensor, where: Tensor | None = None, radius: int = 3) -> Tensor:
    """Return how differently two images (batch, 1, rows, columns) rank each pixel against its neighbours.

    It does not change with brightness and contrast: Stein 2004, with the soft form of Meister et al. 2018, UnFlow.
    """
    distance = (_ranks(first, radius) - _ranks(second, radius)).square()
    soft = (distance / (0.1 + distance)).mean(dim=1, keepdim=True)
    inside = torch.zeros_like(soft)
    inside[..., radius:-radius, radius:-radius] = 1.0
    return charbonnier(soft, inside if where is None else inside * where)


def edge_aware_roughness(flow: Tensor, image: Tensor, edge: float = 10.0) -> Tensor:
    """Return the mean absolute step of a flow (batch, 2, rows, columns), forgiven where the image has an edge.

    Parameters
    ----------
    edge : float
        A step of 1 / edge in the image weighs 1 / e.
    """
    parts = []
    for axis in (2, 3):
        step = flow.diff(dim=axis)
        forgiven = torch.exp(-edge * image.diff(dim=axis).abs().mean(dim=1, keepdim=True))
        parts.append(charbonnier(step, forgiven))
    return torch.stack(parts).mean()


def _ranks(image: Tensor, radius: int) -> Tensor:
    """Return the soft sign of each neighbour minus the pixel, (batch, neighbours, rows, columns)."""
    side = 2 * radius + 1
    rows, columns = image.shape[-2:]
    around = functional.unfold(functional.pad(image, (radius,) * 4, mode="replicate"), side)
    difference = around.reshape(len(image), side * side, rows, columns) - image
    return difference * 255 / (_CENSUS_SOFTNESS + (difference * 255).square()).sqrt()
