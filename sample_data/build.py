"""Builds the sample series and their truth again: ``python sample_data/build.py [--out FOLDER]``.

Two series with known truth, X-ray projections and an ultrasound sweep: an MR brain in thick slices, cut obliquely out of the
ICBM 2009a template that the nilearn wheel carries, a synthetic CT head scanned with a tilted gantry, the same head in a cone
beam, and a synthetic piece of tissue under a tracked freehand probe. The simulation here shares no code with medrecon, so
that medrecon can be judged against it. Everything comes from fixed seeds; every name in the headers is invented.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import importlib.util
import io
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from scipy import ndimage

Float = NDArray[np.float64]
Pixels = NDArray[np.int16]

#: The bell: depth in slice thicknesses and relative weight, as measured on a CT that was scanned thick and thin.
BELL_DEPTH = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BELL_WEIGHT = (1.0, 0.85, 0.64, 0.32, 0.11, 0.0)
FINE_MM = 0.5  # distance of the planes over which a thick slice is integrated
THICKNESS_MM = 5.0
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

MR_SHAPE = (31, 208, 168)  # slices, rows, columns, 1 mm pixels
MR_TURNS_DEG = (-8.0, 3.0, 2.0)  # nod, roll, yaw of the slice packet
MR_CENTRE_LPS_MM = (0.0, 17.0, 11.0)
MR_SCALE = 4.0  # grey levels per level of the template
MR_NOISE = 5.0  # grey levels, about half a percent of white matter

CT_SHAPE = (32, 192, 192)
CT_PIXEL_MM = 1.25
CT_TILT_DEG = 17.0
CT_FIRST_MM = -60.0  # table position of the first slice
CT_NOISE_HU = 5.0
CT_INTERCEPT = -1024
CT_PADDING = -2000  # stored value outside the scanner's circle, as GE writes it
CT_TRUTH_FIRST_MM = -91.25  # reaches below the lowest corner of the lowest slice in the head
CT_TRUTH_SHAPE = (152, 192, 192)

CB_VIEWS, CB_ROWS, CB_COLUMNS = 120, 100, 128
CB_PIXEL_MM = 3.0  # at the detector
CB_SID_MM, CB_SDD_MM = 1000.0, 1500.0
CB_WATER_PER_MM = 0.0206
CB_PHOTONS, CB_DARK = 50_000.0, 120.0  # in the middle of the open beam, and without a beam
CB_STEP_MM = 2.0  # along the rays
CB_REACH_MM = 126.0  # from the axis, where the rays begin and end

US_FRAMES, US_ROWS, US_COLUMNS = 56, 144, 128
US_BORDER = 4  # pixels of scale and frame around the image, which the clip rectangle takes off
US_PIXEL_MM, US_STEP_MM, US_BEAM_MM = 0.3, 0.9, 1.5
US_HIDDEN = 20  # the frame at which the tracker lost the probe
US_TRUTH_MM, US_TRUTH_SHAPE = 1.0, (60, 48, 54)
US_TRUTH_FIRST_MM = (-26.5, -2.0, -29.5)


@dataclass(frozen=True)
class Placement:
    """Where the slices of one series stand, LPS mm: direction of growing column and row index, and each first pixel."""

    across: Float
    down: Float
    positions: Float
    pixel_mm: float

    @functools.cached_property
    def normal(self) -> Float:
        """Unit normal of the slices."""
        return np.cross(self.across, self.down)


@dataclass(frozen=True)
class Ellipsoid:
    """A body of the head phantom, LPS mm, turned by `yaw_deg` about the head-foot axis."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hounsfield: float
    yaw_deg: float = 0.0


