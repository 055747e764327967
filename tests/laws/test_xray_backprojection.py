"""The FDK back projection: against scipy's interpolation at the pixels that the geometry names, and by its laws."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from medrecon.core.errors import GeometryError
from medrecon.core.grid import Grid
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators import _backprojection_reference as reference
from medrecon.operators import fdk_backprojection
from medrecon.operators._backprojection_tables import DetectorTables
from medrecon.operators._xray_backends import BackendName, Kind, tiny_problem
from medrecon.operators.fdk_backprojection import FdkBackProjector, fdk_backproject
from tests.makers_xray import centred_grid, random_geometry

KINDS = ["parallel", "parallel upright", "cone", "cone upright", "curved", "curved upright", "helical upright"]
BACKENDS: list[BackendName] = ["reference", "cpu"]


def by_scipy(views: ViewGeometry, grid: Grid, filtered: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same sum with the pixels from `ViewGeometry.project` and the interpolation from scipy."""
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    points = grid.to_lps(indices)
    column, row, depth = views.project(points)
    total = np.zeros(grid.shape)
    for k in range(len(views)):
        distance = np.ones(grid.shape)
        if views.sources_lps_mm is not None:
            away = points - views.sources_lps_mm[k]
            distance = (
                np.linalg.norm(away - (away @ views.v[k])[..., None] * views.v[k], axis=-1) if views.is_curved else depth[k]
            )
        padded = np.pad(filtered[k], 1)
        value = map_coordinates(padded, [row[k] + 1, column[k] + 1], order=1, mode="constant")
        total += weights[k] * value / distance**2
    return total


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_voxel_looks_up_the_pixel_in_which_it_appears(backend: BackendName, kind: str, rng: np.random.Generator) -> None:
    for _ in range(2):
        views, grid = random_geometry(rng, kind)
        filtered, weights = rng.standard_normal(views.shape), rng.uniform(1, 2, len(views))
        got = fdk_backproject(views, grid, torch.from_numpy(filtered).float(), weights, backend=backend).numpy()
        expected = by_scipy(views, grid, filtered, weights)
        assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


def test_that_check_fails_for_a_detector_moved_by_a_tenth_of_a_pixel(rng: np.random.Generator) -> None:
    views = ViewGeometry.cone([0.1, 2.0], 60, 90, Detector((9, 13), (2, 2)))
    moved = ViewGeometry.cone([0.1, 2.0], 60, 90, Detector((9, 13), (2, 2)), offset_u_mm=0.2)
    grid, filtered = centred_grid(9, 1.5), rng.standard_normal(views.shape)
    expected = by_scipy(views, grid, filtered, np.ones(2))
    got = fdk_backproject(moved, grid, torch.from_numpy(filtered).float(), np.ones(2)).numpy()
    assert np.linalg.norm(got - expected) > 1e-2 * np.linalg.norm(expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_of_views_add_up_to_the_whole(backend: BackendName, rng: np.random.Generator) -> None:
    views, grid = random_geometry(rng, "cone upright")
    filtered, weights = torch.from_numpy(rng.standard_normal(views.shape)).float(), rng.uniform(1, 2, len(views))
    projector = FdkBackProjector(views, grid, backend=backend)
    for first, last in ((2, 5), (0, 2)):
        projector.add(first, filtered[first:last], weights[first:last])
    whole = fdk_backproject(views, grid, filtered, weights, backend=backend)
    assert float((projector.result() - whole).norm() / whole.norm()) < 1e-6


@pytest.mark.parametrize("rows_per_voxel", [0.3, 1.0, 2.5, 6.0])
def test_rows_much_finer_or_coarser_than_voxels_make_no_difference(rows_per_voxel: float, rng: np.random.Generator) -> None:
    views = ViewGeometry.cone([0.3, 2.0], 300, 500, Detector((90, 11), (5 / 3 / rows_per_voxel, 2.0)), offset_v_mm=0.37)
    grid = centred_grid(33, 1.0)
    filtered = rng.standard_normal(views.shape)
    got = fdk_backproject(views, grid, torch.from_numpy(filtered).float(), np.ones(2), backend="cpu").numpy()
    expected = by_scipy(views, grid, filtered, np.ones(2))
    assert np.linalg.norm(got - expected) < 2e-5 * np.linalg.norm(expected)


def test_nothing_behind_the_source_is_seen() -> None:
    views = ViewGeometry.cone([0.0], 20, 60, Detector((40, 40), (3, 3)))
    grid = centred_grid(61, 1.0)
    for backend in BACKENDS:
        volume = fdk_backproject(views, grid, torch.ones(views.shape), [1.0], backend=backend)
        assert not volume[:, :10].any()  # y below -20, beyond the source
        assert volume[30, 40, 30] > 0


def test_the_same_input_gives_the_same_bytes_for_any_number_of_threads(rng: np.random.Generator) -> None:
    views, grid = random_geometry(rng, "curved upright")
    filtered, threads = torch.from_numpy(rng.standard_normal(views.shape)).float(), torch.get_num_threads()
    results = []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(fdk_backproject(views, grid, filtered, np.ones(5), backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_views_that_do_not_fit_are_refused_with_their_numbers() -> None:
    views = ViewGeometry.cone([0.1, 2.0], 60, 90, Detector((9, 13), (2, 2)))
    projector = FdkBackProjector(views, centred_grid(5, 1.0))
    with pytest.raises(GeometryError, match=r"PRJ-SHAPE.*\[1, 9, 12\]"):
        projector.add(0, torch.zeros(1, 9, 12), [1.0])
    with pytest.raises(GeometryError, match=r"PRJ-SHAPE.*view 3 of 2"):
        projector.add(2, torch.zeros(1, 9, 13), [1.0])


def test_a_parallel_beam_on_a_curved_detector_is_refused() -> None:
    with pytest.raises(GeometryError, match="PRJ-GEOM"):
        FdkBackProjector(ViewGeometry.parallel([0.0], Detector((5, 5), (1, 1), 100.0)), centred_grid(5, 1.0))


@pytest.mark.parametrize(
    "kind", [Kind(p, c, v) for p in (False, True) for c in (False, True) for v in (False, True) if not (p and c)], ids=str
)
def test_the_tiny_problem_of_the_self_check_is_of_its_kind(kind: Kind) -> None:
    assert (DetectorTables.of(*tiny_problem(kind)).vertical_axis() is not None) == kind.vertical


def test_a_back_end_that_disagrees_is_not_used_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(reference.Accumulator):
        def result(self) -> torch.Tensor:
            return 1.01 * super().result()

    monkeypatch.setattr(fdk_backprojection, "_load", lambda _, tables, device: Wrong(tables, device))
    fdk_backprojection._distrust.cache_clear()
    views = ViewGeometry.cone([0.1, 2.0], 60, 90, Detector((9, 13), (2, 2)))
    with caplog.at_level(logging.WARNING):
        got = fdk_backproject(views, centred_grid(5, 1.0), torch.ones(views.shape), np.ones(2))
    torch.testing.assert_close(
        got, fdk_backproject(views, centred_grid(5, 1.0), torch.ones(views.shape), np.ones(2), backend="reference")
    )
    assert "1.0e-02 away from the reference" in caplog.text
    fdk_backprojection._distrust.cache_clear()
