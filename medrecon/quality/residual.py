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
    unused = torch.from_numpy(~A.seen).to(y.device)
    difference = A.forward(x).sub_(y).masked_fill_(unused, 0)
    measured = y.masked_fill(unused, 0)
    pixels = int(np.count_nonzero(A.seen))
    rms, size = (float(t.double().square().sum() / max(pixels, 1)) ** 0.5 for t in (difference, measured))
    relative = rms / size if size > 0 else (0.0 if rms == 0 else float("inf"))
    return Residual(relative, rms, np.asarray(difference.cpu().numpy(), dtype=np.float32))