def main() -> None:
    """Write both series, their truth and the list of hashes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    out: Path = parser.parse_args().out
    files = dict(sorted([*mr_brain_thick(), *ct_head_tilted(), *cone_beam_head(), *ultrasound_sweep()]))
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    sums = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    (out / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


def mr_brain_thick() -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file of the MR sample: 31 oblique slices, 5 mm thick without a gap, and 1 mm truth."""
    slices, rows, columns = MR_SHAPE
    turn = rotation(MR_TURNS_DEG)
    across, down, normal = turn.T
    per_slice, margin = round(THICKNESS_MM / FINE_MM), round(THICKNESS_MM / FINE_MM)
    planes = slices * per_slice + 2 * margin
    heights: Float = (np.arange(planes, dtype=np.float64) - margin) * FINE_MM - 2.0  # height 0 is the centre of the first slice
    corner = np.asarray(MR_CENTRE_LPS_MM) - turn @ [(columns - 1) / 2, (rows - 1) / 2, (slices - 1) * THICKNESS_MM / 2]
    fine = MR_SCALE * np.stack(list(template_planes(corner, across, down, normal, heights, (rows, columns))))
    centres = np.arange(slices) * THICKNESS_MM
    thick = np.stack([average(fine, bell((heights - centre) / THICKNESS_MM)) for centre in centres])
    noise = np.random.default_rng(20260101).standard_normal((2, *thick.shape)) * MR_NOISE
    noisy = np.sqrt((thick + noise[0]) ** 2 + noise[1] ** 2)  # Rician, as magnitude images are
    place = Placement(across, down, corner + centres[:, None] * normal, 1.0)
    yield from series_files("mr_brain_thick", as_int16(noisy), place)
    truth = fine[margin : margin + slices * per_slice : 2]
    yield "mr_brain_thick/truth.nii.gz", nifti(as_int16(truth), corner - 2.0 * normal, (across, down, normal), 1.0)


def ct_head_tilted() -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file of the CT sample: 32 slices with a tilted gantry, and upright truth."""
    slices, rows, columns = CT_SHAPE
    tilt = np.deg2rad(CT_TILT_DEG)
    across, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    table = CT_FIRST_MM + np.arange(slices) * THICKNESS_MM / np.cos(tilt)  # the table moves along z, not along the normal
    half = CT_PIXEL_MM * (columns - 1) / 2
    positions = table[:, None] * [0.0, 0.0, 1.0] - half * (across + down)
    place = Placement(across, down, positions, CT_PIXEL_MM)
    depths = np.arange(-THICKNESS_MM, THICKNESS_MM + 0.5, 1.0)  # finer than the ramp of an edge
    weights = bell(depths / THICKNESS_MM)
    thick = np.stack([average(head_planes(place, k, depths), weights) for k in range(slices)])
    noisy = thick + np.random.default_rng(20260102).standard_normal(thick.shape) * CT_NOISE_HU
    stored = as_int16(noisy - CT_INTERCEPT)
    stored[:, ~circle(rows, columns)] = CT_PADDING
    yield from series_files("ct_head_tilted", stored, place)
    truth, origin = upright_head()
    yield "ct_head_tilted/truth.nii.gz", nifti(as_int16(truth), origin, (np.eye(3)[0], np.eye(3)[1], np.eye(3)[2]), CT_PIXEL_MM)


@functools.cache
def upright_head() -> tuple[Float, Float]:
    """Paint the head upright: Hounsfield units (slice, row, column), and where the first voxel stands, LPS mm."""
    half = CT_PIXEL_MM * (CT_TRUTH_SHAPE[2] - 1) / 2
    origin = np.array([-half, -half, CT_TRUTH_FIRST_MM])
    positions = origin + np.arange(CT_TRUTH_SHAPE[0])[:, None] * CT_PIXEL_MM * np.eye(3)[2]
    upright = Placement(np.eye(3)[0], np.eye(3)[1], positions, CT_PIXEL_MM)
    planes = [head_planes(upright, k, np.zeros(1), CT_TRUTH_SHAPE[1:])[0] for k in range(CT_TRUTH_SHAPE[0])]
    return np.stack(planes), origin


def cone_beam_head() -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file of the projections: 120 views of the head, counts with open beam and dark image."""
    head_hu, origin = upright_head()
    attenuation = (CB_WATER_PER_MM * np.maximum(head_hu + 1000, 0) / 1000).astype(np.float32)
    angles = np.arange(CB_VIEWS) * 2 * np.pi / CB_VIEWS
    integrals = np.stack([view_of(attenuation, origin, angle) for angle in angles])
    across = np.linspace(-1, 1, CB_COLUMNS)
    beam = CB_PHOTONS * (1 - 0.25 * across**2)[None, :] * (1 - 0.1 * np.linspace(-1, 1, CB_ROWS)[:, None])  # bow tie and heel
    expected = beam * np.exp(-integrals)
    noise = np.random.default_rng(20260103).standard_normal(expected.shape)
    counts = np.clip(np.rint(expected + np.sqrt(expected) * noise + CB_DARK), 0, 65535).astype("<u2")
    yield "cone_beam_head/projections.npy", npy(counts)
    yield "cone_beam_head/open_beam.npy", npy(np.rint(beam[None] + CB_DARK).astype("<u2"))
    yield "cone_beam_head/dark.npy", npy(np.full((1, CB_ROWS, CB_COLUMNS), CB_DARK, dtype="<u2"))
    yield "cone_beam_head/scan.yaml", CB_SCAN.encode("ascii")


