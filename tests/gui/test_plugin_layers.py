"""Slices that no raster can hold are shown whole and near their place, and how near is said and true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from medrecon_napari import colours
from medrecon_napari.layers import LayerData, scan_layers, uncertainty_layer
from medrecon_napari.place import apply
from medrecon_napari.planes import stack
from medrecon_napari.results import place_of, result_layers
from medrecon_napari.window_level import Window, automatic, from_header
from numpy.typing import NDArray

import medrecon as mr
from medrecon.core.errors import InputError
from medrecon.core.findings import judge
from medrecon.core.volume import OUTSIDE_VALUE
from tests.makers_dicom import AXIAL, CORONAL, make_series
from tests.makers_plugin import a_surface, a_volume, turned

SHAPE = (6, 20, 16)


def scanned(folder: Path, **plan: object) -> mr.SliceScan:
    """A series in which every pixel has a value of its own, so that a shown pixel tells where it came from."""
    values = np.arange(np.prod(SHAPE), dtype=np.float64).reshape(SHAPE)
    make_series(folder, shape=SHAPE, spacing_mm=(5.0, 2.0, 1.5), thickness_mm=4.0, pixels=values, **plan)  # type: ignore[arg-type]
    found = mr.read(folder, allow=["missing-slices"])
    assert isinstance(found, mr.SliceScan)
    return found


def farthest_mm(scan: mr.SliceScan, layer: LayerData) -> float:
    """How far any shown pixel is from where the header has it, by the pixels' own values."""
    data, arguments, _ = layer
    seen = arguments["metadata"]["seen"]
    shown = np.argwhere(np.ones(data.shape, dtype=bool) if seen is None else seen)
    here = apply(arguments["metadata"]["to_lps_mm"], shown)
    slices, rows, columns = np.unravel_index(data[tuple(shown.T)].astype(int), SHAPE)
    order = np.argsort(scan.pixels[:, 0, 0])
    poses = scan.poses.to_lps_mm[order[slices]]
    true = np.einsum("nij,nj->ni", poses[:, :3], np.stack([0 * rows, rows, columns, 0 * rows + 1], axis=1))
    depth = np.einsum("ni,ni->n", here - true, poses[:, :3, 0])
    inside = np.abs(depth) <= np.diff(np.sort(scan.poses.depths_mm)).max() / 2 + 0.02  # a slice fills its part of the depth
    across = np.linalg.norm(here - true - depth[:, None] * poses[:, :3, 0], axis=1)
    assert inside.all()
    return float(across.max())


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"orientation": CORONAL},
        {"orientation": turned(AXIAL, (14.0, 3.0, -5.0))},
        {"tilt_deg": 17.0},
        {"tilt_deg": -21.0, "orientation": turned(AXIAL, (0.0, 0.0, 11.0))},
        {"steps_mm": (5.0, 5.0, 7.5, 5.0, 3.1)},
        {"tilt_deg": 9.0, "steps_mm": (4.0, 4.0, 7.0, 4.0, 4.0)},
    ],
    ids=["even", "coronal", "oblique", "tilted", "tilted and turned", "uneven", "tilted and uneven"],
)
def test_every_pixel_is_shown_no_farther_from_its_place_than_the_layer_says(plan: dict[str, object], tmp_path: Path) -> None:
    scan = scanned(tmp_path, **plan)
    layer = scan_layers(scan)[0]
    said = layer[1]["metadata"]["display_error_mm"]
    assert farthest_mm(scan, layer) <= said + 1e-6
    assert said <= np.hypot(0.05 * 5.0, np.hypot(1.0, 0.75)) + 1e-6  # half a pixel, and a twentieth of a step
    seen = layer[1]["metadata"]["seen"]
    values = layer[0] if seen is None else layer[0][seen]
    assert set(np.unique(values).astype(int)) == set(range(int(np.prod(SHAPE))))  # nothing is hidden, nothing interpolated


