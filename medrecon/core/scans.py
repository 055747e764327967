"""What was measured: posed images.

A `SliceScan` is any set of 2D images that know where they stand: a DICOM series, tilted or uneven, several stacks of
a moving patient, tracked ultrasound frames. Every image keeps its own pose and thickness; nothing here assumes that
images are parallel or equally spaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import GeometryError
from medrecon.core.findings import Finding, Verdict, judge
from medrecon.core.grid import Float64
from medrecon.core.profile import SliceProfile
from medrecon.core.source import Source
from medrecon.core.volume import Quantity, Volume

#: Cosine between rows and columns of pixels: the fitted calibration of a freehand probe leans by up to three degrees.
_MOST_LEAN = 0.1
_MOST_OFF = 1e-3  # of the unit normal


@dataclass(frozen=True, slots=True, eq=False)
class SlicePoses:
    """Where images stand: the geometry of a `SliceScan` without its pixels.

    Parameters
    ----------
    to_lps_mm : (n, 4, 4) float64
        Maps ``(depth_mm, row, column, 1)`` of image k to LPS mm. The first column is the unit normal, the second and
        third the steps to the next row and column, the fourth the centre of pixel (0, 0). Rows and columns may lean
        towards each other by a few degrees, as the calibration of a freehand probe makes them.
    image_shape : (rows, columns)
    thickness_mm : (n,) float64
        Full width at half maximum of the slice profile.
    profile : SliceProfile
    """

    to_lps_mm: Float64
    image_shape: tuple[int, int]
    thickness_mm: Float64
    profile: SliceProfile = field(default_factory=SliceProfile)

    def __post_init__(self) -> None:
        poses = np.array(self.to_lps_mm, dtype=np.float64)
        thickness = np.array(self.thickness_mm, dtype=np.float64)
        if poses.ndim != 3 or poses.shape[1:] != (4, 4) or len(poses) == 0 or not np.isfinite(poses).all():
            raise GeometryError("SCAN-POSE", f"slice poses must be finite 4x4 matrices, at least one; got shape {poses.shape}")
        if thickness.shape != poses.shape[:1] or not (thickness > 0).all() or not np.isfinite(thickness).all():
            raise GeometryError("SCAN-THICKNESS", f"{len(poses)} slices need as many positive thicknesses, got {thickness.shape}")
        _refuse_skew(poses)
        for name, array in (("to_lps_mm", poses), ("thickness_mm", thickness)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.to_lps_mm)

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.to_lps_mm, self.image_shape, self.thickness_mm, self.profile)

    @classmethod
    def from_parts(
        cls,
        positions_lps_mm: ArrayLike,
        row_direction: ArrayLike,
        column_direction: ArrayLike,
        pixel_spacing_mm: ArrayLike,
        image_shape: tuple[int, int],
        thickness_mm: ArrayLike,
        profile: SliceProfile | None = None,
    ) -> Self:
        """Build poses from positions (n, 3), the directions of growing ROW and COLUMN index, and spacing (row, column)."""
        down, across = np.asarray(row_direction, dtype=np.float64), np.asarray(column_direction, dtype=np.float64)
        positions = np.asarray(positions_lps_mm, dtype=np.float64).reshape(-1, 3)
        spacing = np.asarray(pixel_spacing_mm, dtype=np.float64)
        poses = np.tile(np.eye(4), (len(positions), 1, 1))
        poses[:, :3, 0] = np.cross(across, down)
        poses[:, :3, 1] = down * spacing[0]
        poses[:, :3, 2] = across * spacing[1]
        poses[:, :3, 3] = positions
        return cls(poses, image_shape, np.broadcast_to(thickness_mm, len(positions)), profile or SliceProfile())

    @property
    def normals(self) -> Float64:
        """Unit normals (n, 3): column direction x row direction, as DICOM has it."""
        normals: Float64 = self.to_lps_mm[:, :3, 0]
        return normals

    @property
    def pixel_spacing_mm(self) -> Float64:
        """Distance between rows and between columns of every image, (n, 2)."""
        spacing: Float64 = np.linalg.norm(self.to_lps_mm[:, :3, 1:3], axis=1)
        return spacing

    @property
    def depths_mm(self) -> Float64:
        """Position of every image along the first image's normal, (n,)."""
        depths: Float64 = self.to_lps_mm[:, :3, 3] @ self.normals[0]
        return depths

    @property
    def are_parallel(self) -> bool:
        """Whether all images share one orientation and pixel spacing (to 1e-4)."""
        return bool(np.abs(self.to_lps_mm[:, :3, :3] - self.to_lps_mm[0, :3, :3]).max() < 1e-4)

    def corners_lps_mm(self) -> Float64:
        """Centres of the four corner pixels of every image, (n, 4, 3)."""
        rows, columns = (size - 1 for size in self.image_shape)
        pixels = np.array([[0, 0, 0, 1], [0, 0, columns, 1], [0, rows, 0, 1], [0, rows, columns, 1]], dtype=np.float64)
        corners: Float64 = np.einsum("nij,kj->nki", self.to_lps_mm, pixels)[..., :3]
        return corners

    def take(self, which: ArrayLike) -> SlicePoses:
        """Return the poses of the chosen images, in that order."""
        chosen = np.asarray(which)
        return SlicePoses(self.to_lps_mm[chosen], self.image_shape, self.thickness_mm[chosen], self.profile)