#: What the reader of projections is told; `docs/projection-formats.md` explains it.
CB_SCAN = f"""format: medrecon projections
version: 1
images: projections.npy
measures: counts
open_beam: open_beam.npy
dark: dark.npy
detector:
  row_pitch_mm: {CB_PIXEL_MM}
  column_pitch_mm: {CB_PIXEL_MM}
geometry:
  kind: cone
  angles_deg: {{first: 0.0, step: {360 / CB_VIEWS}}}
  sid_mm: {CB_SID_MM}
  sdd_mm: {CB_SDD_MM}
"""


def view_of(attenuation: NDArray[np.float32], origin: Float, angle: float) -> Float:
    """Add up attenuation along the rays of one view, in steps: rows grow to the head, columns to the left at angle 0."""
    to_source, along_u = np.array([np.sin(angle), -np.cos(angle), 0.0]), np.array([np.cos(angle), np.sin(angle), 0.0])
    row = (np.arange(CB_ROWS) - (CB_ROWS - 1) / 2) * CB_PIXEL_MM
    column = (np.arange(CB_COLUMNS) - (CB_COLUMNS - 1) / 2) * CB_PIXEL_MM
    source, centre = CB_SID_MM * to_source, (CB_SID_MM - CB_SDD_MM) * to_source
    pixels = centre + column[None, :, None] * along_u + row[:, None, None] * np.array([0.0, 0.0, 1.0])
    rays = (pixels - source) / np.linalg.norm(pixels - source, axis=-1, keepdims=True)
    total = np.zeros((CB_ROWS, CB_COLUMNS))
    for way in np.arange(CB_SID_MM - CB_REACH_MM, CB_SID_MM + CB_REACH_MM, CB_STEP_MM):
        points = (source + (way + CB_STEP_MM / 2) * rays - origin) / CT_PIXEL_MM
        total += ndimage.map_coordinates(attenuation, np.moveaxis(points, -1, 0)[::-1], order=1, mode="constant") * CB_STEP_MM
    return total


def ultrasound_sweep() -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file of the ultrasound sample: frames of a tracked linear probe, its calibration, and truth.

    Patient and reference body are one here: the truth stands in the reference body's millimetres.
    """
    waves = np.random.default_rng(20260104)
    texture = waves.standard_normal((40, 3)) * 1.6, waves.uniform(0, 2 * np.pi, 40)
    calibration = placed(rotation((2.0, -3.0, 178.0)), (12.0, -7.0, 4.0)) @ np.diag([US_PIXEL_MM, US_PIXEL_MM, US_PIXEL_MM, 1.0])
    frames, fields = [], []
    for k in range(US_FRAMES):
        image, reference = sweep_pose(k), placed(rotation((20.0 + 0.1 * k, -35.0, 60.0)), (150.0 + 0.3 * k, -80.0, 900.0))
        probe = reference @ image @ np.linalg.inv(calibration)
        frames.append(framed(echo_image(image, texture)))
        fields.append(tracked_fields(probe, reference, k))
    frames[US_HIDDEN][:] = 0
    yield "ultrasound_sweep/scan/sweep.igs.mha", sequence(np.stack(frames), fields)
    yield "ultrasound_sweep/scan/probe.xml", plus_configuration(calibration)
    index: Float = np.indices(US_TRUTH_SHAPE, dtype=np.float64).reshape(3, -1)[::-1].T * US_TRUTH_MM + US_TRUTH_FIRST_MM
    truth = echoes(index, texture).reshape(US_TRUTH_SHAPE)
    axes = (np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]))
    yield "ultrasound_sweep/truth.nii.gz", nifti(as_int16(truth), np.asarray(US_TRUTH_FIRST_MM), axes, US_TRUTH_MM)


def placed(turn: Float, shift_mm: tuple[float, float, float]) -> Float:
    """Return a rigid motion as a 4x4 matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, shift_mm
    return matrix


