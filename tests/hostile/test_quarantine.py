"""Compressed pixels come back as they were stored, or as one coded error, whatever the decoder does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from medrecon.core.errors import DicomError, MedreconError, MemoryBudgetError
from medrecon.safety import quarantine
from medrecon.safety.gate import GatedFile, gate, load
from medrecon.safety.limits import Limits
from medrecon.safety.quarantine import DecodeJob, decode
from tests import makers_dicom_bytes as make

Seen = NDArray[np.generic]


def gated(data: bytes) -> GatedFile:
    file = gate(data)
    assert file is not None
    return file


def of_pydicom(name: str) -> GatedFile:
    """A test file that pydicom ships."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return gated(load(Path(path)))


def rle_ramp(start: int = 0, frames: int = 1) -> bytes:
    """Values start, start + 1, ... in 4 x 6 pixels, one RLE fragment a frame: high bytes first, as the standard asks."""
    values = np.arange(start, start + 24 * frames, dtype=np.uint16).reshape(frames, 24)
    planes = [[(v >> 8).astype(np.uint8).tobytes(), (v & 255).astype(np.uint8).tobytes()] for v in values]
    return make.compressed([make.rle(p) for p in planes], make.RLE, {make.FRAMES: str(frames).encode()})


def error_of(jobs: list[DecodeJob], limits: Limits | None = None) -> MedreconError:
    with pytest.raises(MedreconError) as caught:
        decode(jobs, limits or Limits())
    return caught.value


def test_run_length_coded_values_come_back_in_order() -> None:
    jobs = [
        DecodeJob(gated(rle_ramp(start, frames)), number) for number, (start, frames) in enumerate([(0, 1), (500, 3), (7, 1)])
    ]
    first, second, third = decode(jobs)
    assert first.shape == (1, 4, 6)
    assert np.array_equal(first.ravel(), np.arange(24))
    assert np.array_equal(second.ravel(), np.arange(500, 572))
    assert np.array_equal(third.ravel(), np.arange(7, 31))
    assert {a.dtype for a in (first, second, third)} == {np.dtype("<u2")}


