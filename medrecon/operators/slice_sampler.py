"""The forward model of slices: what a scanner that averages over thick slices sees of a fine volume.

For a slice with normal n, let d be the grid axis most parallel to n. The ray through a pixel along n crosses the
planes of d at depths u_j, h apart. There the volume is interpolated bilinearly in the plane, and weighs as much as the
profile's integral over the plane's cell, P(u_j + h/2) - P(u_j - h/2). What lies outside the grid does not count and
the rest is scaled up, so that every row of A adds up to 1; a pixel that sees less than half of its weight is not used.
Pixels larger than voxels are averaged over sub-positions.

Two paths compute the same numbers: slices parallel to the axes of the grid factorise, all others are followed ray by ray.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Grid
from medrecon.core.scans import SlicePoses
from medrecon.operators._general import GeneralSlices
from medrecon.operators._separable import SeparableSlices
from medrecon.operators._slice_geometry import SliceGeometry, slice_geometry
from medrecon.operators.linear import LinearOperator

SlicePath = Literal["auto", "separable", "general"]

_LEAST_SHARE = 0.5  # of a pixel's weight that must lie inside the grid


class SliceSampler(LinearOperator):
    """y = A x: sample posed, thick slices from a volume on a grid.

    Parameters
    ----------
    poses : SlicePoses
        Where the n images stand, how thick they are, and their profile.
    grid : Grid
        Where the voxels stand.
    measured : (n, rows, columns) bool, optional
        False where a pixel is padding; A gives 0 there.
    stack : (n,) int, optional
        Which stack an image belongs to. A itself does not need it, methods do.
    path : {"auto", "separable", "general"}
        ``auto`` takes the separable path wherever it exists.

    Raises
    ------
    GeometryError
        ``SLC-OBLIQUE`` where the separable path was demanded for slices oblique to the grid, ``SCAN-SHAPE`` for a mask
        or stack numbers of another size.
    """

    def __init__(
        self,
        poses: SlicePoses,
        grid: Grid,
        measured: NDArray[np.bool_] | None = None,
        stack: NDArray[np.int64] | None = None,
        path: SlicePath = "auto",
    ) -> None:
        self.poses = poses
        self.grid = grid
        self.measured = measured
        self.stack: NDArray[np.int64] = np.zeros(len(poses), dtype=np.int64) if stack is None else np.asarray(stack)
        self._wanted_path: SlicePath = path
        if measured is not None and measured.shape != self.range:
            raise GeometryError("SCAN-SHAPE", f"the mask has shape {measured.shape}, the poses say {self.range}")
        if self.stack.shape != (len(poses),):
            raise GeometryError("SCAN-SHAPE", f"stack has shape {self.stack.shape}, there are {len(poses)} images")
        if path == "separable" and self.path != "separable":
            raise GeometryError(
                "SLC-OBLIQUE",
                "some slices are not parallel to two axes of the grid",
                "Use path='auto', or a grid with axes='scanner'.",
            )

    def __repr__(self) -> str:
        masked = "" if self.measured is None else ", masked"
        return f"SliceSampler({self.path}, {self.range} from {self.domain}, {self.poses.profile.kind}{masked})"

    @property
    def domain(self) -> tuple[int, int, int]:
        """Shape of the volume, (slices, rows, columns)."""
        return self.grid.shape

    @property
    def range(self) -> tuple[int, int, int]:
        """Shape of the images, (n, rows, columns)."""
        rows, columns = self.poses.image_shape
        return len(self.poses), rows, columns

    @property
    def path(self) -> str:
        """The path in use: ``separable`` or ``general``."""
        return "general" if self.factors is None else "separable"

    @cached_property
    def geometry(self) -> SliceGeometry:
        """The slices in the index space of the grid."""
        return slice_geometry(self.poses, self.grid)

    @cached_property
    def factors(self) -> SeparableSlices | None:
        """The factors of the separable path, None on the general one."""
        return None if self._wanted_path == "general" else SeparableSlices.build(self.geometry)

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """Pixels that A uses, (n, rows, columns): measured, and at least half of their weight lies inside the grid."""
        enough = self._unmasked.sees(_LEAST_SHARE)
        return enough if self.measured is None else enough & self.measured

    def forward(self, x: Tensor) -> Tensor:
        """Return the images (n, rows, columns) that the scanner would see of the volume `x`."""
        _check_shape("volume", x, self.domain)
        y = self._unmasked.forward(x)
        return y if self._mask is None else y.masked_fill_(~self._mask.to(y.device), 0)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the exact transpose of `forward` applied to images."""
        _check_shape("images", y, self.range)
        return self._unmasked.adjoint(self.masked(y))

    def weights_per_voxel(self) -> Tensor:
        """Return the column sums of A as float32: how much all pixels together weigh a voxel; 0 means never seen."""
        return self.adjoint(torch.ones(self.range))

    def masked(self, y: Tensor) -> Tensor:
        """Return images with 0 in the pixels that A does not use."""
        return y if self._mask is None else torch.where(self._mask.to(y.device), y, y.new_zeros(()))

    def take(self, which: ArrayLike) -> SliceSampler:
        """Return the operator of the chosen images, in that order."""
        chosen = np.asarray(which)
        measured = None if self.measured is None else self.measured[chosen]
        return SliceSampler(self.poses.take(chosen), self.grid, measured, self.stack[chosen], self._wanted_path)

    @cached_property
    def _unmasked(self) -> SeparableSlices | GeneralSlices:
        return GeneralSlices(self.geometry) if self.factors is None else self.factors

    @cached_property
    def _mask(self) -> Tensor | None:
        return None if self.seen.all() else torch.from_numpy(self.seen)


def _check_shape(what: str, tensor: Tensor, shape: tuple[int, int, int]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"the {what} must have shape {shape}, not {tuple(tensor.shape)}")
