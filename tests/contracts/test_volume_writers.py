"""Plain volume files: whole and right or not there, nothing lost, the same bytes for the same volume, and no patient text."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medrecon import writers
from medrecon.core.errors import GeometryError, OutputError
from medrecon.core.source import Source
from medrecon.core.volume import Quantity, Volume
from tests.makers_volumes import DIRECTIONS, marked, sheared

FORMATS = ("nifti", "nrrd", "mha")
CONTEXT = writers.WriteContext()
every_format = pytest.mark.parametrize("name", FORMATS)


def hounsfield(values: np.ndarray) -> Volume:
    return Volume(values, marked(DIRECTIONS[9]).grid, Quantity.HOUNSFIELD)


def written(name: str, volume: Volume, folder: Path) -> Path:
    writer = writers.get(name)
    assert writer.writes == "volume"
    writer.write(volume, folder / writer.target, CONTEXT)
    return folder / writer.target


def values_in(path: Path) -> np.ndarray:
    return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))


def header_of(path: Path) -> bytes:
    block = path.read_bytes()
    return gzip.decompress(block)[:352] if path.suffix == ".gz" else block[:1200]


@every_format
def test_whole_hounsfield_units_are_kept_as_int16(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.integers(-1024, 3072, size=(4, 5, 6)).astype(np.float32)
    found = values_in(written(name, hounsfield(values), tmp_path))
    assert found.dtype == np.int16
    assert np.array_equal(found, values)


@every_format
@pytest.mark.parametrize("spoiler", [0.5, 40_000.0])
def test_anything_else_is_kept_as_float32(name: str, spoiler: float, tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.integers(-1024, 3072, size=(4, 5, 6)).astype(np.float32)
    values[1, 2, 3] = spoiler
    for volume in (hounsfield(values), marked()):
        found = values_in(written(name, volume, tmp_path))
        assert found.dtype == np.float32
        assert np.array_equal(found, volume.voxels)


@every_format
def test_the_same_volume_gives_the_same_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(name, marked(DIRECTIONS[53]), tmp_path).read_bytes()
    monkeypatch.setattr(time, "time", lambda: 1e9)  # gzip would note it
    assert written(name, marked(DIRECTIONS[53]), tmp_path).read_bytes() == first
    assert written(name, marked(DIRECTIONS[52]), tmp_path).read_bytes() != first


@every_format
def test_files_say_research_use_and_nothing_of_the_source(name: str, tmp_path: Path) -> None:
    header = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Miller^Anna"}]}}
    volume = marked(quantity=Quantity.HOUNSFIELD)
    plain = written(name, volume, tmp_path).read_bytes()
    assert b"research use; hounsfield" in header_of(tmp_path / writers.get(name).target)
    named = Volume(volume.voxels, volume.grid, volume.quantity, source=Source("dicom", "series-1", "CT", header=header))
    assert written(name, named, tmp_path).read_bytes() == plain


@every_format
def test_only_the_final_file_is_left(name: str, tmp_path: Path) -> None:
    path = written(name, marked(), tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["nrrd", "mha"])
def test_a_sheared_volume_is_refused_where_the_format_cannot_hold_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="VOL-SHEARED"):
        written(name, sheared(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert written(name, sheared(0), tmp_path).exists()


@every_format
def test_a_failed_write_leaves_the_older_result(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(name, marked(), tmp_path).read_bytes()

    def cut(_: object, path: str | Path, **__: object) -> None:
        Path(path).write_bytes(before[:-20])

    with monkeypatch.context() as patch:
        patch.setattr(nibabel.Nifti1Image, "to_filename", cut)
        patch.setattr(SimpleITK, "WriteImage", cut)
        with pytest.raises(OutputError, match="OUT-READBACK"):
            written(name, marked(DIRECTIONS[3]), tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
    assert written(name, marked(DIRECTIONS[3]), tmp_path).read_bytes() != before


@every_format
def test_a_file_that_reads_back_otherwise_is_not_kept(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = written(name, marked(DIRECTIONS[3]), tmp_path).read_bytes()
    (tmp_path / writers.get(name).target).unlink()

    def swapped(_: object, path: str | Path, **__: object) -> None:
        Path(path).write_bytes(other)

    monkeypatch.setattr(nibabel.Nifti1Image, "to_filename", swapped)
    monkeypatch.setattr(SimpleITK, "WriteImage", swapped)
    with pytest.raises(OutputError, match="OUT-READBACK"):
        written(name, marked(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    written(name, marked(DIRECTIONS[3]), tmp_path)


def test_the_nifti_header_names_mm_and_the_scanner(tmp_path: Path) -> None:
    header = nibabel.load(written("nifti", marked(DIRECTIONS[50]), tmp_path)).header
    assert header.get_xyzt_units()[0] == "mm"
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_slope_inter() in ((None, None), (1.0, 0.0))


def test_nrrd_says_lps(tmp_path: Path) -> None:
    assert b"space: left-posterior-superior" in header_of(written("nrrd", marked(), tmp_path))
