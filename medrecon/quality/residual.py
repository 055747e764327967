"""Whether the volume, sliced again as the scanner slices, gives back what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators.slice_sampler import SliceSampler


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """What is left of the images after the volume's own slices are taken off.

    Parameters
    ----------
    relative : float
        ``||A x - y|| / ||y||`` over the pixels that A uses; 0 where nothing was measured.
    rms : float
        Root mean square of ``A x - y`` over the same pixels, in the images' unit.
    map : (n, rows, columns) float32
        ``A x - y``; 0 in pixels that A does not use.
    """

    relative: float
    rms: float
    map: NDArray[np.float32]


def residual(A: SliceSampler, y: Tensor, x: Tensor) -> Residual:
    """Slice the volume `x` again and compare with the images `y`."""
    difference = A.forward(x)
    pixels, missed, measured = 0, 0.0, 0.0
    for k, used in enumerate(A.seen):  # one image at a time: copies of all of them would be the largest arrays of a run
        mask, image = torch.from_numpy(used).to(y.device), difference[k]
        image.sub_(y[k]).masked_fill_(~mask, 0)
        missed += _energy(image)
        measured += _energy(y[k][mask])
        pixels += int(np.count_nonzero(used))
    rms, size = (float(energy / max(pixels, 1)) ** 0.5 for energy in (missed, measured))
    relative = rms / size if size > 0 else (0.0 if rms == 0 else float("inf"))
    return Residual(relative, rms, np.asarray(difference.cpu().numpy(), dtype=np.float32))


def _energy(values: Tensor) -> float:
    return float(values.double().square_().sum())
