"""A volume without any symmetry, standing in every way a volume can stand, and what other programs see of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medrecon.core.grid import Grid
from medrecon.core.volume import Quantity, Volume

Places = dict[int, NDArray[np.float64]]

SHAPE = (4, 5, 6)
SPACING_MM = (3.0, 1.5, 0.7)
ORIGIN_LPS_MM = (-11.0, 7.0, 23.0)
#: Value of a marker: the index (slice, row, column) where it sits. Values and places have no symmetry.
MARKERS = {100: (0, 1, 2), 200: (3, 1, 1), 300: (1, 4, 2), 400: (2, 0, 5)}


def upright_directions() -> Iterator[NDArray[np.float64]]:
    """Yield all 48 ways in which three axes can run along the sides of the patient."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            yield np.eye(3)[:, order] * signs


def oblique_directions() -> Iterator[NDArray[np.float64]]:
    """Yield eight rotations by angles that nothing hides in, every second one mirrored."""
    for seed in range(8):
        turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
        yield turn * ((-1.0, 1.0, 1.0) if seed % 2 else (1.0, 1.0, 1.0))


DIRECTIONS = [*upright_directions(), *oblique_directions()]
STANDING = [f"upright{k}" for k in range(48)] + [f"oblique{k}" for k in range(8)]


def marked(directions: NDArray[np.float64] | None = None, quantity: Quantity = Quantity.ARBITRARY) -> Volume:
    """Return the marked volume, its index axes along the columns of `directions`."""
    voxels = np.zeros(SHAPE, dtype=np.float32)
    for value, index in MARKERS.items():
        voxels[index] = value
    return Volume(voxels, Grid.from_parts(SHAPE, SPACING_MM, ORIGIN_LPS_MM, directions), quantity)


def sheared(angle_deg: float = 18.5) -> Volume:
    """Return the marked volume with a gantry tilt."""
    affine = marked().grid.to_lps_mm.copy()
    affine[1, 0] = -SPACING_MM[0] * np.tan(np.deg2rad(angle_deg))
    return Volume(marked().voxels, Grid(SHAPE, affine))


def true_places(directions: NDArray[np.float64] | None = None) -> Places:
    """Where the markers must be in LPS mm, step by step from the definition."""
    axes = np.eye(3)[:, ::-1] if directions is None else directions
    return {
        value: np.asarray(ORIGIN_LPS_MM) + sum(index[k] * SPACING_MM[k] * axes[:, k] for k in range(3))
        for value, index in MARKERS.items()
    }


def seen_by_nibabel(image: Any, affine: NDArray[np.float64] | None = None) -> Places:
    """Where nibabel sees the markers, in LPS mm."""
    data = np.asarray(image.dataobj)
    affine = image.affine if affine is None else affine
    return {value: apply_affine(affine, np.argwhere(data == value)[0]) * (-1, -1, 1) for value in MARKERS}


def seen_by_sitk(image: Any) -> Places:
    """Where SimpleITK sees the markers, in LPS mm."""
    places = {}
    for value in MARKERS:
        shape = SimpleITK.LabelShapeStatisticsImageFilter()
        shape.Execute(SimpleITK.Equal(image, value))
        index = shape.GetBoundingBox(1)[:3]
        places[value] = np.asarray(image.TransformIndexToPhysicalPoint(index))
    return places


def seen_by_monai(tensor: Any) -> Places:
    """Where a MetaTensor (1, i, j, k) with a RAS affine has the markers, in LPS mm."""
    data, affine = np.asarray(tensor.cpu())[0], np.asarray(tensor.affine)
    return {value: (affine @ [*np.argwhere(data == value)[0], 1.0])[:3] * (-1, -1, 1) for value in MARKERS}


def seen_by_us(volume: Volume) -> Places:
    """Where a volume of ours has the markers, by its matrix."""
    return {value: (volume.grid.to_lps_mm @ [*np.argwhere(volume.voxels == value)[0], 1.0])[:3] for value in MARKERS}


def gap_mm(seen: Places, true: Places) -> float:
    """The largest distance between where a marker is seen and where it is."""
    return max(float(np.linalg.norm(seen[value] - true[value])) for value in true)


def write_nibabel(volume: Volume, path: Path) -> None:
    """Write a NIfTI through nibabel alone, from the definition of RAS."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.grid.to_lps_mm[:, [2, 1, 0, 3]]
    nibabel.Nifti1Image(volume.voxels.T, affine).to_filename(path)
