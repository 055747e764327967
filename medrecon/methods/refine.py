"""A 3D U-Net after a classical method, then the measurement has the last word: few views, low dose, short arcs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medrecon.core.findings import Finding, Verdict
from medrecon.core.progress import Tick, silent
from medrecon.core.settings import Config
from medrecon.methods import Reconstructed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medrecon.operators.xray_transform import XRayTransform

INPUT = "projections"

_TRAINED_STARTS = ("tv", "fdk")
_UNIT = 0.1  # of water's attenuation: what the network's answer is measured in
_MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-3,), (-2,), (-2, -1), (-3, -1), (-3, -2), (-3, -2, -1))
_RELAXATION = 0.3  # share of each correction along the rays that is made
_SHARES = (0.7, 0.9)  # of the time: when the start is made, when the network is done


class RefineConfig(Config):
    """Settings of `refine`."""

    start: Literal["tv", "fdk", "sirt", "cgls", "pocs", "mlem"] = Field(
        "tv", description="the method before the network; the shipped weights were trained after tv and fdk"
    )
    iterations: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="of the start; as many as it takes by itself where not given"
    )
    weights: str = Field("refine", description="shipped weights, or the path of a .safetensors file")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="of the network; auto: the faster that agrees")
    window: Annotated[int, Field(ge=48, le=512)] = Field(
        128, description="voxels along each side of what the network sees at once"
    )
    passes: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="times that the network corrects, each time with what the projections miss of the volume so far"
    )
    mirrors: Annotated[int, Field(ge=1, le=8)] = Field(
        4, description="times that the network sees the volume, mirrored; the mean counts, the spread is the uncertainty"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75, description="how much of each correction is added: less than all of it, for the network is not at home everywhere"
    )
    slack: Annotated[float, Field(ge=1, le=10)] = Field(
        1.3, description="how much more of the projections the volume may miss than the start did; beyond, it is corrected"
    )
    consistency: Annotated[int, Field(ge=0, le=1000, description="passes over the views, at most, that correct it")] = 10
    nonnegative: bool = Field(default=True, description="no attenuation below 0")
    water_per_mm: Annotated[float, Field(gt=0, description="attenuation of water in this scan's spectrum, 1/mm")] = 0.02


def refine(A: XRayTransform, y: Tensor, config: RefineConfig, tick: Tick) -> Reconstructed:
    """Correct a classical reconstruction by a U-Net, and step towards the projections. Jin et al. 2017, IEEE TIP 26, 4509.

    The network sees the start and what `fdk` makes of the projections that the start misses, so that it need not guess
    where the scan can tell. It answers for mirrored volumes too: their mean is the volume, their spread the uncertainty.
    If it misses more of the
    projections than the start did, by more than `slack`, steps along the rays (as in `sirt`) take it back.

    Parameters
    ----------
    A : XRayTransform
        Views that turn about one axis, as for `fdk`.
    y : (views, rows, columns) Tensor
        Line integrals.
    config : RefineConfig
    tick : Tick

    Returns
    -------
    Reconstructed
        Attenuation in 1/mm, the spread, and a finding where the spacing or start is not one that the network was trained
        on (``MDL-RANGE``), or where the projections contradict it (``MDL-CONTRADICTED``).

    Raises
    ------
    WeightsError
        ``MDL-...``, see `medrecon.networks.weights.load`.
    """
    from medrecon.methods._iterations import data_of, part_of
    from medrecon.networks import weights

    y = data_of(A, y)
    net = weights.load(config.weights, "cpu")  # before the long start: what is missing should be known at once
    start = _start(A, y, config, part_of(tick, 0, _SHARES[0]))
    x, spread = corrected(A, y, start, net.module, config, part_of(tick, *_SHARES))
    x, findings = consistent(A, y, start, x, config, part_of(tick, _SHARES[1], 1))
    findings += net.manifest.outside_training(spacing_mm=max(A.grid.spacing_mm)) + _unknown_start(config.start)
    tick(1.0)
    return Reconstructed(x, spread, findings)


def corrected(
    A: XRayTransform, y: Tensor, x: Tensor, network: nn.Module, config: RefineConfig, tick: Tick
) -> tuple[Tensor, Tensor]:
    """Return a volume after the passes of the network, and the spread of its answers, those of all passes in quadrature."""
    import torch

    from medrecon.methods._iterations import part_of

    scale = config.share * _UNIT * config.water_per_mm
    variance = torch.zeros_like(x)
    for number in range(config.passes):
        seen = channels(x, evidence(A, y, x), len(A.views), config.water_per_mm)
        part = part_of(tick, number / config.passes, (number + 1) / config.passes)
        mean, spread = mirrored(network, seen, config, str(y.device), part)
        x = x + scale * mean.to(x.device)
        x = x.clamp(min=0) if config.nonnegative else x
        variance += (scale * spread.to(x.device)).square()
    return x, variance.sqrt()


def _start(A: XRayTransform, y: Tensor, config: RefineConfig, tick: Tick) -> Tensor:
    from medrecon import methods

    method = methods.get(config.start)
    counted = config.iterations is not None and "iterations" in method.settings.model_fields
    found: Tensor = method.run(A, y, method.settings.model_validate({"iterations": config.iterations} if counted else {}), tick)
    return found


def evidence(A: XRayTransform, y: Tensor, x: Tensor) -> Tensor:
    """Return what the projections say that the volume lacks: `fdk` of what it misses of them, in 1/mm."""
    from medrecon.methods.fdk import FdkConfig, fdk

    return fdk(A, y - A.forward(x), FdkConfig(truncation=0.0), silent)


def channels(start: Tensor, missed: Tensor, views: int, water_per_mm: float) -> Tensor:
    """Return what the network sees of a start and its `evidence`.

    Returns
    -------
    (4, slices, rows, columns) Tensor
        The start in units of water; the same within 300 HU about water, spread out; the evidence, spread out; the number
        of views per row, alike everywhere.
    """
    import torch

    shade, lack = start / water_per_mm, missed / water_per_mm
    sampling = torch.full_like(shade, min(views / shade.shape[-2], 2.0))
    return torch.stack([shade, ((shade - 1) * 5).clamp(-1.5, 1.5), (lack * 5).clamp(-4, 4), sampling])


def mirrored(network: nn.Module, seen: Tensor, config: RefineConfig, device: str, tick: Tick) -> tuple[Tensor, Tensor]:
    """Return mean and spread of the network's answers to the volume and its mirror images, (slices, rows, columns) each."""
    import torch

    from medrecon.methods._iterations import part_of
    from medrecon.networks.precision import lowered
    from medrecon.networks.tiling import TilingConfig, predict

    seen = seen.float().cpu()[None]
    side = config.window
    tiling = TilingConfig(window=(side, side, side), halo=(16, 16, 16), multiple=2 ** (len(network.config.widths) - 1))  # type: ignore[union-attr, arg-type]  # a ResidualUnet
    network, _ = lowered(network.to(device), seen[..., :32, :64, :64], device, config.precision)
    answers = []
    for number, axes in enumerate(_MIRRORS[: config.mirrors]):
        part = part_of(tick, number / config.mirrors, (number + 1) / config.mirrors)
        answers.append(predict(network, seen.flip(axes), tiling, device, part).volume.flip(axes)[0, 0])
    all_of_them = torch.stack(answers)
    return all_of_them.mean(0), all_of_them.std(0, correction=0)


