"""What DICOM calls one series is taken apart into volumes, and nothing that does not belong together is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from medrecon.core.errors import MedreconError
from medrecon.core.findings import Verdict
from medrecon.core.progress import silent
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo
from medrecon.core.scans import SliceScan
from medrecon.readers import dicom
from tests.makers_dicom import AXIAL, SAGITTAL, make_enhanced, make_mosaic, make_series, plan_series, uid

OPTIONS = ReadOptions()
SHAPE = (6, 8, 7)


def found(paths: Iterable[Path], options: ReadOptions = OPTIONS) -> list[SeriesInfo]:
    return dicom.find([ListedFile(k, path) for k, path in enumerate(paths, start=1)], options)[0]


def read(info: SeriesInfo, options: ReadOptions = OPTIONS) -> SliceScan:
    return dicom.read(info, options, silent)


def codes(info: SeriesInfo) -> set[str]:
    return {finding.code for finding in info.findings}


def several(folder: Path, *changes: Callable[[Dataset], None], modality: str = "MR") -> list[Path]:
    """Write one volume per change, all under one series UID, values 100 apart."""
    paths = []
    for v, change in enumerate(changes):

        def apply(image: Dataset, k: int, v: int = v, change: Callable[[Dataset], None] = change) -> None:
            image.SOPInstanceUID = uid("volume", v, k)
            image.InstanceNumber = 100 * v + k + 1
            change(image)

        pixels = plan_series(shape=SHAPE, modality=modality).values + 100.0 * v
        how = {"shape": SHAPE, "pixels": pixels, "intercept": -1024, "change": apply}
        paths += make_series(folder / str(v), modality=modality, **how)  # type: ignore[arg-type]  # mixed keyword values
    return paths


def setter(**values: object) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        for name, value in values.items():
            setattr(image, name, value)

    return change


TRAITS: dict[str, tuple[list[Callable[[Dataset], None]], list[tuple[str, ...]]]] = {
    "echoes": ([setter(EchoNumbers=1, EchoTime=5), setter(EchoNumbers=2, EchoTime=10)], [("echo 1",), ("echo 2",)]),
    "echo times alone": ([setter(EchoTime=5), setter(EchoTime=10.5)], [("echo time 5 ms",), ("echo time 10.5 ms",)]),
    "components": (
        [setter(ImageType=["ORIGINAL", "PRIMARY", part, "ND"]) for part in "MPRI"],
        [("imaginary",), ("magnitude",), ("phase",), ("real",)],
    ),
    "times": (
        [setter(TemporalPositionIdentifier=k, NumberOfTemporalPositions=12) for k in range(1, 13)],
        [(f"time {k}",) for k in range(1, 13)],
    ),
    "acquisitions": ([setter(AcquisitionNumber=k) for k in (3, 4)], [("acquisition 3",), ("acquisition 4",)]),
    "large acquisition numbers": (
        [setter(AcquisitionNumber=k) for k in (20260101, 20260102)],
        [("acquisition 20260101",), ("acquisition 20260102",)],
    ),
    "b-values": ([setter(DiffusionBValue=b) for b in (0.0, 500.0, 1000.0)], [("b 0",), ("b 500",), ("b 1000",)]),
    "triggers": ([setter(TriggerTime=t) for t in (0, 40.5)], [("trigger 0 ms",), ("trigger 40.5 ms",)]),
    "times of day": ([setter(ContentTime=f"1011{s}") for s in (12, 14, 16)], [("time 1",), ("time 2",), ("time 3",)]),
}


@pytest.mark.parametrize("name", TRAITS)
def test_volumes_at_the_same_positions_are_told_apart_by(tmp_path: Path, name: str) -> None:
    changes, labels = TRAITS[name]
    infos = found(several(tmp_path, *changes))
    assert [info.parts for info in infos] == labels
    assert [info.shape for info in infos] == [SHAPE] * len(changes)
    assert len({info.id for info in infos}) == len(changes)
    assert {info.verdict for info in infos} == {Verdict.OK}
    truth = plan_series(shape=SHAPE, modality="MR").values
    offsets = {round(float((read(info).pixels - truth).mean())) for info in infos}
    assert offsets == {100 * v for v in range(len(changes))}
    assert all(float((read(info).pixels - truth).std()) == 0 for info in infos)


def test_four_echoes_and_phases_in_one_series_become_four_volumes(tmp_path: Path) -> None:
    kinds = [setter(EchoNumbers=echo, ImageType=["ORIGINAL", "PRIMARY", part, "FFE"]) for echo in (1, 2) for part in ("M", "P")]
    infos = found(several(tmp_path, *kinds))
    assert sorted(info.parts for info in infos) == [
        ("magnitude", "echo 1"),
        ("magnitude", "echo 2"),
        ("phase", "echo 1"),
        ("phase", "echo 2"),
    ]


def test_directions_of_one_b_value_are_told_apart_below_it(tmp_path: Path) -> None:
    directions = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    weighted = [setter(DiffusionBValue=1000.0, DiffusionGradientOrientation=d) for d in directions]
    infos = found(several(tmp_path, setter(DiffusionBValue=0.0), *weighted))
    assert [info.parts for info in infos] == [
        ("b 0",),
        ("b 1000", "direction 1"),
        ("b 1000", "direction 2"),
        ("b 1000", "direction 3"),
    ]


def test_an_acquisition_number_for_every_slice_does_not_shatter_a_volume(tmp_path: Path) -> None:
    def numbered(image: Dataset, k: int) -> None:
        image.AcquisitionNumber = k + 1
        image.AcquisitionTime = f"1011{k + 10}"

    (info,) = found(make_series(tmp_path, change=numbered))
    assert info.parts == ()


def test_a_last_time_point_that_was_cut_short_does_not_spoil_the_others(tmp_path: Path) -> None:
    paths = several(tmp_path, *(setter(TemporalPositionIdentifier=k) for k in (1, 2, 3)))
    infos = found(paths[:-3])
    assert [info.shape[0] for info in infos] == [6, 6, 3]


def test_interleaved_acquisitions_that_are_regular_by_themselves_are_two_volumes(tmp_path: Path) -> None:
    first = make_series(tmp_path / "1", shape=SHAPE, change=lambda image, _: setter(AcquisitionNumber=1)(image))

    def second(image: Dataset, k: int) -> None:
        image.AcquisitionNumber, image.SOPInstanceUID = 2, uid("second", k)

    other = make_series(tmp_path / "2", shape=SHAPE, origin_lps_mm=(-20, -30, 11), change=second)
    assert [info.parts for info in found([*first, *other])] == [("acquisition 1",), ("acquisition 2",)]


def test_two_passes_that_interleave_to_even_steps_are_one_volume(tmp_path: Path) -> None:
    def passes(image: Dataset, k: int) -> None:
        image.AcquisitionNumber = 1 + k % 2

    (info,) = found(make_series(tmp_path, change=passes))
    assert info.verdict is Verdict.OK


def test_two_orientations_in_one_series_are_two_volumes_with_the_angle(tmp_path: Path) -> None:
    axial = make_series(tmp_path / "a", shape=SHAPE, orientation=AXIAL)
    sagittal = make_series(tmp_path / "s", shape=SHAPE, orientation=SAGITTAL, first_number=50)
    infos = found([*axial, *sagittal])
    assert sorted(info.parts for info in infos) == [("orientation 1",), ("orientation 2",)]
    for info in infos:
        (finding,) = (one for one in info.findings if one.code == "DCM-ORIENT")
        assert finding.numbers["angle_deg"] == pytest.approx(90)
        read(info)


def test_two_matrices_in_one_series_are_two_volumes(tmp_path: Path) -> None:
    small = make_series(tmp_path / "a", shape=(6, 8, 8))
    large = make_series(tmp_path / "b", shape=(6, 16, 16), first_number=50)
    assert sorted(info.shape for info in found([*small, *large])) == [(6, 8, 8), (6, 16, 16)]


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"])
def test_images_of_two(tmp_path: Path, name: str) -> None:
    """... studies, series, frames of reference or patients are never mixed, whatever else they share."""

    def other(image: Dataset, k: int) -> None:
        image.SOPInstanceUID = uid("other", k)
        setattr(image, name, uid("other") if name.endswith("UID") else "OTHER")

    one = make_series(tmp_path / "one", shape=SHAPE)
    two = make_series(tmp_path / "two", shape=SHAPE, origin_lps_mm=(-20, -30, 28), change=other)
    infos = found([*one, *two])
    assert [info.shape for info in infos] == [SHAPE, SHAPE]
    assert len({info.id for info in infos}) == 2


def test_an_image_that_is_there_twice_under_two_names_is_kept_once(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "a", shape=SHAPE)
    again = make_series(
        tmp_path / "b", shape=SHAPE, drop=[0, 1, 3, 4, 5], change=lambda image, _: setter(SOPInstanceUID=uid("copy"))(image)
    )
    (info,) = found([*paths, *again])
    assert info.verdict is Verdict.WARN
    assert info.shape == SHAPE
    assert info.file_count == 7
    (finding,) = (one for one in info.findings if one.code == "DCM-DUP")
    assert sorted(finding.numbers["files"]) == [3, 7]  # type: ignore[call-overload]  # a list of numbers
    assert len(read(info).source.file_hashes) == 7


def different_at_one_position(folder: Path) -> list[Path]:
    paths = make_series(folder / "a", shape=SHAPE)
    pixels = plan_series(shape=SHAPE).values + 50
    again = make_series(
        folder / "b",
        shape=SHAPE,
        pixels=pixels,
        drop=[0, 1, 3, 4, 5],
        change=lambda image, _: setter(SOPInstanceUID=uid("x"))(image),
    )
    return [*paths, *again]


def test_different_images_at_one_position_are_refused_and_averaged_only_by_name(tmp_path: Path) -> None:
    (info,) = found(different_at_one_position(tmp_path))
    (finding,) = (one for one in info.findings if one.code == "DCM-DUP")
    assert (finding.verdict, finding.allow, finding.numbers["slices"]) == (Verdict.REFUSED, "duplicates", [3])
    with pytest.raises(MedreconError, match="DCM-DUP"):
        read(info)
    scan = read(info, ReadOptions(allow=("duplicates",)))
    truth = plan_series(shape=SHAPE).values
    truth[2] += 25
    np.testing.assert_allclose(scan.pixels, truth, atol=1e-3)
    assert scan.verdict is Verdict.WARN
    assert scan.allowed == ("duplicates",)


def test_a_repeated_slice_of_another_acquisition_is_a_part_of_its_own(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "a", shape=SHAPE)
    again = make_series(
        tmp_path / "b",
        shape=SHAPE,
        pixels=np.zeros(SHAPE),
        drop=[0, 1, 3, 4, 5],
        change=lambda image, _: setter(SOPInstanceUID=uid("x"), AcquisitionNumber=2)(image),
    )
    infos = found([*paths, *again])
    assert [(info.parts, info.shape[0], info.verdict) for info in infos] == [
        (("acquisition 1",), 6, Verdict.OK),
        (("acquisition 2",), 1, Verdict.REFUSED),
    ]


def test_one_file_twice_counts_once_and_two_files_of_one_identity_are_refused(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "a", shape=SHAPE)
    (info,) = found([*paths, paths[2]])
    assert (info.verdict, info.shape) == (Verdict.OK, SHAPE)
    assert "DCM-COPY" in codes(info)
    other = make_series(tmp_path / "b", shape=SHAPE, pixels=np.zeros(SHAPE))
    (clash,) = found([*paths, other[2]])
    assert clash.verdict is Verdict.REFUSED
    with pytest.raises(MedreconError, match="DCM-CLASH"):
        read(clash)


def test_an_enhanced_object_of_echoes_times_and_b_values_becomes_their_volumes(tmp_path: Path) -> None:
    volumes = [{"time": 1, "offset": 0}, {"time": 2, "offset": 100}]
    plan = make_enhanced(tmp_path / "times", volumes=volumes)
    infos = found([tmp_path / "times"])
    assert [info.parts for info in infos] == [("time 1",), ("time 2",)]
    for info, offset in zip(infos, (0, 100), strict=True):
        np.testing.assert_array_equal(read(info).pixels, plan.values + offset)
    diffusion: list[dict[str, Any]] = [{"b": 0}, {"b": 800, "direction": (1, 0, 0)}, {"b": 800, "direction": (0, 1, 0)}]
    make_enhanced(tmp_path / "b", volumes=diffusion)
    assert [info.parts for info in found([tmp_path / "b"])] == [("b 0",), ("b 800", "direction 1"), ("b 800", "direction 2")]
    make_enhanced(tmp_path / "parts", volumes=[{"component": "MAGNITUDE"}, {"component": "PHASE"}])
    assert [info.parts for info in found([tmp_path / "parts"])] == [("magnitude",), ("phase",)]


@pytest.mark.parametrize(
    "where", [(), ("PixelMeasures", "PlaneOrientation", "PixelValueTransformation")], ids=["per frame", "shared"]
)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_functional_groups_may_be_shared_or_per_frame(tmp_path: Path, where: tuple[str, ...], modality: str) -> None:
    plan = make_enhanced(tmp_path / "one", shared=where, orientation=SAGITTAL, tilt_deg=7, modality=modality)  # type: ignore[arg-type]
    (info,) = found([tmp_path / "one"])
    scan = read(info)
    np.testing.assert_allclose(scan.poses.corners_lps_mm(), plan.corners_lps_mm(), atol=1e-6)
    np.testing.assert_array_equal(scan.pixels, plan.values)
    assert scan.quantity == ("hounsfield" if modality == "CT" else "arbitrary")
    assert [one.frame for one in scan.source.instances] == [1, 2, 3, 4, 5]


def test_what_a_frame_says_wins_over_what_is_shared(tmp_path: Path) -> None:
    def contradict(image: Dataset) -> None:
        image.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [Dataset()]
        image.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = list(SAGITTAL)

    plan = make_enhanced(tmp_path / "one", shared=("PixelMeasures",), change=contradict)
    (info,) = found([tmp_path / "one"])
    np.testing.assert_allclose(read(info).poses.corners_lps_mm(), plan.corners_lps_mm(), atol=1e-6)


def test_every_frame_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    plan = make_enhanced(tmp_path / "one", slopes=[1, 2, 0.5, 4, 1])
    (info,) = found([tmp_path / "one"])
    assert np.abs(read(info).pixels - plan.values).max() <= 2  # half of the largest slope, by rounding


@pytest.mark.parametrize("against_normal", [False, True])
@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL])
@pytest.mark.parametrize("count", [4, 5, 7])
def test_tiles_of_a_mosaic_stand_where_the_csa_normal_sends_them(
    tmp_path: Path, against_normal: bool, orientation: tuple[float, ...], count: int
) -> None:
    plan = make_mosaic(tmp_path / "m", shape=(count, 12, 10), orientation=orientation, against_normal=against_normal)
    (info,) = found([tmp_path / "m"])
    scan = read(info)
    order = slice(None, None, -1 if against_normal else 1)
    np.testing.assert_allclose(scan.poses.corners_lps_mm(), plan.corners_lps_mm()[order], atol=1e-6)
    np.testing.assert_array_equal(scan.pixels, plan.values[order])


def test_a_mosaic_without_its_private_tags_is_refused_with_the_way_out(tmp_path: Path) -> None:
    make_mosaic(tmp_path / "m", change=lambda image: image.remove_private_tags())
    (info,) = found([tmp_path / "m"])
    assert info.verdict is Verdict.REFUSED
    with pytest.raises(MedreconError, match="DCM-MOSAIC"):
        read(info)


def test_mosaics_at_one_position_become_one_volume_for_each_file(tmp_path: Path) -> None:
    for k in (1, 2, 3):
        make_mosaic(tmp_path / str(k), number=k, offset=100.0 * k)
    infos = found([tmp_path / str(k) for k in (3, 1, 2)])
    assert [info.parts for info in infos] == [("acquisition 1",), ("acquisition 2",), ("acquisition 3",)]
    assert [round(float(read(info).pixels.min())) for info in infos] == [100, 200, 300]


def test_a_localizer_of_three_planes_is_three_series_that_are_refused_as_volumes(tmp_path: Path) -> None:
    planes = [AXIAL, SAGITTAL, (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)]
    paths = [
        make_series(tmp_path / str(k), shape=(1, 8, 8), orientation=plane, first_number=k)[0] for k, plane in enumerate(planes)
    ]
    infos = found(paths)
    assert [info.verdict for info in infos] == [Verdict.REFUSED] * 3
    assert all("DCM-FEW" in codes(info) for info in infos)


def test_series_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    paths = [path for seed in (4, 2, 9) for path in make_series(tmp_path / str(seed), shape=SHAPE, seed=seed)]
    ids = [found(make_series(tmp_path / str(seed), shape=SHAPE, seed=seed))[0].id for seed in (2, 4, 9)]
    assert [info.id for info in found(paths)] == ids
