"""Bad projections end in a coded error or in a marked result, through the same `run` as good ones: P1 to P5 and their kin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from medrecon.config import Choice
from medrecon.core.errors import MedreconError
from medrecon.core.findings import Verdict
from medrecon.core.reading import ReadOptions
from medrecon.core.views import Detector, ViewGeometry
from medrecon.result import Result
from medrecon.run import Request, run
from tests.makers_xray import ball

VIEWS, ROWS, COLUMNS, PITCH = 24, 12, 20, 4.0
Content = dict[str, Any]
Pixels = NDArray[np.float32]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small problems: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def good() -> tuple[Content, Pixels]:
    """A plain cone-beam scan of a ball: what its YAML file says, and its line integrals."""
    angles = np.arange(VIEWS) * 360 / VIEWS
    views = ViewGeometry.cone(np.radians(angles), 300, 500, Detector((ROWS, COLUMNS), (PITCH, PITCH)))
    content = {
        "format": "medrecon projections",
        "images": "p.npy",
        "detector": {"row_pitch_mm": PITCH, "column_pitch_mm": PITCH},
        "geometry": {"kind": "cone", "angles_deg": angles.tolist(), "sid_mm": 300.0, "sdd_mm": 500.0},
    }
    return content, ball(12, density=0.02).project(views)


def counted() -> tuple[Content, Pixels]:
    content, pixels = good()
    return content | {"measures": "counts"}, (5e4 * np.exp(-pixels)).astype(np.float32)


def reconstructed(folder: Path, content: Content, pixels: Pixels, *assignments: str, allow: tuple[str, ...] = ()) -> Result:
    scan = folder / "scan"
    scan.mkdir(exist_ok=True)
    np.save(scan / "p.npy", pixels)
    (scan / "scan.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    choice = Choice(assignments=("surfaces=[]", "grid.spacing_mm=4.0", *assignments))
    result, _ = run(Request(scan, folder / "out", choice, options=ReadOptions(allow=allow), formats=("nifti",)))
    return result


def refusal(folder: Path, content: Content, pixels: Pixels, *assignments: str) -> str:
    """The code that a scan is refused with; nothing of it may have been written."""
    with pytest.raises(MedreconError) as caught:
        reconstructed(folder, content, pixels, *assignments)
    assert not list((folder / "out").rglob("*.*")) if (folder / "out").exists() else True
    assert caught.value.exit_code != 1
    return caught.value.code


def test_the_same_scan_without_a_fault_is_reconstructed(tmp_path: Path) -> None:
    result = reconstructed(tmp_path, *good())
    assert result.quality.residual < 0.15
    assert result.volume.voxels.max() == pytest.approx(0.02, rel=0.3)
    (tmp_path / "counts").mkdir()
    plain = reconstructed(tmp_path / "counts", *counted(), "projections.open_beam=50000")
    assert plain.volume.voxels.max() == pytest.approx(result.volume.voxels.max(), rel=0.02)


Change = Callable[[Content, Pixels], tuple[Content, Pixels]]


def pixels_changed(change: Callable[[Pixels], object]) -> Change:
    def apply(content: Content, pixels: Pixels) -> tuple[Content, Pixels]:
        pixels = pixels.copy()
        made = change(pixels)
        return content, pixels if made is None else np.asarray(made, dtype=np.float32)

    return apply


def geometry_changed(**changes: object) -> Change:
    return lambda content, pixels: (content | {"geometry": content["geometry"] | changes}, pixels)


def detector_changed(**changes: object) -> Change:
    return lambda content, pixels: (content | {"detector": content["detector"] | changes}, pixels)


def put(index: Any, value: float) -> Change:
    def change(pixels: Pixels) -> None:
        pixels[index] = value

    return pixels_changed(change)


DEGREES = (np.arange(VIEWS) * 360 / VIEWS).tolist()
LINE_INTEGRALS: dict[str, tuple[Change, str]] = {
    "P1 not a number": (put((3, 4, 5), np.nan), "PRJ-VALUE"),
    "P1 infinite": (put((3, 4), np.inf), "PRJ-VALUE"),
    "P2 fewer angles than views": (geometry_changed(angles_deg=DEGREES[:-1]), "PRJ-SHAPE"),
    "P2 more angles than views": (geometry_changed(angles_deg=[*DEGREES, 359.0]), "PRJ-SHAPE"),
    "P2 another detector": (detector_changed(rows=ROWS + 1), "PRJ-SHAPE"),
    "P3 degrees called radians": (geometry_changed(angles_deg=None, angles_rad=DEGREES), "PRJ-UNIT"),
    "P3 a few degrees called radians": (
        geometry_changed(angles_deg=None, angles_rad=(np.arange(VIEWS) / 2).tolist()),
        "PRJ-UNIT",
    ),
    "P3 a turn in radians called degrees": (geometry_changed(angles_deg=np.radians(DEGREES).tolist()), "PRJ-UNIT"),
    "P3 half a turn in radians called degrees": (geometry_changed(angles_deg=(np.radians(DEGREES) / 2).tolist()), "PRJ-UNIT"),
    "P3 a short scan in radians called degrees": (geometry_changed(angles_deg=(np.radians(DEGREES) * 0.6).tolist()), "PRJ-UNIT"),
    "P4 source behind the detector": (geometry_changed(sid_mm=500.0, sdd_mm=300.0), "PRJ-GEOM"),
    "P4 no distance": (geometry_changed(sid_mm=0.0), "PRJ-GEOM"),
    "P4 metres for millimetres": (geometry_changed(sid_mm=0.3, sdd_mm=0.5), "PRJ-GEOM"),
    "P4 one of two distances in metres": (geometry_changed(sid_mm=0.3), "PRJ-GEOM"),
    "P4 pitch in metres": (detector_changed(row_pitch_mm=4e-6, column_pitch_mm=4e-6), "PRJ-GEOM"),
    "P4 angle not finite": (geometry_changed(angles_deg=[float("nan"), *DEGREES[1:]]), "PRJ-HEADER"),
    "P5 no views": (lambda c, p: (c | {"geometry": c["geometry"] | {"angles_deg": []}}, p[:0]), "PRJ-"),
    "nothing measured": (pixels_changed(np.zeros_like), "PRJ-EMPTY"),
    "one value everywhere": (pixels_changed(lambda p: np.full_like(p, 0.7)), "PRJ-EMPTY"),
    "two views": (lambda c, p: (c | {"geometry": c["geometry"] | {"angles_deg": [0.0, 90.0]}}, p[:2]), "PRJ-FEW"),
}


@pytest.mark.parametrize("case", LINE_INTEGRALS)
def test_line_integrals_that_cannot_be_are_refused_by_code(case: str, tmp_path: Path) -> None:
    change, code = LINE_INTEGRALS[case]
    assert refusal(tmp_path, *change(*good())).startswith(code)


def test_negative_counts_are_refused_and_left_out_when_allowed(tmp_path: Path) -> None:
    content, pixels = put((2, 3, slice(4, 6)), -5.0)(*counted())
    assert refusal(tmp_path, content, pixels, "projections.open_beam=50000") == "PRJ-VALUE"
    result = reconstructed(tmp_path, content, pixels, "projections.open_beam=50000", allow=("bad-pixels",))
    assert result.verdict is Verdict.WARN
    record = json.loads(next((tmp_path / "out").rglob("run.json")).read_text())
    assert record["input"]["measured_share"] == pytest.approx(1 - 2 / pixels.size)
    assert record["provenance"]["allowed"] == ["bad-pixels"]


def test_counts_without_an_open_beam_are_refused_with_the_way_out(tmp_path: Path) -> None:
    assert refusal(tmp_path, *counted()) == "PRJ-FLAT"


@pytest.mark.parametrize("beam", ["0", "-1", ".nan", ".inf"])
def test_an_open_beam_of_nothing_is_refused_by_the_settings(beam: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, *counted(), f"projections.open_beam={beam}") == "CFG-VALUE"


def test_a_dark_image_as_bright_as_the_open_beam_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, *counted(), "projections.open_beam=100", "projections.dark=100") == "PRJ-FLAT"


def test_a_flat_field_of_zeros_is_refused(tmp_path: Path) -> None:
    content, pixels = counted()
    (tmp_path / "scan").mkdir()
    np.save(tmp_path / "scan" / "flat.npy", np.zeros((ROWS, COLUMNS), np.float32))
    assert refusal(tmp_path, content | {"open_beam": "flat.npy"}, pixels) == "PRJ-FLAT"


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    content, pixels = good()
    scan = tmp_path / "scan"
    scan.mkdir()
    np.save(scan / "p.npy", pixels)
    whole = (scan / "p.npy").read_bytes()
    (scan / "p.npy").write_bytes(whole[: len(whole) // 2])
    (scan / "scan.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(MedreconError, match=r"PRJ-(CUT|HEADER|FILES)|IMG-DAMAGED"):
        run(Request(scan, tmp_path / "out", Choice(), formats=("nifti",)))


def test_an_arc_that_is_far_too_short_is_a_marked_result(tmp_path: Path) -> None:
    result = reconstructed(tmp_path, *geometry_changed(angles_deg=np.linspace(0, 20, VIEWS).tolist())(*good()))
    assert result.verdict is Verdict.WARN
    assert {"PRJ-FEW", "COV-INFERRED"} <= {finding.code for finding in result.all_findings}
    assert "PRJ-UNIT" not in {finding.code for finding in result.all_findings}


def test_an_axis_that_no_view_shows_is_a_marked_result(tmp_path: Path) -> None:
    result = reconstructed(tmp_path, *geometry_changed(offset_u_mm=200.0)(*good()))
    assert result.verdict is Verdict.WARN
    assert "PRJ-FOV" in {finding.code for finding in result.all_findings}


def test_an_arc_of_six_degrees_is_taken_as_it_is_only_by_name(tmp_path: Path) -> None:
    narrow = geometry_changed(angles_deg=np.radians(DEGREES).tolist())
    result = reconstructed(tmp_path, *narrow(*good()), allow=("tiny-arc",))
    assert result.verdict is Verdict.WARN
    assert {"PRJ-UNIT", "PRJ-FEW"} <= {finding.code for finding in result.all_findings}
    assert result.provenance.allowed == ("tiny-arc",)


def test_a_region_that_no_view_sees_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, *good(), "grid.region_lps_mm=[[900,900,0],[950,950,9]]") == "GRID-REGION"


def test_a_grid_beyond_the_memory_is_refused_with_a_spacing_that_fits(tmp_path: Path) -> None:
    with pytest.raises(MedreconError, match=r"MEM-BUDGET.*grid.spacing_mm, such as") as caught:
        reconstructed(tmp_path, *good(), "grid.spacing_mm=0.004")
    assert caught.value.exit_code == 5