def sweep_pose(k: int) -> Float:
    """Where frame k stands: pixels (column, row, 0, 1) to mm. The hand moves along z, wobbles and turns by a few degrees."""
    turn = rotation((3.0 * np.sin(k / 9), 2.0 * np.cos(k / 7), 4.0 * np.sin(k / 20)))
    along = (k - (US_FRAMES - 1) / 2) * US_STEP_MM
    centre = np.array([0.8 * np.sin(k / 5), 1.0 + 0.4 * np.cos(k / 11), along])
    pose = placed(turn, (0.0, 0.0, 0.0)) @ np.diag([US_PIXEL_MM, US_PIXEL_MM, US_PIXEL_MM, 1.0])
    pose[:3, 3] = centre - pose[:3, 0] * ((US_COLUMNS - 1) / 2 + US_BORDER) - pose[:3, 1] * US_BORDER
    return pose


def echo_image(pose: Float, texture: tuple[Float, Float]) -> Float:
    """Average the tissue over the thickness of the beam in every pixel."""
    row, column = np.indices((US_ROWS, US_COLUMNS)).reshape(2, -1) + US_BORDER
    centre = np.stack([column, row, 0 * row, 1 + 0 * row], axis=1) @ pose[:3].T
    normal = pose[:3, 2] / np.linalg.norm(pose[:3, 2])
    depths = np.linspace(-US_BEAM_MM, US_BEAM_MM, 7)
    weights = np.exp(-4 * np.log(2) * (depths / US_BEAM_MM) ** 2)
    planes = np.stack([echoes(centre + depth * normal, texture) for depth in depths])
    return average(planes, weights / weights.sum()).reshape(US_ROWS, US_COLUMNS)


def echoes(points: Float, texture: tuple[Float, Float]) -> Float:
    """Brightness of the tissue at points (n, 3), from 0 to 255: skin, muscle, two vessels, a cyst, a bright nodule."""
    x, y, z = points.T
    waves, phases = texture
    grain = np.zeros(len(points))
    for wave, phase in zip(waves, phases, strict=True):
        grain += np.cos(wave[0] * x + wave[1] * y + wave[2] * z + phase)
    value = 105 + 30 * soft(y - 9.0) - 15 * soft(y - 24.0) + 4.0 * grain / np.sqrt(len(waves) / 2)
    bodies = (
        (np.hypot(x + 6 + 0.08 * z, y - 20) - 4.5, 8.0),  # a vessel along the sweep
        (np.hypot(x - 7 - 0.25 * z, (y - 15) * 1.2) - 2.5, 12.0),  # another one that runs to the side
        (np.linalg.norm(points - [9, 30, -10], axis=1) - 6.0, 4.0),  # a cyst
        (np.linalg.norm((points - [-8, 31, 12]) * [1, 1.4, 1], axis=1) - 5.0, 215.0),  # a nodule
    )
    for distance, level in bodies:
        inside_body = soft(-distance)
        value = inside_body * level + (1 - inside_body) * value
    return np.asarray(np.clip(value + 70 * soft(2.0 - y), 0, 255))


def soft(distance_mm: Float) -> Float:
    """Rise from 0 to 1 over a millimetre around 0."""
    return np.asarray(np.clip(distance_mm + 0.5, 0, 1))


def framed(image: Float) -> NDArray[np.uint8]:
    """Put a border with a scale around an image, as screens have it."""
    whole = np.zeros((US_ROWS + 2 * US_BORDER, US_COLUMNS + 2 * US_BORDER), dtype=np.uint8)
    whole[US_BORDER:-US_BORDER, US_BORDER:-US_BORDER] = np.rint(image)
    whole[US_BORDER :: round(5 / US_PIXEL_MM), : US_BORDER - 1] = 255
    return whole


def tracked_fields(probe: Float, reference: Float, k: int) -> dict[str, str]:
    """Return the fields of one frame; in one of them the tracker does not see the probe."""
    hidden = k == US_HIDDEN
    return {
        "ProbeToTrackerTransform": sixteen(np.eye(4) if hidden else probe),
        "ProbeToTrackerTransformStatus": "INVALID" if hidden else "OK",
        "ReferenceToTrackerTransform": sixteen(reference),
        "ReferenceToTrackerTransformStatus": "OK",
        "Timestamp": f"{12.5 + k / 15:.6f}",
        "ImageStatus": "OK",
    }


