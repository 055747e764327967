"""Projections through the whole pipeline: the right values, the right way round, in the right unit, and every doubt told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray

import medrecon as mr
from medrecon.config import Choice, ProjectionConfig, ReconstructionConfig, load_config, preset_names
from medrecon.console.progress import Style, shown
from medrecon.core.errors import InputError, UsageError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.progress import Progress
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.core.volume import Quantity
from medrecon.export import ExportRequest, export
from medrecon.methods import get
from medrecon.operators.xray_transform import XRayTransform
from medrecon.quality.assess_projections import ProjectionQuality, assess_projections
from medrecon.run import Request, run
from medrecon.steps.corrections import line_integrals_of
from medrecon.writers import _projections_rtk, _projections_stack
from tests import makers_projections
from tests.makers_written_dicom import dciodvfy_errors
from tests.makers_xray import Ellipsoids, ball, lettered

WATER = 0.02
TURN = np.arange(90) * 2 * np.pi / 90
PANEL = Detector((44, 60), (2.0, 2.0))
CONE = ViewGeometry.cone(TURN, 300, 500, PANEL, isocentre_lps_mm=(12.0, -30.0, 45.0))
CENTRE = (12.0, -30.0, 45.0)
PRESETS = [name for name in preset_names() if get(load_config(name).method).input == "projections"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small problems: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def water_ball(views: ViewGeometry = CONE, radius_mm: float = 20.0) -> ProjectionScan:
    """A ball of water about the isocentre, in closed form."""
    x, y, z = (float(v) for v in views.isocentre)
    return ProjectionScan(ball(radius_mm, (x, y, z), WATER).project(views), views)


def letters() -> Ellipsoids:
    """R at the patient's right, L at the left, F in front, G behind, a ball at the head end, about the isocentre of CONE."""
    phantom = lettered(2.0, 12.0)
    there = np.eye(4)
    there[:3, 3] = CENTRE
    return replace(phantom, densities=phantom.densities * WATER).moved(there)


def bare(preset: str = "cbct-fast", *assignments: str) -> ReconstructionConfig:
    return load_config(preset, None, ("surfaces=[]", *assignments))


def middle(result: mr.Result, radius_mm: float = 12.0) -> float:
    """Mean of the voxels about the isocentre."""
    grid = result.volume.grid
    points = grid.to_lps(np.moveaxis(np.indices(grid.shape), 0, -1))
    return float(result.volume.voxels[np.linalg.norm(points - CENTRE, axis=-1) < radius_mm].mean())


def codes(result: mr.Result) -> set[str]:
    return {finding.code for finding in result.all_findings}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_of_projections_gives_water_back_as_water(preset: str) -> None:
    quick = {"tv": ("settings.iterations=12",), "fdk": ()}[load_config(preset).method]
    coarse = ViewGeometry.cone(TURN[::2], 300, 500, Detector((22, 30), (4.0, 4.0)), isocentre_lps_mm=CENTRE)
    result = mr.reconstruct(water_ball(coarse), bare(preset, "projections.rings=none", *quick))
    assert middle(result) == pytest.approx(WATER, rel=0.02)
    assert result.quality.residual < 0.1
    assert result.volume.quantity is Quantity.ATTENUATION_PER_MM
    assert "HU-NONE" in codes(result)


def test_the_names_of_the_presets_are_the_published_ones() -> None:
    assert set(PRESETS) == {"cbct-fast", "cbct-low-dose", "cbct-sparse-view", "ct-helical", "micro-ct"}


def test_the_default_preset_follows_from_what_was_measured() -> None:
    assert mr.reconstruct(water_ball()).provenance.method == "fdk"
    assert Choice().config("slices") == load_config("fast")
    assert Choice().config("projections") == load_config("cbct-fast")


def test_a_method_for_slices_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"ARG-INPUT.*medrecon presets"):
        mr.reconstruct(water_ball(), preset="fast")


def test_a_choice_that_fits_nothing_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="CFG-VALUE"):
        Choice(assignments=("grid.spacing=1",))
    with pytest.raises(UsageError, match="ARG-NAME"):
        Choice("cbct-fst")
    assert Choice(assignments=("settings.window=hann",)).config("projections").settings["window"] == "hann"


