"""Each label of a label map gets a closed surface of its own volume, and neighbours share their border."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine

from medrecon.core.errors import UsageError
from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.volume import Volume
from medrecon.surface.labels import extract_labels
from tests.makers_surfaces import CENTRE_LPS_MM, STANDING, grid_around, points_of

every_way_of_standing = pytest.mark.parametrize("matrix", STANDING.values(), ids=STANDING)


def halves(matrix: np.ndarray) -> Volume:
    """A ball of 20 mm cut into a left half, 7, and a right half, 3."""
    grid = grid_around(matrix, half_mm=22)
    away = points_of(grid) - CENTRE_LPS_MM
    side = np.where(away[..., 0] > 0, 7, 3)
    return Volume(np.where(np.linalg.norm(away, axis=-1) < 20, side, 0).astype(np.float32), grid)


def voxel_volume_ml(volume: Volume, label: int) -> float:
    return float((volume.voxels == label).sum() * volume.grid.voxel_volume_mm3 / 1000)


def volumes_differ(surfaces: tuple[Surface, ...], volume: Volume, share: float) -> list[str]:
    """Labels whose surface is not closed, or does not enclose what its voxels fill."""
    wrong = []
    for surface in surfaces:
        mesh = surface.to_trimesh()
        true_ml = voxel_volume_ml(volume, int(surface.name.removeprefix("label-")))
        if not (mesh.is_watertight and mesh.volume / 1000 == pytest.approx(true_ml, rel=share)):
            wrong.append(surface.name)
    return wrong


@every_way_of_standing
@pytest.mark.parametrize(("iterations", "share"), [(0, 1e-4), (20, 0.01)], ids=["staircase", "smoothed"])
def test_each_label_encloses_the_volume_of_its_voxels(matrix: np.ndarray, iterations: int, share: float) -> None:
    volume = halves(matrix)
    surfaces = extract_labels(volume, smoothing_iterations=iterations)
    assert [surface.name for surface in surfaces] == ["label-3", "label-7"]
    assert volumes_differ(surfaces, volume, share) == []


def test_the_volume_check_fails_on_a_surface_that_is_inside_out_and_on_a_shifted_label() -> None:
    volume = halves(STANDING["oblique"])
    first, second = extract_labels(volume)
    turned = replace(first, triangles=first.triangles[:, ::-1])
    swapped = replace(second, name=first.name, vertices_lps_mm=second.vertices_lps_mm * 1.01)
    assert volumes_differ((turned, swapped), volume, 0.01) == ["label-3", "label-3"]


@every_way_of_standing
def test_the_left_half_lies_left_and_looks_outward(matrix: np.ndarray) -> None:
    right, left = (surface.to_trimesh() for surface in extract_labels(halves(matrix)))
    assert left.center_mass - CENTRE_LPS_MM == pytest.approx([20 * 3 / 8, 0, 0], abs=0.4)  # of half a ball: 3/8 of the radius
    assert right.center_mass - CENTRE_LPS_MM == pytest.approx([-20 * 3 / 8, 0, 0], abs=0.4)
    flat = np.abs(left.triangles_center[:, 0] - CENTRE_LPS_MM[0]) < 0.3
    assert np.average(left.face_normals[flat, 0], weights=left.area_faces[flat]) < -0.8


def test_neighbours_share_their_border_to_the_last_digit() -> None:
    right, left = extract_labels(halves(STANDING["sheared and flipped"]))
    common = {tuple(v) for v in right.vertices_lps_mm} & {tuple(v) for v in left.vertices_lps_mm}
    assert len(common) > 500


def test_a_label_at_the_end_of_the_scan_is_closed() -> None:
    grid = Grid.from_parts((6, 7, 8), (2.0, 1.0, 1.5), (1, 2, 3))
    (surface,) = extract_labels(Volume(np.ones(grid.shape, dtype=np.float32), grid), smoothing_iterations=0)
    mesh = surface.to_trimesh()
    assert mesh.is_watertight
    assert mesh.bounds == pytest.approx(np.array([[1 - 0.75, 2 - 0.5, 3 - 1.0], [1 + 11.25, 2 + 6.5, 3 + 11.0]]))


def test_voxels_that_touch_only_along_an_edge_are_parted() -> None:
    labels = np.zeros((6, 6, 6), dtype=np.float32)
    labels[1:3, 1:3, 1:4] = labels[3:5, 3:5, 1:4] = 1
    volume = Volume(labels, Grid(labels.shape, np.eye(4)))
    assert volumes_differ(extract_labels(volume, smoothing_iterations=0), volume, 0.01) == []


def test_voxels_that_were_not_seen_are_background() -> None:
    volume = halves(STANDING["upright"])
    seen = points_of(volume.grid)[..., 0] > CENTRE_LPS_MM[0]
    assert [surface.name for surface in extract_labels(replace(volume, seen=seen))] == ["label-7"]


def test_only_the_labels_asked_for_are_drawn_in_that_order() -> None:
    volume = halves(STANDING["upright"])
    assert [surface.name for surface in extract_labels(volume, labels=[7, 3])] == ["label-7", "label-3"]
    assert volumes_differ(extract_labels(volume, labels=[7]), volume, 0.01) == []


@pytest.mark.parametrize("values", [[0, 0.5], [0, np.nan], list(range(2000))], ids=["fraction", "not finite", "grey values"])
def test_values_that_are_no_labels_are_refused(values: list[float]) -> None:
    voxels = np.resize(np.array(values, dtype=np.float32), (12, 13, 14))
    with pytest.raises(UsageError) as raised:
        extract_labels(Volume(voxels, Grid(voxels.shape, np.eye(4))))
    assert raised.value.code == "SRF-LABELS"


def test_a_label_that_does_not_occur_is_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"label 5 .*\[3, 7\]") as raised:
        extract_labels(halves(STANDING["upright"] * 2), labels=[3, 5])
    assert raised.value.code == "SRF-LABELS"


def test_the_parts_of_a_real_brain_keep_their_volume_and_place(shared_data: Path) -> None:
    image = nibabel.Nifti1Image.from_filename(shared_data / "brain_label_maps" / "brain1_labels.nii.gz")
    whole = Volume.from_nibabel(image)
    parts = [10, 11, 12, 17, 49, 50, 51, 53]
    parts = [label for label in parts if (whole.voxels == label).any()]
    volume = whole.with_voxels(np.where(np.isin(whole.voxels, parts), whole.voxels, 0).astype(np.float32))
    surfaces = extract_labels(volume)
    assert volumes_differ(surfaces, volume, 0.025) == []
    for label, surface in zip(parts, surfaces, strict=True):
        ras = apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) == label)).mean(axis=0)
        assert surface.to_trimesh().center_mass == pytest.approx(ras * [-1, -1, 1], abs=0.3)