def sixteen(matrix: Float) -> str:
    """Write a matrix row by row."""
    return " ".join(f"{value:.9g}" for value in matrix.ravel())


def sequence(frames: NDArray[np.uint8], fields: list[dict[str, str]]) -> bytes:
    """Write frames as a compressed sequence MetaImage, as PLUS does."""
    packed = zlib.compress(frames.tobytes(), 9)
    lines = [
        *(
            "ObjectType = Image",
            "NDims = 3",
            "AnatomicalOrientation = RAI",
            "BinaryData = True",
            "BinaryDataByteOrderMSB = False",
        ),
        *("CenterOfRotation = 0 0 0", "CompressedData = True", f"CompressedDataSize = {len(packed)}"),
        f"DimSize = {' '.join(map(str, frames.shape[::-1]))}",
        *("Kinds = domain domain list", "ElementSpacing = 1 1 1", "ElementType = MET_UCHAR", "Offset = 0 0 0"),
        *("TransformMatrix = 1 0 0 0 1 0 0 0 1", "UltrasoundImageOrientation = MFA", "UltrasoundImageType = BRIGHTNESS"),
    ]
    lines += [f"Seq_Frame{k:04d}_{name} = {value}" for k, frame in enumerate(fields) for name, value in frame.items()]
    return "\n".join([*lines, "ElementDataFile = LOCAL", ""]).encode("ascii") + packed


def plus_configuration(calibration: Float) -> bytes:
    """Write what PLUS knows of the probe: where its image lies, and which part of the frames is image."""
    clip = f'ClipRectangleOrigin="{US_BORDER} {US_BORDER}" ClipRectangleSize="{US_COLUMNS - 1} {US_ROWS - 1}"'
    return f"""<PlusConfiguration version="2.1">
  <CoordinateDefinitions>
    <Transform From="Image" To="Probe" Matrix="{sixteen(calibration)}" />
  </CoordinateDefinitions>
  <VolumeReconstruction ImageCoordinateFrame="Image" ReferenceCoordinateFrame="Reference" OutputSpacing="0.5 0.5 0.5"
    {clip} Interpolation="LINEAR" CompoundingMode="MEAN" FillHoles="ON" />
</PlusConfiguration>
""".encode("ascii")


def npy(array: NDArray[np.generic]) -> bytes:
    """Return an array as NumPy stores it."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def bell(u: Float) -> Float:
    """Weight of each depth, in thicknesses; the weights add up to one."""
    weights = np.interp(np.abs(u), BELL_DEPTH, BELL_WEIGHT, right=0.0)
    return np.asarray(weights / weights.sum())


def average(planes: Float, weights: Float) -> Float:
    """Weighted sum over the first axis, plane by plane, so that every machine adds in the same order."""
    total = np.zeros(planes.shape[1:])
    for plane, weight in zip(planes, weights, strict=True):
        if weight > 0:
            total += weight * plane
    return total


def rotation(turns_deg: tuple[float, float, float]) -> Float:
    """Rotation about x, then y, then z; its columns are the directions across, down and along the normal."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(turns_deg)):
        one, two = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[one, one] = step[two, two] = np.cos(angle)
        step[two, one] = np.sin(angle)
        step[one, two] = -np.sin(angle)
        turn = step @ turn
    return turn


