"""Where what is on the screen stands in the patient, without napari and without Qt.

A layer's data are indices; napari places them in its world, and ``metadata["to_lps_mm"]`` places them in the patient.
World and patient are the same up to a rigid turn for everything that `medrecon_napari.layers` makes, so the screen may
show an oblique volume along its own axes while every number and every letter stays true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

#: Letters of the two ends of the LPS axes.
_SIDES = (("L", "R"), ("P", "A"), ("S", "I"))
#: A direction gets a second and third letter from this angle on: less is not visible on a screen.
_SECOND_LETTER = np.sin(np.deg2rad(10.0))
_SAME_TURN = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a layer's data stand in the patient and in napari's world.

    Parameters
    ----------
    lps_from_data : (4, 4) or (n, 4, 4) float64
        Maps an index into the layer's data to LPS mm. For images that are shown one after another without being
        parallel there is one map for each, and the first index chooses it.
    world_from_data : (4, 4) float64
        Maps the same index to napari's world, in mm.
    """

    lps_from_data: Float64
    world_from_data: Float64

    @classmethod
    def of(cls, metadata: Mapping[str, Any], world_from_data: ArrayLike) -> Self | None:
        """Return the place that a layer's metadata tell, None where they tell none."""
        known = metadata.get("to_lps_mm", metadata.get("poses_lps_mm"))
        if known is None:
            return None
        affine = np.asarray(known, dtype=np.float64)
        return cls(
            affine if "to_lps_mm" in metadata else _one_after_another(affine), np.asarray(world_from_data, dtype=np.float64)
        )

    @property
    def is_one_space(self) -> bool:
        """Whether one map holds for all of the data."""
        return self.lps_from_data.ndim == 2

    def lps_at(self, index: ArrayLike) -> Float64:
        """Return the (4, 4) map from index to LPS mm that holds at an index."""
        if self.is_one_space:
            return self.lps_from_data
        nearest = int(np.clip(np.rint(np.asarray(index, dtype=np.float64)[0]), 0, len(self.lps_from_data) - 1))
        chosen: Float64 = self.lps_from_data[nearest]
        return chosen

    def index_of_world(self, points: ArrayLike) -> Float64:
        """Map world points (..., 3) to fractional indices (..., 3)."""
        return apply(inverse(self.world_from_data), points)

    def lps_of_world(self, points: ArrayLike) -> Float64:
        """Map world points (..., 3) to LPS mm (..., 3)."""
        index = self.index_of_world(points)
        if self.is_one_space or index.ndim == 1:
            return apply(self.lps_at(index), index)
        flat = index.reshape(-1, 3)
        return np.stack([apply(self.lps_at(one), one) for one in flat]).reshape(index.shape)

    def world_of_lps(self, points: ArrayLike) -> Float64:
        """Map LPS mm (..., 3) to world points (..., 3); needs data in one space."""
        return apply(self.world_from_lps(), points)

    def world_from_lps(self) -> Float64:
        """Return the (4, 4) map from LPS mm to napari's world, of data in one space."""
        frame: Float64 = self.world_from_data @ np.linalg.inv(self.lps_from_data)
        return frame

    def lps_directions(self, world_point: ArrayLike) -> Float64:
        """Return unit LPS vectors (3, 3) in columns: where each world axis grows to, near a world point."""
        linear = (self.lps_at(self.index_of_world(world_point)) @ np.linalg.inv(self.world_from_data))[:3, :3]
        directions: Float64 = linear / np.linalg.norm(linear, axis=0)
        return directions

    def turned_against(self, other: Place) -> float:
        """Return by how many degrees the screen turns this layer more than the other one, both against the patient."""
        turn = self.world_from_lps()[:3, :3] @ np.linalg.inv(other.world_from_lps()[:3, :3])
        return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1.0, 1.0))))

    def beside(self, other: Place) -> Place:
        """Return this place moved in the world, so that both show one patient point at one world point.

        Where the screen turns the two by different angles, they cannot lie upon each other, and nothing is moved.
        """
        if not self.shares_turn_with(other):
            return self
        moved = self.world_from_data.copy()
        moved[:3, 3] = (other.world_from_lps() @ self.lps_from_data)[:3, 3]
        return replace(self, world_from_data=moved)

    def shares_turn_with(self, other: Place) -> bool:
        """Whether the screen turns both against the patient in the same way, so that they can lie upon each other."""
        if not (self.is_one_space and other.is_one_space):
            return False
        return bool(np.abs(self.world_from_lps()[:3, :3] - other.world_from_lps()[:3, :3]).max() < _SAME_TURN)


def side(direction_lps: ArrayLike) -> str:
    """Name the side of the patient that an LPS direction points to: ``L``, or ``LA`` where it is oblique.

    Letters come in order of their size; the second and third only from 10 degrees on.
    """
    direction = np.asarray(direction_lps, dtype=np.float64)
    direction = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(direction), kind="stable")
    letters = [_SIDES[axis][0 if direction[axis] > 0 else 1] for axis in order if abs(direction[axis]) >= _SECOND_LETTER]
    return "".join(letters)


@dataclass(frozen=True, slots=True)
class Edges:
    """The letters at the four edges of a view."""

    left: str
    right: str
    top: str
    bottom: str


def edges(right_lps: ArrayLike, up_lps: ArrayLike) -> Edges:
    """Return the letters of a view whose right and upper edge point to these LPS directions."""
    right, up = np.asarray(right_lps, dtype=np.float64), np.asarray(up_lps, dtype=np.float64)
    return Edges(left=side(-right), right=side(right), top=side(up), bottom=side(-up))


def in_words(point_lps_mm: Sequence[float]) -> str:
    """Write a patient position with the letters of the sides: ``L 12.3  A 4.0  S 55.1 mm``."""
    parts = (f"{_SIDES[axis][0 if value >= 0 else 1]} {abs(value):.1f}" for axis, value in enumerate(point_lps_mm))
    return "  ".join(parts) + " mm"


def inverse(affine: Float64) -> Float64:
    """Return the inverse of a matrix."""
    return np.asarray(np.linalg.inv(affine), dtype=np.float64)


def apply(affine: Float64, points: ArrayLike) -> Float64:
    """Map points (..., 3) by a (4, 4) matrix."""
    mapped: Float64 = np.asarray(points, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]
    return mapped


def _one_after_another(poses: Float64) -> Float64:
    """Turn poses of images, which map (depth, row, column), into maps of (image number, row, column)."""
    maps = poses.copy()
    maps[:, :3, 3] -= np.arange(len(poses))[:, None] * poses[:, :3, 0]
    return maps
