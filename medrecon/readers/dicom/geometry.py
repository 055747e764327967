"""What the positions of a volume's slices say, as findings with numbers; the tags that claim something about it are ignored.

Depths are measured along the slice normal. Slices are numbered from 1 along it. One finding per kind and volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrecon.core.findings import Finding, Verdict
from medrecon.core.words import counted
from medrecon.readers.dicom.headers import Image
from medrecon.readers.dicom.split import is_regular

Float64 = NDArray[np.float64]

REGULAR = 0.01  # of the step
_NEAR_MULTIPLE = 0.05
_LEAST_TILT_DEG = 0.05
_LEAST_DRIFT = 0.1  # of a pixel
_SAME_THICKNESS = 0.01
_TOUCHING = 0.25  # of the step: slices whose thickness leaves a smaller gap were planned so far apart
_MUCH_FINER = 1.5
_MOST_SHOWN = 8


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Where the slices of one volume stand, in order along their normal.

    Parameters
    ----------
    positions_lps_mm : (n, 3)
    across, down : (n, 3)
        Directions of growing column and row index, as the headers have them.
    spacing_mm : (n, 2)
        Between rows, between columns.
    thickness_mm : (n,)
        NaN where a header has none.
    """

    positions_lps_mm: Float64
    across: Float64
    down: Float64
    spacing_mm: Float64
    thickness_mm: Float64

    @classmethod
    def of(cls, images: Sequence[Image]) -> Stack:
        """Take the geometry of images that are in order already."""
        return cls(
            positions_lps_mm=np.asarray([image.position_lps_mm for image in images], dtype=np.float64),
            across=np.asarray([image.across for image in images], dtype=np.float64),
            down=np.asarray([image.down for image in images], dtype=np.float64),
            spacing_mm=np.asarray([image.spacing_mm for image in images], dtype=np.float64),
            thickness_mm=np.asarray([np.nan if image.thickness_mm is None else image.thickness_mm for image in images]),
        )

    @property
    def normals(self) -> Float64:
        """Unit normals (n, 3)."""
        crossed = np.cross(self.across, self.down)
        unit: Float64 = crossed / np.linalg.norm(crossed, axis=1, keepdims=True)
        return unit

    @property
    def depths_mm(self) -> Float64:
        """Depth along the first slice's normal, (n,)."""
        depths: Float64 = self.positions_lps_mm @ self.normals[0]
        return depths

    @property
    def steps_mm(self) -> Float64:
        """Distances between neighbours along the normal, (n - 1,)."""
        return np.diff(self.depths_mm)

    @property
    def step_mm(self) -> float | None:
        """The one step of a regular volume, None where there is none."""
        depths = self.depths_mm
        if len(depths) < 2 or not is_regular(depths, REGULAR):
            return None
        return float((depths[-1] - depths[0]) / (len(depths) - 1))

    def poses(self) -> Float64:
        """Return the 4x4 poses of `medrecon.core.scans.SlicePoses`, (n, 4, 4)."""
        poses = np.tile(np.eye(4), (len(self.positions_lps_mm), 1, 1))
        poses[:, :3, 0] = self.normals
        poses[:, :3, 1] = self.down * self.spacing_mm[:, :1]
        poses[:, :3, 2] = self.across * self.spacing_mm[:, 1:]
        poses[:, :3, 3] = self.positions_lps_mm
        return poses


def judge_geometry(stack: Stack) -> list[Finding]:
    """Return what the positions and thicknesses say."""
    count = len(stack.positions_lps_mm)
    if count == 1:
        hint = "A volume needs at least two slices at different positions."
        return [Finding("DCM-FEW", Verdict.REFUSED, "there is one slice; that is no volume.", {"slices": 1}, hint=hint)]
    found = [_missing(stack), _uneven(stack), _tilt(stack), _shifted(stack), *_against_thickness(stack)]
    if count == 2:
        fact = "there are two slices; nothing can confirm their distance."
        found.append(Finding("DCM-FEW", Verdict.WARN, fact, {"slices": 2}))
    return [finding for finding in found if finding is not None]


