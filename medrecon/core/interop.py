"""Conversions between a `Volume` and the types of other libraries.

This is the only place in the core where another space than LPS appears: RAS for nibabel and MONAI, x-y-z order for
SimpleITK, the screen for napari. Each library is imported when it is asked for. Nothing is resampled: a grid that a
library cannot hold is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Float64, Grid
from medrecon.core.volume import OUTSIDE_VALUE, Quantity, Volume

if TYPE_CHECKING:
    import nibabel
    import SimpleITK
    import torch
    from monai.data.meta_tensor import MetaTensor

#: What napari's ``add_layer_from_data`` and its readers take: the array, the layer's arguments, the layer's type.
LayerData = tuple[NDArray[np.float32], dict[str, Any], str]

#: Turns LPS millimetres into RAS millimetres, and back.
RAS_FROM_LPS: Float64 = np.diag([-1.0, -1.0, 1.0, 1.0])

#: Turns LPS millimetres into napari's world (head to feet, front to back, right to left), and back.
_SCREEN_FROM_LPS: Float64 = np.array([[0.0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])

#: Millimetres per unit of length, by the names that nibabel gives to NIfTI's codes.
MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}


def to_torch(volume: Volume) -> torch.Tensor:
    """Return a copy of the voxels as a float32 tensor (slice, row, column)."""
    import torch

    return torch.from_numpy(volume.voxels.copy())


def to_metatensor(volume: Volume) -> MetaTensor:
    """Return a MetaTensor (1, column, row, slice) with a RAS affine, as ``LoadImage(ensure_channel_first=True)`` gives it."""
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.utils import MetaKeys, SpaceKeys

    affine = ras_affine(volume.grid)
    meta = {
        MetaKeys.ORIGINAL_AFFINE: affine,
        MetaKeys.SPATIAL_SHAPE: np.array(volume.grid.shape[::-1]),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # MONAI's way of saying that the file had no channels
    }
    voxels = torch.from_numpy(volume.voxels.transpose(2, 1, 0)[np.newaxis].copy())
    return MetaTensor(voxels, affine=torch.from_numpy(affine), meta=meta)


def from_metatensor(tensor: MetaTensor, quantity: Quantity = Quantity.ARBITRARY) -> Volume:
    """Build a volume from a MetaTensor (1, column, row, slice) or (column, row, slice).

    Raises
    ------
    GeometryError
        ``VOL-AXES`` for several channels, a batch, or an image that is not three-dimensional.
    """
    voxels = np.asarray(tensor.detach().cpu().float().numpy())
    if voxels.ndim == 4 and voxels.shape[0] == 1:
        voxels = voxels[0]
    _refuse_other_axes(voxels.shape, "a MetaTensor (1, column, row, slice)")
    affine = np.asarray(tensor.affine.detach().cpu().numpy(), dtype=np.float64)
    if str(tensor.meta.get("space", "RAS")) == "LPS":
        affine = RAS_FROM_LPS @ affine
    return _from_xyz(voxels, affine, quantity)


def to_sitk(volume: Volume) -> SimpleITK.Image:
    """Return a SimpleITK image at the same place.

    Raises
    ------
    GeometryError
        ``VOL-SHEARED`` where the axes are not perpendicular: most of ITK's filters would silently straighten them.
    """
    import SimpleITK

    refuse_sheared(volume.grid, "a SimpleITK image")
    image = SimpleITK.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.grid.spacing_mm[::-1])
    image.SetOrigin(volume.grid.origin_lps_mm.tolist())
    image.SetDirection(volume.grid.directions[:, ::-1].ravel().tolist())
    return image


def from_sitk(image: SimpleITK.Image, quantity: Quantity = Quantity.ARBITRARY) -> Volume:
    """Build a volume from a 3D SimpleITK image with one component.

    Raises
    ------
    GeometryError
        ``VOL-AXES`` for a 2D or 4D image or several components.
    """
    import SimpleITK

    sizes = image.GetSize() + ((image.GetNumberOfComponentsPerPixel(),) if image.GetNumberOfComponentsPerPixel() > 1 else ())
    _refuse_other_axes(sizes, "a SimpleITK image with one component")
    return measured_volume(SimpleITK.GetArrayFromImage(image), sitk_grid(image), quantity)


def sitk_grid(image: SimpleITK.Image) -> Grid:
    """Return where a SimpleITK image, or the reader of one, stands; of four axes the first three count."""
    axes = image.GetDimension()
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (axes, axes))[:3, :3]
    affine[:3, :3] = (directions * np.asarray(image.GetSpacing()[:3]))[:, ::-1]
    affine[:3, 3] = image.GetOrigin()[:3]
    return Grid(image.GetSize()[2::-1], affine)


def to_nibabel(volume: Volume) -> nibabel.Nifti1Image:
    """Return a float32 NIfTI image in mm: the affine as sform, and as qform unless it is sheared, which no qform can hold."""
    import nibabel

    affine = ras_affine(volume.grid)
    image = nibabel.Nifti1Image(volume.voxels.transpose(2, 1, 0), affine)
    image.set_sform(affine, code="scanner")
    if not volume.grid.is_sheared:
        image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units(xyz="mm")
    return image


def from_nibabel(image: Any, quantity: Quantity = Quantity.ARBITRARY) -> Volume:  # noqa: ANN401 (nibabel is untyped)
    """Build a volume from a 3D nibabel image; a header in metres or micrometres is turned into mm.

    Raises
    ------
    GeometryError
        ``VOL-AXES`` for an image that is not three-dimensional.
    """
    _refuse_other_axes(image.shape, "a nibabel image with three axes")
    units = getattr(image.header, "get_xyzt_units", lambda: ("mm", "sec"))()[0]
    affine = np.diag([*[MM_PER_UNIT.get(units, 1.0)] * 3, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    return _from_xyz(np.asarray(image.dataobj), affine, quantity)


def to_napari(volume: Volume, name: str = "volume") -> LayerData:
    """Return a napari layer-data tuple in mm, turned so that it stands on the screen as radiologists look at it.

    napari draws the last axis to the right and the one before it downwards. Its world here is (head to feet, front to
    back, right to left), so axial planes show the patient's right on the left of the screen with the front up, sagittal
    and coronal planes show the head up, and the 3D view is not mirrored. Axes are permuted and flipped, never
    resampled; an oblique volume is shown along its nearest axes, its centre in its true place. ``metadata["to_lps_mm"]``
    maps an index into the layer's data to the true place in the patient.
    """
    import nibabel

    turn, shown = _on_screen(volume.grid)
    back = nibabel.orientations.inv_ornt_aff(turn, volume.grid.shape)  # index of the layer's data -> our index
    placed = shown @ back
    layer = {
        "name": name,
        "scale": placed.diagonal()[:3].copy(),
        "translate": placed[:3, 3],
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("head-feet", "front-back", "right-left"),
        "colormap": "gray",
        "metadata": {"to_lps_mm": volume.grid.to_lps_mm @ back, "quantity": str(volume.quantity)},
    }
    return nibabel.orientations.apply_orientation(volume.voxels, turn), layer, "image"


def napari_from_lps(grid: Grid) -> Float64:
    """Return the (4, 4) map from LPS mm to the world in which `to_napari` shows a volume on this grid.

    Surfaces and points that shall lie on that volume go through this matrix; for an oblique grid it holds the turn to
    the nearest axes.
    """
    world: Float64 = _on_screen(grid)[1] @ np.linalg.inv(grid.to_lps_mm)
    return world


def ras_affine(grid: Grid) -> Float64:
    """Return the (4, 4) map from (column, row, slice, 1) to RAS mm: the affine of nibabel and MONAI."""
    affine: Float64 = RAS_FROM_LPS @ grid.to_lps_mm[:, [2, 1, 0, 3]]
    return affine


def grid_from_ras(shape_xyz: tuple[int, int, int], affine: ArrayLike) -> Grid:
    """Return the grid of an array (column, row, slice) with a RAS affine."""
    slices, rows, columns = shape_xyz[::-1]
    return Grid((slices, rows, columns), RAS_FROM_LPS @ np.asarray(affine, dtype=np.float64)[:, [2, 1, 0, 3]])


def measured_volume(values: ArrayLike, grid: Grid, quantity: Quantity = Quantity.ARBITRARY) -> Volume:
    """Return a volume in which voxels that are not finite count as not seen and hold the quantity's outside value."""
    voxels = np.asarray(values, dtype=np.float32)
    seen = np.isfinite(voxels)
    if seen.all():
        return Volume(voxels, grid, quantity)
    return Volume(np.where(seen, voxels, np.float32(OUTSIDE_VALUE[Quantity(quantity)])), grid, quantity, seen)