def test_a_series_costs_one_child(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    popen = subprocess.Popen

    def counting(command: list[str], **rest: Any) -> subprocess.Popen[bytes]:
        started.append(command)
        return popen(command, **rest)

    monkeypatch.setattr(subprocess, "Popen", counting)
    assert len(decode([DecodeJob(gated(rle_ramp(k))) for k in range(40)])) == 40
    assert len(started) == 1


def test_nothing_to_decode_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_CHILD", Path("there is no such program"))
    assert decode([]) == []


def test_no_child_is_left_behind() -> None:
    decode([DecodeJob(gated(rle_ramp()))])
    error_of([DecodeJob(gated(make.compressed([b"nonsense"], make.JPEG_2000)))])
    assert psutil.Process().children() == []


def test_a_frame_in_several_fragments_is_put_together() -> None:
    plane = make.rle([bytes(24), bytes(range(24))])
    (stored,) = decode([DecodeJob(gated(make.compressed([plane[:70], plane[70:]], make.RLE)))])
    assert np.array_equal(stored.ravel(), np.arange(24))


def test_bits_beyond_the_stored_ones_are_cleared_or_carry_the_sign() -> None:
    planes = [bytes([0xF8 + k % 8 for k in range(24)]), bytes(range(24))]
    raw = (np.frombuffer(planes[0], np.uint8).astype(np.uint16) << 8) | np.frombuffer(planes[1], np.uint8)
    unsigned, signed = (
        decode([DecodeJob(gated(make.compressed([make.rle(planes)], make.RLE, {make.SIGN: sign})))])[0].ravel() for sign in (0, 1)
    )
    assert np.array_equal(unsigned, raw & 0x0FFF)
    assert np.array_equal(signed, ((raw & 0x0FFF).astype(np.int32) ^ 0x0800) - 0x0800)
    assert signed.dtype == np.dtype("<i2")


@pytest.fixture(scope="module")
def nine(shared_data: Path) -> dict[int, Seen]:
    """One mosaic in nine transfer syntaxes, the compressed ones decoded by one child."""
    folder = shared_data / "dicom" / "transfer_syntaxes" / "In"
    files = {number: gated(load(folder / f"{number}.dcm")) for number in range(1, 10)}
    jobs = [DecodeJob(file, number) for number, file in files.items() if file.encapsulated]
    decoded = dict(zip((job.number for job in jobs), decode(jobs), strict=True))
    return {number: decoded[number] if file.encapsulated else native(file) for number, file in files.items()}


def native(file: GatedFile) -> Seen:
    """Stored values of a native file, read here and not by the code under test."""
    kind = (
        (">" if file.transfer_syntax_uid == make.BIG else "<") + "ui"[file.pixel_representation] + str(file.bits_allocated // 8)
    )
    count = file.frames * file.rows * file.columns
    return np.frombuffer(file.data, kind, count=count, offset=file.pixel_offset or 0).reshape(file.shape)


@pytest.mark.parametrize("number", range(1, 10))
def test_nine_transfer_syntaxes_hold_the_values_that_dcm2niix_found(
    shared_data: Path, nine: dict[int, Seen], number: int
) -> None:
    reference = shared_data / "dicom" / "transfer_syntaxes" / "Ref" / "1.nii"
    truth = np.asarray(nibabel.Nifti1Image.from_filename(reference).dataobj).transpose(2, 1, 0)[:, ::-1]
    tiles = nine[number][0].reshape(6, 64, 6, 64).transpose(0, 2, 1, 3).reshape(36, 64, 64)[: len(truth)]
    assert np.array_equal(tiles, truth)
    assert not np.array_equal(tiles[::-1], truth)  # the comparison can fail


def test_lossless_files_equal_the_uncompressed_one() -> None:
    names = ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"]
    truth = native(of_pydicom("MR_small.dcm"))
    for stored in decode([DecodeJob(of_pydicom(name)) for name in names]):
        assert np.array_equal(stored, truth)
        assert not np.array_equal(stored, truth[:, ::-1])  # the comparison can fail


def test_jpeg_2000_whose_sign_contradicts_the_header_has_the_published_values() -> None:
    (stored,) = decode([DecodeJob(of_pydicom("J2K_pixelrep_mismatch.dcm"))])
    assert stored[0, 0, 0] == -2000
    assert stored[0, 47:57, 279].tolist() == [621, 412, 138, -193, -520, -767, -907, -966, -988, -995]


def test_twelve_bit_jpeg_has_the_published_values() -> None:
    for stored in decode([DecodeJob(of_pydicom(name)) for name in ("JPGExtended.dcm", "JPEG-lossy.dcm")]):
        assert (stored[0, 420, 140], stored[0, 230, 120]) == (244, 95)


def test_colour_comes_with_the_samples_last() -> None:
    (stored,) = decode([DecodeJob(of_pydicom("SC_rgb_rle_2frame.dcm"))])
    assert stored.shape == (2, 100, 100, 3)
    assert stored[0, 5, 50].tolist() == [255, 0, 0]
    assert stored[1, 5, 50].tolist() == [0, 255, 255]


def test_a_sequence_delimiter_inside_a_fragment_ends_nothing() -> None:
    file = of_pydicom("JPEG2000-embedded-sequence-delimiter.dcm")
    path = get_testdata_file("JPEG2000-embedded-sequence-delimiter.dcm", download=False)
    assert isinstance(path, str)
    start = file.pixel_offset or 0
    delimiter = 8
    assert file.data[start : start + file.pixel_length - delimiter] == pydicom.dcmread(path).PixelData
    assert error_of([DecodeJob(file)]).code == "DCM-DECODE"  # the marker stands in the middle of the code stream


def test_native_pixels_do_not_go_to_the_child() -> None:
    assert error_of([DecodeJob(gated(make.image()))]).code == "DCM-DECODE"


def test_a_series_beyond_its_share_of_the_memory_starts_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_CHILD", Path("there is no such program"))
    with pytest.raises(MemoryBudgetError, match="MEM-VOLUME"):
        decode([DecodeJob(gated(rle_ramp()))], Limits(volume_share=1e-12))


@pytest.mark.parametrize("syntax", [make.JPEG_2000, make.JPEG_LS, "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", make.RLE])
def test_nonsense_in_fragments_is_one_coded_error_with_the_number_of_the_file(syntax: str) -> None:
    nonsense = gated(make.compressed([bytes(range(256)) * 4], syntax))
    with pytest.raises(DicomError, match="file 7") as caught:
        decode([DecodeJob(nonsense, 7)])
    assert caught.value.code in ("DCM-DECODE", "DCM-PIXELS")


def test_a_code_stream_that_claims_to_be_huge_is_refused_in_time() -> None:
    file = of_pydicom("MR_small_jp2klossless.dcm")
    at = file.data.index(b"\xff\x4f\xff\x51")  # SOC and SIZ: then length, capabilities, width, height
    huge = bytearray(file.data)
    huge[at + 8 : at + 16] = (60_000).to_bytes(4, "big") * 2
    huge[at + 24 : at + 32] = (60_000).to_bytes(4, "big") * 2  # one tile of that size
    begin = time.perf_counter()
    assert error_of([DecodeJob(gated(bytes(huge)))]).code in ("DCM-DECODE", "DCM-LIMIT", "DCM-PIXELS")
    assert time.perf_counter() - begin < 10
    decode([DecodeJob(file)])


def test_one_bad_file_spoils_only_its_own_call() -> None:
    good, bad = DecodeJob(gated(rle_ramp()), 1), DecodeJob(gated(make.compressed([bytes(64)], make.JPEG_2000)), 2)
    assert "file 2" in str(error_of([good, bad, good]))
    assert len(decode([good, good])) == 2


def test_two_frames_announced_and_one_there_is_refused() -> None:
    plane = make.rle([bytes(24), bytes(range(24))])
    short = gated(make.compressed([plane, b"\0" * 64], make.RLE, {make.FRAMES: b"2 "}))
    assert error_of([DecodeJob(short)]).code in ("DCM-DECODE", "DCM-PIXELS")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the address space are Linux's")
def test_a_child_without_memory_is_refused_and_the_parent_goes_on() -> None:
    assert error_of([DecodeJob(gated(rle_ramp()))], Limits(child_base_bytes=48 << 20)).code in ("DCM-LIMIT", "DCM-DECODE")
    assert len(decode([DecodeJob(gated(rle_ramp()))])) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits of another process can be seen on Linux only")
def test_the_child_bounds_itself() -> None:
    job, limits = DecodeJob(gated(rle_ramp())), Limits()
    with quarantine._Child([job], limits) as child:
        child.decode(job)
        running = psutil.Process(child._process.pid)
        assert running.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert running.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert running.rlimit(psutil.RLIMIT_CPU)[0] == limits.child_seconds * 2
        assert limits.child_base_bytes < running.rlimit(psutil.RLIMIT_AS)[0] < limits.child_base_bytes + (1 << 20)


ONE_FRAME = "answers.write(b'{\"frame\": 0}\\n' + bytes(48)); answers.flush()"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "DCM-DECODE"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "DCM-LIMIT"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "DCM-LIMIT"),
        ("sys.exit(3)", "DCM-DECODE"),
        ("answers.write(b'no json\\n')", "DCM-DECODE"),
        ("answers.write(b'[1, 2]\\n')", "DCM-DECODE"),
        ("answers.write(b'x' * 100000)", "DCM-DECODE"),
        ("answers.write(b'{\"frame\": 0}\\n' + bytes(47))", "DCM-DECODE"),
        ('answers.write(b\'{"error": "codec"}\\n\')', "DCM-CODEC"),
        ('answers.write(b\'{"error": "memory"}\\n\')', "DCM-LIMIT"),
        ('answers.write(b\'{"error": "frames"}\\n\')', "DCM-PIXELS"),
        ('answers.write(b\'{"error": "decoder"}\\n\')', "DCM-DECODE"),
    ],
)
def test_every_end_of_the_child_is_one_code(replace_child: Callable[[str], None], lines: str, code: str) -> None:
    replace_child(lines)
    assert error_of([DecodeJob(gated(rle_ramp()))]).code == code
    replace_child(ONE_FRAME + "\nsys.stdin.buffer.read()")
    assert decode([DecodeJob(gated(rle_ramp()))])[0].sum() == 0