def test_voxels_are_as_fine_as_the_detector_unless_asked_otherwise() -> None:
    scan = water_ball()
    assert mr.reconstruct(scan, bare()).volume.spacing_mm == pytest.approx((1.2, 1.2, 1.2))
    coarse = mr.reconstruct(scan, bare("cbct-fast", "grid.spacing_mm=[3.0,2.0,2.5]"))
    assert coarse.volume.spacing_mm == pytest.approx((3.0, 2.0, 2.5))
    assert middle(coarse) == pytest.approx(WATER, rel=0.02)


def test_a_region_of_interest_holds_the_same_values_as_the_whole() -> None:
    scan = water_ball()
    whole = mr.reconstruct(scan, bare())
    part = mr.reconstruct(scan, bare("cbct-fast", "grid.region_lps_mm=[[0.0,-40.0,40.0],[20.0,-20.0,50.0]]"))
    grid = part.volume.grid
    assert grid.corners_lps_mm().min(axis=0) == pytest.approx([0, -40, 40], abs=1.2)
    start = np.rint(whole.volume.grid.to_index(grid.origin_lps_mm)).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(start, grid.shape, strict=True))
    np.testing.assert_allclose(part.volume.voxels, whole.volume.voxels[box], atol=1e-5)


def test_beyond_the_field_of_view_the_volume_is_air_and_marked() -> None:
    result = mr.reconstruct(water_ball(), bare("cbct-fast", f"hounsfield.water_per_mm={WATER}"))
    assert result.volume.seen is not None
    assert not result.volume.seen.all()
    assert (result.volume.voxels[~result.volume.seen] == -1024).all()
    shares = result.quality.measured_share, result.quality.interpolated_share, result.quality.unseen_share
    assert sum(shares) == pytest.approx(1)
    assert shares[0] > 0.5


def test_the_residual_is_that_of_the_volume_that_is_returned() -> None:
    scan = water_ball()
    result = mr.reconstruct(scan, bare())
    A = XRayTransform(scan.views, result.volume.grid)
    missed = A.forward(torch.tensor(result.volume.voxels)).numpy() - scan.pixels
    assert isinstance(result.quality, ProjectionQuality)
    which = list(result.quality.residual_views)
    assert len(which) == 72
    assert result.quality.residual == pytest.approx(np.linalg.norm(missed[which]) / np.linalg.norm(scan.pixels[which]), rel=1e-3)
    assert result.quality.residual == pytest.approx(np.linalg.norm(missed) / np.linalg.norm(scan.pixels), rel=0.05)


def test_a_volume_of_nothing_misses_all_of_the_projections() -> None:
    scan = water_ball()
    A = XRayTransform(scan.views, mr.reconstruct(scan, bare()).volume.grid)
    quality = assess_projections(A, torch.tensor(scan.pixels), torch.zeros(A.domain))
    assert quality.residual == pytest.approx(1)
    assert "RES-HIGH" in {finding.code for finding in quality.findings}


# -- Hounsfield units --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignments", "origin", "verdict"),
    [
        ((f"hounsfield.water_per_mm={WATER}",), "given", "ok"),
        (("hounsfield.samples=[{centre_lps_mm: [12, -30, 45], radius_mm: 10, hounsfield: 0}]",), "measured", "ok"),
        (("hounsfield.effective_kev=63.7",), "energy", "warn"),
    ],
)
def test_water_becomes_zero_hounsfield_however_it_is_calibrated(
    assignments: tuple[str, ...], origin: str, verdict: str, tmp_path: Path
) -> None:
    result = mr.reconstruct(water_ball(), bare("cbct-fast", *assignments))
    assert result.volume.quantity is Quantity.HOUNSFIELD
    assert abs(middle(result)) < 25
    assert result.provenance.calibration["origin"] == origin
    assert result.provenance.as_json()["calibration"]["water_per_mm"] == pytest.approx(WATER, rel=0.03)
    assert next(f.verdict for f in result.findings if f.code == "HU-CALIBRATED") == verdict
    result.save(tmp_path, ["dicom"])
    image = pydicom.dcmread(next((tmp_path / "dicom").glob("*.dcm")))
    assert image.RescaleType == "HU"


