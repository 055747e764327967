"""A learned volume between thick slices, by the shipped recurrent network, as far as the scan itself says it can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.operators.slice_sampler import SliceSampler

INPUT = "slices"
PREVIEW = "consistent_spline"  # where it starts from

_CLASSICAL, _LEARNING, _LEARNED = 0.2, 0.3, 0.9  # share of the time after which each step is done


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
    seed: Annotated[int, Field(ge=0, description="of the patches that the scan is asked with")] = 0


def recurrent(A: SliceSampler, y: Tensor, config: RecurrentConfig, tick: Tick) -> Reconstructed:
    """Improve on the classical volume by a recurrent inference machine. Putzky and Welling 2017, arXiv:1706.04008.

    The network was trained on volumes drawn from nothing. How much of it goes into the result, from 0 (`consistent_spline`
    alone) to `trust`, is decided by the scan: its own sharp directions, the rows and columns of its images, are sliced as the
    scanner slices, restored both ways, and compared with what they were. Then the volume gets the smallest probable
    correction after which it gives back the measured slices.

    Parameters
    ----------
    A : SliceSampler
    y : (n, rows, columns) Tensor
        The images; pixels that were not measured may hold anything.
    config : RecurrentConfig
    tick : Tick

    Returns
    -------
    Reconstructed
        With the difference between the learned and the classical volume as uncertainty.

    Raises
    ------
    UsageError
        ``NET-STACKS``, ``NET-GRID`` without the fallback, where slices are not one stack whose pixels are voxels.
    WeightsError
        ``MDL-...``, where the weights are missing or damaged.
    """
    from medrecon.methods import _learned_slices as learned
    from medrecon.methods._consistency import ConsistentSet
    from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline

    classical = ConsistentSplineConfig()
    problem = learned.unlearned(A)
    if problem is not None and not config.fallback:
        raise problem
    net = None if problem is not None else learned.Restorer.load(config.weights, str(y.device))
    x = consistent_spline(A, y, classical, lambda share: tick((_CLASSICAL if net else 1.0) * share))
    if net is None or problem is not None:
        return Reconstructed(x, findings=(learned.fell_back(problem),) if problem else ())
    own = learned.OwnDirections.of(A, x, config.seed)
    net = net.tuned(own, config.fine_tune_s, lambda share: tick(_CLASSICAL + (_LEARNING - _CLASSICAL) * share))
    share = min(config.trust, net.share(own))
    tick(_LEARNING)
    made = net.volume(A, y, x, lambda done: tick(_LEARNING + (_LEARNED - _LEARNING) * done))
    apart = made.sub_(x)
    x = x.add_(apart, alpha=share)
    ConsistentSet(A, y, classical.eps, classical.tolerance, classical.iterations).approach(x)
    tick(1.0)
    return Reconstructed(x, apart.abs_(), (*net.findings(A), learned.told(share)))
