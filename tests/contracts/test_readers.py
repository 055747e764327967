"""The front door of reading: what is listed, in which order, what is skipped and why, and how one series is chosen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import medrecon as mr
from medrecon import readers
from medrecon.core.errors import GeometryError, InputError, MedreconError, UsageError
from medrecon.core.findings import Verdict
from medrecon.core.progress import silent
from medrecon.core.reading import Listing, ReadOptions, SeriesInfo
from medrecon.core.volume import Volume
from medrecon.readers._listing import list_folder
from medrecon.safety.limits import Limits
from tests.makers_volumes import DIRECTIONS, marked, write_nibabel

NIFTI = "one.nii"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with two volumes, one of them in a subfolder, among junk."""
    folder = tmp_path / "study"
    (folder / "deeper").mkdir(parents=True)
    write_nibabel(marked(), folder / NIFTI)
    write_nibabel(marked(DIRECTIONS[7]), folder / "deeper" / "two.nii.gz")
    (folder / "README.txt").write_text("Read me.\n")
    (folder / "a.exe").write_bytes(b"MZ\x90\x00" + bytes(64))
    (folder / "deeper" / "page.html").write_text("<!DOCTYPE html><p>")
    (folder / "deeper" / "nothing").write_bytes(b"")
    (folder / "deeper" / "inner.zip").write_bytes(b"PK\x03\x04" + bytes(64))
    return folder


def skipped(listing: Listing) -> dict[str, str]:
    return {one.what: one.code for one in listing.skipped}


def test_every_reader_keeps_the_contract() -> None:
    assert {"image_stack", "metaimage", "nifti", "nrrd"} <= set(readers.names())
    for name in readers.names():
        reader = readers.get(name)
        assert reader.claims(Path("nothing"), b"") is False
        assert reader.claims(Path("nothing"), bytes(512)) is False
        assert reader.claims(Path("nothing"), b"\xff" * 512) is False
        assert reader.find([], ReadOptions()) == ([], [])


def test_a_folder_is_listed_with_all_below_it_and_junk_is_counted_by_kind(study: Path) -> None:
    listing = mr.find(study)
    assert [info.shape for info in listing] == [(4, 5, 6), (4, 5, 6)]
    assert {info.kind for info in listing} == {"volume"}
    assert skipped(listing) == {
        "text": "INP-OTHER",
        "executable": "INP-OTHER",
        "web page": "INP-OTHER",
        "ZIP archive": "INP-OTHER",
        "empty file": "INP-EMPTY",
    }
    assert sorted(one.number for one in listing.skipped) == [1, 2, 4, 5, 6]  # files before folders, by name