def zero_filled(image: Image) -> Finding | None:
    """Say where pixels are shown finer than they were measured."""
    if image.acquired is None:
        return None
    rows, columns = (max(1.0, shown / measured) for shown, measured in zip(image.shape, image.acquired, strict=True))
    if max(rows, columns) < 1 + REGULAR:
        return None
    between_rows, between_columns = image.spacing_mm[0] * rows, image.spacing_mm[1] * columns
    fact = (
        f"pixels of {image.spacing_mm[0]:.3f} x {image.spacing_mm[1]:.3f} mm are shown, "
        f"{between_rows:.3f} x {between_columns:.3f} mm were measured; the rest is zero filling."
    )
    verdict = Verdict.WARN if max(rows, columns) >= _MUCH_FINER else Verdict.OK
    return Finding(
        "DCM-ZEROFILL", verdict, fact, {"measured_mm": [between_rows, between_columns], "shown_mm": list(image.spacing_mm)}
    )


def usual_step(stack: Stack) -> float:
    """Return the median step in mm; 0 for a single slice."""
    steps = stack.steps_mm
    return float(np.median(steps)) if steps.size else 0.0


def _holes(stack: Stack) -> NDArray[np.int64]:
    """Return how many slices are missing in every step near a multiple of the usual one, unless thickness explains it."""
    steps, usual = stack.steps_mm, usual_step(stack)
    times = steps / usual
    whole = np.round(times)
    near = (whole >= 2) & (np.abs(times - whole) < _NEAR_MULTIPLE * whole)
    covered = _between(stack.thickness_mm) >= (1 - _TOUCHING) * steps  # NaN compares as False
    holes: NDArray[np.int64] = np.where(near & ~covered, whole - 1, 0).astype(np.int64)
    return holes


def _missing(stack: Stack) -> Finding | None:
    holes, steps, depths = _holes(stack), stack.steps_mm, stack.depths_mm
    where = np.flatnonzero(holes)
    if not where.size:
        return None
    usual, first, count = usual_step(stack), int(where[0]), int(holes.sum())
    gaps = [
        {
            "after_slice": int(k) + 1,
            "before_slice": int(k) + 2,
            "step_mm": round(float(steps[k]), 4),
            "missing_depths_mm": [round(float(v), 4) for v in np.linspace(depths[k], depths[k + 1], int(holes[k]) + 2)[1:-1]],
        }
        for k in where
    ]
    places = [place for gap in gaps for place in gap["missing_depths_mm"]]  # type: ignore[attr-defined]  # a list, by construction
    fact = (
        f"slices {first + 1} and {first + 2} are {steps[first]:.3f} mm apart, the usual step is {usual:.3f} mm: "
        f"{counted(count, 'slice', 'is', 'are')} missing, at {_listed(places)} mm along the normal."
    )
    numbers = {"missing": count, "usual_mm": round(usual, 4), "gaps": gaps}
    hint = "Export the series again, or pass allow=['missing-slices'] (--allow missing-slices) to infer the hole and mark it."
    return Finding("DCM-GAP", Verdict.REFUSED, fact, numbers, allow="missing-slices", hint=hint)


def _uneven(stack: Stack) -> Finding | None:
    """Judge what is left when missing slices are counted in."""
    depths, parts = stack.depths_mm, np.concatenate([[0], np.cumsum(_holes(stack) + 1)])
    step = (depths[-1] - depths[0]) / parts[-1]
    off = np.abs(depths - depths[0] - parts * step)
    if off.max() <= REGULAR * step:
        return None
    kinds = _distinct(stack.steps_mm)
    shown = ", ".join(f"{length:.3f} mm x{times}" for length, times in kinds[:_MOST_SHOWN])
    more = f" and {len(kinds) - _MOST_SHOWN} more" if len(kinds) > _MOST_SHOWN else ""
    fact = f"the steps between slices differ ({shown}{more}); every slice is used at its own place."
    numbers = {
        "steps_mm": [[round(length, 4), times] for length, times in kinds],
        "largest_off_mm": round(float(off.max()), 4),
        "slice": int(off.argmax()) + 1,
    }
    return Finding("DCM-UNEVEN", Verdict.WARN, fact, numbers)