def template_planes(
    corner: Float, across: Float, down: Float, normal: Float, heights_mm: Float, shape: tuple[int, int]
) -> Iterator[Float]:
    """Cut planes out of the ICBM 2009a T1 template with cubic splines, 1 mm pixels, zero outside the template."""
    package = importlib.util.find_spec("nilearn")
    if package is None or package.origin is None:
        raise SystemExit("nilearn carries the template: python -m pip install nilearn")
    data = Path(package.origin).parent / "datasets" / "data"
    image = nibabel.load(data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    coefficients = ndimage.spline_filter(np.asarray(image.dataobj, dtype=np.float64), order=3, mode="mirror")
    to_index = np.linalg.inv(LPS_FROM_RAS @ image.affine)
    row, column = np.indices(shape)
    for height in heights_mm:
        points = corner + height * normal + column[..., None] * across + row[..., None] * down
        index = np.moveaxis(points @ to_index[:3, :3].T + to_index[:3, 3], -1, 0)
        yield np.clip(ndimage.map_coordinates(coefficients, index, order=3, mode="constant", prefilter=False), 0.0, None)


def head_planes(place: Placement, k: int, depths_mm: Float, shape: tuple[int, int] = CT_SHAPE[1:]) -> Float:
    """Hounsfield units of the head phantom on planes at the given depths before and behind slice `k`."""
    return np.stack([paint(place, place.positions[k] + depth * place.normal, shape) for depth in depths_mm])


def paint(place: Placement, corner: Float, shape: tuple[int, int]) -> Float:
    """Paint all bodies over air, in order; edges ramp over one pixel, as an anti-aliased edge does."""
    values = np.full(shape, -1000.0)
    for body in head():
        window = shadow(body, place, corner, shape)
        if window is not None:
            row, column = np.mgrid[window]
            points = corner + place.pixel_mm * (column[..., None] * place.across + row[..., None] * place.down)
            share = inside(body, points, place.pixel_mm)
            values[window] = values[window] * (1 - share) + body.hounsfield * share
    return values


def shadow(body: Ellipsoid, place: Placement, corner: Float, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of a plane that a body can reach; None where it stays clear of the plane."""
    reach, away = max(body.radii) + place.pixel_mm, np.asarray(body.centre) - corner
    if abs(float(away @ place.normal)) > reach:
        return None
    middle = away @ np.stack([place.down, place.across], axis=1)
    first = np.clip(np.floor((middle - reach) / place.pixel_mm).astype(int), 0, shape)
    last = np.clip(np.ceil((middle + reach) / place.pixel_mm).astype(int) + 1, 0, shape)
    return (slice(first[0], last[0]), slice(first[1], last[1])) if (first < last).all() else None


def inside(body: Ellipsoid, points: Float, blur_mm: float) -> Float:
    """Share of a pixel that the ellipsoid fills, from the first-order distance to its surface."""
    x, y, z = np.moveaxis(points - np.asarray(body.centre), -1, 0)
    c, s = np.cos(np.deg2rad(body.yaw_deg)), np.sin(np.deg2rad(body.yaw_deg))
    a, b, h = body.radii
    u, v, w = (c * x + s * y) / a, (c * y - s * x) / b, z / h
    level = np.sqrt(u * u + v * v + w * w)
    slope = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / h) ** 2)
    distance = (1 - level) * level / np.maximum(slope, 1e-9)
    return np.asarray(np.where(level < 1e-3, 1.0, np.clip(0.5 + distance / blur_mm, 0.0, 1.0)))


def head() -> tuple[Ellipsoid, ...]:
    """List the bodies of the head as a painter lays them; left is +x, back is +y, head is +z. The bead marks the left."""
    return (
        Ellipsoid((0, 22, -110), (56, 60, 80), 45),  # neck
        Ellipsoid((0, -42, -72), (58, 58, 62), 45),  # face
        Ellipsoid((0, -96, -62), (11, 17, 20), 45),  # nose
        Ellipsoid((0, 0, 0), (78, 98, 92), 45),  # scalp
        *(Ellipsoid((side * 80, 14, -44), (8, 16, 26), 20, side * 20) for side in (-1, 1)),  # ears
        Ellipsoid((0, 0, 2), (72, 92, 87), 1250),  # outer table, diploe, inner table
        Ellipsoid((0, 0, 2), (70, 90, 85), 550),
        Ellipsoid((0, 0, 2), (67.5, 87.5, 82.5), 1250),
        Ellipsoid((0, 0, 2), (65.5, 85.5, 80.5), 8),  # fluid around the brain
        *_brain(),
        *(part for side in (-1, 1) for part in _side(side)),
        Ellipsoid((0, -22, -42), (19, 15, 11), 750),  # sphenoid bone and its sinus
        Ellipsoid((0, -23, -43), (13, 11, 8), -1000),
        Ellipsoid((0, -68, -72), (13, 34, 24), 350),  # nose cavity with its septum
        Ellipsoid((0, -70, -72), (11, 33, 22), -1000),
        Ellipsoid((0, -66, -72), (1.2, 32, 23), 300),
        Ellipsoid((-36, 14, 20), (9, 13, 8), 68, 15),  # a bleeding on the right
        Ellipsoid((80, -8, 20), (4.5, 4.5, 4.5), 1500),  # the bead on the left
    )


def _brain() -> tuple[Ellipsoid, ...]:
    """Everything inside the fluid that is not paired bone or air."""
    return (
        Ellipsoid((0, 0, 3), (62.5, 82.5, 77), 39),  # cortex
        *(Ellipsoid((side * 30, -2, 9), (26, 66, 55), 29) for side in (-1, 1)),  # white matter
        Ellipsoid((0, 0, 28), (1.2, 80, 48), 55),  # falx
        *(Ellipsoid((side * 13, -2, 6), (11, 18, 11), 38, side * 15) for side in (-1, 1)),  # deep grey matter
        *(Ellipsoid((side * 11, -8, 16), (6, 30, 10), 6, side * 9) for side in (-1, 1)),  # lateral ventricles
        *(Ellipsoid((side * 21, 32, 9), (6, 17, 8), 6, side * -14) for side in (-1, 1)),  # their back horns
        *(Ellipsoid((side * 20, 27, 9), (2.5, 4, 2.5), 220) for side in (-1, 1)),  # calcified choroid plexus
        Ellipsoid((0, 0, 0), (2.6, 14, 10), 6),  # third ventricle
        Ellipsoid((0, 21, 3), (2.5, 3.5, 2.5), 160),  # pineal gland
        Ellipsoid((0, 38, -34), (48, 35, 26), 8),  # fluid, then cerebellum
        Ellipsoid((0, 38, -35), (46, 33, 24), 38),
        Ellipsoid((0, 20, -52), (13, 12, 42), 32),  # brain stem
        Ellipsoid((0, 31, -30), (6, 6, 9), 6),  # fourth ventricle
    )


def _side(side: int) -> tuple[Ellipsoid, ...]:
    """Paired bone, air and orbit of one side: -1 is right, 1 is left."""
    cells = np.random.default_rng(7).uniform(-1, 1, (22, 3)) * (7, 13, 16)
    return (
        Ellipsoid((side * 40, 15, -42), (27, 9, 9), 1300, side * -35),  # petrous bone
        Ellipsoid((side * 60, 32, -54), (12, 18, 22), 800),  # mastoid with its cells
        *(Ellipsoid((side * (60 + x), 32 + y, -54 + z), (2.6, 3.2, 3.0), -850) for x, y, z in cells),
        Ellipsoid((side * 70, 13, -46), (16, 3.5, 3.5), -1000, side * -10),  # ear canal
        Ellipsoid((side * 9, -85, -8), (11, 7, 12), 1000),  # frontal sinus
        Ellipsoid((side * 9, -85, -8), (9, 4.5, 9.5), -1000),
        Ellipsoid((side * 31, -62, -40), (22, 29, 20), 900),  # orbit: wall, fat, eye, lens, nerve
        Ellipsoid((side * 31, -69, -40), (20, 32, 18), -90),
        Ellipsoid((side * 31, -80, -40), (12.5, 12.5, 12.5), 12),
        Ellipsoid((side * 31, -90, -40), (4.5, 2.2, 4.5), 90),
        Ellipsoid((side * 26, -54, -40), (2.6, 15, 2.6), 38, side * 20),
        Ellipsoid((side * 27, -60, -76), (17, 18, 17), 700),  # maxillary sinus
        Ellipsoid((side * 27, -60, -76), (14.5, 15.5, 14.5), -1000),
    )


def circle(rows: int, columns: int) -> NDArray[np.bool_]:
    """Pixels that the scanner reconstructs; outside it writes padding."""
    row, column = np.indices((rows, columns))
    return np.asarray(np.hypot(row - (rows - 1) / 2, column - (columns - 1) / 2) <= columns / 2)


def as_int16(values: Float) -> Pixels:
    """Round to whole grey levels."""
    return np.rint(values).astype(np.int16)


def series_files(name: str, stored: Pixels, place: Placement) -> Iterator[tuple[str, bytes]]:
    """Yield one DICOM file per slice, from foot to head."""
    for k, pixels in enumerate(stored):
        dataset = mr_header() if name.startswith("mr") else ct_header()
        add_common(dataset, name, k)
        add_place(dataset, place, k)
        add_pixels(dataset, pixels)
        yield f"{name}/dicom/{k + 1:03d}.dcm", dicom_bytes(dataset)


def mr_header() -> Dataset:
    """Begin the header of an MR image: a spoiled gradient echo."""
    ds = Dataset()
    ds.SOPClassUID, ds.Modality, ds.PatientName, ds.PatientID = MRImageStorage, "MR", "SAMPLE^BRAIN", "SAMPLE-MR"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.SeriesDescription, ds.ProtocolName = "T1 oblique 5 mm", "SAMPLE T1"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", "SP", "", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength, ds.FlipAngle = "250", "4.6", "1", "70"
    ds.MagneticFieldStrength, ds.ImagedNucleus, ds.NumberOfAverages = "1.5", "1H", "1"
    ds.SpacingBetweenSlices = f"{THICKNESS_MM}"
    ds.WindowCenter, ds.WindowWidth = "450", "900"
    ds.PixelRepresentation, ds.BitsStored = 0, 12
    return ds


def ct_header() -> Dataset:
    """Begin the header of a CT image: an axial head scan with a tilted gantry."""
    ds = Dataset()
    ds.SOPClassUID, ds.Modality, ds.PatientName, ds.PatientID = CTImageStorage, "CT", "SAMPLE^HEAD", "SAMPLE-CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesDescription, ds.ProtocolName = "Head tilted 5 mm", "SAMPLE HEAD"
    ds.ScanOptions, ds.KVP, ds.XRayTubeCurrent, ds.ExposureTime = "AXIAL MODE", "120", "200", "1000"
    ds.GantryDetectorTilt = f"{CT_TILT_DEG}"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = f"{CT_INTERCEPT}", "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "40", "90"
    ds.PixelRepresentation, ds.BitsStored = 1, 16
    ds.PixelPaddingValue = CT_PADDING
    return ds


def add_common(ds: Dataset, name: str, k: int) -> None:
    """Add patient, study, series and equipment, all invented, and the identifiers."""
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPInstanceUID = uid(f"{name}/{k}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(f"{name}/study"), uid(f"{name}/series")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid(f"{name}/frame"), ""
    ds.PatientBirthDate, ds.PatientSex, ds.PatientPosition = "", "O", "HFS"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260101"
    ds.StudyTime = ds.SeriesTime = "120000"
    ds.AcquisitionTime = ds.ContentTime = f"1200{k:02d}"
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.StudyID = "", "", "1"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "2", "1", f"{k + 1}"
    ds.StudyDescription, ds.BodyPartExamined = "medrecon sample data", "HEAD"
    ds.Manufacturer, ds.ManufacturerModelName = "medrecon", "simulated scanner"
    ds.SoftwareVersions = "1"
    ds.ImageComments = "Simulated. Research use, not for diagnosis."
    ds.BurnedInAnnotation = "NO"


def add_place(ds: Dataset, place: Placement, k: int) -> None:
    """Add where the slice stands."""
    ds.ImageOrientationPatient = [decimal(v) for v in (*place.across, *place.down)]
    ds.ImagePositionPatient = [decimal(v) for v in place.positions[k]]
    ds.SliceLocation = decimal(float(place.positions[k] @ place.normal))
    ds.PixelSpacing = [f"{place.pixel_mm}"] * 2
    ds.SliceThickness = f"{THICKNESS_MM}"


def add_pixels(ds: Dataset, pixels: Pixels) -> None:
    """Add the pixels as they are stored."""
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.HighBit = 16, ds.BitsStored - 1
    ds.PixelData = pixels.astype("<i2").tobytes()


def dicom_bytes(ds: Dataset) -> bytes:
    """Encode as explicit little endian; the file meta names this script and not the library's version."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = uid("implementation"), "MEDRECON_SAMPLE"
    buffer = io.BytesIO()
    FileDataset("", ds, file_meta=meta, preamble=b"\0" * 128).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def nifti(voxels: Pixels, origin_lps_mm: Float, axes: tuple[Float, Float, Float], voxel_mm: float) -> bytes:
    """Encode voxels (slice, row, column) as a compressed NIfTI whose bytes hold neither a time nor a file name."""
    affine = np.eye(4)
    affine[:3, :3] = voxel_mm * np.stack(axes, axis=1)
    affine[:3, 3] = origin_lps_mm
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), LPS_FROM_RAS @ affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as stream:
        stream.write(image.to_bytes())
    return buffer.getvalue()


def uid(name: str) -> UID:
    """Make an identifier from a name: the same name gives the same one for ever."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'medrecon-sample/{name}').int}")


def decimal(value: float) -> str:
    """Write a decimal string of at most 16 characters."""
    return f"{value:.9f}"[:16] if abs(value) < 100 else f"{value:.6f}"


if __name__ == "__main__":
    main()