def test_a_listing_is_the_same_whenever_and_wherever_it_is_made(study: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(study, tmp_path / "copy")
    first, again, elsewhere = (mr.find(folder) for folder in (study, study, copy))
    assert [info.id for info in first] == [info.id for info in again] == [info.id for info in elsewhere]
    assert len({info.id for info in first}) == 2
    assert all(len(info.id) == len("series-") + 16 for info in first)


def test_findings_and_series_are_plain_json(study: Path) -> None:
    import json

    assert json.loads(json.dumps([info.as_json() for info in mr.find(study)]))[0]["kind"] == "volume"


def test_no_listing_or_message_holds_a_file_name(tmp_path: Path) -> None:
    write_nibabel(marked(), tmp_path / "Miller^Anna_19700101.nii")
    write_nibabel(marked(DIRECTIONS[3]), tmp_path / "Miller^Anna_19700102.nii")
    (tmp_path / "Miller.txt").write_text("Miller")
    listing = mr.find(tmp_path)
    with pytest.raises(UsageError) as choice:
        mr.read(tmp_path)
    for text in (repr(list(listing)), repr(listing.skipped), str(choice.value), str([info.as_json() for info in listing])):
        assert "Miller" not in text
    assert "Miller" in str(tmp_path / "Miller.txt")


def test_the_only_usable_series_is_read_without_a_choice(study: Path) -> None:
    (study / "deeper" / "two.nii.gz").unlink()
    volume = mr.read(study)
    assert isinstance(volume, Volume)
    assert volume.grid.same_place(marked().grid)
    assert volume.source.reader == "nifti"
    assert volume.source.series_id == mr.find(study)[0].id
    assert len(volume.source.file_hashes[0]) == 64


def test_several_usable_series_are_listed_and_never_mixed(study: Path) -> None:
    with pytest.raises(UsageError) as raised:
        mr.read(study)
    assert raised.value.code == "INP-CHOOSE"
    for info in mr.find(study):
        assert info.id in str(raised.value)
    assert "4 x 5 x 6 at 3 x 1.5 x 0.7 mm" in str(raised.value)


def test_a_series_is_chosen_by_its_id_or_as_it_was_found(study: Path) -> None:
    listing = mr.find(study)
    for info in listing:
        by_id, as_found = mr.read(study, info.id), mr.read(study, info)
        assert isinstance(by_id, Volume)
        assert isinstance(as_found, Volume)
        assert np.array_equal(by_id.voxels, as_found.voxels)
        assert by_id.source.series_id == info.id
    with pytest.raises(UsageError) as raised:
        mr.read(study, "series-0000000000000000")
    assert raised.value.code == "INP-SERIES"


def test_nothing_usable_says_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match="1 x text") as raised:
        mr.read(tmp_path)
    assert raised.value.code == "INP-NONE"
    with pytest.raises(InputError, match="INP-NONE"):
        mr.read(tmp_path / "a.txt")
    write_nibabel(marked(), tmp_path / NIFTI)
    assert isinstance(mr.read(tmp_path), Volume)


def test_a_refused_series_raises_its_refusal_and_a_usable_one_beside_it_is_read(tmp_path: Path) -> None:
    write_nibabel(marked(), tmp_path / NIFTI)
    whole = (tmp_path / NIFTI).read_bytes()
    (tmp_path / NIFTI).unlink()
    (tmp_path / "cut.nii").write_bytes(whole[:-40])
    assert mr.find(tmp_path)[0].verdict is Verdict.REFUSED
    with pytest.raises(InputError, match="VOL-CUT"):
        mr.read(tmp_path)
    (tmp_path / "whole.nii").write_bytes(whole)
    assert isinstance(mr.read(tmp_path), Volume)


def test_a_path_without_anything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="INP-MISSING"):
        mr.find(tmp_path / "no")
    assert list(mr.find(tmp_path)) == []


def test_options_are_checked_and_given_in_one_way_only(study: Path) -> None:
    for wrong in ({"allow": ["everything"]}, {"thickness_mm": -1.0}, {"spacing_mm": (1.0, 0.0, 1.0)}):
        with pytest.raises(UsageError):
            mr.find(study, **wrong)
    with pytest.raises(UsageError, match="ARG-BOTH"):
        mr.find(study, ReadOptions(), thickness_mm=2.0)
    assert len(mr.find(study, thickness_mm=2.0)) == len(mr.find(study, ReadOptions(thickness_mm=2.0))) == 2


def test_progress_ends_at_one(study: Path) -> None:
    ticks: list[float] = []
    mr.read(study / NIFTI, tick=ticks.append)
    assert ticks[-1] == 1.0


def test_the_same_file_twice_is_read_once(study: Path) -> None:
    shutil.copy(study / NIFTI, study / "zcopy.nii")
    listing = mr.find(study)
    assert len(listing) == 2
    assert skipped(listing)["copy of another NIfTI file"] == "INP-COPY"


def test_a_file_changed_between_finding_and_reading_is_refused(study: Path) -> None:
    info = mr.find(study)[0]
    os.utime(study / NIFTI, ns=(1, 1))
    with pytest.raises(InputError, match="INP-CHANGED"):
        mr.read(study, info)
    (study / NIFTI).unlink()
    with pytest.raises(InputError, match="INP-GONE"):
        mr.read(study, info)
    other = mr.find(study)[0]
    assert isinstance(mr.read(study, other), Volume)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_skipped_and_never_waited_for(study: Path) -> None:
    os.mkfifo(study / "pipe.nii")
    started = time.monotonic()
    listing = mr.find(study)
    assert time.monotonic() - started < 5
    assert skipped(listing)["pipe, socket or device"] == "INP-KIND"
    assert len(listing) == 2
    with pytest.raises(InputError, match="INP-KIND"):
        mr.find(study / "pipe.nii")