def consistent(
    A: XRayTransform, y: Tensor, start: Tensor, x: Tensor, config: RefineConfig, tick: Tick
) -> tuple[Tensor, tuple[Finding, ...]]:
    """Step along the rays until the volume misses hardly more of the projections than the start did, or noise alone.

    Voxels cannot express everything that a detector sees: to miss less than the start would be to fit noise. Where the
    passes do not suffice, a finding (``MDL-CONTRADICTED``) says so.
    """
    from medrecon.methods._iterations import allowed_residual, subsets_of

    enough = max(config.slack * _missed(A, y, start), allowed_residual(A, y, "noise"))
    missed = _missed(A, y, x)
    if missed <= enough:
        return x, ()
    subsets = subsets_of(A, y, "auto")
    for turn in range(config.consistency):
        for number, subset in enumerate(subsets):
            x = x + _RELAXATION * subset.correction(subset.missed(x))
            x = x.clamp(min=0) if config.nonnegative else x
            tick((turn + (number + 1) / len(subsets)) / config.consistency)
        missed = _missed(A, y, x)
        if missed <= enough:
            return x, ()
    return x, contradicted(y, missed, enough)


def contradicted(y: Tensor, missed: float, allowed: float) -> tuple[Finding, ...]:
    """Return a finding (``MDL-CONTRADICTED``) where a volume misses more of the projections than is allowed."""
    if missed <= allowed:
        return ()
    share, most = (norm / max(float(y.norm()), 1e-30) for norm in (missed, allowed))
    return (
        Finding(
            code="MDL-CONTRADICTED",
            verdict=Verdict.WARN,
            fact=f"after the network the volume misses {share:.2%} of the projections, {most:.2%} would do without it",
            numbers={"residual": share, "allowed_residual": most},
            hint="Compare with the method before the network; raise `consistency`, or use that method alone.",
        ),
    )


def _missed(A: XRayTransform, y: Tensor, x: Tensor) -> float:
    return float((y - A.forward(x)).norm())


def _unknown_start(start: str) -> tuple[Finding, ...]:
    if start in _TRAINED_STARTS:
        return ()
    return (
        Finding(
            code="MDL-RANGE",
            verdict=Verdict.WARN,
            fact=f"the network was trained after {' and '.join(_TRAINED_STARTS)}, not after {start}",
            hint="Start from tv.",
        ),
    )
