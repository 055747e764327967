"""The surface is the one that scikit-image draws, and lies where SimpleITK sees the level: eyes that somebody else wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from medrecon.core.grid import Grid
from medrecon.core.mesh import Surface
from medrecon.core.volume import Quantity, Volume
from medrecon.surface.extract import extract, make_surface
from medrecon.surface.settings import SurfaceConfig
from tests.makers_surfaces import STANDING


def rough(rng: np.random.Generator, matrix: NDArray[np.float64]) -> Volume:
    """Smooth noise: a surface with handles, cavities and many pieces, cut on all sides."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = (7, -80, 33)
    return Volume(gaussian_filter(rng.standard_normal((30, 34, 38)), 2.0).astype(np.float32), Grid((30, 34, 38), affine))


def drawn_by_skimage(volume: Volume, level: float) -> tuple[NDArray[np.float64], float]:
    """Vertices in LPS mm, by our affine as nibabel applies one, and the area of the triangles."""
    corners, triangles, _, _ = marching_cubes(volume.voxels.copy(), level)  # it takes no read-only array
    vertices = apply_affine(volume.grid.to_lps_mm, corners)
    a, b, c = (vertices[k] for k in triangles.T)
    return vertices, float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def differences(surface: Surface, volume: Volume, level: float) -> tuple[float, float]:
    """Farthest way to the other's nearest vertex in either direction, mm, and the relative difference in area.

    Of theirs one in a hundred may be far: in cells of ambiguous topology Lewiner's tables add a vertex.
    """
    vertices, area = drawn_by_skimage(volume, level)
    ours, theirs = cKDTree(surface.vertices_lps_mm), cKDTree(vertices)
    farthest = max(theirs.query(surface.vertices_lps_mm)[0].max(), np.quantile(ours.query(vertices)[0], 0.99))
    return float(farthest), abs(surface.to_trimesh().area / area - 1)


@pytest.mark.parametrize("matrix", STANDING.values(), ids=STANDING)
def test_vertices_and_area_are_those_of_marching_cubes(rng: np.random.Generator, matrix: NDArray[np.float64]) -> None:
    volume = rough(rng, matrix)
    surface = extract(volume, SurfaceConfig(level=0.05, closed=False))
    farthest_mm, area = differences(surface, volume, 0.05)
    assert farthest_mm < 1e-4
    assert area < 0.005


def test_the_comparison_fails_at_a_slightly_different_level(rng: np.random.Generator) -> None:
    volume = rough(rng, STANDING["oblique"])
    surface = extract(volume, SurfaceConfig(level=0.051, closed=False))
    farthest_mm, _ = differences(surface, volume, 0.05)
    assert farthest_mm > 1e-2


def test_the_comparison_fails_on_an_affine_with_two_axes_exchanged(rng: np.random.Generator) -> None:
    volume = rough(rng, STANDING["oblique"])
    exchanged = Volume(volume.voxels, Grid(volume.grid.shape, volume.grid.to_lps_mm[:, [1, 0, 2, 3]]))
    farthest_mm, _ = differences(extract(exchanged, SurfaceConfig(level=0.05, closed=False)), volume, 0.05)
    assert farthest_mm > 1


def test_a_real_head_is_drawn_as_marching_cubes_draws_it(shared_data: Path) -> None:
    whole = Volume.from_nibabel(nibabel.Nifti1Image.from_filename(shared_data / "volumes" / "mni152_2009a_t1_1mm.nii.gz"))
    box = np.s_[40:90, 60:130, 50:110]
    values = gaussian_filter(whole.voxels[box], 1.0)  # folds of one voxel may be triangulated in several ways
    part = Volume(values, whole.grid.crop((40, 60, 50), (50, 70, 60)))
    surface = extract(part, SurfaceConfig(level=90.0, closed=False))
    farthest_mm, area = differences(surface, part, 90.0)
    assert farthest_mm < 1e-4
    assert area < 0.005


def off_the_level_hu(surface: Surface, file: Path, level: float) -> float:
    """How far from the level the values are that SimpleITK, reading the file itself, finds at the vertices; the median, HU."""
    image = SimpleITK.ReadImage(file, SimpleITK.sitkFloat32)
    places = [image.TransformPhysicalPointToContinuousIndex(vertex) for vertex in surface.vertices_lps_mm[::97].tolist()]
    inside = [p for p in places if all(0 <= x <= n - 1 for x, n in zip(p, image.GetSize(), strict=True))]  # not the caps
    assert len(inside) > 300
    return float(np.median([abs(image.EvaluateAtContinuousIndex(p, SimpleITK.sitkLinear) - level) for p in inside]))


@pytest.mark.parametrize(("tissue", "level"), [("skin", -500.0), ("bone", 226.0)])
def test_in_a_real_ct_the_surface_lies_where_simpleitk_sees_the_level(
    shared_data: Path, tissue: Literal["skin", "bone"], level: float
) -> None:
    file = shared_data / "volumes" / "ct_example.nii.gz"
    volume = Volume.from_nibabel(nibabel.Nifti1Image.from_filename(file), Quantity.HOUNSFIELD)
    raw = make_surface(volume, SurfaceConfig(tissue=tissue, smoothing_iterations=0, target_triangles=None))
    assert raw.measures["watertight"]
    assert off_the_level_hu(raw, file, level) < 1
    mirrored = replace(raw, vertices_lps_mm=raw.vertices_lps_mm * [-1, 1, 1] + [2 * raw.vertices_lps_mm[:, 0].mean(), 0, 0])
    assert off_the_level_hu(mirrored, file, level) > 30
