"""Pictures of a patient: right way up for every orientation, true to scale. nibabel turns the volumes, not our code."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
from nibabel import orientations
from numpy.typing import NDArray

from medrecon.core.grid import Grid
from medrecon.core.profile import SliceProfile
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.volume import Volume
from medrecon.quality.pictures import (
    PLANES,
    Plane,
    Sides,
    Window,
    letter,
    measured,
    nearest_measured,
    positions,
    reconstructed,
    view_of,
    within_a_slice,
)
from tests.makers_report import ball_scan, ball_volume

RADIOLOGICAL: dict[Plane, Sides] = {
    "axial": Sides(left="R", right="L", top="A", bottom="P"),
    "coronal": Sides(left="R", right="L", top="S", bottom="I"),
    "sagittal": Sides(left="A", right="P", top="S", bottom="I"),
}
ALL_AXCODES = [tuple(code) for order in itertools.permutations(("LR", "PA", "IS")) for code in itertools.product(*order)]
BLACK_AND_WHITE = Window(0.0, 1.0)


def patient() -> nibabel.Nifti1Image:
    """A canonical RAS image with one bright corner: left, anterior, superior."""
    values = np.zeros((20, 24, 28), dtype=np.float32)
    values[:5, -6:, -7:] = 1
    return nibabel.Nifti1Image(values, np.diag([3.0, 2.0, 1.5, 1.0]))


def turned(axcodes: tuple[str, ...]) -> Volume:
    """The same patient stored along other axes, as nibabel turns it."""
    image = patient()
    change = orientations.ornt_transform(orientations.io_orientation(image.affine), orientations.axcodes2ornt(axcodes))
    return as_volume(image.as_reoriented(change))


def as_volume(image: nibabel.Nifti1Image) -> Volume:
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    return Volume(np.asarray(image.dataobj).transpose(2, 1, 0), Grid(image.shape[::-1], to_lps[:, [2, 1, 0, 3]]))


def bright_quarter(volume: Volume, plane: Plane) -> tuple[str, str]:
    """Where the bright corner appears in the brightest picture of a plane."""
    view = view_of(volume.grid.directions, plane)
    tiles = [reconstructed(volume, view, k, BLACK_AND_WHITE, 1.0) for k in range(volume.grid.shape[view.axes[0]])]
    image = max((tile.image for tile in tiles), key=lambda picture: float(picture.sum()))
    row, column = np.argwhere(image > 128).mean(axis=0) / image.shape
    return "top" if row < 0.5 else "bottom", "left" if column < 0.5 else "right"


CORNER: dict[Plane, tuple[str, str]] = {"axial": ("top", "right"), "coronal": ("top", "right"), "sagittal": ("top", "left")}


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("axcodes", ALL_AXCODES, ids="".join)
def test_the_picture_and_its_letters_are_radiological_for_every_orientation(axcodes: tuple[str, ...], plane: Plane) -> None:
    volume = turned(axcodes)
    assert view_of(volume.grid.directions, plane).sides == RADIOLOGICAL[plane]
    assert bright_quarter(volume, plane) == CORNER[plane]


def test_the_check_sees_a_volume_mirrored_left_to_right() -> None:
    volume = turned(("L", "P", "S"))
    mirrored = volume.with_voxels(volume.voxels[:, :, ::-1])
    assert bright_quarter(mirrored, "axial") == ("top", "left")


@pytest.mark.parametrize("axcodes", ALL_AXCODES[::2], ids="".join)
def test_letters_agree_with_nibabel_on_oblique_axes(axcodes: tuple[str, ...], rng: np.random.Generator) -> None:
    affine = orientations.inv_ornt_aff(orientations.axcodes2ornt(axcodes), (9, 9, 9))
    skew, _ = np.linalg.qr(np.eye(3) + 0.15 * rng.standard_normal((3, 3)))
    skew *= np.sign(np.diag(skew))
    affine = np.block([[skew @ np.linalg.inv(affine)[:3, :3], np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
    directions = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]
    assert tuple(letter(direction) for direction in directions.T) == nibabel.aff2axcodes(affine)


def test_planes_are_shown_in_the_same_order_however_they_are_stored() -> None:
    for axcodes in ALL_AXCODES:
        volume = turned(axcodes)
        view = view_of(volume.grid.directions, "axial")
        chosen = positions(volume, view, BLACK_AND_WHITE, 3)
        heights = [float(volume.grid.to_lps(np.eye(3)[view.axes[0]] * k)[2]) for k in chosen]
        assert heights == sorted(heights)


def extent_mm(image: NDArray[np.uint8], mm_per_pixel: float) -> tuple[float, float]:
    bright = np.argwhere(image > 128)
    height, width = (bright.max(axis=0) - bright.min(axis=0) + 1) * mm_per_pixel
    return float(height), float(width)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("mm_per_pixel", [0.4, 1.1])
def test_a_ball_is_round_and_as_large_as_it_is(plane: Plane, mm_per_pixel: float) -> None:
    volume, scan = ball_volume(), ball_scan()
    view = view_of(volume.grid.directions, plane)
    middle = (volume.grid.shape[view.axes[0]] - 1) // 2
    after = reconstructed(volume, view, middle, Window(-1000, 40), mm_per_pixel)
    assert extent_mm(after.image, mm_per_pixel) == pytest.approx((44, 44), abs=2.5)
    before = measured(scan, volume.grid, view, middle, Window(-1000, 40), mm_per_pixel)
    assert before.image.shape == after.image.shape
    assert extent_mm(before.image, mm_per_pixel) == pytest.approx((44, 44), abs=5.0)  # a slice is 5 mm of the way


def test_the_roundness_check_sees_a_wrong_spacing() -> None:
    volume = ball_volume()
    stretched = Volume(volume.voxels, Grid.from_parts(volume.grid.shape, (1.9, 1.5, 1.5), volume.grid.origin_lps_mm))
    view = view_of(stretched.grid.directions, "coronal")
    height, width = extent_mm(reconstructed(stretched, view, 20, Window(-1000, 40), 0.5).image, 0.5)
    assert height > width + 5


def test_slices_are_shown_as_thick_as_they_are_with_nothing_in_the_gaps() -> None:
    heights = np.linspace(-28, 28, 2001)
    values, there = nearest_measured(ball_scan(), np.stack([0 * heights, 0 * heights, heights], axis=1))
    centres = np.arange(-27.5, 30, 5)
    away = np.abs(heights[:, None] - centres).min(axis=1)
    assert (there == (away <= 2.0 + 1e-6)).all()
    assert (values[there & (np.abs(heights) < 20)] == 40).all()


def test_a_plane_in_a_gap_gives_way_to_the_nearest_one_that_was_measured() -> None:
    volume, scan = ball_volume(), ball_scan()  # 1.5 mm planes, 4 mm slices every 5 mm
    view = view_of(volume.grid.directions, "axial")
    heights = -27.75 + 1.5 * np.arange(38)
    for index in range(38):
        chosen = within_a_slice(scan, volume.grid, view, index)
        away = np.abs(heights[chosen] - np.arange(-27.5, 30, 5)).min()
        assert away <= 2.0
        assert abs(chosen - index) <= 1


def test_the_nearest_pixel_is_found_among_tilted_and_crossing_stacks(rng: np.random.Generator) -> None:
    scan = crossing_stacks(rng)
    points = rng.uniform(-12, 12, (400, 3))
    values, there = nearest_measured(scan, points)
    for point, value, found in zip(points, values, there, strict=True):
        expected = brute_force(scan, point)
        assert found == (expected is not None)
        assert expected is None or value == expected


def crossing_stacks(rng: np.random.Generator) -> SliceScan:
    """A tilted stack that steps along z, and a sagittal one."""
    tilt = np.deg2rad(20)
    down = np.array([0, np.cos(tilt), -np.sin(tilt)])
    corners = np.array([[-9.5, -9.0, z] for z in (-6.0, 0.0, 6.0)])
    tilted = SlicePoses.from_parts(corners, down, (1, 0, 0), (1.0, 1.0), (20, 20), 3.0)
    upright = SlicePoses.from_parts([[x, -9.5, 9.5] for x in (-4.0, 4.0)], (0, 0, -1), (0, 1, 0), (1.0, 1.0), (20, 20), 3.0)
    poses = SlicePoses(np.concatenate([tilted.to_lps_mm, upright.to_lps_mm]), (20, 20), np.full(5, 3.0), SliceProfile())
    return SliceScan(rng.random((5, 20, 20), dtype=np.float32), poses, stack=np.array([0, 0, 0, 1, 1]))


def brute_force(scan: SliceScan, point: NDArray[np.float64]) -> float | None:
    """Value of the closest slice that has the point, by looking at each slice alone."""
    best: tuple[float, float] | None = None
    for pose, pixels, thickness in zip(scan.poses.to_lps_mm, scan.pixels, scan.poses.thickness_mm, strict=True):
        depth, row, column, _ = np.linalg.inv(pose) @ [*point, 1.0]
        inside = -0.5 <= row <= pixels.shape[0] - 0.5 and -0.5 <= column <= pixels.shape[1] - 0.5
        if inside and abs(depth) <= thickness / 2 and (best is None or abs(depth) < best[0]):
            best = (abs(depth), float(pixels[round(row), round(column)]))
    return None if best is None else best[1]
