"""Volume files that were cut, damaged or made to harm: one coded error each, quickly, and the repaired twin loads.

Nothing is allocated from a header's word: time and memory are measured around every refusal.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import medrecon as mr
from medrecon.core.errors import InputError, MedreconError
from medrecon.core.volume import Volume
from tests.makers_volumes import marked, write_nibabel

SPACING = (3.0, 0.5, 0.25)
MIB = 1 << 20


@contextmanager
def cheap(seconds: float = 2.0, grown_bytes: int = 64 * MIB) -> Iterator[None]:
    """Fail where the block takes long or allocates much through Python or numpy."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        yield
        taken, (_, peak) = time.monotonic() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < seconds
    assert peak < grown_bytes


def refusal(path: Path, **options: Any) -> str:
    """The code with which a file is refused, cheaply; an empty word where it loads."""
    with cheap():
        try:
            mr.read(path, **options)
        except MedreconError as error:
            return error.code
    return ""


def code_of_skipped(path: Path) -> str:
    listing = mr.find(path)
    assert list(listing) == []
    return listing.skipped[0].code


def nifti_header(shape: tuple[int, ...], datatype: Any = np.int16) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(datatype)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    header["magic"] = b"n+1\0"
    header.set_sform(np.eye(4), 1)
    return bytes(header.binaryblock) + bytes(4)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_of_20000_by_20000_over_no_data_is_refused_before_allocation(suffix: str, tmp_path: Path) -> None:
    for shape in ((20_000, 20_000, 2), (32_767, 32_767, 32_767)):
        block = nifti_header(shape)
        (tmp_path / f"a{suffix}").write_bytes(gzip.compress(block) if suffix == ".nii.gz" else block)
        assert refusal(tmp_path / f"a{suffix}") == "VOL-CUT"
    block = nifti_header((20, 20, 2)) + bytes(1600)
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(block) if suffix == ".nii.gz" else block)
    assert refusal(tmp_path / f"a{suffix}") == ""


def test_a_bomb_of_zeros_is_measured_against_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 256
    with gzip.open(tmp_path / "a.nii.gz", "wb", compresslevel=9) as file:
        file.write(nifti_header((side, side, side), np.uint8))
        for _ in range(side):
            file.write(bytes(side * side))
    monkeypatch.setattr("medrecon.safety.limits.free_memory_bytes", lambda: 64 * MIB)
    assert refusal(tmp_path / "a.nii.gz") == "MEM-VOLUME"
    monkeypatch.undo()
    assert isinstance(mr.read(tmp_path / "a.nii.gz"), Volume)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_a_cut_nifti_is_refused_and_never_filled_with_zeros(suffix: str, kept: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-1000, 1000, (20, 21, 22)).astype(np.int16)
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / f"a{suffix}")
    whole = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(whole[: int(kept * len(whole))])
    assert refusal(tmp_path / f"cut{suffix}") == "VOL-CUT"
    assert refusal(tmp_path / f"a{suffix}") == ""
    if suffix == ".nii":
        assert SimpleITK.ReadImage(str(tmp_path / "cut.nii")).GetSize() == (20, 21, 22)  # why SimpleITK never reads NIfTI here