def test_the_place_check_fails_where_the_tilt_is_dropped(tmp_path: Path) -> None:
    scan = scanned(tmp_path, tilt_deg=17.0)
    data, arguments, kind = scan_layers(scan)[0]
    straight = arguments["metadata"]["to_lps_mm"].copy()
    straight[1, 3] += 6.0
    arguments["metadata"]["to_lps_mm"] = straight
    assert farthest_mm(scan, (data, arguments, kind)) > 5


def test_even_slices_are_shown_as_they_are_and_only_others_get_a_note(tmp_path: Path) -> None:
    even = stack(scanned(tmp_path / "even"))
    assert even.volume.grid.shape == SHAPE
    assert even.error_mm == 0
    assert even.notes == ()
    tilted = stack(scanned(tmp_path / "tilted", tilt_deg=17.0))
    assert "drift 7.6 mm" in tilted.notes[0]
    assert f"{tilted.error_mm:.2f} mm" in tilted.notes[0]
    uneven = stack(scanned(tmp_path / "uneven", steps_mm=(5.0, 5.0, 7.5, 5.0, 3.1)))
    assert "3.10 to 7.50 mm apart" in uneven.notes[0]


def test_missing_slices_leave_a_hole_that_counts_as_not_seen(tmp_path: Path) -> None:
    stacked = stack(scanned(tmp_path, drop=(2, 3)))
    assert stacked.slice_of_plane.tolist() == [0, 1, -1, -1, 2, 3]
    assert stacked.volume.seen is not None
    assert stacked.volume.seen.any(axis=(1, 2)).tolist() == [True, True, False, False, True, True]
    assert np.unique(stacked.volume.voxels[2:4]).tolist() == [OUTSIDE_VALUE[stacked.volume.quantity]]


def test_slices_in_any_order_are_stacked_along_their_normal(tmp_path: Path) -> None:
    scan = scanned(tmp_path)
    mixed = stack(scan.take([3, 0, 5, 1, 4, 2]))
    assert np.array_equal(mixed.volume.voxels, stack(scan).volume.voxels)
    assert mixed.slice_of_plane.tolist() == [1, 3, 5, 0, 4, 2]


def test_the_number_of_the_slice_follows_the_data_wherever_the_screen_turns_them(tmp_path: Path) -> None:
    for name, orientation in (("a", AXIAL), ("b", CORONAL), ("c", (0.0, 1.0, 0.0, 0.0, 0.0, -1.0))):
        scan = scanned(tmp_path / name, orientation=orientation)
        data, arguments, _ = scan_layers(scan)[0]
        axis, order = arguments["metadata"]["slice_of_index"]
        for index, number in enumerate(order):
            assert set(np.take(data, index, axis=axis).ravel()) == set(scan.pixels[number].ravel())


def test_several_stacks_become_several_layers(tmp_path: Path) -> None:
    scan = scanned(tmp_path)
    both = mr.SliceScan(
        np.concatenate([scan.pixels] * 2),
        mr.SlicePoses(np.concatenate([scan.poses.to_lps_mm] * 2), scan.poses.image_shape, np.full(12, 4.0)),
        stack=np.repeat([0, 1], 6),
    )
    names = [layer[1]["name"] for layer in scan_layers(both)]
    assert [name.rpartition(" ")[2] for name in names] == ["1", "2"]


def test_a_layer_tells_what_the_reader_told(tmp_path: Path) -> None:
    make_series(tmp_path, tilt_deg=17.0)
    scan = mr.read(tmp_path)
    assert isinstance(scan, mr.SliceScan)
    layer = scan_layers(scan, str(tmp_path))[0][1]
    metadata = layer["metadata"]
    assert layer["name"] == f"CT {scan.source.series_id}"
    assert metadata["verdict"] == str(judge(scan.findings))
    assert [one["code"] for one in metadata["findings"]] == [one.code for one in scan.findings]
    assert metadata["quantity"] == "hounsfield"
    assert metadata["path"] == str(tmp_path)
    json.dumps(metadata["findings"])
    assert "POISON" not in repr(metadata)


