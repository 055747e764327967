"""Maximum likelihood for counts: emission data, or line integrals taken as such; ordered subsets make it OSEM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.methods._iterations import Preview
    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"

_TINY = 1e-6  # of the largest projection, below which a ray's ratio would say nothing


class MlemConfig(Config):
    """Settings of `mlem`."""

    iterations: Annotated[int, Field(ge=1, le=10_000, description="passes over all views")] = 20
    subsets: Annotated[int, Field(ge=1, description="groups of views after each of which the volume is corrected (OSEM)")] = 1


def mlem(A: XRayTransform, y: Tensor, config: MlemConfig, tick: Tick, preview: Preview | None = None) -> Tensor:
    """Maximise the Poisson likelihood of counts y with mean A x. Shepp and Vardi 1982, IEEE Trans. Med. Imaging 1, 113.

    x <- x / (A* 1) A*(y / A x): positive always. Ordered subsets as in Hudson and Larkin 1994, ibid. 13, 601.
    An iteration applies A and A* once.

    Parameters
    ----------
    A : XRayTransform
    y : (views, rows, columns) Tensor
        Not negative: counts of an emission scan, or line integrals; negative values count as 0.
    config : MlemConfig
    tick : Tick
        Called after every subset.
    preview : callable, optional
        Is shown the volume after every iteration.

    Returns
    -------
    (slices, rows, columns) Tensor, float32
    """
    import torch

    from medrecon.methods._iterations import data_of, subsets_of

    y = data_of(A, y).clamp(min=0)
    subsets = subsets_of(A, y, config.subsets)
    least = _TINY * float(y.max())
    x = torch.ones(A.domain, device=y.device)
    for turn in range(config.iterations):
        for number, subset in enumerate(subsets):
            expected = subset.A.forward(x)
            ratio = torch.where(expected > least, subset.y / expected.clamp(min=least), 0)
            x = x * subset.averaged(ratio)
            tick((turn + (number + 1) / len(subsets)) / config.iterations)
        if preview is not None:
            preview(x)
    tick(1.0)
    return x
