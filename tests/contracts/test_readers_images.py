"""Stacks of pictures: grouped and sorted by their names, with a spacing that must be given and assumptions in words."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

import medrecon as mr
from medrecon.core.errors import GeometryError, InputError
from medrecon.core.findings import Verdict
from medrecon.core.volume import Volume

SPACING = (3.0, 0.5, 0.25)


def planes(count: int = 12, dtype: Any = np.uint8) -> NDArray[Any]:
    """Images of 8 rows and 6 columns that differ from each other in every pixel."""
    top = int(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1
    base = np.arange(48).reshape(8, 6) + 50 * np.arange(count)[:, None, None]
    images: NDArray[Any] = (base * (top / base.max())).astype(dtype)
    return images


def save(folder: Path, images: NDArray[Any], pattern: str = "slice{}.png", first: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images, start=first):
        Image.fromarray(image).save(folder / pattern.format(number))


def volume_of(path: Path, **options: Any) -> Volume:
    found = mr.read(path, spacing_mm=SPACING, **options)
    assert isinstance(found, Volume)
    return found


def codes(path: Path, **options: Any) -> set[str]:
    return {one.code for info in mr.find(path, spacing_mm=SPACING, **options) for one in info.findings}


@pytest.mark.parametrize("pattern", ["slice{}.png", "slice{:04d}.png", "slice{}.tif", "IM{}_of_12.tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_are_stacked_by_number_and_keep_their_bits(pattern: str, dtype: Any, tmp_path: Path) -> None:
    save(tmp_path, planes(dtype=dtype), pattern)
    found = volume_of(tmp_path)
    assert np.array_equal(found.voxels, planes(dtype=dtype))
    assert found.spacing_mm == SPACING
    assert codes(tmp_path) == {"IMG-ORIENT", "IMG-ORDER", "VOL-THICK"}


def test_a_stack_sorted_as_text_would_be_wrong(tmp_path: Path) -> None:
    save(tmp_path, planes())
    as_text = [np.asarray(Image.open(path)) for path in sorted(tmp_path.iterdir())]
    assert not np.array_equal(as_text, planes())
    assert np.array_equal(volume_of(tmp_path).voxels, planes())


def test_without_a_spacing_a_stack_is_refused_with_the_way_out(tmp_path: Path) -> None:
    save(tmp_path, planes())
    assert mr.find(tmp_path)[0].verdict is Verdict.REFUSED
    with pytest.raises(GeometryError, match=r"IMG-SPACING.*spacing_mm"):
        mr.read(tmp_path)
    assert volume_of(tmp_path).grid.shape == (12, 8, 6)


def test_how_the_images_are_taken_to_stand_is_said_in_words(tmp_path: Path) -> None:
    save(tmp_path, planes())
    info = mr.find(tmp_path, spacing_mm=SPACING)[0]
    assert info.verdict is Verdict.WARN
    assert "first image at the feet" in next(one.fact for one in info.findings if one.code == "IMG-ORIENT")
    grid = volume_of(tmp_path).grid
    assert grid.to_lps((1, 1, 1)).tolist() == [0.25, 0.5, 3.0]


def test_a_hole_in_the_numbers_is_refused_and_marked_where_allowed(tmp_path: Path) -> None:
    save(tmp_path, planes())
    (tmp_path / "slice5.png").unlink()
    info = mr.find(tmp_path, spacing_mm=SPACING)[0]
    assert info.shape == (12, 8, 6)
    assert info.file_count == 11
    with pytest.raises(GeometryError, match=r"IMG-GAP: 1 of 12 images are missing, the first is number 5"):
        volume_of(tmp_path)
    found = volume_of(tmp_path, allow=["missing-slices"])
    assert found.seen is not None
    assert [k for k in range(12) if not found.seen[k].any()] == [4]
    assert np.array_equal(np.delete(found.voxels, 4, axis=0), np.delete(planes(), 4, axis=0))
    assert found.allowed == ("missing-slices",)


def test_numbers_in_steps_have_no_hole(tmp_path: Path) -> None:
    save(tmp_path, planes(4), "z{}0.png")
    assert np.array_equal(volume_of(tmp_path).voxels, planes(4))


def test_numbers_that_count_something_else_are_only_an_order(tmp_path: Path) -> None:
    for stamp, image in zip((103001, 103059, 103400, 110001), planes(4), strict=True):
        Image.fromarray(image).save(tmp_path / f"{stamp}.png")
    assert np.array_equal(volume_of(tmp_path).voxels, planes(4))
    warned = [one for one in mr.find(tmp_path, spacing_mm=SPACING)[0].findings if one.code == "IMG-ORDER"]
    assert warned[0].verdict is Verdict.WARN


def test_two_images_of_one_number_have_no_order(tmp_path: Path) -> None:
    save(tmp_path, planes(4))
    Image.fromarray(planes(1)[0]).save(tmp_path / "slice03.png")
    with pytest.raises(InputError, match="IMG-ORDER"):
        volume_of(tmp_path)
    (tmp_path / "slice03.png").unlink()
    assert volume_of(tmp_path).grid.shape[0] == 4


def test_stacks_of_different_names_folders_and_sizes_are_not_mixed(tmp_path: Path) -> None:
    save(tmp_path, planes(), "ct{}.png")
    save(tmp_path, planes(5), "mr{}.png")
    save(tmp_path / "deeper", planes(4), "ct{}.png")
    save(tmp_path, planes(3)[:, :4], "ct9{}.png", first=0)
    assert sorted(info.shape for info in mr.find(tmp_path)) == [(3, 4, 6), (4, 8, 6), (5, 8, 6), (12, 8, 6)]


def test_a_copied_stack_is_listed_once(tmp_path: Path) -> None:
    save(tmp_path / "a", planes())
    save(tmp_path / "b", planes())
    listing = mr.find(tmp_path)
    assert len(listing) == 1
    assert [one.code for one in listing.skipped] == ["INP-COPY"] * 12


def test_a_single_image_among_other_files_is_no_series(tmp_path: Path) -> None:
    Image.fromarray(planes(1)[0]).save(tmp_path / "screenshot.jpg")
    listing = mr.find(tmp_path)
    assert list(listing) == []
    assert [(one.what, one.code) for one in listing.skipped] == [("single image", "IMG-SINGLE")]


def test_colours_become_luminance_and_grey_in_colour_stays_grey(tmp_path: Path) -> None:
    grey = planes(3)
    save(tmp_path / "grey", np.repeat(grey[..., None], 3, axis=-1))
    assert np.allclose(volume_of(tmp_path / "grey").voxels, grey, atol=1e-4)
    assert "IMG-COLOUR" in codes(tmp_path / "grey")
    red = np.zeros((3, 8, 6, 3), dtype=np.uint8)
    red[..., 0] = 200
    save(tmp_path / "red", red)
    assert np.allclose(volume_of(tmp_path / "red").voxels, 0.299 * 200, atol=1e-4)


def test_palettes_masks_and_alpha_are_read_as_grey(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "m").mkdir()
    (tmp_path / "a").mkdir()
    for number, image in enumerate(planes(3)):
        picture = Image.fromarray(image)
        picture.convert("P").save(tmp_path / "p" / f"{number}.png")
        Image.fromarray(image > 80).save(tmp_path / "m" / f"{number}.png")
        Image.merge("LA", (picture, picture)).save(tmp_path / "a" / f"{number}.png")
    assert np.allclose(volume_of(tmp_path / "p").voxels, planes(3), atol=1e-4)
    assert np.array_equal(volume_of(tmp_path / "m").voxels, planes(3) > 80)
    assert np.array_equal(volume_of(tmp_path / "a").voxels, planes(3))


def test_colours_of_16_bits_are_refused_and_not_halved(tmp_path: Path) -> None:
    save(tmp_path, planes(2)[..., None].repeat(3, axis=-1))
    for path in tmp_path.iterdir():
        block = bytearray(path.read_bytes())
        block[24] = 16  # the bit depth in PNG's first chunk, which ends in its checksum
        block[29:33] = zlib.crc32(block[12:29]).to_bytes(4, "big")
        path.write_bytes(block)
    assert {one.code for one in mr.find(tmp_path).skipped} == {"IMG-TYPE"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_of_several_pages_is_a_stack(dtype: Any, compression: str | None, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", planes(dtype=dtype), compression=compression)
    assert np.array_equal(volume_of(tmp_path).voxels, planes(dtype=dtype))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_tiff_compressions_that_pillow_writes_are_read(compression: str, tmp_path: Path) -> None:
    pages = [Image.fromarray(image) for image in planes(dtype=np.uint16)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
    assert np.array_equal(volume_of(tmp_path).voxels, planes(dtype=np.uint16))


def test_two_tiffs_of_several_pages_are_two_stacks(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a1.tif", planes(4), photometric="minisblack")
    tifffile.imwrite(tmp_path / "a2.tif", planes(5), photometric="minisblack")
    assert sorted(info.shape[0] for info in mr.find(tmp_path)) == [4, 5]


def test_a_tiff_of_channels_and_planes_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", planes(12).reshape(2, 6, 8, 6), imagej=True, metadata={"axes": "TZYX"})
    assert [one.code for one in mr.find(tmp_path).skipped] == ["IMG-TYPE"]
    tifffile.imwrite(tmp_path / "a.tif", planes(12), imagej=True, metadata={"axes": "ZYX"})
    assert volume_of(tmp_path).grid.shape == (12, 8, 6)


def test_jpeg_is_read_and_its_loss_is_said(tmp_path: Path) -> None:
    save(tmp_path, planes(), "slice{}.jpg")
    assert np.abs(volume_of(tmp_path).voxels - planes()).max() < 8
    assert "IMG-LOSSY" in codes(tmp_path)


def test_a_zip_of_images_is_grouped_and_sorted_by_the_names_inside(tmp_path: Path) -> None:
    save(tmp_path / "x", planes(), "ct{}.png")
    save(tmp_path / "y", planes(5), "ct{}.png")
    (tmp_path / "x" / "ct5.png").unlink()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in (*(tmp_path / "x").iterdir(), *(tmp_path / "y").iterdir()):
            archive.write(path, path.relative_to(tmp_path))
    listing = mr.find(tmp_path / "a.zip", spacing_mm=SPACING)
    assert sorted(info.shape[0] for info in listing) == [5, 12]
    whole = next(info for info in listing if info.shape[0] == 5)
    found = mr.read(tmp_path / "a.zip", whole, spacing_mm=SPACING)
    assert isinstance(found, Volume)
    assert np.array_equal(found.voxels, planes(5))
