"""Every slice of every real series stands where its own header says; judged with pydicom and nibabel, not with our code."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from medrecon.core.progress import silent
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo
from medrecon.core.scans import SliceScan
from medrecon.readers import dicom

Float64 = NDArray[np.float64]
LAX = ReadOptions(allow=("missing-slices",))
MOST_OFF_MM = 0.01

#: Folder, and the shapes of the volumes that must come out of it.
SERIES = {
    "ct_head_small": [(93, 64, 64)],
    "ct_tilt_minus18": [(54, 512, 512)],
    "ct_tilt_uneven_gaps": [(28, 512, 512)],
    "mr_sag_supine": [(35, 256, 256)],
    "mr_sag_decubitus_left": [(35, 256, 256)],
    "enhanced/In/Philips": [(32, 64, 64)] * 2,
    "enhanced/In/Siemens/XA10": [(6, 64, 64)] * 4,
    "enhanced_xa30_t1w/In": [(96, 128, 128)],
    "mosaic/In": [(36, 64, 64)] * 6,
    "transfer_syntaxes/In": [(35, 64, 64)],
    "known_bad/gantrytilting/001": [(4, 512, 512)],
    "known_bad/sliceincrement/001": [(4, 512, 512)],
    "known_bad/sliceincrement/002": [(4, 512, 512)],
    "known_bad/sliceorientation/001": [(2, 288, 288)] * 2,
    "known_bad/slicecount/001": [(2, 256, 256)],
}
SINGLE_FILES = ["12bitUnsigned.dcm", "12bitUnsigned_0x0F0F.dcm", "12bitSigned_0x0F0F.dcm"]


def listed(paths: Sequence[Path]) -> list[ListedFile]:
    return [ListedFile(k, path) for k, path in enumerate(paths, start=1)]


def found(paths: Sequence[Path]) -> list[SeriesInfo]:
    return dicom.find([one for one in listed(paths) if dicom.claims(one.path, one.path.read_bytes()[:512])], LAX)[0]


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def corners_from_headers(paths: Sequence[Path]) -> dict[tuple[str, int], list[Float64]]:
    """Corners (4, 3) of every picture in the files, straight from the standard's formula, by instance and frame."""
    corners: dict[tuple[str, int], list[Float64]] = {}
    for path in paths:
        try:
            image = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        if "Rows" in image:
            for frame, one in enumerate(_pictures(image)):
                corners.setdefault((image.SOPInstanceUID, frame), []).append(one)
    return corners


def _pictures(image: pydicom.Dataset) -> Iterator[Float64]:
    frames = image.get("PerFrameFunctionalGroupsSequence")
    if frames is None and "MOSAIC" not in image.ImageType:
        yield _corners(image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing, (image.Rows, image.Columns))
    for frame in frames or ():
        shared = image.SharedFunctionalGroupsSequence[0]
        position = _group(frame, shared, "PlanePositionSequence").ImagePositionPatient
        orientation = _group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = _group(frame, shared, "PixelMeasuresSequence").PixelSpacing
        yield _corners(position, orientation, spacing, (image.Rows, image.Columns))


def _group(frame: pydicom.Dataset, shared: pydicom.Dataset, name: str) -> Any:
    return (frame if name in frame else shared)[name][0]


def _corners(position: Any, orientation: Any, spacing: Any, shape: tuple[int, int]) -> Float64:
    p, o, s = (np.asarray(values, dtype=np.float64) for values in (position, orientation, spacing))
    i, j = np.array([0, shape[1] - 1, 0, shape[1] - 1]), np.array([0, 0, shape[0] - 1, shape[0] - 1])
    corners: Float64 = p + i[:, None] * s[1] * o[:3] + j[:, None] * s[0] * o[3:]
    return corners


def worst_corner_mm(scan: SliceScan, truth: dict[tuple[str, int], list[Float64]]) -> float:
    """Largest distance between a slice's corner and the nearest corner set that its own header gives it."""
    worst = 0.0
    for corners, instance in zip(scan.poses.corners_lps_mm(), scan.source.instances, strict=True):
        own = truth[instance.sop_instance_uid, (instance.frame or 1) - 1]
        worst = max(worst, min(float(np.linalg.norm(corners - one, axis=1).max()) for one in own))
    return worst


@pytest.mark.parametrize("name", [name for name in SERIES if "mosaic" not in name and "transfer" not in name])
def test_every_slice_stands_where_its_own_header_says(shared_data: Path, name: str) -> None:
    paths = files_in(shared_data / "dicom" / name)
    truth = corners_from_headers(paths)
    scans = [dicom.read(info, LAX, silent) for info in found(paths)]
    assert [scan.pixels.shape for scan in scans] == SERIES[name]
    assert max(worst_corner_mm(scan, truth) for scan in scans) <= MOST_OFF_MM


def test_the_corner_check_fails_on_a_slice_shifted_by_a_pixel(shared_data: Path) -> None:
    paths = files_in(shared_data / "dicom" / "known_bad/gantrytilting/001")
    truth = {key: [one + 0.1 for one in corners] for key, corners in corners_from_headers(paths).items()}
    (info,) = found(paths)
    assert worst_corner_mm(dicom.read(info, LAX, silent), truth) > MOST_OFF_MM


def test_no_two_slices_of_a_volume_come_from_one_picture(shared_data: Path) -> None:
    for name in SERIES:
        for info in found(files_in(shared_data / "dicom" / name)):
            scan = dicom.read(info, LAX, silent)
            pictures = {(one.sop_instance_uid, one.frame) for one in scan.source.instances}
            assert len(pictures) == (1 if "mosaic" in name or "transfer" in name else len(scan.poses))


def test_the_oblique_brain_of_384_slices_keeps_its_two_pixel_spacings(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "dicom" / "mr_t1_0667mm.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        paths = [Path(archive.extract(name, tmp_path)) for name in names]
    infos = [info for info in found(paths) if info.shape == (384, 384, 274)]
    assert len(infos) == 1
    scan = dicom.read(infos[0], LAX, silent)
    assert worst_corner_mm(scan, corners_from_headers(paths)) <= MOST_OFF_MM
    np.testing.assert_allclose(scan.poses.pixel_spacing_mm[0], (0.6667, 0.7), atol=1e-3)