def test_the_window_is_the_headers_where_it_makes_sense() -> None:
    header = {"00281050": {"vr": "DS", "Value": [40.0, 300]}, "00281051": {"vr": "DS", "Value": [80.0, 2000]}}
    assert from_header(header) == Window("DICOM", 40.0, 80.0)
    assert from_header(header | {"00281051": {"vr": "DS", "Value": [0.0]}}) is None
    assert from_header(header | {"00281051": {"vr": "DS"}}) is None
    assert from_header({}) is None


def test_a_series_without_a_window_gets_the_usual_one(tmp_path: Path) -> None:
    make_series(tmp_path)
    assert scan_layers(mr.read(tmp_path))[0][1]["contrast_limits"] == (-160.0, 240.0)
    values = np.linspace(0, 1000, 10_001, dtype=np.float32).reshape(73, -1)
    assert automatic(values).limits == pytest.approx((1, 999), abs=0.2)
    assert automatic(np.full((3, 3), np.nan)).width > 0
    assert automatic(np.full((3, 3), 7.0)).limits == (7.0, 8.0)


def make_result(folder: Path, grid: mr.Grid) -> NDArray[np.float32]:
    """Write a result folder with the engine's own writers; return the voxels."""
    from medrecon import writers

    folder.mkdir()
    values = np.arange(np.prod(grid.shape), dtype=np.float32).reshape(grid.shape)
    writers.get("nifti").write(a_volume(values, grid), folder / "volume.nii.gz", writers.WriteContext())
    writers.get("nifti").write(a_volume(values % 3, grid), folder / "coverage.nii.gz", writers.WriteContext())
    writers.get("nifti").write(a_volume(values - values.mean(), grid), folder / "residual.nii.gz", writers.WriteContext())
    corner = grid.to_lps([[0, 0, 0], [0, 0, 3], [0, 2, 0], [1, 0, 0]])
    surface = a_surface(corner, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], "bone")
    writers.get("stl").write(surface, folder / "surface-bone.stl", writers.WriteContext())
    record = {
        "verdict": "warn",
        "findings": [{"code": "DCM-TILT", "verdict": "warn", "fact": "tilted"}],
        "surfaces": [{"name": "bone", "volume_ml": 3.5}],
        "quality": {"residual": 0.01},
        "provenance": {"series_id": "series-1", "modality": "CT", "method": "fast"},
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return values


OBLIQUE = mr.Grid.from_parts(
    (4, 5, 6), (2.0, 1.0, 1.5), (10.0, -20.0, 30.0), np.linalg.qr(np.array([[1, 0.2, 4], [0.3, 3, 0.5], [2, 0.1, -0.6]]))[0]
)


def test_a_result_folder_opens_as_a_group_of_layers_upon_each_other(tmp_path: Path) -> None:
    values = make_result(tmp_path / "out", OBLIQUE)
    volume, coverage, residual, surface = result_layers(tmp_path / "out")
    assert [layer[2] for layer in (volume, coverage, residual, surface)] == ["image", "image", "image", "surface"]
    assert volume[1]["name"] == "fast · series-1"
    assert volume[1]["metadata"]["verdict"] == "warn"
    for layer in (volume, coverage, residual):
        assert np.abs(place_of(layer).world_from_lps() - place_of(volume).world_from_lps()).max() < 1e-4
    levels = {colours.MEASURED: 2, colours.INTERPOLATED: 1, colours.UNSEEN: 0}
    assert {name: set(volume[0][coverage[0] == name] % 3) for name in levels} == {name: {level} for name, level in levels.items()}
    assert set(volume[0].ravel()) == set(values.ravel())
    low, high = residual[1]["contrast_limits"]
    assert low == -high


def test_a_result_with_an_uncertainty_map_opens_with_it_in_the_unit_of_the_volume(tmp_path: Path) -> None:
    from medrecon import writers

    values = make_result(tmp_path / "out", OBLIQUE)
    doubt = np.where(values == values[1, 2, 3], 30.0, 2.0).astype(np.float32)
    writers.get("nifti").write(a_volume(doubt, OBLIQUE), tmp_path / "out" / "uncertainty.nii.gz", writers.WriteContext())
    volume, _, _, (shown, arguments, kind), _ = result_layers(tmp_path / "out")
    assert (kind, arguments["visible"], arguments["metadata"]["role"]) == ("image", False, "uncertainty")
    assert arguments["metadata"]["quantity"] == volume[1]["metadata"]["quantity"]
    index = np.argwhere(shown == 30.0)[0]
    assert np.abs(apply(arguments["metadata"]["to_lps_mm"], index) - OBLIQUE.to_lps((1, 2, 3))).max() < 1e-3
    assert np.abs(place_of((shown, arguments, kind)).world_from_lps() - place_of(volume).world_from_lps()).max() < 1e-4
    assert arguments["contrast_limits"][0] == 0.0
    assert arguments["contrast_limits"][1] > 2.0


def test_a_method_that_is_sure_everywhere_has_a_map_that_can_be_shown() -> None:
    grid = mr.Grid.from_parts((2, 3, 4), (1, 1, 1), (0, 0, 0))
    low, high = uncertainty_layer(a_volume(np.zeros(grid.shape), grid), {}, "doubt")[1]["contrast_limits"]
    assert 0.0 == low < high


def test_the_surface_of_a_result_lies_on_its_volume(tmp_path: Path) -> None:
    make_result(tmp_path / "out", OBLIQUE)
    volume, *_, (data, arguments, _) = result_layers(tmp_path / "out")
    true = OBLIQUE.to_lps([[0, 0, 0], [0, 0, 3], [0, 2, 0], [1, 0, 0]])
    shown = apply(place_of(volume).world_from_lps(), true)
    assert arguments["scale"] == pytest.approx((2.0,) * 3), "the sliders must keep the steps of the volume"
    assert all(np.abs(shown - vertex * arguments["scale"]).max(axis=1).min() < 1e-4 for vertex in data[0])
    back = apply(arguments["metadata"]["to_lps_mm"], data[0])
    assert all(np.abs(true - vertex).max(axis=1).min() < 1e-4 for vertex in back)
    assert arguments["metadata"]["measures"]["volume_ml"] == 3.5


def test_a_result_without_nifti_is_opened_from_its_dicom_series(tmp_path: Path) -> None:
    from medrecon import writers

    values = make_result(tmp_path / "out", OBLIQUE)
    (tmp_path / "out" / "volume.nii.gz").unlink()
    writers.get("dicom").write(a_volume(values, OBLIQUE), tmp_path / "out" / "dicom", writers.WriteContext())
    volume = result_layers(tmp_path / "out")[0]
    index = np.argwhere(volume[0] == values[1, 2, 3])[0]
    assert np.abs(apply(volume[1]["metadata"]["to_lps_mm"], index) - OBLIQUE.to_lps((1, 2, 3))).max() < 1e-3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"provenance": {}}'])
def test_a_folder_that_is_no_result_is_refused_with_a_code(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        result_layers(tmp_path)
    assert caught.value.code == "NAP-RESULT"
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"solid nonsense", b"", b"x" * 100, b"\0" * 80 + b"\xff\xff\0\0" + b"\0" * 50])
def test_a_damaged_surface_is_refused_with_a_code(content: bytes, tmp_path: Path) -> None:
    make_result(tmp_path / "out", OBLIQUE)
    (tmp_path / "out" / "surface-bone.stl").write_bytes(content)
    with pytest.raises(InputError) as caught:
        result_layers(tmp_path / "out")
    assert caught.value.code == "NAP-MESH"
