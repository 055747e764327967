"""The two questions after every reconstruction from projections: whether they come back, and what was not seen from all sides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrecon.core.findings import Finding, Verdict
from medrecon.operators.xray_transform import XRayTransform
from medrecon.quality.assess import RESIDUAL_BOUND, Quality
from medrecon.quality.coverage import INTERPOLATED, MEASURED, UNSEEN
from medrecon.quality.view_coverage import view_coverage

_MOST_VIEWS = 72  # projected again; every one of them costs as much as in a reconstruction
_WORTH_SAYING = 0.02  # of the seen voxels


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionQuality(Quality):
    """How far a result from projections can be trusted.

    The residual is in line integrals, without unit. `interpolated_share` is the share of voxels that were seen from less
    than half a turn, `unseen_share` of those outside the field of view; see `medrecon.quality.view_coverage`.

    Parameters
    ----------
    residual_views : tuple of int
        Views to which the entries of `residual_map` belong: all, or some evenly spread ones.
    """

    residual_views: tuple[int, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the numbers and findings as plain data, without the maps."""
        return Quality.as_json(self) | {"residual_views": len(self.residual_views)}


def assess_projections(A: XRayTransform, y: Tensor, x: Tensor) -> ProjectionQuality:
    """Compare projections of the volume `x` with the projections `y` that it was made from, and map what A saw.

    What lies outside the field of view counts as air, as it does in the volume that is returned.
    """
    level = view_coverage(A)
    chosen = tuple(int(k) for k in np.unique(np.linspace(0, len(A.views) - 1, min(len(A.views), _MOST_VIEWS)).round()))
    part, measured = A.subset(list(chosen)), y[list(chosen)].float()
    if part.measured is not None:
        measured = torch.where(part.measured.to(measured.device), measured, 0)
    inside = torch.from_numpy(level != UNSEEN).to(y.device)
    difference = part.forward(torch.where(inside, x.to(y.device), 0)).sub_(measured)
    count = difference.numel() if part.measured is None else int(part.measured.sum())
    rms, size = (float(t.double().square().sum() / max(count, 1)) ** 0.5 for t in (difference, measured))
    relative = rms / size if size > 0 else (0.0 if rms == 0 else float("inf"))
    counts = np.bincount(level.reshape(-1), minlength=3) / level.size
    shares = {kind: float(counts[kind]) for kind in (MEASURED, INTERPOLATED, UNSEEN)}
    return ProjectionQuality(
        relative,
        rms,
        difference.cpu().numpy(),
        level,
        shares[MEASURED],
        shares[INTERPOLATED],
        shares[UNSEEN],
        tuple(_findings(relative, rms, shares)),
        chosen,
    )


def _findings(relative: float, rms: float, shares: dict[int, float]) -> Iterator[Finding]:
    if not relative <= RESIDUAL_BOUND:  # also where it is not a number
        yield Finding(
            "RES-HIGH",
            Verdict.WARN,
            f"the volume, projected again, misses the projections by {relative:.1%} of their size (bound {RESIDUAL_BOUND:.0%})",
            {"residual": relative if math.isfinite(relative) else None, "residual_rms": rms, "bound": RESIDUAL_BOUND},
            hint="Check distances, offsets and the direction of rotation; noise, truncation and few views do it too.",
        )
    seen = shares[MEASURED] + shares[INTERPOLATED]
    in_part = shares[INTERPOLATED] / seen if seen else 0.0
    if in_part > _WORTH_SAYING:
        whole = shares[MEASURED] > 0  # then only the rim of the field of view is concerned, as in every such scan
        yield Finding(
            "COV-INFERRED",
            Verdict.OK if whole else Verdict.WARN,
            f"{in_part:.1%} of the voxels in the field of view were seen from less than half a turn: they are inferred in part",
            {"inferred_share_of_seen": in_part},
            hint="The coverage map marks them with 1; do not measure there.",
        )