def refuse_sheared(grid: Grid, target: str) -> None:
    """Raise `GeometryError` (``VOL-SHEARED``) where the axes of a grid are not perpendicular."""
    if grid.is_sheared:
        cosine = np.abs(grid.directions.T @ grid.directions - np.eye(3)).max()
        angle = float(np.degrees(np.arcsin(min(cosine, 1.0))))
        raise GeometryError(
            "VOL-SHEARED",
            f"two axes of the volume stand {angle:.2f} degrees from perpendicular, which {target} cannot hold.",
            "Reconstruct onto a grid with perpendicular axes, or write NIfTI, whose sform can hold it.",
        )


def _from_xyz(voxels: NDArray[Any], affine: Float64, quantity: Quantity) -> Volume:
    return measured_volume(voxels.transpose(2, 1, 0), grid_from_ras(voxels.shape, affine), quantity)


def _refuse_other_axes(sizes: tuple[int, ...], wanted: str) -> None:
    if len(sizes) != 3:
        raise GeometryError(
            "VOL-AXES", f"the image has the sizes {list(sizes)}, {wanted} is needed.", "Pick one time point or channel first."
        )


def _on_screen(grid: Grid) -> tuple[NDArray[np.float64], Float64]:
    """How to turn an array for the screen (nibabel's form: axis and sign), and the map from our index to napari's world."""
    import nibabel

    turn = nibabel.orientations.io_orientation(_SCREEN_FROM_LPS @ grid.to_lps_mm)
    shown, middle = np.eye(4), (np.asarray(grid.shape) - 1) / 2
    shown[:3, :3] = 0
    for axis, (world, sign) in enumerate(turn):
        shown[int(world), axis] = sign * grid.spacing_mm[axis]
    shown[:3, 3] = _SCREEN_FROM_LPS[:3, :3] @ grid.to_lps(middle) - shown[:3, :3] @ middle
    return turn, shown