@dataclass(frozen=True, slots=True, eq=False)
class SliceScan:
    """Posed 2D images, as measured.

    Parameters
    ----------
    pixels : (n, rows, columns) float32
        Rescaled values; made contiguous and read-only.
    poses : SlicePoses
    quantity : Quantity
    measured : (n, rows, columns) bool, optional
        False where a pixel is padding and not a measurement. None means all pixels were measured.
    stack : (n,) int
        Which stack an image belongs to; images of one stack are parallel and in order along their normal.
    findings : tuple of Finding
    allowed : tuple of str
        The laxness under which the scan was read.
    source : Source
    """

    pixels: NDArray[np.float32]
    poses: SlicePoses
    quantity: Quantity = Quantity.ARBITRARY
    measured: NDArray[np.bool_] | None = None
    stack: NDArray[np.int64] | None = None
    findings: tuple[Finding, ...] = ()
    allowed: tuple[str, ...] = ()
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        pixels = np.ascontiguousarray(self.pixels, dtype=np.float32).view()
        pixels.flags.writeable = False
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "quantity", Quantity(self.quantity))
        wanted = (len(self.poses), *self.poses.image_shape)
        for name, array in (("pixels", pixels), ("measured", self.measured)):
            if array is not None and array.shape != wanted:
                raise GeometryError("SCAN-SHAPE", f"{name} has shape {array.shape}, the poses say {wanted}")
        stack = np.zeros(len(self.poses), dtype=np.int64) if self.stack is None else np.asarray(self.stack, dtype=np.int64)
        if stack.shape != (len(self.poses),):
            raise GeometryError("SCAN-SHAPE", f"stack has shape {stack.shape}, there are {len(self.poses)} images")
        object.__setattr__(self, "stack", stack)

    @property
    def verdict(self) -> Verdict:
        """The verdict over all findings under the given allowances."""
        return judge(self.findings, self.allowed)

    def stacks(self) -> list[SliceScan]:
        """Split into one scan per stack, each in slice order."""
        labels = self.stack if self.stack is not None else np.zeros(len(self.poses), dtype=np.int64)
        return [self.take(np.flatnonzero(labels == label)) for label in np.unique(labels)]

    def take(self, which: ArrayLike) -> SliceScan:
        """Return the chosen images, in that order, with their instances."""
        chosen = np.asarray(which)
        instances = self.source.instances
        if len(instances) == len(self.poses):
            instances = tuple(instances[int(k)] for k in chosen)
        return replace(
            self,
            pixels=self.pixels[chosen],
            poses=self.poses.take(chosen),
            measured=None if self.measured is None else self.measured[chosen],
            stack=None if self.stack is None else self.stack[chosen],
            source=replace(self.source, instances=instances),
        )

    @classmethod
    def from_volume(
        cls, volume: Volume, axis: int = 0, thickness_mm: float | None = None, profile: SliceProfile | None = None
    ) -> SliceScan:
        """Take the planes of a volume along one index axis as measured slices.

        Parameters
        ----------
        axis : int
            Index axis across the slices: 0, 1 or 2.
        thickness_mm : float, optional
            Slice thickness; the spacing along `axis` where not given.
        """
        order = [axis, *(a for a in range(3) if a != axis)]
        columns = volume.grid.to_lps_mm[:3, order]
        normal = np.cross(columns[:, 2], columns[:, 1])  # column direction x row direction, as in DICOM
        poses = np.tile(np.eye(4), (volume.grid.shape[axis], 1, 1))
        poses[:, :3, 0] = normal / np.linalg.norm(normal)
        poses[:, :3, 1:3] = columns[:, 1:]
        poses[:, :3, 3] = volume.grid.origin_lps_mm + np.arange(volume.grid.shape[axis])[:, None] * columns[:, 0]
        thickness = thickness_mm if thickness_mm is not None else abs(float(columns[:, 0] @ poses[0, :3, 0]))
        image_shape = (volume.grid.shape[order[1]], volume.grid.shape[order[2]])
        return cls(
            pixels=np.ascontiguousarray(volume.voxels.transpose(order)),
            poses=SlicePoses(poses, image_shape, np.full(len(poses), thickness), profile or SliceProfile()),
            quantity=volume.quantity,
            measured=None if volume.seen is None else np.ascontiguousarray(volume.seen.transpose(order)),
            source=volume.source,
            findings=volume.findings,
            allowed=volume.allowed,
        )


def _refuse_skew(poses: Float64) -> None:
    """Refuse rows and columns of pixels that lean towards each other, and a first column that is not the unit normal."""
    rows, columns = (poses[:, :3, k] / np.linalg.norm(poses[:, :3, k], axis=1, keepdims=True) for k in (1, 2))
    lean = np.abs(np.einsum("ni,ni->n", rows, columns))
    normal = np.cross(columns, rows)
    off = np.abs(normal / np.linalg.norm(normal, axis=1, keepdims=True) - poses[:, :3, 0]).max(axis=1)
    worst = int(np.argmax(np.maximum(lean / _MOST_LEAN, off / _MOST_OFF)))
    if not (lean[worst] < _MOST_LEAN and off[worst] < _MOST_OFF):
        fact = f"slice {worst + 1}: rows, columns and normal are not perpendicular ({max(lean[worst], off[worst]):.2e})"
        raise GeometryError("SCAN-POSE", fact)
