"""NIfTI, NRRD and MetaImage: place, unit, scaling, time points and values, each judged by a file that another program wrote."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

import medrecon as mr
from medrecon.core.errors import GeometryError, InputError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.reading import SeriesInfo
from medrecon.core.volume import Volume
from tests.makers_volumes import marked, write_nibabel

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume_of(path: Path, **options: Any) -> Volume:
    found = mr.read(path, **options)
    assert isinstance(found, Volume)
    return found


def only(path: Path) -> SeriesInfo:
    listing = mr.find(path)
    assert len(listing) == 1
    return listing[0]


def finding(info: SeriesInfo, code: str) -> Finding | None:
    return next((one for one in info.findings if one.code == code), None)


def nifti(path: Path, shape: tuple[int, ...] = (4, 3, 5), dtype: Any = np.int16) -> nibabel.Nifti1Image:
    """A small NIfTI of rising numbers, with both forms; the caller changes what the test is about and saves it."""
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    image = nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0]))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)
    return image


def test_every_real_volume_loads_with_the_values_that_nibabel_reads(shared_data: Path) -> None:
    paths = [
        p for folder in ("volumes", "brain_label_maps", "fetal_stacks") for p in sorted((shared_data / folder).rglob("*.nii.gz"))
    ]
    assert len(paths) == 18
    for path in paths:
        found, image = volume_of(path), nibabel.load(path)
        assert np.array_equal(found.voxels, np.asarray(image.dataobj, dtype=np.float32).T)
        corner = image.affine @ [*(n - 1 for n in image.shape), 1]
        assert np.allclose(RAS @ corner, [*found.grid.to_lps([n - 1 for n in found.grid.shape]), 1], atol=1e-3)
        assert mr.find(path)[0].verdict is Verdict.OK


def test_reference_volumes_of_ultrasound_load_as_volumes_though_they_carry_fields_of_frames(shared_data: Path) -> None:
    folder = shared_data / "tracked_ultrasound" / "Data"
    for path in sorted(folder.glob("*Ref.mha")):
        found, image = volume_of(path), SimpleITK.ReadImage(str(path))
        assert np.array_equal(found.voxels, SimpleITK.GetArrayFromImage(image))
        assert np.allclose(found.grid.origin_lps_mm, image.GetOrigin())


def test_the_sform_counts_where_it_has_a_code_and_a_contradiction_is_said(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii")
    moved = image.affine.copy()
    moved[:3, 3] = 5, 6, 7
    image.set_qform(moved, 1)
    image.to_filename(tmp_path / "a.nii")
    info = only(tmp_path / "a.nii")
    found = finding(info, "NII-FORMS")
    assert found is not None
    assert found.numbers["corner_gap_mm"] == pytest.approx(7)  # the largest of the three shifts
    assert info.verdict is Verdict.WARN
    assert volume_of(tmp_path / "a.nii").grid.origin_lps_mm == pytest.approx([0, 0, 0])
    image.set_sform(image.affine, 0)
    image.to_filename(tmp_path / "b.nii")
    assert volume_of(tmp_path / "b.nii").grid.origin_lps_mm == pytest.approx([-5, -6, 7])
    assert only(tmp_path / "b.nii").verdict is Verdict.OK


def test_forms_that_agree_to_rounding_are_no_contradiction(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii")
    image.set_qform(image.affine + np.eye(4)[3] * 0.05, 1)
    image.to_filename(tmp_path / "a.nii")
    assert only(tmp_path / "a.nii").verdict is Verdict.OK


def test_without_any_form_the_assumption_stands_in_words_and_is_nibabels(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii")
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    image.to_filename(tmp_path / "a.nii")
    info = only(tmp_path / "a.nii")
    assert info.verdict is Verdict.WARN
    assert "to the left" in next(one.fact for one in info.findings if one.code == "NII-NOFORM")
    corner = nibabel.load(tmp_path / "a.nii").affine @ [0, 0, 0, 1]
    assert volume_of(tmp_path / "a.nii").grid.origin_lps_mm == pytest.approx((RAS @ corner)[:3])


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("micron", 0.001), ("meter", 1000.0), ("unknown", 1.0)])
def test_nifti_units_are_turned_into_mm(unit: str, scale: float, tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii")
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "a.nii")
    info = mr.find(tmp_path / "a.nii")[0]
    assert (finding(info, "VOL-UNIT") is None) == (unit == "mm")
    assert info.spacing_mm == pytest.approx([4 * scale, 3 * scale, 2 * scale])


def test_a_volume_of_ten_metres_is_refused(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii")
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "a.nii")
    with pytest.raises(GeometryError, match=r"VOL-EXTENT: the volume would be 20 m"):
        mr.read(tmp_path / "a.nii")


def test_scaling_is_applied(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii")
    image.header.set_slope_inter(2.0, -1024.0)
    image.to_filename(tmp_path / "a.nii")
    expected = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj).T
    assert np.allclose(volume_of(tmp_path / "a.nii").voxels, expected, atol=1e-3)
    block = bytearray((tmp_path / "a.nii").read_bytes())
    block[112:116] = np.float32(3.0).tobytes()  # scl_slope, behind nibabel's back
    (tmp_path / "b.nii").write_bytes(block)
    assert not np.allclose(volume_of(tmp_path / "b.nii").voxels, expected, atol=1)


def test_every_time_point_and_component_is_one_series(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz", (4, 3, 5, 2, 3))
    listing = mr.find(tmp_path / "a.nii.gz")
    assert [info.parts for info in listing] == [(f"time {t}", f"component {c}") for c in (1, 2, 3) for t in (1, 2)]
    assert len({info.id for info in listing}) == 6
    values = np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj)
    for number, info in enumerate(listing):
        found = mr.read(tmp_path / "a.nii.gz", info)
        assert isinstance(found, Volume)
        assert np.array_equal(found.voxels.T, values[..., number % 2, number // 2])


def test_axes_of_length_one_make_no_parts(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", (4, 3, 5, 1))
    assert only(tmp_path / "a.nii").parts == ()


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image], ids=["nifti1", "nifti2"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_both_versions_both_byte_orders_packed_or_not(kind: Any, order: str, suffix: str, tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5) + 0.5
    image = kind(values, np.diag([2.0, 3.0, 4.0, 1.0]), kind.header_class(endianness=order))
    image.to_filename(tmp_path / f"a{suffix}")
    found = volume_of(tmp_path / f"a{suffix}")
    assert np.array_equal(found.voxels, values.T)
    assert found.spacing_mm == (4.0, 3.0, 2.0)


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    write_nibabel(marked(), tmp_path / "a.nii")
    (tmp_path / "a.nii").rename(tmp_path / "scan")
    assert only(tmp_path / "scan").reader == "nifti"
    (tmp_path / "text.nii.gz").write_text("no volume")
    assert list(mr.find(tmp_path / "text.nii.gz")) == []


def test_voxels_that_are_not_finite_are_counted_and_not_seen(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii", dtype=np.float32)
    values = np.asarray(image.dataobj).copy()
    values[1, 2, 3] = np.nan
    nibabel.Nifti1Image(values, image.affine, image.header).to_filename(tmp_path / "a.nii")
    found = volume_of(tmp_path / "a.nii")
    assert found.seen is not None
    assert np.argwhere(~found.seen).tolist() == [[3, 2, 1]]
    assert [one.numbers for one in found.findings if one.code == "VOL-NAN"] == [{"voxels": 1}]
    nifti(tmp_path / "b.nii", dtype=np.float32)
    assert volume_of(tmp_path / "b.nii").seen is None


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    nibabel.Nifti1Image(np.zeros((2, 3, 4), dtype=np.complex64), np.eye(4)).to_filename(tmp_path / "a.nii")
    rgb = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(rgb, np.eye(4)).to_filename(tmp_path / "b.nii")
    for name in ("a.nii", "b.nii"):
        with pytest.raises(InputError, match="VOL-TYPE"):
            mr.read(tmp_path / name)
    nibabel.Nifti1Image(np.zeros((2, 3, 4), dtype=np.float64), np.eye(4)).to_filename(tmp_path / "c.nii")
    assert volume_of(tmp_path / "c.nii").voxels.dtype == np.float32


def test_thick_planes_are_offered_for_reconstruction(shared_data: Path) -> None:
    found = finding(only(shared_data / "volumes" / "ct_example.nii.gz"), "VOL-THICK")
    assert found is not None
    assert found.verdict is Verdict.OK
    assert found.numbers == {"axis": 0, "spacing_mm": 4.0, "other_mm": 1.25}
    assert finding(only(shared_data / "volumes" / "mni152_2009a_t1_1mm.nii.gz"), "VOL-THICK") is None


def sitk_image(spacing: tuple[float, ...] = (2.0, 3.0, 4.0)) -> Any:
    values = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin((10.0, 20.0, 30.0))
    return image


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
def test_itk_formats_load_in_one_file_or_two(name: str, packed: bool, tmp_path: Path) -> None:
    SimpleITK.WriteImage(sitk_image(), str(tmp_path / name), useCompression=packed)
    found, listing = volume_of(tmp_path / name), mr.find(tmp_path)
    assert np.array_equal(found.voxels, SimpleITK.GetArrayFromImage(sitk_image()))
    assert found.spacing_mm == (4.0, 3.0, 2.0)
    assert found.grid.origin_lps_mm.tolist() == [10, 20, 30]
    assert len(listing) == 1
    assert listing.skipped == ()  # the data file beside a header is no junk
    assert listing[0].file_count == len(found.source.file_hashes) == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_itk_formats_give_their_time_points_and_components(name: str, tmp_path: Path) -> None:
    values = np.arange(2 * 5 * 4 * 3 * 2, dtype=np.float32).reshape(2, 5, 4, 3, 2)
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(one, isVector=True) for one in values])
    SimpleITK.WriteImage(image, str(tmp_path / name))
    listing = mr.find(tmp_path / name)
    assert [info.parts for info in listing] == [(f"time {t}", f"component {c}") for t in (1, 2) for c in (1, 2)]
    for number, info in enumerate(listing):
        found = mr.read(tmp_path / name, info)
        assert isinstance(found, Volume)
        assert np.array_equal(found.voxels, values[number // 2, ..., number % 2])


NRRD = """NRRD0004
type: uchar
dimension: 3
{space}sizes: 2 3 4
{place}encoding: raw
"""


def write_nrrd(path: Path, space: str = "space: LPS\n", place: str = "space directions: (2,0,0) (0,3,0) (0,0,4)\n") -> None:
    path.write_bytes((NRRD.format(space=space, place=place) + "\n").encode() + bytes(range(24)))


@pytest.mark.parametrize(("space", "signs"), [("LPS", (1, 1, 1)), ("right-anterior-superior", (-1, -1, 1)), ("LAS", (1, -1, 1))])
def test_nrrd_spaces_are_turned_into_lps(space: str, signs: tuple[int, int, int], tmp_path: Path) -> None:
    write_nrrd(tmp_path / "a.nrrd", f"space: {space}\n", "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (5,6,7)\n")
    grid = volume_of(tmp_path / "a.nrrd").grid
    assert grid.origin_lps_mm == pytest.approx(np.multiply(signs, (5, 6, 7)))
    assert grid.to_lps((0, 0, 1)) - grid.origin_lps_mm == pytest.approx([2 * signs[0], 0, 0])
    assert mr.find(tmp_path / "a.nrrd")[0].verdict is Verdict.OK


def test_nrrd_without_sides_is_taken_as_lps_with_a_warning(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "a.nrrd", "", "spacings: 2 3 4\n")
    info = only(tmp_path / "a.nrrd")
    assert finding(info, "VOL-SIDES") is not None
    assert info.spacing_mm == (4.0, 3.0, 2.0)
    write_nrrd(tmp_path / "b.nrrd")
    assert finding(only(tmp_path / "b.nrrd"), "VOL-SIDES") is None


def test_nrrd_units_are_turned_into_mm(tmp_path: Path) -> None:
    place = 'space directions: (2,0,0) (0,3,0) (0,0,4)\nspace units: "cm" "cm" "cm"\n'
    write_nrrd(tmp_path / "a.nrrd", place=place)
    assert only(tmp_path / "a.nrrd").spacing_mm == pytest.approx((40.0, 30.0, 20.0))
    write_nrrd(tmp_path / "b.nrrd", place=place.replace("cm", "mm"))
    assert only(tmp_path / "b.nrrd").spacing_mm == pytest.approx((4.0, 3.0, 2.0))


def test_no_spacing_is_made_up(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "a.nrrd", "", "")
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nBinaryData = True\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "b.mha").write_bytes(header.encode() + bytes(24))
    for name in ("a.nrrd", "b.mha"):
        with pytest.raises(GeometryError, match="VOL-SPACING"):
            mr.read(tmp_path / name)
        found = volume_of(tmp_path / name, spacing_mm=(5.0, 1.0, 2.0))
        assert found.spacing_mm == (5.0, 1.0, 2.0)
        assert any(one.code == "VOL-GIVEN" for one in found.findings)
    write_nrrd(tmp_path / "c.nrrd")
    assert volume_of(tmp_path / "c.nrrd", spacing_mm=(5.0, 1.0, 2.0)).spacing_mm == (4.0, 3.0, 2.0)


def test_a_flat_image_of_itk_is_no_volume(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.Image([5, 6], SimpleITK.sitkUInt8), str(tmp_path / "a.mha"))
    with pytest.raises(GeometryError, match="VOL-FEW"):
        mr.read(tmp_path / "a.mha")
    SimpleITK.WriteImage(SimpleITK.Image([5, 6, 2], SimpleITK.sitkUInt8), str(tmp_path / "b.mha"))
    assert volume_of(tmp_path / "b.mha").grid.shape == (2, 6, 5)


def test_a_gzip_file_that_is_no_nifti_is_other_data(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"no volume at all" * 100))
    assert [one.what for one in mr.find(tmp_path).skipped] == ["gzip file"]
