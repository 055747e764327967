"""`compound` against sums made by hand: every pixel in its voxel, holes bridged along lines, and nothing made up beyond."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import medrecon as mr
from medrecon.core.grid import Grid
from medrecon.core.progress import silent
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.methods import Reconstructed
from medrecon.methods._sticks import DIRECTIONS, Sticks, fill
from medrecon.methods.compound import CompoundConfig, compound
from medrecon.operators.slice_sampler import SliceSampler

Images = NDArray[np.float32] | NDArray[np.float64]
GRID = Grid.from_parts((14, 12, 13), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def freehand(rng: np.random.Generator, count: int = 6, shape: tuple[int, int] = (15, 17), pixel_mm: float = 0.6) -> SlicePoses:
    """Images a good 2 mm apart, each turned a little about its own axis."""
    positions, rows, columns = [], [], []
    for k in range(count):
        turn, _ = np.linalg.qr(np.eye(3) + 0.06 * rng.standard_normal((3, 3)))
        turn *= np.sign(np.diag(turn))
        positions.append([1.3, 1.1, 1.2 + 2.1 * k] + 0.3 * rng.standard_normal(3))
        rows.append(turn[:, 1])
        columns.append(turn[:, 0])
    one = [
        SlicePoses.from_parts(p, r, c, (pixel_mm, pixel_mm), shape, 2.0).to_lps_mm
        for p, r, c in zip(positions, rows, columns, strict=True)
    ]
    return SlicePoses(np.concatenate(one), shape, np.full(count, 2.0))


def run(A: SliceSampler, y: Images, **settings: Any) -> Reconstructed:
    return compound(A, torch.from_numpy(np.array(y)), CompoundConfig(**settings), silent)


def levels(made: Reconstructed) -> NDArray[np.uint8]:
    assert made.coverage is not None
    return np.asarray(made.coverage.numpy())


def hits(A: SliceSampler, k: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The voxel nearest to every pixel of an image, and whether it lies in the grid: from poses and grid alone."""
    row, column = np.indices(A.poses.image_shape)
    pixel = np.stack([0 * row, row, column, np.ones_like(row)], axis=-1).reshape(-1, 4)
    voxel = (pixel @ (np.linalg.inv(A.grid.to_lps_mm) @ A.poses.to_lps_mm[k]).T)[:, :3]
    nearest = np.floor(voxel + 0.5).astype(int)
    return nearest, ((nearest >= 0) & (nearest < A.grid.shape)).all(axis=1)


@pytest.fixture
def A(rng: np.random.Generator) -> SliceSampler:
    return SliceSampler(freehand(rng), GRID)


def test_every_voxel_holds_the_mean_the_last_or_the_brightest_of_its_pixels(A: SliceSampler, rng: np.random.Generator) -> None:
    y = rng.uniform(0, 200, A.range).astype(np.float32)
    found: dict[tuple[int, ...], list[float]] = {}
    for k in range(len(y)):
        for voxel, inside, value in zip(*hits(A, k), y[k].ravel(), strict=True):
            if inside:
                found.setdefault(tuple(int(v) for v in voxel), []).append(float(value))
    assert max(map(len, found.values())) > 2
    wanted: dict[str, Callable[[list[float]], float]] = {
        "mean": lambda values: float(np.mean(values)),
        "latest": lambda values: values[-1],
        "maximum": max,
    }
    for mode, pick in wanted.items():
        made = run(A, y, compounding=mode, interpolation="nearest", fill="none")
        assert set(zip(*np.nonzero(levels(made) == 2), strict=True)) == set(found)
        for voxel, values in found.items():
            assert float(made.x[voxel]) == pytest.approx(pick(values), rel=1e-5)


