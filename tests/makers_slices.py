"""Slices at all the poses that the model of slices must hold for, with forward models on grids that suit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medrecon.core.grid import Grid
from medrecon.core.output_grid import plan_grid
from medrecon.core.profile import ProfileKind, SliceProfile
from medrecon.core.scans import SlicePoses
from medrecon.operators.slice_sampler import SlicePath, SliceSampler

Float64 = NDArray[np.float64]
ROWS, COLUMNS = 12, 14


def parallel_poses(
    count: int = 6,
    step_lps_mm: tuple[float, float, float] = (0, 0, 4),
    thickness_mm: float = 4,
    kind: ProfileKind = "gaussian",
    pixel_mm: tuple[float, float] = (1, 1),
    down: tuple[float, float, float] = (0, 1, 0),
    across: tuple[float, float, float] = (1, 0, 0),
    shape: tuple[int, int] = (ROWS, COLUMNS),
) -> SlicePoses:
    """Images of one orientation; a step that leaves the normal is a tilted gantry."""
    positions = np.arange(count)[:, None] * np.asarray(step_lps_mm, dtype=np.float64) + [3.0, -4.0, 5.0]
    table = ((-0.9, 0.0), (-0.2, 1.0), (0.4, 0.7), (0.7, 0.0)) if kind == "measured" else ()
    return SlicePoses.from_parts(positions, down, across, pixel_mm, shape, thickness_mm, SliceProfile(kind, table))


def tilted_poses(kind: ProfileKind = "bell", shape: tuple[int, int] = (ROWS, COLUMNS)) -> SlicePoses:
    """A gantry tilted by 18.5 degrees: positions step along z only."""
    c, s = float(np.cos(np.deg2rad(18.5))), float(np.sin(np.deg2rad(18.5)))
    return parallel_poses(step_lps_mm=(0, 0, 4), thickness_mm=3.8, kind=kind, down=(0, c, s), shape=shape)


def uneven_poses() -> SlicePoses:
    """Steps of 4, 1.08 and 7 mm, thicknesses of 4 and 7 mm, as one real GE series has them."""
    depths = np.array([0, 4, 8, 9.08, 16.08, 23.08])
    positions = np.stack([np.zeros(6), np.zeros(6), depths], axis=1)
    thickness = [4.0, 4, 4, 7, 7, 7]
    return SlicePoses.from_parts(positions, (0, 1, 0), (1, 0, 0), (1, 1), (ROWS, COLUMNS), thickness, SliceProfile("bell"))


def turned(poses: SlicePoses, degrees: float, seed: int = 5) -> SlicePoses:
    """Turn all images together about a random axis through their middle."""
    axis = np.random.default_rng(seed).standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    middle = poses.corners_lps_mm().reshape(-1, 3).mean(axis=0)
    moved = poses.to_lps_mm.copy()
    moved[:, :3, :3] = turn @ moved[:, :3, :3]
    moved[:, :3, 3] = (moved[:, :3, 3] - middle) @ turn.T + middle
    return SlicePoses(moved, poses.image_shape, poses.thickness_mm, poses.profile)


def together(*stacks: SlicePoses) -> tuple[SlicePoses, NDArray[np.int64]]:
    """Several stacks as one set of images, with their stack numbers."""
    poses = np.concatenate([stack.to_lps_mm for stack in stacks])
    thickness = np.concatenate([stack.thickness_mm for stack in stacks])
    labels = np.repeat(np.arange(len(stacks)), [len(stack) for stack in stacks])
    return SlicePoses(poses, stacks[0].image_shape, thickness, stacks[0].profile), labels


def three_stacks() -> tuple[SlicePoses, NDArray[np.int64]]:
    """Axial, coronal and sagittal images around one place, 16 mm wide."""
    shape = (16, 16)
    axial = parallel_poses(4, (0, 0, 4), shape=shape)
    coronal = parallel_poses(4, (0, 4, 0), shape=shape, down=(0, 0, 1), across=(1, 0, 0))
    sagittal = parallel_poses(4, (4, 0, 0), shape=shape, down=(0, 0, 1), across=(0, 1, 0))
    return together(axial, coronal, sagittal)


@dataclass(frozen=True)
class Case:
    """A named forward model, made when asked for."""

    name: str
    make: Callable[[SlicePath], SliceSampler]
    separable: bool = True

    def __str__(self) -> str:
        return self.name


def _on_planned_grid(
    poses: SlicePoses, spacing_mm: float | None = None, measured: NDArray[np.bool_] | None = None
) -> Callable[[SlicePath], SliceSampler]:
    grid = plan_grid(poses, spacing_mm)
    return lambda path: SliceSampler(poses, grid, measured, path=path)


def _three_stacks(path: SlicePath) -> SliceSampler:
    poses, stack = three_stacks()
    return SliceSampler(poses, plan_grid(poses), stack=stack, path=path)


def _patient(poses: SlicePoses) -> Callable[[SlicePath], SliceSampler]:
    grid = plan_grid(poses, 1.0, "patient")
    return lambda path: SliceSampler(poses, grid, path=path)


def _cropped(poses: SlicePoses) -> Callable[[SlicePath], SliceSampler]:
    whole = plan_grid(poses)
    slices, rows, columns = whole.shape
    grid = whole.crop((3, 2, 1), (slices - 5, rows - 4, columns - 5))
    return lambda path: SliceSampler(poses, grid, path=path)


def padding_mask(count: int = 6) -> NDArray[np.bool_]:
    """True inside a circle, as CT images have it; one more pixel is missing in the second image."""
    row, column = np.ogrid[:ROWS, :COLUMNS]
    circle = (row - 5.5) ** 2 + (column - 6.5) ** 2 < 36
    mask = np.repeat(circle[None], count, axis=0)
    mask[1, 5, 5] = False
    return mask


def sampler_cases() -> list[Case]:
    """Every kind of slices; those that are parallel to the axes of their grid can take both paths."""
    kinds: tuple[ProfileKind, ...] = ("gaussian", "bell", "triangle", "box", "slab", "measured")
    return [
        *(Case(f"regular-{kind}", _on_planned_grid(parallel_poses(kind=kind))) for kind in kinds),
        Case("gap", _on_planned_grid(parallel_poses(step_lps_mm=(0, 0, 5)))),
        Case("overlap", _on_planned_grid(parallel_poses(step_lps_mm=(0, 0, 2)))),
        Case("thinner-than-a-voxel", _on_planned_grid(parallel_poses(step_lps_mm=(0, 0, 1), thickness_mm=0.4, kind="box"))),
        Case("uneven", _on_planned_grid(uneven_poses())),
        Case("voxels-coarser-than-pixels", _on_planned_grid(parallel_poses(pixel_mm=(0.6, 0.7)), 1.1)),
        Case("pixels-larger-than-voxels", _on_planned_grid(parallel_poses(pixel_mm=(2.2, 1.9)), 1.0)),
        Case("tilted", _on_planned_grid(tilted_poses())),
        Case("tilted-coarse", _on_planned_grid(tilted_poses(), 1.5)),
        Case("padding", _on_planned_grid(parallel_poses(), measured=padding_mask())),
        Case("sagittal-in-patient-axes", _patient(parallel_poses(step_lps_mm=(3, 0, 0), down=(0, -1, 0), across=(0, 0, 1)))),
        Case("region-of-interest", _cropped(parallel_poses())),
        Case("three-orthogonal-stacks", _three_stacks),
        Case("oblique", _patient(turned(parallel_poses(), 25)), separable=False),
        Case("oblique-measured-profile", _patient(turned(parallel_poses(kind="measured"), 25)), separable=False),
        Case("oblique-tilted", _patient(turned(tilted_poses(), 40)), separable=False),
        Case("oblique-large-pixels", _patient(turned(parallel_poses(pixel_mm=(2.2, 1.9)), 30)), separable=False),
    ]


def smooth_volume(grid: Grid, rng: np.random.Generator) -> Float64:
    """Random values with structures a few voxels wide."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(rng.standard_normal(grid.shape), 1.5) * 10 + 5)


def voxel_centres(grid: Grid) -> Float64:
    """LPS places of all voxels, (slices, rows, columns, 3)."""
    return grid.to_lps(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1))


def pixel_centres(poses: SlicePoses) -> Float64:
    """LPS places of all pixels, (n, rows, columns, 3)."""
    rows, columns = poses.image_shape
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    pixels = np.stack([np.zeros_like(row), row, column, np.ones_like(row)], axis=-1)
    return np.asarray(np.einsum("nij,rcj->nrci", poses.to_lps_mm, pixels)[..., :3])