def _tilt(stack: Stack) -> Finding | None:
    """Find a gantry tilt: slices that follow each other along a line that is not their normal."""
    line, length = _line(stack)
    sideways = line - (line @ stack.normals[0]) * stack.normals[0]
    angle = float(np.rad2deg(np.arctan2(np.linalg.norm(sideways), line @ stack.normals[0])))
    drift = float(np.linalg.norm(sideways)) * length
    if angle < _LEAST_TILT_DEG or drift < _LEAST_DRIFT * stack.spacing_mm.min():
        return None
    fact = f"the slices are tilted by {angle:.2f} degrees, as by a gantry; every slice keeps its place."
    return Finding("DCM-TILT", Verdict.WARN, fact, {"tilt_deg": round(angle, 4), "drift_mm": round(drift, 4)})


def _shifted(stack: Stack) -> Finding | None:
    """Find slices that stand beside the straight line that the others follow."""
    line, _ = _line(stack)
    from_first = stack.positions_lps_mm - stack.positions_lps_mm[0]
    along = stack.depths_mm - stack.depths_mm[0]
    beside = np.linalg.norm(from_first - np.outer(along / (line @ stack.normals[0]), line), axis=1)
    if beside.max() < _LEAST_DRIFT * stack.spacing_mm.min():
        return None
    worst = int(beside.argmax())
    fact = f"slices are shifted in their plane, slice {worst + 1} by {beside[worst]:.3f} mm; every slice keeps its place."
    return Finding("DCM-SHIFT", Verdict.WARN, fact, {"slice": worst + 1, "shift_mm": round(float(beside[worst]), 4)})


def _line(stack: Stack) -> tuple[Float64, float]:
    """Return the unit direction from the first to the last position, and the way between them along it."""
    way = stack.positions_lps_mm[-1] - stack.positions_lps_mm[0]
    length = float(np.linalg.norm(way))
    return way / length, length


def _against_thickness(stack: Stack) -> list[Finding]:
    """Compare every step with the thickness of the two slices beside it."""
    steps, thickness = stack.steps_mm, _between(stack.thickness_mm)
    known = np.isfinite(thickness) & (_holes(stack) == 0)
    gap, over = known & (steps > thickness * (1 + _SAME_THICKNESS)), known & (thickness > steps * (1 + _SAME_THICKNESS))
    found = []
    if gap.any():
        size = float((steps - thickness)[gap].max())
        those = counted(int(gap.sum()), "step", "exceeds", "exceed")
        fact = f"{those} the slice thickness, by up to {size:.3f} mm that was not measured."
        found.append(Finding("DCM-SPACE", Verdict.WARN, fact, {"steps": int(gap.sum()), "largest_mm": round(size, 4)}))
    if over.any():
        size = float((thickness - steps)[over].max())
        fact = f"slices overlap at {counted(int(over.sum()), 'step')}, by up to {size:.3f} mm."
        found.append(Finding("DCM-OVERLAP", Verdict.WARN, fact, {"steps": int(over.sum()), "largest_mm": round(size, 4)}))
    return found


def _between(values: Float64) -> Float64:
    """Return the mean of neighbours, (n - 1,)."""
    means: Float64 = (values[1:] + values[:-1]) / 2
    return means


def _distinct(steps: Float64) -> list[tuple[float, int]]:
    """Gather steps that agree to 1 %, shortest first, with how often each occurs."""
    kinds: list[list[float]] = []
    for step in sorted(float(one) for one in steps):
        if kinds and step <= kinds[-1][0] * (1 + REGULAR):
            kinds[-1].append(step)
        else:
            kinds.append([step])
    return [(float(np.mean(kind)), len(kind)) for kind in kinds]


def _listed(places: Sequence[float]) -> str:
    more = f" and {len(places) - _MOST_SHOWN} more" if len(places) > _MOST_SHOWN else ""
    return ", ".join(f"{place:.3f}" for place in places[:_MOST_SHOWN]) + more
