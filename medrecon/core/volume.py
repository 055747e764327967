"""Voxel values on a grid, with the name of what they measure.

A `Volume` is what readers of finished volumes return and what every reconstruction ends in. The conversions to and
from other libraries live in `medrecon.core.interop`; the methods here only call them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError
from medrecon.core.findings import Finding
from medrecon.core.grid import Grid
from medrecon.core.source import Source

if TYPE_CHECKING:
    import nibabel
    import SimpleITK
    import torch
    from monai.data.meta_tensor import MetaTensor

    from medrecon.core.interop import LayerData


class Quantity(StrEnum):
    """What a voxel value measures."""

    HOUNSFIELD = "hounsfield"
    ATTENUATION_PER_MM = "attenuation_per_mm"
    ARBITRARY = "arbitrary"


#: What is written outside the scanned region where a file format cannot say "not measured": air for CT, never water.
OUTSIDE_VALUE: dict[Quantity, float] = {
    Quantity.HOUNSFIELD: -1024.0,
    Quantity.ATTENUATION_PER_MM: 0.0,
    Quantity.ARBITRARY: 0.0,
}


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Voxel values standing in the patient.

    Parameters
    ----------
    voxels : (slices, rows, columns) float32
        Made contiguous and read-only. NaN means "not measured" only through `seen`, never by itself.
    grid : Grid
    quantity : Quantity
    seen : (slices, rows, columns) bool, optional
        False where the scan never looked; such voxels hold the quantity's outside value. None means all were seen.
    source : Source
        Where the values came from.
    findings : tuple of Finding
        What its reader noticed.
    allowed : tuple of str
        The laxness under which it was read.
    """

    voxels: NDArray[np.float32]
    grid: Grid
    quantity: Quantity = Quantity.ARBITRARY
    seen: NDArray[np.bool_] | None = None
    source: Source = field(default_factory=Source)
    findings: tuple[Finding, ...] = ()
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        voxels = np.ascontiguousarray(self.voxels, dtype=np.float32).view()
        voxels.flags.writeable = False
        object.__setattr__(self, "voxels", voxels)
        object.__setattr__(self, "quantity", Quantity(self.quantity))
        for name, array in (("voxels", self.voxels), ("seen", self.seen)):
            if array is not None and array.shape != self.grid.shape:
                raise GeometryError("VOL-SHAPE", f"{name} has shape {array.shape}, its grid {self.grid.shape}")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Spacing along slice, row and column in mm."""
        return self.grid.spacing_mm

    def with_voxels(self, voxels: NDArray[np.float32]) -> Volume:
        """Return the same place with other values."""
        return replace(self, voxels=voxels)

    def to_torch(self) -> torch.Tensor:
        """Return a copy of the voxels as a float32 tensor (slice, row, column)."""
        from medrecon.core import interop

        return interop.to_torch(self)

    def to_metatensor(self) -> MetaTensor:
        """Return a MONAI MetaTensor (1, column, row, slice) with its RAS affine, as MONAI's own readers give it."""
        from medrecon.core import interop

        return interop.to_metatensor(self)

    def to_sitk(self) -> SimpleITK.Image:
        """Return a SimpleITK image at the same place; raises `GeometryError` (``VOL-SHEARED``) for sheared grids."""
        from medrecon.core import interop

        return interop.to_sitk(self)

    def to_nibabel(self) -> nibabel.Nifti1Image:
        """Return a NIfTI image: RAS affine as sform, and as qform only where a qform can hold it."""
        from medrecon.core import interop

        return interop.to_nibabel(self)

    def to_napari(self, name: str = "volume") -> LayerData:
        """Return a napari layer-data tuple in mm; oblique volumes keep their true affine in the metadata."""
        from medrecon.core import interop

        return interop.to_napari(self, name)

    @classmethod
    def from_metatensor(cls, tensor: MetaTensor, quantity: Quantity = Quantity.ARBITRARY) -> Volume:
        """Build a volume from a MONAI MetaTensor (1, column, row, slice) or (column, row, slice)."""
        from medrecon.core import interop

        return interop.from_metatensor(tensor, quantity)

    @classmethod
    def from_sitk(cls, image: SimpleITK.Image, quantity: Quantity = Quantity.ARBITRARY) -> Volume:
        """Build a volume from a 3D SimpleITK image."""
        from medrecon.core import interop

        return interop.from_sitk(image, quantity)

    @classmethod
    def from_nibabel(cls, image: Any, quantity: Quantity = Quantity.ARBITRARY) -> Volume:  # noqa: ANN401 (nibabel is untyped here)
        """Build a volume from a 3D nibabel image."""
        from medrecon.core import interop

        return interop.from_nibabel(image, quantity)
