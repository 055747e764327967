"""Least squares with total variation: few views, low dose, limited angles. Edges stay, streaks and noise go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.progress import Tick
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.methods._iterations import Preview
    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"

_STRENGTH = 2.0  # times the residual's standard deviation, as a voxel sees it: best or within 0.5 dB of it on two heads
_INNER = 4


class TvConfig(Config):
    """Settings of `tv`."""

    iterations: Annotated[int, Field(ge=1, le=10_000, description="passes over all views, at most")] = 30
    strength: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="weight of the total variation beside half the squared residual; auto: from what noise is left"
    )
    subsets: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="groups of views after each of which the volume is corrected; fewer as soon as they disagree"
    )
    nonnegative: bool = Field(default=True, description="no attenuation below 0")
    upper_per_mm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="no attenuation above this: that of the densest material, where it is known; helps limited arcs most"
    )
    along_rays: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="of a limited arc: what differences along its middle rays count beside those across; below 1 edges come "
        "forth that no ray grazed",
    )
    start: Literal["zero", "fdk"] = Field("fdk", description="what to begin with")
    tolerance: Annotated[float, Field(ge=0, lt=1, description="end where a pass changes the volume by less, relative")] = 1e-3
    stop: Literal["noise"] | Annotated[float, Field(gt=0)] | None = Field(
        "noise", description="end where the residual is noise: as estimated, or of this standard deviation; null: never"
    )


def tv(A: XRayTransform, y: Tensor, config: TvConfig, tick: Tick, preview: Preview | None = None) -> Tensor:
    """Minimise 1/2 ||A x - y||^2 + strength TV(x) within bounds. Beck and Teboulle 2009, IEEE Trans. Image Process. 18, 2419.

    FISTA with ordered subsets (Kim, Ramani and Fessler 2015, IEEE Trans. Med. Imaging 34, 167); where the residual
    rises, momentum begins anew and the number of subsets is halved, so that it ends as plain FISTA. The step comes from
    a bound of the norm of A. Left to itself, the strength is twice the standard deviation of the residual, which is
    noise and what the voxels cannot express, times how strongly a voxel answers to it. An iteration applies A and A*
    once; before the first, A four times and A* three times.

    Parameters
    ----------
    A : XRayTransform
    y : (views, rows, columns) Tensor
        Line integrals.
    config : TvConfig
    tick : Tick
        Called after every subset.
    preview : callable, optional
        Is shown the volume after every iteration.

    Returns
    -------
    (slices, rows, columns) Tensor, float32
    """
    from medrecon.methods._iterations import (
        allowed_residual,
        axis_shares,
        column_rms,
        data_of,
        groups_of,
        squared_norm_bound,
        start_from,
    )
    from medrecon.methods._tv_prox import TotalVariation

    y = data_of(A, y)
    x = start_from(A, y, config.start, config.nonnegative)
    shares = axis_shares(A, config.along_rays)
    variation = TotalVariation(A.grid.spacing_mm, config.nonnegative, config.upper_per_mm, shares)
    steepest, enough = squared_norm_bound(A, y.device), allowed_residual(A, y, config.stop)
    per_residual = _STRENGTH * column_rms(A, y.device) / y.numel() ** 0.5
    groups, residual, ahead, t = groups_of(A, y, config.subsets), float("inf"), x, 1.0
    strength = per_residual * float((y - A.forward(x)).norm()) if config.strength == "auto" else config.strength
    for turn in range(config.iterations):
        before, square = x, 0.0
        for number, (part, data) in enumerate(groups):
            missed = data - part.forward(ahead)
            square += float(missed.double().square().sum())
            step = len(groups) / steepest
            following = variation.prox(ahead + step * part.adjoint(missed), strength / steepest, _INNER)
            later = (1 + (1 + 4 * t**2) ** 0.5) / 2
            ahead, x, t = following + (t - 1) / later * (following - x), following, later
            tick((turn + (number + 1) / len(groups)) / config.iterations)
        if preview is not None:
            preview(x)
        if square > residual**2:
            groups, ahead, t = groups_of(A, y, max(1, len(groups) // 2)), x, 1.0
        residual = square**0.5
        if residual <= enough or float((x - before).norm()) <= config.tolerance * float(x.norm()):
            break
        strength = per_residual * residual if config.strength == "auto" else config.strength
    tick(1.0)
    return x