def test_a_gzip_whose_note_of_its_size_lies_is_counted(tmp_path: Path) -> None:
    block = nifti_header((20, 20, 20)) + np.arange(8000, dtype=np.int16).tobytes()
    packed = gzip.compress(block)
    (tmp_path / "long.nii.gz").write_bytes(gzip.compress(block + bytes(100)))  # more than announced is no harm
    (tmp_path / "two.nii.gz").write_bytes(gzip.compress(block[:5000]) + gzip.compress(block[5000:]))
    for name in ("long.nii.gz", "two.nii.gz"):
        assert refusal(tmp_path / name) == ""
    short = gzip.compress(block[:9000])
    (tmp_path / "lie.nii.gz").write_bytes(short[:-4] + len(block).to_bytes(4, "little"))
    assert refusal(tmp_path / "lie.nii.gz") == "VOL-CUT"
    damaged = bytearray(packed)
    damaged[-8] ^= 1  # the checksum
    (tmp_path / "sum.nii.gz").write_bytes(damaged)
    assert refusal(tmp_path / "sum.nii.gz") == "VOL-CUT"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("dim", (0, 0, 0, 0, 0, 0, 0, 0), "VOL-HEADER"),
        ("dim", (9, 4, 4, 4, 1, 1, 1, 1), "VOL-HEADER"),
        ("dim", (3, -4, 4, 4, 1, 1, 1, 1), "VOL-HEADER"),
        ("dim", (7, 2, 2, 2, 99, 99, 99, 99), "VOL-LIMIT"),
        ("datatype", 77, "VOL-HEADER"),
        ("vox_offset", np.nan, "VOL-HEADER"),
        ("vox_offset", -1, "VOL-HEADER"),
        ("vox_offset", 1e30, "VOL-HEADER"),
    ],
)
def test_impossible_nifti_headers_are_skipped_with_a_code(field: str, value: Any, code: str, tmp_path: Path) -> None:
    header = nibabel.Nifti1Header.from_fileobj(_as_file(nifti_header((4, 4, 4))))
    (tmp_path / "good.nii").write_bytes(nifti_header((4, 4, 4)) + bytes(128))
    header[field] = value
    (tmp_path / "bad.nii").write_bytes(bytes(header.binaryblock) + bytes(4 + 128))
    assert code_of_skipped(tmp_path / "bad.nii") == code
    assert refusal(tmp_path / "bad.nii") == "INP-NONE"
    assert refusal(tmp_path / "good.nii") == ""
    assert len(mr.find(tmp_path)) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e38])
def test_impossible_nifti_places_are_refused(value: float, tmp_path: Path) -> None:
    header = nibabel.Nifti1Header.from_fileobj(_as_file(nifti_header((4, 4, 4))))
    header["srow_x"][0] = value
    (tmp_path / "a.nii").write_bytes(bytes(header.binaryblock) + bytes(4 + 128))
    assert refusal(tmp_path / "a.nii") in {"NII-AFFINE", "VOL-EXTENT"}
    header["srow_x"][0] = 1.0
    (tmp_path / "a.nii").write_bytes(bytes(header.binaryblock) + bytes(4 + 128))
    assert refusal(tmp_path / "a.nii") == ""


def _as_file(block: bytes) -> Any:
    import io

    return io.BytesIO(block)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small good files that the mutators start from."""
    folder = tmp_path_factory.mktemp("seeds")
    write_nibabel(marked(), folder / "a.nii")
    image = marked().to_sitk()
    SimpleITK.WriteImage(image, str(folder / "a.nrrd"), useCompression=True)
    SimpleITK.WriteImage(image, str(folder / "a.mha"), useCompression=False)
    tifffile.imwrite(folder / "a.tif", (np.arange(240) % 251).astype(np.uint8).reshape(5, 6, 8))
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


def survives(name: str, block: bytes) -> None:
    """The one invariant: a volume or a coded error, within two seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(block)
        started = time.monotonic()
        with contextlib.suppress(MedreconError):
            for info in mr.find(path, spacing_mm=SPACING)[:3]:
                assert isinstance(mr.read(path, info, spacing_mm=SPACING), Volume)
        assert time.monotonic() - started < 2.0
        assert list(Path(folder).iterdir()) == [path]


changes = st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6)
many = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
some = settings(many, max_examples=60)


@many
@given(changes=changes, cut=st.none() | st.integers(0, 600), packed=st.booleans())
def test_any_change_of_a_nifti_header_ends_in_a_volume_or_a_code(
    seeds: dict[str, bytes], changes: list[tuple[int, int]], cut: int | None, packed: bool
) -> None:
    block = bytearray(seeds[".nii"])
    for at, value in changes:
        block[at] = value
    done = bytes(block[:cut])
    survives("a.nii", gzip.compress(done, 1) if packed else done)


def test_the_mutator_reaches_volumes_as_well_as_refusals(seeds: dict[str, bytes], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(150):
        block = bytearray(seeds[".nii"])
        for at in rng.integers(0, 352, size=3):
            block[at] = rng.integers(256)
        (tmp_path / "a.nii").write_bytes(block)
        outcomes.add(refusal(tmp_path / "a.nii"))
    assert {"", "NII-AFFINE", "VOL-CUT", "VOL-HEADER"} <= outcomes | {"VOL-HEADER" if "INP-NONE" in outcomes else ""}


@some
@given(changes=changes, cut=st.none() | st.integers(0, 700))
@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".tif"])
def test_any_change_of_another_header_ends_in_a_volume_or_a_code(
    seeds: dict[str, bytes], suffix: str, changes: list[tuple[int, int]], cut: int | None
) -> None:
    block = bytearray(seeds[suffix])
    for at, value in changes:
        block[at % len(block)] = value
    survives(f"a{suffix}", bytes(block[:cut]))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nhdr", "a.mhd"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("lost", [1, 50, 200])