def test_a_child_that_hangs_is_ended_in_time(replace_child: Callable[[str], None]) -> None:
    replace_child("time.sleep(60)")
    begin = time.perf_counter()
    assert error_of([DecodeJob(gated(rle_ramp()))], Limits(child_seconds=1)).code == "DCM-LIMIT"
    assert time.perf_counter() - begin < 10


def test_a_child_that_hangs_after_its_last_frame_is_ended(
    replace_child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "_SECONDS_TO_LEAVE", 0.5)
    replace_child(ONE_FRAME + "\ntime.sleep(60)")
    assert len(decode([DecodeJob(gated(rle_ramp()))])) == 1
    assert psutil.Process().children() == []


def test_a_missing_decoder_is_named_with_the_package_to_add(replace_child: Callable[[str], None]) -> None:
    replace_child('answers.write(b\'{"error": "codec"}\\n\')')
    error = error_of([DecodeJob(gated(make.compressed([bytes(64)], make.JPEG_LS)))])
    assert error.code == "DCM-CODEC"
    assert "JPEG-LS" in error.fact
    assert "pyjpegls" in error.hint


def test_what_the_child_says_in_words_is_not_repeated(replace_child: Callable[[str], None]) -> None:
    replace_child('answers.write(b\'{"error": "DOE^JOHN", "type": "DOE^JOHN"}\\n\')')
    assert "DOE" not in str(error_of([DecodeJob(gated(rle_ramp()))]))