def test_links_out_of_the_folder_are_not_followed_and_links_inside_count_once(study: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write_nibabel(marked(DIRECTIONS[11]), outside / "other.nii")
    (study / "z_out").symlink_to(outside / "other.nii")
    (study / "z_folder").symlink_to(outside)
    (study / "z_loop").symlink_to(study / "z_loop")
    (study / "z_same").symlink_to(study / NIFTI)
    listing = mr.find(study)
    assert len(listing) == 2
    what = {one.what for one in listing.skipped if one.code == "INP-LINK"}
    assert what == {"link out of the folder", "link to nowhere", "second link to one file"}
    shutil.copy(outside / "other.nii", study / "z_real.nii")
    assert len(mr.find(study)) == 3


def test_a_link_that_the_user_names_is_followed(study: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(study)
    assert [info.id for info in mr.find(tmp_path / "link")] == [info.id for info in mr.find(study)]


def test_unreadable_and_vanished_files_are_skipped_and_counted(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def failing(path: Path, *args: int) -> int:
        if Path(path).name == NIFTI:
            raise PermissionError(13, "no")
        if Path(path).name == "two.nii.gz":
            raise FileNotFoundError(2, "gone")
        return real_open(path, *args)

    monkeypatch.setattr(os, "open", failing)
    listing = mr.find(study)
    assert list(listing) == []
    assert skipped(listing)["unreadable file"] == "INP-UNREADABLE"
    assert skipped(listing)["gone since it was listed"] == "INP-GONE"
    monkeypatch.undo()
    assert len(mr.find(study)) == 2


def test_too_many_files_are_refused_before_they_are_opened(study: Path) -> None:
    with pytest.raises(InputError, match="more than 5 files") as raised:
        list_folder(study, Limits(folder_files=5))
    assert raised.value.code == "INP-LIMIT"
    assert len(list_folder(study, Limits(folder_files=8))[0]) == 6


def test_names_that_are_no_text_are_listed(study: Path) -> None:
    try:
        shutil.copy(os.fsencode(study / NIFTI), os.fsencode(study) + b"/\xff\xfe #\n.nii")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    (study / NIFTI).unlink()
    assert len(mr.find(study)) == 2


def test_a_folder_of_many_files_is_listed_in_time(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.txt").write_bytes(b"text")
    started = time.monotonic()
    assert len(mr.find(tmp_path).skipped) == 3000
    assert time.monotonic() - started < 10


def test_listing_readers_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'monai', 'SimpleITK', 'PIL', 'tifffile', 'vtk'}"
    code = f"import sys, medrecon; medrecon.find('.'); print({heavy} & set(sys.modules))"
    folder = Path(__file__).parent
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout == "set()\n"
    )


def test_a_series_of_another_reader_is_refused() -> None:
    info = SeriesInfo("series-0", "nifti", "volume", "", (2, 2, 2), (1.0, 1.0, 1.0))
    with pytest.raises(MedreconError, match="INP-SERIES"):
        readers.get("nifti").read(info, ReadOptions(), silent)


@pytest.mark.parametrize("directions", DIRECTIONS[:2])
def test_a_single_plane_is_no_volume(directions: NDArray[np.float64], tmp_path: Path) -> None:
    volume = marked(directions)
    flat = Volume(volume.voxels[:1], volume.grid.crop((0, 0, 0), (1, 5, 6)))
    write_nibabel(flat, tmp_path / "flat.nii")
    with pytest.raises(GeometryError, match="VOL-FEW"):
        mr.read(tmp_path / "flat.nii")
    write_nibabel(Volume(volume.voxels[:2], volume.grid.crop((0, 0, 0), (2, 5, 6))), tmp_path / "flat.nii")
    assert isinstance(mr.read(tmp_path / "flat.nii"), Volume)