def test_a_cut_nrrd_or_metaimage_is_refused(name: str, packed: bool, lost: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = SimpleITK.GetImageFromArray(rng.normal(size=(4, 5, 6)).astype(np.float32))
    SimpleITK.WriteImage(image, str(tmp_path / name), useCompression=packed)
    data = next((path for path in tmp_path.iterdir() if path.name != name), tmp_path / name)
    whole = data.read_bytes()
    data.write_bytes(whole[:-lost])
    assert refusal(tmp_path / name) == "VOL-CUT"
    data.write_bytes(whole)
    assert refusal(tmp_path / name) == ""


NRRD = """NRRD0004
type: uchar
dimension: 3
space: LPS
sizes: {sizes}
space directions: (1,0,0) (0,1,0) (0,0,1)
encoding: {encoding}
{more}
"""
MHA = """ObjectType = Image
NDims = 3
BinaryData = True
{more}DimSize = {sizes}
ElementSpacing = 1 1 1
ElementType = MET_UCHAR
ElementDataFile = {data}
"""


def write_nrrd(path: Path, data: bytes, sizes: str = "2 3 4", encoding: str = "raw", more: str = "") -> None:
    path.write_bytes(NRRD.format(sizes=sizes, encoding=encoding, more=more).encode() + data)


def write_mha(path: Path, data: bytes, sizes: str = "2 3 4", more: str = "", where: str = "LOCAL") -> None:
    path.write_bytes(MHA.format(sizes=sizes, more=more, data=where).encode() + data)


def test_announced_sizes_of_nrrd_and_metaimage_are_compared_with_the_file(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "a.nrrd", bytes(24), "20000 20000 2")
    write_nrrd(tmp_path / "b.nrrd", gzip.compress(bytes(24)), "20000 20000 2", "gzip")
    write_nrrd(tmp_path / "c.nrrd", gzip.compress(bytes(100_000)), "400 500 600", "gzip")
    write_mha(tmp_path / "d.mha", bytes(24), "20000 20000 2")
    write_mha(tmp_path / "e.mha", zlib.compress(bytes(100_000)), "400 500 600", "CompressedData = True\n")
    write_mha(tmp_path / "f.mha", zlib.compress(bytes(24)), "2 3 4", "CompressedData = True\nCompressedDataSize = 99999\n")
    for name in "abcdef":
        assert refusal(next(tmp_path.glob(f"{name}.*"))) == "VOL-CUT"
    write_nrrd(tmp_path / "a.nrrd", bytes(24))
    write_nrrd(tmp_path / "b.nrrd", gzip.compress(bytes(24)), "2 3 4", "gzip")
    write_mha(tmp_path / "d.mha", bytes(24))
    write_mha(tmp_path / "e.mha", zlib.compress(bytes(24)), "2 3 4", "CompressedData = True\n")
    for name in "abde":
        assert refusal(next(tmp_path.glob(f"{name}.*"))) == ""


@pytest.mark.parametrize("name", ["../secret.raw", "{outside}/secret.raw", "link.raw", "sub/../../secret.raw", "..\\secret.raw"])
@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_a_header_cannot_name_a_file_outside_its_folder(name: str, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(bytes(24))
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    named = name.format(outside=tmp_path)
    if kind == "nrrd":
        write_nrrd(folder / "a.nhdr", b"", more=f"data file: {named}\n")
    else:
        write_mha(folder / "a.nhdr", b"", where=named)
    assert code_of_skipped(folder / "a.nhdr") == "VOL-ESCAPE"
    assert list(mr.find(folder)) == []
    (folder / "good.raw").write_bytes(bytes(24))
    if kind == "nrrd":
        write_nrrd(folder / "a.nhdr", b"", more="data file: good.raw\n")
    else:
        write_mha(folder / "a.nhdr", b"", where="good.raw")
    assert refusal(folder / "a.nhdr") == ""


@pytest.mark.parametrize("where", ["gone.raw", "LIST", "slice%03d.raw 1 4 1", "sub"])
def test_voxels_that_are_gone_or_spread_over_files_are_refused(where: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write_mha(tmp_path / "a.mhd", b"", where=where)
    write_nrrd(tmp_path / "b.nhdr", b"", more=f"data file: {where}\n")
    assert code_of_skipped(tmp_path / "a.mhd") == code_of_skipped(tmp_path / "b.nhdr") == "VOL-DETACHED"


def test_a_second_name_for_the_data_that_itk_would_see_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    write_mha(tmp_path / "a.mha", bytes(24), more="ElementDataFile : secret = x\n")
    write_nrrd(tmp_path / "b.nrrd", bytes(24), more="data file: secret\ndatafile: secret\n")
    write_nrrd(tmp_path / "c.nrrd", bytes(24), more="encoding: raw\n")
    write_mha(tmp_path / "d.mha", bytes(24), more="NDims = 3\n")
    for name in ("a.mha", "b.nrrd", "c.nrrd", "d.mha"):
        assert code_of_skipped(tmp_path / name) == "VOL-HEADER"
    write_mha(tmp_path / "a.mha", bytes(24), more="Comment = x\n")
    assert refusal(tmp_path / "a.mha") == ""


def test_an_endless_header_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image\n" + b"x" * (20 * MIB))
    with cheap(grown_bytes=80 * MIB):
        assert code_of_skipped(tmp_path / "a.mha") == "VOL-HEADER"


def test_damaged_images_are_skipped_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[:300])
    assert refusal(tmp_path, spacing_mm=SPACING) == "IMG-DAMAGED"
    (tmp_path / "1.png").write_bytes(whole[:20])
    assert "IMG-DAMAGED" in {one.code for one in mr.find(tmp_path).skipped}
    (tmp_path / "1.png").write_bytes(whole)
    assert refusal(tmp_path, spacing_mm=SPACING) == ""


def test_pictures_that_claim_more_than_they_hold_are_not_decoded(tmp_path: Path) -> None:
    for number, (columns, rows) in enumerate([(9_000, 9_000), (9_000, 9_000), (65_000, 65_000), (65_000, 65_000)]):
        first = b"IHDR" + columns.to_bytes(4, "big") + rows.to_bytes(4, "big") + b"\x08\0\0\0\0"
        chunk = (13).to_bytes(4, "big") + first + zlib.crc32(first).to_bytes(4, "big")
        pixels = zlib.compress(bytes(100))
        chunk += len(pixels).to_bytes(4, "big") + b"IDAT" + pixels + zlib.crc32(b"IDAT" + pixels).to_bytes(4, "big")
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with cheap():
        assert {one.code for one in mr.find(tmp_path).skipped} == {"IMG-DAMAGED", "IMG-LIMIT"}


def test_a_cut_tiff_is_skipped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.arange(5 * 60 * 80, dtype=np.uint16).reshape(5, 60, 80))
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:-500])
    assert code_of_skipped(tmp_path / "a.tif") == "IMG-DAMAGED"
    (tmp_path / "a.tif").write_bytes(whole)
    assert refusal(tmp_path / "a.tif", spacing_mm=SPACING) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the resident memory is measured on Linux only")
def test_hostile_headers_need_no_memory_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti_header((20_000, 20_000, 2))))
    write_nrrd(tmp_path / "b.nrrd", bytes(24), "20000 20000 2")
    write_mha(tmp_path / "c.mha", zlib.compress(bytes(24)), "20000 20000 2", "CompressedData = True\n")
    code = """
import medrecon as mr, resource, sys
mr.find(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert {info.verdict for info in mr.find(sys.argv[1])} == {"refused"}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 20_000  # kB


def test_an_error_names_no_file_even_in_its_cause(tmp_path: Path) -> None:
    (tmp_path / "Miller.mha").write_bytes(b"ObjectType = Image\nNDims = 3\nDimSize = a b c\nElementDataFile = LOCAL\n")
    with pytest.raises(InputError) as raised:
        mr.read(tmp_path / "Miller.mha")
    assert "Miller" not in str(raised.value)
    assert os.environ.get("HOME", "/root") not in str(raised.value)
