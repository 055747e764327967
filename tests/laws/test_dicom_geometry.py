"""Laws of the DICOM reader's geometry, on series that are made with known positions and values."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from medrecon.core.findings import Verdict
from medrecon.core.progress import silent
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo
from medrecon.core.scans import SliceScan
from medrecon.readers import dicom
from tests.makers_dicom import AXIAL, SAGITTAL, make_series, plan_series, uid

Float64 = NDArray[np.float64]
OPTIONS = ReadOptions()


def found(paths: Iterable[Path], options: ReadOptions = OPTIONS) -> list[SeriesInfo]:
    return dicom.find([ListedFile(k, path) for k, path in enumerate(paths, start=1)], options)[0]


def scan_of(paths: Iterable[Path], options: ReadOptions = OPTIONS) -> SliceScan:
    (info,) = found(paths, options)
    return dicom.read(info, options, silent)


def codes(info: SeriesInfo) -> set[str]:
    return {finding.code for finding in info.findings if finding.verdict is not Verdict.OK}


def numbers(info: SeriesInfo, code: str) -> dict[str, Any]:
    (finding,) = (finding for finding in info.findings if finding.code == code)
    return dict(finding.numbers)


def all_orientations() -> list[tuple[float, ...]]:
    """The 24 pairs of a signed axis for rows and another one for columns."""
    axes = [tuple(sign * float(k == axis) for k in range(3)) for axis in range(3) for sign in (1, -1)]
    return [(*a, *b) for a, b in itertools.permutations(axes, 2) if np.dot(a, b) == 0]


def where_tagged(scan: SliceScan, values: Float64) -> Float64:
    """Where the scan says that the pixels with these values stand, (n, 3)."""
    index = np.array([np.argwhere(scan.pixels == value)[0] for value in values])
    local = np.column_stack([np.zeros(len(index)), index[:, 1:], np.ones(len(index))])
    places: Float64 = np.einsum("nij,nj->ni", scan.poses.to_lps_mm[index[:, 0]], local)[:, :3]
    return places


@pytest.mark.parametrize("orientation", all_orientations())
def test_a_voxel_stays_where_it_is_in_every_orientation_shear_and_order(
    tmp_path: Path, rng: np.random.Generator, orientation: tuple[float, ...]
) -> None:
    shape = (6, 7, 9)
    values = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float64)
    tagged = rng.choice(values.ravel(), 100, replace=False)
    index = np.array([np.argwhere(values == value)[0] for value in tagged])
    for shear, step in itertools.product((0.0, float(rng.uniform(-20, 20))), (2.5, -2.5)):
        how: dict[str, Any] = {
            "shape": shape,
            "spacing_mm": (2.5, 0.75, 1.25),
            "orientation": orientation,
            "tilt_deg": shear,
            "steps_mm": [step] * 5,
            "pixels": values,
        }
        plan = plan_series(**how)
        truth = (
            plan.positions_lps_mm[index[:, 0]]
            + index[:, 1:2] * 0.75 * plan.orientation[3:]
            + index[:, 2:] * 1.25 * plan.orientation[:3]
        )
        folder = tmp_path / f"{shear}{step}"
        scan = scan_of(make_series(folder, modality="MR", intercept=0, **how))
        np.testing.assert_allclose(where_tagged(scan, tagged), truth, atol=1e-4)
        assert (np.diff(scan.poses.depths_mm) > 0).all()


def test_there_are_24_orientations_and_the_law_covers_each_once() -> None:
    assert len(set(all_orientations())) == 24


def test_the_place_law_fails_on_slices_in_the_wrong_order(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.permutation(6 * 7 * 9).reshape(6, 7, 9).astype(np.float64)
    scan = scan_of(make_series(tmp_path, shape=(6, 7, 9), modality="MR", intercept=0, pixels=values))
    turned = SliceScan(scan.pixels[::-1], scan.poses)
    tagged = values.ravel()[:20]
    assert np.abs(where_tagged(turned, tagged) - where_tagged(scan, tagged)).max() > 1


def test_reversing_the_order_moves_pixels_thickness_rescale_and_instances_together(tmp_path: Path) -> None:
    thickness, slopes = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]
    how: dict[str, Any] = {"shape": (4, 5, 6), "steps_mm": [-2.0] * 3, "stored": np.full((4, 5, 6), 7)}
    scan = scan_of(make_series(tmp_path, thickness_mm=thickness, slope=slopes, intercept=0.0, **how))
    assert scan.poses.thickness_mm.tolist() == thickness[::-1]
    assert scan.pixels[:, 0, 0].tolist() == [28.0, 21.0, 14.0, 7.0]
    assert [one.sop_instance_uid for one in scan.source.instances] == [uid("instance", 0, 0, "CT", k) for k in (4, 3, 2, 1)]


def test_names_order_junk_numbers_and_series_uids_of_the_files_change_nothing(tmp_path: Path) -> None:
    plain = make_series(tmp_path / "plain", tilt_deg=5)
    truth = scan_of(plain)

    shuffled = list(plain)
    random.Random(1).shuffle(shuffled)
    assert same_scan(scan_of(shuffled), truth)

    renamed = [Path(shutil.copy(path, tmp_path / f"{k}.txt")) for k, path in zip((5, 1, 9, 2, 8, 3, 7, 4), plain, strict=True)]
    assert same_scan(scan_of(sorted(renamed)), truth)

    def renumber(image: Dataset, k: int) -> None:
        image.InstanceNumber = (k * 5) % 8 + 1

    assert same_scan(scan_of(make_series(tmp_path / "numbers", tilt_deg=5, change=renumber)), truth)

    junk = tmp_path / "junk"
    junk.write_bytes(b"\x08\x00\x05\x00" + b"no DICOM" * 100)
    infos, skipped = dicom.find([ListedFile(k, path) for k, path in enumerate([junk, *plain], start=1)], OPTIONS)
    assert same_scan(dicom.read(infos[0], OPTIONS, silent), truth)
    assert [(one.number, one.code) for one in skipped] == [(1, "DCM-OTHER")]


def test_slices_that_each_have_a_series_of_their_own_are_one_volume(tmp_path: Path) -> None:
    def own_series(image: Dataset, k: int) -> None:
        image.SeriesInstanceUID = uid("own", k)

    truth = scan_of(make_series(tmp_path / "plain"))
    (info,) = found(make_series(tmp_path / "own", change=own_series))
    assert same_scan(dicom.read(info, OPTIONS, silent), truth)
    assert "DCM-REGROUP" in codes(info)


def test_single_images_of_different_acquisitions_are_not_put_together(tmp_path: Path) -> None:
    def own_everything(image: Dataset, k: int) -> None:
        image.SeriesInstanceUID = uid("own", k)
        image.AcquisitionNumber = k + 1

    assert len(found(make_series(tmp_path, change=own_everything))) == 8


def same_scan(one: SliceScan, other: SliceScan) -> bool:
    return bool(
        np.array_equal(one.pixels, other.pixels)
        and np.array_equal(one.poses.to_lps_mm, other.poses.to_lps_mm)
        and np.array_equal(one.poses.thickness_mm, other.poses.thickness_mm)
        and [i.sop_instance_uid for i in one.source.instances] == [i.sop_instance_uid for i in other.source.instances]
    )


@pytest.mark.parametrize("tag", [None, 15.0, -15.0, 0.0])
def test_the_tilt_comes_from_positions_and_never_from_its_tag(tmp_path: Path, tag: float | None) -> None:
    (info,) = found(make_series(tmp_path, tilt_deg=-15.0, tilt_tag_deg=tag))
    assert numbers(info, "DCM-TILT")["tilt_deg"] == pytest.approx(15.0, abs=1e-3)
    assert info.spacing_mm[0] == pytest.approx(3.0, abs=1e-6)
    assert info.verdict is Verdict.WARN


def test_a_tilt_tag_alone_tilts_nothing(tmp_path: Path) -> None:
    (info,) = found(make_series(tmp_path, tilt_deg=0.0, tilt_tag_deg=18.5))
    assert codes(info) == set()
    assert info.verdict is Verdict.OK


@pytest.mark.parametrize("folder", ["ct_tilt_minus18", "ct_tilt_uneven_gaps"])
@pytest.mark.parametrize("tag", ["deleted", "flipped"])
def test_real_tilted_series_do_not_depend_on_the_tag(shared_data: Path, tmp_path: Path, folder: str, tag: str) -> None:
    import pydicom

    originals = sorted(path for path in (shared_data / "dicom" / folder).iterdir() if path.name != "DIRFILE")[:9]
    changed = []
    for path in originals:
        image = pydicom.dcmread(path)
        assert abs(image.GantryDetectorTilt) == 18.5
        if tag == "deleted":
            del image.GantryDetectorTilt
        else:
            image.GantryDetectorTilt = -image.GantryDetectorTilt
        image.save_as(tmp_path / path.name)
        changed.append(tmp_path / path.name)
    allow = ReadOptions(allow=("missing-slices",))
    assert same_scan(scan_of(changed, allow), scan_of(originals, allow))


def test_a_missing_slice_is_named_with_its_neighbours_lengths_and_place(tmp_path: Path) -> None:
    (info,) = found(make_series(tmp_path, shape=(9, 8, 8), drop=[4], origin_lps_mm=(0, 0, 100)))
    assert info.verdict is Verdict.REFUSED
    assert codes(info) == {"DCM-GAP"}
    said = numbers(info, "DCM-GAP")
    assert (said["missing"], said["usual_mm"]) == (1, 3.0)
    assert said["gaps"] == [{"after_slice": 4, "before_slice": 5, "step_mm": 6.0, "missing_depths_mm": [112.0]}]
    fact = next(finding.fact for finding in info.findings)
    assert all(word in fact for word in ("4 and 5", "6.000 mm", "3.000 mm", "112.000"))


def test_several_missing_slices_are_all_counted_and_a_tilt_is_still_seen(tmp_path: Path) -> None:
    (info,) = found(make_series(tmp_path, shape=(14, 8, 8), drop=[3, 8, 9], tilt_deg=12))
    assert numbers(info, "DCM-GAP")["missing"] == 3
    assert codes(info) == {"DCM-GAP", "DCM-TILT"}
    assert info.spacing_mm[0] is None


def test_a_step_twice_as_long_between_slices_twice_as_thick_is_no_missing_slice(tmp_path: Path) -> None:
    (info,) = found(make_series(tmp_path, shape=(8, 8, 8), steps_mm=[4] * 4 + [8] * 3, thickness_mm=[4.0] * 4 + [8.0] * 4))
    assert "DCM-GAP" not in codes(info)
    assert numbers(info, "DCM-UNEVEN")["steps_mm"] == [[4.0, 4], [8.0, 3]]


def test_uneven_steps_are_listed_and_leave_no_single_spacing(tmp_path: Path) -> None:
    (info,) = found(make_series(tmp_path, steps_mm=[3, 3, 3, 3.6, 3, 2.5, 3], thickness_mm=3.0))
    assert numbers(info, "DCM-UNEVEN")["steps_mm"] == [[2.5, 1], [3.0, 5], [3.6, 1]]
    assert info.spacing_mm[0] is None
    assert info.verdict is Verdict.WARN


def test_a_small_error_that_adds_up_is_uneven_although_every_step_is_close(tmp_path: Path) -> None:
    steps = [3 * 1.004] * 20 + [3 * 0.996] * 20
    (info,) = found(make_series(tmp_path, shape=(41, 4, 4), steps_mm=steps, thickness_mm=3.0))
    assert "DCM-UNEVEN" in codes(info)


def test_one_odd_first_step_does_not_condemn_the_others_as_missing(tmp_path: Path) -> None:
    (info,) = found(make_series(tmp_path, shape=(12, 4, 4), steps_mm=[1.3, *[3] * 10], thickness_mm=3.0))
    assert codes(info) == {"DCM-UNEVEN", "DCM-OVERLAP"}


def test_float_noise_in_positions_is_no_finding(tmp_path: Path, rng: np.random.Generator) -> None:
    def noisy(image: Dataset, _: int) -> None:
        image.ImagePositionPatient = [f"{float(v) + rng.normal(0, 2e-5):.6f}" for v in image.ImagePositionPatient]

    (info,) = found(make_series(tmp_path, shape=(40, 4, 4), spacing_mm=(0.625, 0.5, 0.5), thickness_mm=0.625, change=noisy))
    assert info.verdict is Verdict.OK


def test_slices_shifted_sideways_are_noticed(tmp_path: Path) -> None:
    def shifted(image: Dataset, k: int) -> None:
        if k == 5:
            image.ImagePositionPatient[0] += 2.0

    (info,) = found(make_series(tmp_path, change=shifted))
    assert numbers(info, "DCM-SHIFT") == {"slice": 6, "shift_mm": 2.0}


@pytest.mark.parametrize(
    ("thickness", "code", "size"), [(2.0, "DCM-SPACE", 1.0), (3.0, "", 0.0), (4.5, "DCM-OVERLAP", 1.5)], ids=str
)
def test_thickness_against_step_is_gap_or_overlap(tmp_path: Path, thickness: float, code: str, size: float) -> None:
    (info,) = found(make_series(tmp_path, thickness_mm=thickness))
    assert codes(info) == ({code} if code else set())
    assert not code or numbers(info, code)["largest_mm"] == size


def test_a_thickness_that_is_not_there_is_assumed_in_words_and_can_be_given(tmp_path: Path) -> None:
    paths = make_series(tmp_path, thickness_mm=None)
    (info,) = found(paths)
    assert codes(info) == {"DCM-THICKNESS"}
    assert info.thickness_mm is None
    assert set(dicom.read(info, OPTIONS, silent).poses.thickness_mm) == {3.0}
    given = ReadOptions(thickness_mm=2.0, profile="box")
    scan = dicom.read(info, given, silent)  # options may also come with read
    assert set(scan.poses.thickness_mm) == {2.0}
    assert scan.poses.profile.kind == "box"
    assert "DCM-OVERRIDE" in {finding.code for finding in scan.findings}


def test_the_normal_is_row_direction_times_column_direction(tmp_path: Path) -> None:
    scan = scan_of(make_series(tmp_path, orientation=SAGITTAL))
    np.testing.assert_allclose(scan.poses.normals, np.cross(SAGITTAL[:3], SAGITTAL[3:])[None].repeat(8, 0))
    np.testing.assert_allclose(scan.poses.normals[0], (-1, 0, 0))


def test_the_profile_follows_the_modality(tmp_path: Path) -> None:
    assert scan_of(make_series(tmp_path / "ct")).poses.profile.kind == "bell"
    assert scan_of(make_series(tmp_path / "mr", modality="MR", intercept=0)).poses.profile.kind == "gaussian"


def test_a_series_has_the_same_id_whatever_its_files_are_called(tmp_path: Path) -> None:
    paths = make_series(tmp_path, orientation=AXIAL)
    (one,) = found(paths)
    (other,) = found(reversed(paths))
    assert one.id == other.id
    assert found(make_series(tmp_path / "b", seed=1))[0].id != one.id
