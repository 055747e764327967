"""Filtered back projection for every X-ray scan: parallel, fan, cone and helical, flat detectors and curved ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"


class FdkConfig(Config):
    """Settings of `fdk`."""

    window: Literal["ram-lak", "shepp-logan", "cosine", "hann", "hamming"] = Field(
        "ram-lak", description="how high frequencies are damped: ram-lak is sharpest, hann smoothest"
    )
    cutoff: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="fraction of the detector's resolution that passes")
    row_cutoff: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="the same across detector rows, with a Hann window; not damped where not given"
    )
    truncation: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="by how much of its width a row that ends inside the patient is carried on; auto: a quarter if any does",
    )
    passes: Annotated[int, Field(ge=1, le=20)] = Field(
        1, description="1: once; more: what the volume misses of the projections is reconstructed and added, again and again"
    )
    relaxation: Annotated[float, Field(gt=0, lt=2, description="share of what is missed that a further pass adds")] = 0.3


def fdk(A: XRayTransform, y: Tensor, config: FdkConfig, tick: Tick) -> Tensor:
    """Filter each view with a ramp and back project it. Feldkamp, Davis and Kress 1984, J. Opt. Soc. Am. A 1, 612.

    Rays that were measured twice, by a full turn, a short scan's ends or a displaced detector, are weighed by
    `medrecon.methods._redundancy`; helical scans go through `medrecon.methods._helical`.

    Parameters
    ----------
    A : XRayTransform
    y : (views, rows, columns) Tensor
        Line integrals; pixels outside ``A.measured`` may hold anything.
    config : FdkConfig
    tick : Tick

    Returns
    -------
    (slices, rows, columns) Tensor, float32
        Attenuation in 1/mm.

    Raises
    ------
    GeometryError
        ``PRJ-FEW`` for fewer than three views, ``PRJ-WEIGHTS`` where the views do not turn about one axis.
    """
    from medrecon.methods import _circular, _helical
    from medrecon.methods._iterations import data_of, part_of

    y = data_of(A, y)
    reconstruct = _helical.reconstruct if _helical.is_helical(A.views) else _circular.reconstruct
    x = reconstruct(A, y, config, part_of(tick, 0, 1 / config.passes))
    again = config.model_copy(update={"truncation": 0.0})
    for turn in range(1, config.passes):
        part = part_of(tick, turn / config.passes, (turn + 1) / config.passes)
        x += config.relaxation * reconstruct(A, y - A.forward(x), again, part)
    tick(1.0)
    return x
