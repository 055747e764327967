"""The two questions after every reconstruction: whether it agrees with the measurement, and what was never measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.findings import Finding, Verdict, judge
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.quality.coverage import INTERPOLATED, MEASURED, UNSEEN, coverage
from medrecon.quality.depth import lost_depth
from medrecon.quality.residual import residual

#: Above this relative residual a result from projections is flagged.
RESIDUAL_BOUND = 0.1
#: And one from slices. Measured on three heads in five directions, CT and MR, 3 to 6 mm thick: cubic splines stay below
#: 0.059, and with all slices half a step off none falls below 0.081.
SLICES_BOUND = 0.07
#: Voxels at the rim of a tilted series lie between slices in the strict sense; from this share on it is said.
_WORTH_SAYING = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """How far a result can be trusted.

    Parameters
    ----------
    residual : float
        ``||A x - y|| / ||y||`` over the measured pixels.
    residual_rms : float
        Root mean square of ``A x - y``, in the images' unit.
    residual_map : (n, rows, columns) float32
        ``A x - y``.
    coverage : (slices, rows, columns) uint8
        2 measured, 1 interpolated, 0 not seen, see `medrecon.quality.coverage`.
    measured_share, interpolated_share, unseen_share : float
        Shares of all voxels of the grid; they add up to 1.
    findings : tuple of Finding
    """

    residual: float
    residual_rms: float
    residual_map: NDArray[np.float32]
    coverage: NDArray[np.uint8]
    measured_share: float
    interpolated_share: float
    unseen_share: float
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The gravest of the findings."""
        return judge(self.findings)

    def as_json(self) -> dict[str, object]:
        """Return the numbers and findings as plain data, without the maps."""
        return {
            "residual": _plain(self.residual),
            "residual_rms": _plain(self.residual_rms),
            "measured_share": self.measured_share,
            "interpolated_share": self.interpolated_share,
            "unseen_share": self.unseen_share,
            "verdict": str(self.verdict),
            "findings": [finding.as_json() for finding in self.findings],
        }


def assess(A: SliceSampler, y: Tensor, x: Tensor, level: NDArray[np.uint8] | None = None) -> Quality:
    """Compare the volume `x` with the images `y` that it was made from, and map what A never saw.

    Parameters
    ----------
    level : (slices, rows, columns) uint8, optional
        The coverage, where the method knows it; else it follows from where the slices stand.
    """
    left = residual(A, y, x)
    level = coverage(A) if level is None else level
    shares = {of: float(np.count_nonzero(level == of)) / level.size for of in (MEASURED, INTERPOLATED, UNSEEN)}
    lost = lost_depth(A.poses, A.grid)
    findings = (*_findings(left.relative, left.rms, shares), *([lost] if lost else []))
    return Quality(left.relative, left.rms, left.map, level, shares[MEASURED], shares[INTERPOLATED], shares[UNSEEN], findings)


def _findings(relative: float, rms: float, shares: dict[int, float]) -> Iterator[Finding]:
    if not relative <= SLICES_BOUND:  # also where it is not a number
        yield Finding(
            "RES-HIGH",
            Verdict.WARN,
            f"the volume, sliced again, misses the images by {relative:.1%} of their size, the bound is {SLICES_BOUND:.0%}",
            {"residual": _plain(relative), "residual_rms": _plain(rms), "bound": SLICES_BOUND},
            hint="Check slice thickness and profile, or take finer voxels; of parallel slices consistent_spline misses least.",
        )
    seen = shares[MEASURED] + shares[INTERPOLATED]
    between = shares[INTERPOLATED] / seen if seen else 0.0
    if between > _WORTH_SAYING:
        yield Finding(
            "COV-INFERRED",
            Verdict.WARN,
            f"{between:.1%} of the seen voxels lie between slices: they are interpolated, not measured",
            {"interpolated_share_of_seen": between},
            hint="The coverage map marks them with 1; do not measure small structures there.",
        )


def _plain(number: float) -> float | None:
    """Return what JSON can hold."""
    return number if math.isfinite(number) else None