def test_the_scanners_own_value_of_water_is_taken_unless_told_not_to() -> None:
    told = Finding("PRJ-WATER", Verdict.OK, "water", {"water_per_mm": WATER})
    scan = replace(water_ball(), findings=(told,))
    assert mr.reconstruct(scan, bare()).provenance.calibration["origin"] == "scanner"
    plain = mr.reconstruct(scan, bare("cbct-fast", "hounsfield.scanner=false"))
    assert plain.volume.quantity is Quantity.ATTENUATION_PER_MM
    assert plain.provenance.calibration == {}


def test_without_a_calibration_nothing_calls_itself_hounsfield(tmp_path: Path) -> None:
    result = mr.reconstruct(water_ball(), bare())
    result.save(tmp_path, ["dicom", "report"])
    image = pydicom.dcmread(next((tmp_path / "dicom").glob("*.dcm")))
    assert image.RescaleType != "HU"
    assert "not Hounsfield units" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run.json").read_text())["volume"]["quantity"] == "attenuation_per_mm"


def test_two_contradicting_calibrations_are_refused() -> None:
    with pytest.raises(UsageError, match=r"CFG-VALUE.*twice"):
        bare("cbct-fast", "hounsfield.water_per_mm=0.02", "hounsfield.effective_kev=60")


def test_a_sample_outside_the_volume_is_refused_before_the_work() -> None:
    with pytest.raises(UsageError, match="HU-SAMPLE"):
        mr.reconstruct(
            water_ball(), bare("cbct-fast", "hounsfield.samples=[{centre_lps_mm: [500, 0, 0], radius_mm: 5, hounsfield: 0}]")
        )


def test_a_sample_of_air_called_water_does_not_lose_the_volume() -> None:
    wrong = "hounsfield.samples=[{centre_lps_mm: [12, -30, 45], radius_mm: 5, hounsfield: -1000}]"
    result = mr.reconstruct(water_ball(), bare("cbct-fast", wrong))
    assert result.volume.quantity is Quantity.ATTENUATION_PER_MM
    assert "HU-VALUE" in codes(result)
    assert result.verdict is Verdict.WARN


# -- never mirrored ----------------------------------------------------------------------------------------------------


def reads_right(values: NDArray[np.float64], points_lps_mm: NDArray[np.float64], mirror: tuple[int, int, int]) -> float:
    """How much brighter the letters are than where only their mirror image would be, as a share of the whole contrast."""
    right, wrong = (letters().density(CENTRE + (points_lps_mm - CENTRE) * sides) > 0 for sides in ((1, 1, 1), mirror))
    low, high = np.percentile(values, [1, 99.5])
    return float((values[right & ~wrong].mean() - values[wrong & ~right].mean()) / (high - low))


MIRRORS = [(-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1)]


