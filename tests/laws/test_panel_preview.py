"""A previewed plane is the plane that the whole run gives, wherever it is, and however the slices stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import medrecon as mr
from medrecon.config import load_config
from medrecon.core.errors import UsageError
from medrecon.core.volume import Volume
from medrecon.preview import View, preview
from tests.makers_dicom import AXIAL, CORONAL, SAGITTAL, make_series

SHAPE = (14, 40, 36)
#: How far a preview may be from the run, as a share of the range of values: what a window of grey cannot show.
BOUND = 0.015


@pytest.fixture(scope="module", params=["axial", "coronal", "sagittal", "tilted", "uneven"])
def scan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    kind = str(request.param)
    kinds: dict[str, dict[str, Any]] = {"tilted": {"tilt_deg": 15.0}, "uneven": {"steps_mm": [3.0, 4.0] * 6 + [3.5]}}
    special = kinds.get(kind, {})
    orientation = {"coronal": CORONAL, "sagittal": SAGITTAL}.get(kind, AXIAL)
    folder = tmp_path_factory.mktemp(kind)
    make_series(folder, shape=SHAPE, spacing_mm=(4.0, 1.0, 1.0), thickness_mm=4.0, orientation=orientation, **special)
    return mr.read(folder)


@pytest.fixture(scope="module")
def whole(scan: Any) -> Volume:
    return mr.reconstruct(scan, load_config("fast", None, ("surfaces=[]",))).volume


def misfit(plane: Volume, whole: Volume) -> float:
    """Largest difference of a plane from the same voxels of a volume, as a share of the volume's range."""
    first = np.round(whole.grid.to_index(plane.grid.origin_lps_mm)).astype(int)
    part = whole.voxels[tuple(slice(a, a + n) for a, n in zip(first, plane.grid.shape, strict=True))]
    return float(np.abs(part - plane.voxels).max() / np.ptp(whole.voxels))


@pytest.mark.parametrize("view", get_args(View))
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0], ids=["first", "inside", "last"])
def test_a_previewed_plane_is_that_of_the_whole_run(scan: Any, whole: Volume, view: View, share: float) -> None:
    point = whole.grid.to_lps((np.asarray(whole.grid.shape) - 1) * share)
    seen = preview(scan, load_config("fast"), view, point)
    assert seen.grid.same_place(whole.grid)
    assert sorted(seen.plane.grid.shape)[0] == 1
    assert misfit(seen.plane, whole) < BOUND


def test_the_preview_check_fails_on_the_measured_slices(scan: Any, whole: Volume) -> None:
    point = whole.grid.to_lps((np.asarray(whole.grid.shape) - 1) * 0.4)
    shown = [preview(scan, load_config("fast"), view, point).measured for view in get_args(View)]
    measured = [plane for plane in shown if plane is not None]
    assert len(measured) == len(shown), "slices can be shown as they were measured"
    assert max(misfit(plane, whole) for plane in measured) > BOUND


@pytest.mark.parametrize(("view", "lps"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_a_view_looks_along_its_axis_of_the_patient(scan: Any, whole: Volume, view: View, lps: int) -> None:
    plane = preview(scan, load_config("fast"), view, whole.grid.to_lps((0, 0, 0))).plane
    thin = plane.grid.shape.index(1)
    assert np.abs(plane.grid.directions[:, thin]).argmax() == lps


@pytest.mark.parametrize("method", ["zero_shot", "recurrent"])
def test_a_method_that_is_too_slow_is_previewed_by_the_one_that_it_starts_from(scan: Any, whole: Volume, method: str) -> None:
    middle = whole.grid.to_lps((np.asarray(whole.grid.shape) - 1) / 2)
    slow, fast = load_config("fast", None, (f"method={method}",)), load_config("fast")
    seen, classical = (preview(scan, config, "coronal", middle) for config in (slow, fast))
    assert seen.draft, "the panel says that the run will look better"
    assert np.array_equal(seen.plane.voxels, classical.plane.voxels)


def test_a_point_outside_shows_the_nearest_plane(scan: Any, whole: Volume) -> None:
    beyond = whole.grid.corners_lps_mm().max(axis=0) + 500
    inside = preview(scan, load_config("fast"), "axial", beyond).plane.grid.origin_lps_mm
    assert np.abs(whole.grid.to_index(inside) - np.round(whole.grid.to_index(inside))).max() < 1e-6
    assert (whole.grid.to_index(inside) > -0.5).all()


def test_a_region_and_a_spacing_hold_for_the_preview_too(scan: Any, whole: Volume) -> None:
    middle = whole.grid.corners_lps_mm().mean(axis=0)
    region = [(middle - 8).tolist(), (middle + 8).tolist()]
    config = load_config("fast", None, (f"grid.region_lps_mm={region}", "grid.spacing_mm=2.0"))
    seen = preview(scan, config, "axial", middle)
    assert seen.grid.spacing_mm == pytest.approx((2.0, 2.0, 2.0))
    assert max(seen.plane.grid.shape) <= 12


def test_a_method_of_projections_has_no_preview_of_slices(tmp_path: Path) -> None:
    make_series(tmp_path)
    with pytest.raises(UsageError, match="ARG-INPUT"):
        preview(mr.read(tmp_path), load_config("fast", None, ("method=fdk",)), "axial", (0, 0, 0))  # type: ignore[arg-type]
