"""Detector images beside a YAML file: every way to describe a scan in it, and what our own writer writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

import medrecon as mr
from medrecon.core.errors import GeometryError, InputError
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.writers import _projections_stack
from tests import makers_projections as makers

Edit = Callable[[dict], None]  # type: ignore[type-arg]  # plain YAML


def described() -> dict:  # type: ignore[type-arg]  # plain YAML
    return {
        "format": "medrecon projections",
        "images": "p.npy",
        "detector": {"row_pitch_mm": makers.ROW_PITCH_MM, "column_pitch_mm": makers.COLUMN_PITCH_MM},
        "geometry": {
            "kind": "cone",
            "angles_deg": np.degrees(makers.angles_rad()).tolist(),
            "sid_mm": makers.SID_MM,
            "sdd_mm": makers.SDD_MM,
        },
    }


def write(folder: Path, content: dict, pixels: np.ndarray) -> Path:  # type: ignore[type-arg]  # plain YAML
    np.save(folder / "p.npy", pixels)
    return makers.write_text(folder / "scan.yaml", yaml.safe_dump(content, sort_keys=False))


def read(path: Path, **options: object) -> ProjectionScan:
    scan = mr.read(path, **options)  # type: ignore[arg-type]  # any option
    assert isinstance(scan, ProjectionScan)
    return scan


@pytest.fixture(scope="module")
def scan() -> ProjectionScan:
    return makers.scanned(makers.cone_views())


def test_a_cone_beam_is_read_upright_and_not_mirrored(scan: ProjectionScan, tmp_path: Path) -> None:
    back = read(write(tmp_path, described(), scan.pixels))
    assert makers.mismatch(back) < 1e-5
    np.testing.assert_allclose(makers.sources(back), makers.sources(scan), atol=1e-9)


def test_the_check_for_mirror_images_fails_on_mirrored_and_on_upside_down_scans(scan: ProjectionScan) -> None:
    assert makers.mismatch(makers.mirrored(scan)) > 0.05
    assert makers.mismatch(makers.upside_down(scan)) > 0.05


@pytest.mark.parametrize("kind", ["parallel", "curved", "helical", "left-handed"])
def test_what_our_writer_writes_comes_back_bit_by_bit(kind: str, tmp_path: Path) -> None:
    curved = Detector((makers.ROWS, makers.COLUMNS), (4.0, 3.0), curve_radius_mm=makers.SDD_MM)
    views = {
        "parallel": makers.parallel_views(),
        "curved": ViewGeometry.cone(makers.angles_rad(), 200, 300, curved, offset_u_mm=1.0),
        "helical": ViewGeometry.helical(makers.angles_rad(), 200, 300, makers.detector(), pitch_mm_per_turn=12),
        "left-handed": makers.cone_views(),
    }[kind]
    if kind == "left-handed":
        views = ViewGeometry.from_vectors(
            views.sources_lps_mm, views.centres_lps_mm, -views.u, views.v, views.detector, left_handed=True
        )
    scan = makers.scanned(views)
    _projections_stack.write(scan, tmp_path / "scan")
    back = read(tmp_path / "scan")
    np.testing.assert_array_equal(back.pixels, scan.pixels)
    assert back.views.detector == views.detector
    assert back.views.left_handed == views.left_handed
    for name in ("centres_lps_mm", "u", "v", "sources_lps_mm", "ray_directions", "isocentre_lps_mm"):
        one, other = getattr(back.views, name), getattr(views, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=1e-12)


def test_one_tiff_for_each_view_is_sorted_as_people_count(scan: ProjectionScan, tmp_path: Path) -> None:
    content = described() | {"images": "views/v_*.tif"}
    (tmp_path / "views").mkdir()
    for k, image in enumerate(scan.pixels):
        tifffile.imwrite(tmp_path / "views" / f"v_{k + 5}.tif", image)
    path = makers.write_text(tmp_path / "scan.yaml", yaml.safe_dump(content, sort_keys=False))
    assert makers.mismatch(read(path)) < 1e-5


def test_the_images_of_a_scan_are_no_series_of_their_own(scan: ProjectionScan, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", scan.pixels, photometric="minisblack")
    assert [info.kind for info in mr.find(tmp_path)] == ["volume"]  # the twin: without a geometry they are an image stack
    content = described() | {"images": "stack.tif"}
    makers.write_text(tmp_path / "scan.yaml", yaml.safe_dump(content, sort_keys=False))
    listing = mr.find(tmp_path)
    assert [(info.reader, info.kind, info.shape) for info in listing] == [("projection_stack", "projections", scan.views.shape)]
    assert listing.skipped == ()


def test_raw_images_need_their_layout_in_the_yaml(scan: ProjectionScan, tmp_path: Path) -> None:
    (tmp_path / "p.raw").write_bytes(b"headerxx" + scan.pixels.astype(">f4").tobytes())
    content = described() | {
        "images": "p.raw",
        "raw": {"views": makers.VIEWS, "dtype": "float32", "byte_order": "big", "offset": 8},
    }
    content["detector"] |= {"rows": makers.ROWS, "columns": makers.COLUMNS}
    path = makers.write_text(tmp_path / "scan.yaml", yaml.safe_dump(content, sort_keys=False))
    assert makers.mismatch(read(path)) < 1e-5
    content["raw"]["views"] = makers.VIEWS + 1
    makers.write_text(path, yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(InputError) as raised:
        read(path)
    assert raised.value.code == "PRJ-CUT"


def test_flats_and_darks_turn_counts_into_transmission(scan: ProjectionScan, tmp_path: Path) -> None:
    gain = np.linspace(500, 1500, makers.COLUMNS, dtype=np.float32)
    counts = 40 + gain * np.exp(-scan.pixels)
    np.save(tmp_path / "flat.npy", np.broadcast_to(gain + 40, (3, makers.ROWS, makers.COLUMNS)))
    np.save(tmp_path / "dark.npy", np.full((makers.ROWS, makers.COLUMNS), 40, dtype=np.float32))
    content = described() | {"open_beam": "flat.npy", "dark": "dark.npy"}
    back = read(write(tmp_path, content, counts))
    assert back.measures is Measured.TRANSMISSION
    np.testing.assert_allclose(back.pixels, np.exp(-scan.pixels), atol=1e-5)


def test_angles_come_as_steps_or_from_a_file_with_lines_for_flats(scan: ProjectionScan, tmp_path: Path) -> None:
    content = described()
    content["geometry"]["angles_deg"] = {"first": 10.0, "step": 360.0 / makers.VIEWS}
    assert makers.mismatch(read(write(tmp_path, content, scan.pixels))) < 1e-5
    lines = [0.0, 0.0, *np.degrees(makers.angles_rad()), 0.0]
    makers.write_text(tmp_path / "angles.txt", "\n".join(map(str, lines)))
    content["geometry"]["angles_deg"] = {"file": "angles.txt", "skip": [2, 1]}
    assert makers.mismatch(read(write(tmp_path, content, scan.pixels))) < 1e-5


def degrees_as_radians(content: dict) -> None:  # type: ignore[type-arg]  # plain YAML
    content["geometry"]["angles_rad"] = content["geometry"].pop("angles_deg")


def metres(content: dict) -> None:  # type: ignore[type-arg]  # plain YAML
    content["geometry"] |= {"sid_mm": 0.2, "sdd_mm": 0.3}


def source_behind_detector(content: dict) -> None:  # type: ignore[type-arg]  # plain YAML
    content["geometry"] |= {"sid_mm": 300.0, "sdd_mm": 200.0}


def an_angle_too_few(content: dict) -> None:  # type: ignore[type-arg]  # plain YAML
    content["geometry"]["angles_deg"].pop()


def other_detector(content: dict) -> None:  # type: ignore[type-arg]  # plain YAML
    content["detector"] |= {"rows": 3}


def no_angles(content: dict) -> None:  # type: ignore[type-arg]  # plain YAML
    content["geometry"]["angles_deg"] = []


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (degrees_as_radians, "PRJ-UNIT"),
        (metres, "PRJ-GEOM"),
        (source_behind_detector, "PRJ-GEOM"),
        (an_angle_too_few, "PRJ-SHAPE"),
        (other_detector, "PRJ-SHAPE"),
        (no_angles, "PRJ-FEW"),
    ],
)
def test_an_impossible_geometry_is_a_refused_series_with_its_code(
    edit: Edit, code: str, scan: ProjectionScan, tmp_path: Path
) -> None:
    content = described()
    edit(content)
    path = write(tmp_path, content, scan.pixels)
    assert [finding.code for finding in mr.find(path)[0].findings] == [code]
    with pytest.raises(GeometryError) as raised:
        read(path)
    assert raised.value.code == code


def test_twenty_degrees_of_views_are_marked(tmp_path: Path) -> None:
    views = ViewGeometry.cone(np.radians(np.arange(0, 20, 2.5)), makers.SID_MM, makers.SDD_MM, makers.detector())
    scan = makers.scanned(views)
    content = described()
    content["geometry"]["angles_deg"] = np.arange(0, 20, 2.5).tolist()
    back = read(write(tmp_path, content, scan.pixels))
    assert [finding.code for finding in back.findings] == ["PRJ-FEW"]
    assert back.verdict == "warn"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_cannot_be_measured_are_refused_or_by_name_masked(value: float, scan: ProjectionScan, tmp_path: Path) -> None:
    pixels = scan.pixels.copy()
    pixels[2, 3, 4] = value
    path = write(tmp_path, described(), pixels)
    with pytest.raises(InputError) as raised:
        read(path)
    assert raised.value.code == "PRJ-VALUE"
    back = read(path, allow=["bad-pixels"])
    assert back.measured is not None
    assert np.argwhere(~back.measured).tolist() == [[2, 3, 4]]
    assert np.isfinite(back.pixels).all()
    assert back.allowed == ("bad-pixels",)


def test_negative_counts_are_refused_and_negative_line_integrals_are_not(scan: ProjectionScan, tmp_path: Path) -> None:
    pixels = scan.pixels - 0.01
    read(write(tmp_path, described(), pixels))
    with pytest.raises(InputError) as raised:
        read(write(tmp_path, described() | {"measures": "counts"}, pixels))
    assert raised.value.code == "PRJ-VALUE"


def test_a_flat_field_without_beam_is_refused(scan: ProjectionScan, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((makers.ROWS, makers.COLUMNS), dtype=np.uint16))
    with pytest.raises(InputError) as raised:
        read(write(tmp_path, described() | {"open_beam": "flat.npy"}, scan.pixels))
    assert raised.value.code == "PRJ-FLAT"


@pytest.mark.parametrize("name", ["../p.npy", "/etc/hostname", "../*.npy"])
def test_a_yaml_names_nothing_outside_its_folder(name: str, scan: ProjectionScan, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", scan.pixels)
    (tmp_path / "inside").mkdir()
    with pytest.raises(InputError) as raised:
        read(write(tmp_path / "inside", described() | {"images": name}, scan.pixels))
    assert raised.value.code == "VOL-ESCAPE"


def test_pickled_arrays_are_never_loaded(scan: ProjectionScan, tmp_path: Path) -> None:
    path = write(tmp_path, described(), scan.pixels)
    np.save(tmp_path / "p.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(InputError) as raised:
        read(path)
    assert raised.value.code == "PRJ-HEADER"


def test_a_yaml_with_an_unknown_key_or_an_alias_bomb_is_refused(scan: ProjectionScan, tmp_path: Path) -> None:
    path = write(tmp_path, described() | {"detektor": 1}, scan.pixels)
    with pytest.raises(InputError, match="detector") as raised:
        read(path)
    assert raised.value.code == "PRJ-HEADER"
    path.write_text("format: medrecon projections\na: &a [1,1]\nb: [*a,*a]\n")
    with pytest.raises(InputError) as raised:
        read(path)
    assert raised.value.code == "PRJ-HEADER"
    assert "scan" not in str(raised.value)
