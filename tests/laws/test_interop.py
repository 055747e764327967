"""What a conversion promises beside the place: copies, refusals, values that are not finite, and how napari shows it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from medrecon.core.errors import GeometryError
from medrecon.core.interop import measured_volume, napari_from_lps
from medrecon.core.volume import OUTSIDE_VALUE, Quantity, Volume
from tests.makers_volumes import DIRECTIONS, MARKERS, STANDING, gap_mm, marked, seen_by_us, sheared, true_places

every_way_of_standing = pytest.mark.parametrize("directions", DIRECTIONS, ids=STANDING)
upright = pytest.mark.parametrize("directions", DIRECTIONS[:48], ids=STANDING[:48])


def code_of(raised: pytest.ExceptionInfo[GeometryError]) -> str:
    return raised.value.code


def test_a_tensor_is_a_copy_that_may_be_changed() -> None:
    volume = marked()
    tensor = volume.to_torch()
    tensor[...] = -1
    assert tensor.shape == (4, 5, 6)
    assert volume.voxels.max() == 400


def test_a_metatensor_is_a_copy_that_may_be_changed() -> None:
    volume = marked()
    tensor = volume.to_metatensor()
    tensor[...] = -1
    assert tensor.shape == (1, 6, 5, 4)
    assert volume.voxels.max() == 400


def test_a_metatensor_in_lps_is_understood() -> None:
    volume = marked(DIRECTIONS[50])
    tensor = volume.to_metatensor()
    turned = tensor.clone()
    turned.affine = tensor.affine.new_tensor(np.diag([-1.0, -1, 1, 1])) @ tensor.affine
    turned.meta["space"] = "LPS"
    assert Volume.from_metatensor(turned).grid.same_place(volume.grid)
    turned.meta["space"] = "RAS"
    assert not Volume.from_metatensor(turned).grid.same_place(volume.grid)


def test_a_sheared_volume_is_refused_by_simpleitk_with_its_angle() -> None:
    with pytest.raises(GeometryError, match=r"18\.50 degrees") as raised:
        sheared(18.5).to_sitk()
    assert code_of(raised) == "VOL-SHEARED"
    assert sheared(0.0).to_sitk().GetSize() == (6, 5, 4)


def test_a_sheared_image_of_another_library_keeps_its_shear() -> None:
    volume = sheared()
    assert Volume.from_nibabel(volume.to_nibabel()).grid.same_place(volume.grid)
    assert Volume.from_metatensor(volume.to_metatensor()).grid.same_place(volume.grid)
    image = SimpleITK.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.grid.origin_lps_mm.tolist())
    image.SetDirection(np.ascontiguousarray(volume.grid.directions[:, ::-1]).ravel().tolist())
    assert gap_mm(seen_by_us(Volume.from_sitk(image)), seen_by_us(volume)) < 1e-9


def test_four_dimensional_and_colour_input_is_refused_with_its_sizes() -> None:
    with pytest.raises(GeometryError, match=r"\[2, 3, 4, 5\]") as raised:
        Volume.from_nibabel(nibabel.Nifti1Image(np.zeros((2, 3, 4, 5), dtype=np.float32), np.eye(4)))
    assert code_of(raised) == "VOL-AXES"
    with pytest.raises(GeometryError, match="VOL-AXES"):
        Volume.from_sitk(SimpleITK.Image([2, 3, 4, 5], SimpleITK.sitkFloat32))
    with pytest.raises(GeometryError, match="VOL-AXES"):
        Volume.from_sitk(SimpleITK.Image([2, 3, 4], SimpleITK.sitkVectorFloat32, 3))
    tensor = marked().to_metatensor()
    with pytest.raises(GeometryError, match="VOL-AXES"):
        Volume.from_metatensor(tensor.repeat(2, 1, 1, 1))
    assert Volume.from_nibabel(nibabel.Nifti1Image(np.zeros((2, 3, 4), dtype=np.float32), np.eye(4))).grid.shape == (4, 3, 2)
    assert Volume.from_sitk(SimpleITK.Image([2, 3, 4], SimpleITK.sitkFloat32)).grid.shape == (4, 3, 2)
    assert Volume.from_metatensor(tensor[0]).grid.same_place(marked().grid)


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("micron", 0.001), ("meter", 1000.0)])
def test_a_nibabel_image_in_another_unit_is_turned_into_mm(unit: str, scale: float) -> None:
    image = marked().to_nibabel()
    image.header.set_xyzt_units(unit)
    assert Volume.from_nibabel(image).spacing_mm == pytest.approx([s * scale for s in (3.0, 1.5, 0.7)], rel=1e-6)


@pytest.mark.parametrize("quantity", list(Quantity))
def test_voxels_that_are_not_finite_are_not_seen_and_hold_the_outside_value(quantity: Quantity) -> None:
    values = marked().voxels.copy()
    values[0, 0, 0], values[1, 2, 3] = np.nan, np.inf
    volume = measured_volume(values, marked().grid, quantity)
    assert volume.seen is not None
    assert np.argwhere(~volume.seen).tolist() == [[0, 0, 0], [1, 2, 3]]
    assert volume.voxels[0, 0, 0] == volume.voxels[1, 2, 3] == OUTSIDE_VALUE[quantity]
    assert measured_volume(marked().voxels, marked().grid, quantity).seen is None


def test_importing_the_conversions_loads_no_library() -> None:
    code = "import sys, medrecon.core.interop; print({'torch', 'monai', 'SimpleITK', 'nibabel', 'napari'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


@upright
def test_napari_shows_markers_head_up_front_up_and_the_right_side_left(directions: NDArray[np.float64]) -> None:
    layer = napari_layer(marked(directions))
    for value, (left, back, head) in true_places(directions).items():
        index = np.argwhere(layer.data == value)[0]
        assert np.allclose(layer.data_to_world(index), [-head, back, left], atol=1e-9)


def test_the_napari_check_fails_on_the_array_as_it_is() -> None:
    volume = marked()
    layer = napari_layer(volume, data=volume.voxels)
    head = true_places()[200][2]
    assert abs(layer.data_to_world(np.argwhere(layer.data == 200)[0])[0] - -head) > 1


@every_way_of_standing
def test_napari_metadata_keep_the_true_place(directions: NDArray[np.float64]) -> None:
    data, layer, kind = marked(directions).to_napari("head")
    assert (kind, layer["name"]) == ("image", "head")
    for value, place in true_places(directions).items():
        assert np.allclose(layer["metadata"]["to_lps_mm"] @ [*np.argwhere(data == value)[0], 1], [*place, 1], atol=1e-9)
    assert (np.asarray(layer["scale"]) > 0).all()


@every_way_of_standing
def test_a_surface_lies_on_its_volume_in_napari(directions: NDArray[np.float64]) -> None:
    volume = marked(directions)
    data, layer, _ = volume.to_napari()
    for value, place in true_places(directions).items():
        shown = np.argwhere(data == value)[0] * layer["scale"] + layer["translate"]
        assert np.allclose((napari_from_lps(volume.grid) @ [*place, 1])[:3], shown, atol=1e-9)


@pytest.mark.parametrize("directions", DIRECTIONS[48:], ids=STANDING[48:])
def test_an_oblique_volume_is_shown_with_its_centre_in_place(directions: NDArray[np.float64]) -> None:
    volume = marked(directions)
    data, layer, _ = volume.to_napari()
    x, y, z = volume.grid.corners_lps_mm().mean(axis=0)
    middle = (np.asarray(data.shape) - 1) / 2 * layer["scale"] + layer["translate"]
    assert np.allclose(middle, [-z, y, x], atol=1e-9)
    assert sorted(data[data > 0].tolist()) == sorted(MARKERS)


def test_the_3d_view_of_napari_is_not_mirrored() -> None:
    camera = from_napari("components").Camera()
    drawn = dict(zip(("towards", "down", "right"), np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]), strict=True))  # LPS per axis
    assert tuple(str(axis) for axis in camera.orientation) == tuple(drawn)
    assert np.allclose(np.cross(drawn["right"], -drawn["down"]), drawn["towards"])


def napari_layer(volume: Volume, data: NDArray[np.float32] | None = None) -> Any:
    voxels, layer, _ = volume.to_napari()
    return from_napari("layers").Image(voxels if data is None else data, **layer)


def from_napari(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own at import
        return pytest.importorskip(f"napari.{module}", reason="napari is not installed (extra 'napari')")
