"""Real beamline scans run through the whole pipeline: the axis of rotation is found where others found it, and it pays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import medrecon as mr
from medrecon.config import load_config
from medrecon.core.findings import Verdict


def run(path: Path, *assignments: str, **options: object) -> mr.Result:
    return mr.reconstruct(mr.read(path, **options), load_config("micro-ct", None, ("surfaces=[]", *assignments)))  # type: ignore[arg-type]  # any option


def column(result: mr.Result) -> float:
    """Where the axis was found."""
    found = next(finding.numbers["column"] for finding in result.all_findings if finding.code == "PRJ-AXIS")
    assert isinstance(found, float)
    return found


def test_the_tooth_is_found_to_turn_about_column_296_and_comes_back(shared_data: Path) -> None:
    """Half a turn of 181 views and 640 columns; read as centred, its residual is several times as large."""
    tooth = shared_data / "projections" / "tomopy" / "tooth.h5"
    options = {"spacing_mm": (1.0, 0.01, 0.01)}
    coarse = "grid.spacing_mm=[0.01,0.03,0.03]"
    found, centred = (run(tooth, coarse, f"projections.axis={axis}", **options) for axis in ("auto", "as-read"))
    assert column(found) == pytest.approx(296, abs=1)
    assert found.quality.residual < 0.1
    assert centred.quality.residual > 1.5 * found.quality.residual
    assert found.verdict is Verdict.WARN  # the file does not say how the camera was mounted


def test_the_savu_scan_is_found_to_turn_about_column_86_and_says_what_is_wrong_with_it(shared_data: Path, tmp_path: Path) -> None:
    """Its detector has one dead pixel, and the sample's holder fills the field of view."""
    source = shared_data / "projections" / "savu_24737"
    for file in (*(source / "tiffs").glob("*.tiff"), *source.glob("*.tiff"), source / "angles.txt"):
        shutil.copy(file, tmp_path)
    content = {
        "format": "medrecon projections",
        "images": "raw_*.tiff",
        "measures": "counts",
        "open_beam": "flat_00001.tiff",
        "dark": "dark_00001.tiff",
        "detector": {"row_pitch_mm": 0.01, "column_pitch_mm": 0.01},
        "geometry": {"kind": "parallel", "angles_deg": {"file": "angles.txt", "skip": [10, 10]}},
    }
    (tmp_path / "scan.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    result = run(tmp_path, "grid.spacing_mm=0.02")
    assert column(result) == pytest.approx(86, abs=0.5)
    assert {"PRJ-FLAT", "PRJ-TRUNCATED"} <= {finding.code for finding in result.all_findings}
    assert result.volume.voxels.max() > 5  # the sample's dense tip stands out of a holder of about 1.5 per mm