def test_shared_pixels_are_weighed_by_how_near_they_are(A: SliceSampler, rng: np.random.Generator) -> None:
    y = rng.uniform(0, 200, A.range)
    total, weight = np.zeros(GRID.shape), np.zeros(GRID.shape)
    row, column = np.indices(A.poses.image_shape)
    pixel = np.stack([0 * row, row, column, np.ones_like(row)], axis=-1).reshape(-1, 4)
    for k in range(len(y)):
        places = (pixel @ (np.linalg.inv(GRID.to_lps_mm) @ A.poses.to_lps_mm[k]).T)[:, :3]
        for voxel in np.ndindex(GRID.shape):
            share = np.maximum(0, 1 - np.abs(places - voxel)).prod(axis=1)  # a tent around the voxel
            total[voxel] += share @ y[k].ravel()
            weight[voxel] += share.sum()
    made = run(A, y, interpolation="linear", fill="none")
    known = levels(made) == 2
    assert np.array_equal(known, weight >= 0.125)
    assert np.abs(made.x.numpy() - total / np.maximum(weight, 1e-9))[known].max() < 1e-3


def test_images_on_the_planes_of_the_grid_come_back_unchanged(rng: np.random.Generator) -> None:
    volume = mr.Volume(rng.uniform(0, 99, GRID.shape).astype(np.float32), GRID)
    scan = SliceScan.from_volume(volume)
    for interpolation in ("nearest", "linear"):
        made = run(SliceSampler(scan.poses, GRID), scan.pixels, interpolation=interpolation)
        assert np.abs(made.x.numpy() - volume.voxels).max() < 1e-4
        assert (levels(made) == 2).all()


@pytest.mark.parametrize(
    ("compounding", "interpolation"),
    [*itertools.product(("mean", "latest", "maximum"), ("nearest", "linear")), ("igsio_mean", "nearest")],
)
def test_a_constant_stays_that_constant(A: SliceSampler, compounding: str, interpolation: str) -> None:
    made = run(A, np.full(A.range, 97, dtype=np.float32), compounding=compounding, interpolation=interpolation)
    assert float((made.x - 97).abs().max()) < 1e-3
    assert (levels(made) == 1).any()


def test_pixels_that_were_not_measured_reach_no_voxel(rng: np.random.Generator) -> None:
    poses, y = freehand(rng), rng.uniform(1, 9, (6, 15, 17)).astype(np.float32)
    mask = np.ones(y.shape, dtype=np.bool_)
    mask[:, :, :6] = mask[3] = False
    spoiled = np.where(mask, y, np.float32("nan"))
    for interpolation in ("nearest", "linear"):
        made = run(SliceSampler(poses, GRID, mask), spoiled, interpolation=interpolation)
        assert torch.isfinite(made.x).all()
        assert made.x.min() >= y[mask].min() - 1e-5
    part = SliceSampler(poses, GRID, mask).take([0, 1, 2, 4, 5])
    without = run(part, spoiled[[0, 1, 2, 4, 5]], interpolation="nearest")
    assert torch.equal(run(SliceSampler(poses, GRID, mask), spoiled, interpolation="nearest").x, without.x)


def two_planes(gap: int, **settings: Any) -> Reconstructed:
    """Two parallel images of 10 and 20, so many voxels apart, in the middle of the grid."""
    poses = SlicePoses.from_parts([[2, 2, 3], [2, 2, 3 + gap]], (0, 1, 0), (1, 0, 0), (1, 1), (8, 8), 1.0)
    y = np.stack([np.full((8, 8), 10), np.full((8, 8), 20)]).astype(np.float32)
    return run(SliceSampler(poses, GRID), y, interpolation="nearest", **settings)


def test_a_hole_is_bridged_in_a_straight_line_up_to_its_longest_length_and_nothing_grows_outwards() -> None:
    made = two_planes(4, fill_mm=4.0)
    inside = (slice(2, 10), slice(2, 10))
    assert made.x[3:8, *inside].amax(dim=(1, 2)).tolist() == pytest.approx([10, 12.5, 15, 17.5, 20])
    assert made.x[3:8, *inside].amin(dim=(1, 2)).tolist() == pytest.approx([10, 12.5, 15, 17.5, 20])
    wanted = np.zeros(GRID.shape, dtype=np.uint8)
    wanted[4:7, 2:10, 2:10] = 1
    wanted[[3, 7], 2:10, 2:10] = 2
    assert np.array_equal(levels(made), wanted)
    assert (levels(two_planes(5, fill_mm=4.0)) == 1).sum() == 0
    assert (levels(two_planes(4, fill="none")) == 1).sum() == 0