def nifti_points(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and LPS positions of all voxels, as nibabel sees them."""
    image = nibabel.Nifti1Image.from_filename(path)
    values = np.asarray(image.dataobj, dtype=np.float64)
    index = np.moveaxis(np.indices(values.shape), 0, -1)
    return values, (index @ image.affine[:3, :3].T + image.affine[:3, 3]) * [-1, -1, 1]


def dicom_points(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and LPS positions of all voxels, from the attributes of every slice."""
    values, points = [], []
    for path in sorted(folder.glob("*.dcm")):
        image = pydicom.dcmread(path)
        across, down = np.reshape(np.asarray(image.ImageOrientationPatient, dtype=float), (2, 3))
        row, column = np.indices((image.Rows, image.Columns))
        spacing = [float(v) for v in image.PixelSpacing]
        corner = np.asarray(image.ImagePositionPatient, dtype=float)
        points.append(corner + column[..., None] * spacing[1] * across + row[..., None] * spacing[0] * down)
        values.append(image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept))
    return np.stack(values), np.stack(points)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The letters, scanned in closed form, stored, and reconstructed from the file."""
    folder = tmp_path_factory.mktemp("letters")
    _projections_stack.write(ProjectionScan(letters().project(CONE), CONE), folder / "scan")
    config = bare("cbct-fast", "grid.spacing_mm=1.0", f"hounsfield.water_per_mm={WATER}")
    run(Request(folder / "scan", folder / "out", config, formats=("nifti", "dicom", "report", "maps")))
    (result,) = (folder / "out").iterdir()
    return result


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_letters_are_read_the_right_way_round_in_what_is_written(kind: str, written: Path) -> None:
    values, points = nifti_points(written / "volume.nii.gz") if kind == "nifti" else dicom_points(written / "dicom")
    near = np.linalg.norm(points - CENTRE, axis=-1) < 24
    assert min(reads_right(values[near], points[near], mirror) for mirror in MIRRORS) > 0.4


def test_the_letter_check_fails_on_a_detector_that_is_read_from_behind() -> None:
    """Reversing the turn as well would make the mirror image perfectly sharp; the check must see that one too."""
    backwards = ViewGeometry.cone(-TURN % (2 * np.pi), 300, 500, PANEL, isocentre_lps_mm=CENTRE)
    scan = ProjectionScan(letters().project(CONE)[:, :, ::-1], backwards)
    result = mr.reconstruct(scan, bare("cbct-fast", "grid.spacing_mm=1.5"))
    points = result.volume.grid.to_lps(np.moveaxis(np.indices(result.volume.grid.shape), 0, -1))
    near = np.linalg.norm(points - CENTRE, axis=-1) < 24
    assert reads_right(result.volume.voxels[near], points[near], (-1, 1, 1)) < -0.4


def test_the_derived_series_conforms_and_has_identifiers_of_its_own(written: Path) -> None:
    files = sorted((written / "dicom").glob("*.dcm"))
    image = pydicom.dcmread(files[0])
    assert dciodvfy_errors(files[0]) == []
    assert (image.Modality, image.ImageType[0], image.PatientName) == ("CT", "DERIVED", "")
    assert len({pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files}) == len(files)


def test_the_record_tells_the_geometry_and_the_maps_lie_on_the_volume(written: Path) -> None:
    record = json.loads((written / "run.json").read_text())
    geometry = record["input"]["geometry"]
    assert (geometry["beam"], geometry["views"], geometry["arc_deg"]) == ("cone", 90, pytest.approx(360))
    assert geometry["isocentre_lps_mm"] == pytest.approx(CENTRE)
    assert record["provenance"]["calibration"]["water_per_mm"] == WATER
    volume, coverage, residual = (nibabel.load(written / f"{name}.nii.gz") for name in ("volume", "coverage", "residual"))
    assert np.allclose(volume.affine, coverage.affine)
    assert volume.shape == coverage.shape == residual.shape
    assert set(np.unique(coverage.dataobj)) <= {0, 1, 2}


def test_rtk_files_are_run_as_they_are(tmp_path: Path) -> None:
    centred = ViewGeometry.cone(TURN[::2], 300, 500, Detector((22, 30), (4.0, 4.0)))
    _projections_rtk.write(ProjectionScan(ball(20, (0, 0, 0), WATER).project(centred), centred), tmp_path / "scan")
    config = Choice(assignments=("surfaces=[]", f"hounsfield.water_per_mm={WATER}"))
    result, written = run(Request(tmp_path / "scan" / "geometry.xml", tmp_path / "out", config, formats=("nifti",)))
    assert written["nifti"].exists()
    inner = tuple(slice(n // 2 - 2, n // 2 + 2) for n in result.volume.grid.shape)
    assert abs(float(result.volume.voxels[inner].mean())) < 25


# -- what is told ------------------------------------------------------------------------------------------------------


def test_an_object_beyond_the_detector_is_told_and_one_within_is_not() -> None:
    narrow = ViewGeometry.cone(TURN, 300, 500, Detector((20, 24), (2.0, 2.0)), isocentre_lps_mm=CENTRE)
    assert "PRJ-TRUNCATED" in codes(mr.reconstruct(water_ball(narrow), bare()))
    assert "PRJ-TRUNCATED" not in codes(mr.reconstruct(water_ball(), bare()))


def test_few_views_are_told_and_many_are_not() -> None:
    few = water_ball().take(np.arange(0, 90, 9))
    assert "PRJ-SPARSE" in codes(mr.reconstruct(few, bare()))
    assert "PRJ-SPARSE" not in codes(mr.reconstruct(water_ball(), bare()))


def test_twenty_degrees_are_a_marked_result() -> None:
    views = ViewGeometry.cone(np.radians(np.arange(0, 20, 1.0)), 300, 500, PANEL, isocentre_lps_mm=CENTRE)
    result = mr.reconstruct(water_ball(views), bare("cbct-sparse-view", "settings.iterations=2", "grid.spacing_mm=3.0"))
    assert result.verdict is Verdict.WARN
    assert {"PRJ-FEW", "COV-INFERRED"} <= codes(result)
    assert result.quality.measured_share == 0


def test_numbers_that_are_no_line_integrals_are_told() -> None:
    scan = water_ball()
    counts = replace(scan, pixels=1000 - 100 * scan.pixels)
    assert "PRJ-SCALE" in codes(mr.reconstruct(counts, bare()))


def test_impossible_values_in_memory_are_refused_and_left_out_when_allowed() -> None:
    scan = water_ball()
    pixels = scan.pixels.copy()
    pixels[3, 20, 28:31] = np.nan
    broken = replace(scan, pixels=pixels)
    with pytest.raises(InputError, match="PRJ-VALUE"):
        mr.reconstruct(broken, bare())
    allowed = mr.reconstruct(replace(broken, allowed=("bad-pixels",)), bare())
    assert allowed.verdict is Verdict.WARN
    assert middle(allowed) == pytest.approx(WATER, rel=0.02)
    masked = mr.reconstruct(replace(broken, measured=np.isfinite(pixels)), bare())
    assert "PRJ-VALUE" not in codes(masked)
    np.testing.assert_allclose(masked.volume.voxels, allowed.volume.voxels, atol=1e-6)
    hidden = replace(broken, measured=np.ones(pixels.shape, dtype=np.bool_))
    with pytest.raises(InputError, match="PRJ-VALUE"):
        mr.reconstruct(hidden, bare())


# -- corrections -------------------------------------------------------------------------------------------------------


def test_counts_are_divided_by_the_open_beam_of_the_settings() -> None:
    scan = water_ball()
    counts = replace(scan, pixels=np.float32(200) + np.float32(5e4) * np.exp(-scan.pixels), measures=Measured.COUNTS)
    result = mr.reconstruct(counts, bare("cbct-fast", "projections.open_beam=50200", "projections.dark=200"))
    assert middle(result) == pytest.approx(WATER, rel=0.02)
    assert "PRJ-OPEN" in codes(result)
    doubled = mr.reconstruct(counts, bare("cbct-fast", "projections.open_beam=100200", "projections.dark=200"))
    assert middle(doubled) > 1.2 * WATER


def test_an_axis_off_the_middle_is_found_in_a_parallel_beam() -> None:
    panel = Detector((8, 61), (1.0, 1.0))
    true = ViewGeometry.parallel(np.arange(90) * np.pi / 89.0, panel, offset_u_mm=3.5)
    as_written = ViewGeometry.parallel(np.arange(90) * np.pi / 89.0, panel)
    pixels = ball(14, (4, -3, 0), WATER).project(true)
    right = mr.reconstruct(ProjectionScan(pixels, true), bare("micro-ct", "projections.rings=none"))
    found = mr.reconstruct(ProjectionScan(pixels, as_written), bare("micro-ct", "projections.rings=none"))
    lost = mr.reconstruct(
        ProjectionScan(pixels, as_written), bare("micro-ct", "projections.rings=none", "projections.axis=as-read")
    )
    assert next(f.numbers["column"] for f in found.findings if f.code == "PRJ-AXIS") == pytest.approx(30 - 3.5, abs=0.2)
    assert found.quality.residual < 1.5 * right.quality.residual
    assert lost.quality.residual > 3 * right.quality.residual


def test_the_axis_can_be_said() -> None:
    panel = Detector((8, 61), (1.0, 1.0))
    true = ViewGeometry.cone(TURN, 300, 500, panel, offset_u_mm=3.5)
    centred = ViewGeometry.cone(TURN, 300, 500, panel)
    scan = ProjectionScan(ball(12, (2, -1, 0), WATER).project(true), centred)
    said = mr.reconstruct(scan, bare("cbct-fast", "projections.axis=26.5"))
    assert said.quality.residual < 0.5 * mr.reconstruct(scan, bare()).quality.residual
    with pytest.raises(UsageError, match="CFG-VALUE"):
        mr.reconstruct(scan, bare("cbct-fast", "projections.axis=61"))


def test_a_dead_pixel_is_left_out_when_asked() -> None:
    scan = water_ball()
    pixels = scan.pixels.copy()
    pixels[:, 20, 28] = 3.0
    broken = replace(scan, pixels=pixels)
    plain, mended = (mr.reconstruct(broken, bare("cbct-fast", f"projections.bad_pixels={flag}")) for flag in ("false", "true"))
    clean = mr.reconstruct(scan, bare())
    worst = [float(np.abs(r.volume.voxels - clean.volume.voxels).max()) for r in (plain, mended)]
    assert worst[1] < 0.2 * worst[0]
    assert "PRJ-BAD" in codes(mended)


def test_an_exported_series_is_the_one_that_the_run_would_have_written(tmp_path: Path) -> None:
    _projections_stack.write(water_ball(), tmp_path / "scan")
    config = bare("cbct-fast", "grid.spacing_mm=4.0", f"hounsfield.water_per_mm={WATER}")
    run(Request(tmp_path / "scan", tmp_path / "out", config, formats=("nifti", "dicom", "maps")))
    (result,) = (tmp_path / "out").iterdir()
    export(ExportRequest(result, tmp_path / "again", ("dicom",), source=tmp_path / "scan"))
    first, second = (sorted((folder / "dicom").glob("*.dcm")) for folder in (result, tmp_path / "again" / result.name))
    uids = [[pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files] for files in (first, second)]
    assert uids[0] == uids[1]
    assert np.array_equal(pydicom.dcmread(first[3]).pixel_array, pydicom.dcmread(second[3]).pixel_array)


def test_a_dicom_scan_ends_in_hounsfield_units_for_its_own_patient_and_names_him_nowhere_else(tmp_path: Path) -> None:
    """The made CT-PD scan says what water attenuates; patient and study go into the derived series and nowhere else."""
    views = makers_projections.curved_views()
    (tmp_path / "scan").mkdir()
    makers_projections.write_ct_pd(tmp_path / "scan", makers_projections.scanned(views))
    config = Choice("ct-helical", None, ("surfaces=[]", "grid.spacing_mm=2.0"))
    result, _ = run(Request(tmp_path / "scan", tmp_path / "out", config, formats=("dicom", "report", "nifti")))
    assert result.volume.quantity is Quantity.HOUNSFIELD
    assert result.provenance.calibration == {"water_per_mm": 0.0192, "air_per_mm": 0.0, "origin": "scanner"}
    (folder,) = (tmp_path / "out").iterdir()
    files = sorted((folder / "dicom").glob("*.dcm"))
    image = pydicom.dcmread(files[0])
    assert (image.PatientName, image.PatientID, image.StudyInstanceUID) == ("Miller^Anna", "19700101", "2.25.1")
    assert image.FrameOfReferenceUID == "2.25.3"
    assert image.SeriesInstanceUID != "2.25.2.2"
    assert dciodvfy_errors(files[0]) == []
    for name in ("run.json", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "Miller" not in text
        assert "19700101" not in text


def test_the_preset_of_micro_ct_takes_stripes_out_as_it_is() -> None:
    """Five columns that read too much draw rings; the preset as it stands must take most of them away."""
    views = ViewGeometry.parallel(np.arange(120) * np.pi / 119.0, Detector((2, 161), (1.0, 1.0)))
    clean = ProjectionScan(ball(60, (9, -6, 0), WATER).project(views), views)
    stripes = np.zeros(161, dtype=np.float32)
    stripes[[47, 66, 80, 101, 118]] = 0.2
    striped = replace(clean, pixels=clean.pixels + stripes)
    truth = mr.reconstruct(clean, bare("micro-ct", "projections.rings=none")).volume.voxels
    left, kept = (
        float(np.square(mr.reconstruct(striped, bare("micro-ct", *more)).volume.voxels - truth).mean())
        for more in ((), ("projections.rings=none",))
    )
    assert left < 0.3 * kept


# -- the plan of the memory ----------------------------------------------------------------------------------------------


def test_the_cut_of_the_work_and_its_memory_are_told_before_it_begins_and_written_down() -> None:
    heard: list[Progress] = []
    result = mr.reconstruct(water_ball(), bare(), progress=heard.append)
    (told,) = [one for one in heard if one.note]
    first = next(one for one in heard if one.stage == "reconstruct")
    assert heard.index(told) < heard.index(first)
    plan = result.provenance.as_json()["plan"]
    volume, projections = result.volume.grid.shape, CONE.shape
    assert plan["volume"] == list(volume)
    assert plan["slabs"] * plan["slab_slices"] >= volume[0]
    assert plan["blocks"] * plan["block_views"] >= len(CONE)
    assert plan["data_bytes"] == 4 * (np.prod(volume) + np.prod(projections))
    assert f"{plan['data_bytes'] / 2**20:.0f} MiB" in told.note


def test_a_plan_is_said_on_the_console_in_every_style(capsys: pytest.CaptureFixture[str]) -> None:
    for style in (Style.PLAIN, Style.RICH, Style.JSON):
        with shown(style) as tell:
            tell(Progress("prepare", 0.0, 0.0, None, "3 slabs"))
            tell(Progress("prepare", 0.1, 0.0))
        out = capsys.readouterr()
        assert (out.out + out.err).count("3 slabs") == 1, style


# -- the axis and how it leans -------------------------------------------------------------------------------------------


BEAM = Detector((60, 96), (1.0, 1.0))
AROUND = np.arange(24) * np.pi / 12


def off_axis(views: ViewGeometry, truth: ViewGeometry) -> float:
    """Columns by which points of the object appear elsewhere than they did."""
    points = np.stack(np.meshgrid([-20.0, 15.0], [-10.0, 20.0], [-25.0, 0.0, 25.0], indexing="ij"), axis=-1)
    return float(np.abs(views.project(points)[0] - truth.project(points)[0]).max())


@pytest.mark.parametrize("tilt_deg", [4.0, -3.0])
@pytest.mark.parametrize("known", [False, True])
def test_an_axis_that_leans_is_found_and_the_detector_turned_to_it(tilt_deg: float, known: bool) -> None:
    truth = ViewGeometry.parallel(AROUND, BEAM, offset_u_mm=5.0, in_plane_rad=np.radians(tilt_deg))
    plain = ViewGeometry.parallel(AROUND, BEAM)
    scan = ProjectionScan(makers_projections.phantom().project(truth), plain)
    column = float(truth.project(np.zeros(3))[0][0])
    settings = {"axis": column, "tilt_deg": tilt_deg} if known else {"axis": "find", "tilt_deg": "find"}
    corrected, notes = line_integrals_of(scan, ProjectionConfig.model_validate(settings))
    assert off_axis(corrected.views, truth) < (1e-6 if known else 0.6)
    upright, _ = line_integrals_of(scan, ProjectionConfig(axis="find"))
    assert off_axis(upright.views, truth) > 1.2
    assert off_axis(plain, truth) > 4
    if not known:
        assert notes[0].numbers["tilt_deg"] == pytest.approx(tilt_deg, abs=0.5)


def test_a_tilt_alone_leaves_the_axis_where_it_was() -> None:
    views = ViewGeometry.parallel(AROUND, BEAM, offset_u_mm=5.0, offset_v_mm=7.0)
    scan = ProjectionScan(makers_projections.phantom().project(views), views)
    turned = line_integrals_of(scan, ProjectionConfig(tilt_deg=3.0))[0].views
    middle, row = views.project(np.zeros(3))[0][0], turned.project(np.zeros(3))[1][0] - 29.5
    at_the_middle_row = turned.project(np.zeros(3))[0][0] - row * np.tan(np.radians(3.0))
    assert at_the_middle_row == pytest.approx(middle, abs=1e-6)
