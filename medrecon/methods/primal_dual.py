"""Learned primal-dual: unrolled steps between volume and projections, learned from simulated scans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from medrecon.core.errors import WeightsError
from medrecon.core.progress import Tick
from medrecon.core.settings import Config
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.networks.weights import LoadedNet
    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"


class PrimalDualConfig(Config):
    """Settings of `primal_dual`."""

    weights: str = Field("primal_dual", description="path of a .safetensors file, or the name of shipped weights")
    nonnegative: bool = Field(default=True, description="no attenuation below 0")
    water_per_mm: Annotated[float, Field(gt=0, description="attenuation of water in this scan's spectrum, 1/mm")] = 0.02


def primal_dual(A: XRayTransform, y: Tensor, config: PrimalDualConfig, tick: Tick) -> Reconstructed:
    """Unrolled primal-dual steps with learned corrections. Adler and Oktem 2018, IEEE Trans. Med. Imaging 37, 1322.

    No weights come with medrecon: they hold for scans like those they were trained on, and training is one command,
    ``medrecon train configs/train-primal-dual.yaml --out FOLDER``.

    Parameters
    ----------
    A : XRayTransform
        Views that turn about one axis, as for `fdk`, which makes the start.
    y : (views, rows, columns) Tensor
        Line integrals.
    config : PrimalDualConfig
    tick : Tick

    Returns
    -------
    Reconstructed
        Attenuation in 1/mm, and the findings of `medrecon.methods.refine.contradicted` and of the weights' range.

    Raises
    ------
    WeightsError
        ``MDL-MISSING`` without weights, other ``MDL-...`` as `medrecon.networks.weights.load`.
    """
    import torch

    from medrecon.methods._iterations import data_of, squared_norm_bound, start_from
    from medrecon.methods.refine import contradicted

    net, y = _load(config.weights), data_of(A, y)
    start = start_from(A, y, "fdk", config.nonnegative)
    tick(0.2)
    water, norm = config.water_per_mm, squared_norm_bound(A, y.device) ** 0.5
    with torch.inference_mode():
        x = water * net.module.to(y.device)(A, y / water, start / water, norm)
    x = x.clamp(min=0) if config.nonnegative else x
    missed, before = (float((y - A.forward(volume)).norm()) for volume in (x, start))
    findings = net.manifest.outside_training(spacing_mm=max(A.grid.spacing_mm)) + contradicted(y, missed, before)
    tick(1.0)
    return Reconstructed(x.float(), None, findings)


def _load(name_or_path: str) -> LoadedNet:
    """Load the weights; where there are none, say how to make them."""
    from medrecon.networks import weights

    try:
        return weights.load(name_or_path)
    except WeightsError as error:
        if error.code != "MDL-MISSING":
            raise
        hint = "Train them (medrecon train configs/train-primal-dual.yaml --out FOLDER) and name the file in settings.weights."
        raise WeightsError("MDL-MISSING", "no weights come with primal_dual", hint) from error