def sticks_by_hand(
    x: NDArray[np.float64], known: NDArray[np.bool_], spacing: tuple[float, ...], gap: float
) -> NDArray[np.float64]:
    """The value of every hole, voxel by voxel; NaN where no stick bridges it."""
    result = np.full(x.shape, np.nan)
    for place in itertools.product(*map(range, x.shape)):
        sticks = []
        for direction in () if known[place] else DIRECTIONS:
            step, ends = float(np.linalg.norm(np.multiply(direction, spacing))), []
            for sign in (1, -1):
                at, done = np.array(place), 0
                while True:
                    at, done = at + sign * np.array(direction), done + 1
                    if (at < 0).any() or (at >= x.shape).any():
                        break
                    if known[tuple(at)]:
                        ends.append((done, x[tuple(at)]))
                        break
            if len(ends) == 2 and (ends[0][0] + ends[1][0]) * step <= gap + 1e-9:
                (a, u), (b, v) = ends
                sticks.append(((a + b + 1) * step, (b * u + a * v) / (a + b)))
        shortest = min((length for length, _ in sticks), default=0)
        best = [value for length, value in sticks if length <= shortest * (1 + 1e-9)]
        if best:
            result[place] = np.mean(best)
    return result


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.5, 1.0)])
def test_sticks_are_those_found_voxel_by_voxel(spacing: tuple[float, float, float], rng: np.random.Generator) -> None:
    known = rng.random((9, 8, 10)) < 0.12
    x = np.where(known, rng.uniform(0, 100, known.shape), 0.0)
    wanted = sticks_by_hand(x, known, spacing, 3.0)
    made = torch.from_numpy(x.copy())
    filled = fill(made, torch.from_numpy(known), Sticks(spacing, 3.0), silent).numpy()
    assert np.array_equal(filled, np.isfinite(wanted))
    assert 0 < filled.mean() < 0.9
    assert np.allclose(made.numpy()[filled], wanted[filled])
    assert np.array_equal(made.numpy()[known], x[known])
    assert not np.array_equal(filled, np.isfinite(sticks_by_hand(x, known, spacing, 4.0)))  # the check can fail


def test_the_integer_mean_is_that_of_a_sixteen_bit_counter_pixel_by_pixel(rng: np.random.Generator) -> None:
    poses = SlicePoses.from_parts([[5, 5, 5]], (0, 1, 0), (1, 0, 0), (0.01, 0.01), (20, 20), 1.0)  # 400 pixels in one voxel
    y = rng.integers(0, 256, (1, 20, 20)).astype(np.float32)
    value, counter = 0, 0
    for pixel in y.ravel().astype(int):
        if counter <= 65279:
            value = (int(pixel) * 256 + value * counter) // (counter + 256)
            counter = min(counter + 256, 65535)
        else:
            value = int(pixel / 256 + value * 255 / 256)
    A = SliceSampler(poses, GRID)
    found = float(run(A, y, compounding="igsio_mean", interpolation="nearest").x[5, 5, 5])
    assert found == value
    assert float(run(A, y, interpolation="nearest").x[5, 5, 5]) == pytest.approx(y.mean(), rel=1e-5)
    assert found < y.mean() - 1  # why it is not the default


def test_a_result_marks_what_was_bridged_and_what_was_never_seen(rng: np.random.Generator) -> None:
    poses = freehand(rng)
    scan = SliceScan(rng.uniform(50, 60, (6, 15, 17)).astype(np.float32), poses)
    result = mr.reconstruct(scan, preset="ultrasound")
    level = result.quality.coverage
    assert set(np.unique(level)) == {0, 1, 2}
    assert result.volume.seen is not None
    assert np.array_equal(result.volume.seen, level > 0)
    assert (result.volume.voxels[level == 0] == 0).all()
    assert result.volume.voxels[level > 0].min() > 49
    assert result.quality.interpolated_share == pytest.approx((level == 1).mean())
    assert "COV-INFERRED" in {finding.code for finding in result.quality.findings}
    assert result.surfaces == ()


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="igsio_mean goes with"):
        CompoundConfig(compounding="igsio_mean", interpolation="linear")
