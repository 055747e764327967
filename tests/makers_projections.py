"""Scans of a phantom that tells every mirror image apart, and files of each format written from its published facts.

Nothing here uses a reader or a writer of the package: bytes are put together with struct, numpy, h5py and pydicom.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from medrecon.core.projections import ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from tests.makers_xray import Ellipsoids, lettered

SID_MM, SDD_MM = 200.0, 300.0
ROWS, COLUMNS, ROW_PITCH_MM, COLUMN_PITCH_MM = 20, 36, 4.0, 3.0
VIEWS = 8
Float32 = NDArray[np.float32]


def phantom() -> Ellipsoids:
    """R at the right, L at the left, F in front, G behind, a ball at the head: no two mirror images look alike."""
    letters = lettered()
    return replace(letters, densities=0.05 * letters.densities)


def angles_rad(count: int = VIEWS) -> NDArray[np.float64]:
    """Uneven enough to be told from their reverse, over a full turn."""
    angles: NDArray[np.float64] = np.radians(10.0 + 360.0 / count * np.arange(count))
    return angles


def cone_views(**more: float) -> ViewGeometry:
    """A cone beam with oblong pixels on an oblong detector."""
    return ViewGeometry.cone(angles_rad(), SID_MM, SDD_MM, detector(), **more)


def parallel_views(count: int = VIEWS, pitch_mm: float = 2.0) -> ViewGeometry:
    """A parallel beam over half a turn, as at a beamline."""
    return ViewGeometry.parallel(np.pi / count * np.arange(count), Detector((ROWS + 8, COLUMNS), (pitch_mm, pitch_mm)))


def detector() -> Detector:
    """The detector of `cone_views`."""
    return Detector((ROWS, COLUMNS), (ROW_PITCH_MM, COLUMN_PITCH_MM))


def scanned(views: ViewGeometry) -> ProjectionScan:
    """Exact line integrals of the phantom."""
    return ProjectionScan(phantom().project(views), views)


def mismatch(scan: ProjectionScan) -> float:
    """How far the pixels are from what the phantom, standing upright in the patient, looks like in the scan's geometry."""
    return float(np.abs(scan.pixels - phantom().project(scan.views)).max())


def sources(scan: ProjectionScan) -> NDArray[np.float64]:
    """Where the focal spots are, or for a parallel beam the directions from which it comes."""
    views = scan.views
    return np.asarray(-views.towards_detector if views.is_parallel else views.sources_lps_mm)


def mirrored(scan: ProjectionScan) -> ProjectionScan:
    """The same scan with its columns the wrong way round."""
    return replace(scan, pixels=scan.pixels[:, :, ::-1])


def upside_down(scan: ProjectionScan) -> ProjectionScan:
    """The same scan with its rows the wrong way round."""
    return replace(scan, pixels=scan.pixels[:, ::-1])


def write_text(path: Path, text: str) -> Path:
    """Write text and return where."""
    path.write_text(text, encoding="utf-8")
    return path


def write_mha(path: Path, pixels: NDArray[np.generic], pitch_mm: tuple[float, float], origin_mm: tuple[float, float]) -> Path:
    """A MetaImage stack, x = columns, y = rows, z = views; `origin_mm` is (x, y) of pixel (0, 0)."""
    views, rows, columns = pixels.shape
    types = {"f4": "MET_FLOAT", "u2": "MET_USHORT"}
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        f"Offset = {origin_mm[0]} {origin_mm[1]} 0\nElementSpacing = {pitch_mm[1]} {pitch_mm[0]} 1\n"
        f"DimSize = {columns} {rows} {views}\nElementType = {types[pixels.dtype.str[1:]]}\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + pixels.tobytes())
    return path


def rtk_xml(gantry_deg: list[float], sid_mm: float = SID_MM, sdd_mm: float = SDD_MM, extra: str = "") -> str:
    """RTK's geometry file as its documentation describes it: common values once, zeros left out, no matrices."""
    views = "".join(f"  <Projection><GantryAngle>{angle!r}</GantryAngle></Projection>\n" for angle in gantry_deg)
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n<RTKThreeDCircularGeometry version="3">\n'
        f"  <SourceToIsocenterDistance>{sid_mm}</SourceToIsocenterDistance>\n"
        f"  <SourceToDetectorDistance>{sdd_mm}</SourceToDetectorDistance>\n{extra}{views}</RTKThreeDCircularGeometry>\n"
    )


def centred_origin_mm() -> tuple[float, float]:
    """(x, y) of pixel (0, 0) of a centred detector."""
    return -(COLUMNS - 1) / 2 * COLUMN_PITCH_MM, -(ROWS - 1) / 2 * ROW_PITCH_MM


def degrees() -> list[float]:
    """The angles of `cone_views` in degrees."""
    return [float(angle) for angle in np.degrees(angles_rad())]


def write_data_exchange(path: Path, scan: ProjectionScan, theta: NDArray[np.float64], units: str | None = "degrees") -> Path:
    """Counts of a scan whose rows go down and whose columns are seen from behind: row 0 at the top."""
    counts, flat, dark = as_counts(scan)
    with h5py.File(path, "w") as file:
        group = file.create_group("exchange")
        group["data"] = counts[:, ::-1, ::-1]
        group["data_white"] = np.stack([flat, flat])[:, ::-1, ::-1]
        group["data_dark"] = np.stack([dark, dark])[:, ::-1, ::-1]
        group["theta"] = theta
        if units is not None:
            group["theta"].attrs["units"] = units
    return path


def write_nxtomo(path: Path, scan: ProjectionScan, theta_deg: NDArray[np.float64], frames_in: Path | None = None) -> Path:
    """NXtomo: dark, flat, half of the views, an invalid frame, the other half, flat; the angle of every frame."""
    counts, flat, dark = as_counts(scan)
    half = len(counts) // 2
    frames = [dark, flat, *counts[:half], flat * 0, *counts[half:], flat]
    keys = [2, 1, *[0] * half, 3, *[0] * (len(counts) - half), 1]
    angles = [0.0, 0.0, *theta_deg[:half], 0.0, *theta_deg[half:], 0.0]
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry/instrument/detector")
        if frames_in is None:
            detector["data"] = np.stack(frames)[:, ::-1, ::-1]
        else:
            with h5py.File(frames_in, "w") as other:
                other["frames"] = np.stack(frames)[:, ::-1, ::-1]
            detector["data"] = h5py.ExternalLink(frames_in.name, "/frames")
        detector["image_key"] = np.array(keys)
        for axis in ("x", "y"):
            detector[f"{axis}_pixel_size"] = scan.views.detector.pitch_mm[0] * 1000
            detector[f"{axis}_pixel_size"].attrs["units"] = "um"
        file["entry/angle"] = np.array(angles)
        file["entry/angle"].attrs["units"] = "deg"
        file["entry/sample/rotation_angle"] = h5py.SoftLink("/entry/angle")
    return path


def as_counts(scan: ProjectionScan, open_beam: float = 50_000.0, offset: float = 100.0) -> tuple[Float32, Float32, Float32]:
    """Counts, open beam and dark image of a scan; the beam is brighter on one side, so that a flipped flat is noticed."""
    rows, columns = scan.views.detector.shape
    beam = open_beam * np.linspace(0.7, 1.0, columns)[None, :] * np.linspace(0.8, 1.0, rows)[:, None]
    counts = offset + beam * np.exp(-scan.pixels.astype(np.float64))
    return counts.astype(np.float32), (beam + offset).astype(np.float32), np.full((rows, columns), offset, np.float32)


def helsinki_fields(scan: ProjectionScan, angles_deg: NDArray[np.float64]) -> dict[str, object]:
    """The structure CtDataLimited of the challenge, distances in mm."""
    return {
        "type": "2d",
        "sinogram": scan.pixels[:, 0, :].astype(np.float64),
        "parameters": {
            "distanceSourceOrigin": SID_MM,
            "distanceSourceDetector": SDD_MM,
            "distanceUnit": "mm",
            "pixelSizePost": COLUMN_PITCH_MM,
            "angles": angles_deg,
        },
    }


def write_matlab_7(path: Path, fields: dict[str, object], name: str = "CtDataLimited") -> Path:
    """MATLAB 7.3: HDF5 behind a block of 512 bytes, arrays transposed, texts as 16-bit numbers."""
    with h5py.File(path, "w", userblock_size=512) as file:
        _put(file.create_group(name), fields)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116))
    return path


def _put(group: h5py.Group, fields: dict[str, object]) -> None:
    for name, value in fields.items():
        if isinstance(value, dict):
            _put(group.create_group(name), value)
        elif isinstance(value, str):
            group[name] = np.array([[ord(letter)] for letter in value], dtype=np.uint16)
        else:
            group[name] = np.atleast_2d(np.asarray(value, dtype=np.float64)).T


def txrm_streams(scan: ProjectionScan, angles_deg: NDArray[np.float64]) -> dict[str, bytes]:
    """The streams of a .txrm with an open beam; the pixel size is that of a voxel, the distance behind the axis negative."""
    counts, flat, _ = as_counts(scan, offset=0.0)
    rows, columns = scan.views.detector.shape
    n = len(counts)
    whole = {"NoOfImages": n, "ImageWidth": columns, "ImageHeight": rows, "DataType": 10, "AcquisitionMode": 0, "XrayGeometry": 1}
    streams = {f"ImageInfo/{name}": struct.pack("<i", value) for name, value in whole.items()}
    streams["ImageInfo/PixelSize"] = struct.pack("<f", COLUMN_PITCH_MM * SID_MM / SDD_MM * 1000)
    streams["ImageInfo/Angles"] = angles_deg.astype("<f4").tobytes()
    streams["ImageInfo/StoRADistance"] = np.full(n, -SID_MM, "<f4").tobytes()
    streams["ImageInfo/DtoRADistance"] = np.full(n, SDD_MM - SID_MM, "<f4").tobytes()
    streams |= {f"ImageData{k // 100 + 1}/Image{k + 1}": image.astype("<f4").tobytes() for k, image in enumerate(counts)}
    return streams | {"ReferenceData/Image": flat.astype("<f4").tobytes(), "ReferenceData/DataType": struct.pack("<i", 10)}


def curved_views(count: int = VIEWS, pitch_mm_per_turn: float = 6.0, flying: bool = False) -> ViewGeometry:
    """A helix with a detector about the focal centre, a quarter of a column off; the focal spot may fly in all directions."""
    panel = Detector((ROWS, COLUMNS), (ROW_PITCH_MM, COLUMN_PITCH_MM), curve_radius_mm=SDD_MM)
    helix = ViewGeometry.helical(
        angles_rad(count),
        SID_MM,
        SDD_MM,
        panel,
        pitch_mm_per_turn=pitch_mm_per_turn,
        z0_mm=-3.0,
        offset_u_mm=0.25 * COLUMN_PITCH_MM,
    )
    if not flying:
        return helix
    phi, z, rho = flown(count)
    return replace(helix, sources_lps_mm=np.column_stack([rho * np.sin(phi), -rho * np.cos(phi), z]))


def flown(count: int) -> NDArray[np.float64]:
    """Angle, height and radius (3, views) of a focal spot that jumps from view to view of `curved_views`."""
    jump = np.arange(count) % 2 - 0.5
    return np.stack([angles_rad(count) + 0.01 * jump, -3.0 + 6.0 * np.arange(count) / count + jump, SID_MM + 2.0 * jump])


def write_ct_pd(folder: Path, scan: ProjectionScan, flying: bool = False, typed: bool = True, position: str = "") -> list[Path]:
    """One file for each view: transposed, columns from the last to the first, focal centre in cylinder coordinates.

    Values of private tags are 32-bit floats; where `typed` is False their type is not told (UN), as in real files.
    """
    helix = scan.views
    slope, intercept = 0.0001, -0.5
    paths = []
    for k, image in enumerate(scan.pixels):
        data = dicom_base("CT", "1.2.840.10008.5.1.4.1.1.2", k + 1)
        raw = np.round((image.T[::-1] - intercept) / slope).astype("<u2")
        put_pixels(data, raw[None])
        if position:
            data.PatientPosition = position
        data.RescaleSlope, data.RescaleIntercept = str(slope), str(intercept)
        z0 = -3.0 + 6.0 * k / len(scan.pixels)
        floats = {
            0x70291002: [COLUMN_PITCH_MM],
            0x70291006: [ROW_PITCH_MM],
            0x70311001: [angles_rad(len(helix))[k]],
            0x70311002: [z0],
            0x70311003: [SID_MM],
            0x70311031: [SDD_MM],
            0x70311033: [(COLUMNS + 1) / 2 + 0.25, (ROWS + 1) / 2],
        }
        if flying:
            phi, z, rho = (float(one[k]) for one in flown(len(helix)))
            floats |= {0x7033100B: [phi - angles_rad(len(helix))[k]], 0x7033100C: [z - z0], 0x7033100D: [rho - SID_MM]}
        for group in sorted({tag >> 16 for tag in floats} | {0x7041}):
            data.add_new((group, 0x10), "LO", "projections")
        for tag, values in floats.items():
            packed = struct.pack(f"<{len(values)}f", *values)
            data.add_new(tag, "FL" if typed else "UN", ([float(v) for v in values] if typed else packed))
        data.add_new(0x7029100B, "CS" if typed else "UN", "CYLINDRICAL" if typed else b"CYLINDRICAL ")
        for tag, size in ((0x70291010, ROWS), (0x70291011, COLUMNS)):
            data.add_new(tag, "US" if typed else "UN", size if typed else struct.pack("<H", size))
        data.add_new(0x70411001, "DS" if typed else "UN", "0.0192" if typed else b"0.0192")
        paths.append(save_dicom(folder / f"{len(scan.pixels) - k:04d}.dcm", data))
    return paths


def write_xa(path: Path, scan: ProjectionScan, increments_deg: list[float], **changes: object) -> Path:
    """A rotational run: rows to the feet, columns to the patient's left, counts; the angle of the first frame and increments."""
    counts, _, _ = as_counts(scan, open_beam=4000.0, offset=0.0)
    data = dicom_base("XA", "1.2.840.10008.5.1.4.1.1.12.1", 1)
    put_pixels(data, np.round(counts).astype("<u2"), bits_stored=12)
    data.NumberOfFrames = len(counts)
    data.PixelIntensityRelationship = "LIN"
    data.PositionerPrimaryAngle, data.PositionerSecondaryAngle = "-100", "10"
    data.PositionerPrimaryAngleIncrement = [str(step) for step in increments_deg]
    data.DistanceSourceToPatient, data.DistanceSourceToDetector = str(SID_MM), str(SDD_MM)
    data.ImagerPixelSpacing = [str(ROW_PITCH_MM), str(COLUMN_PITCH_MM)]
    for name, value in changes.items():
        setattr(data, name, value)
    return save_dicom(path, data)


def dicom_base(modality: str, sop_class: str, number: int) -> Dataset:
    """Who, what and when; names that no message may show."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = sop_class, f"2.25.4711.{number}"
    data.PatientName, data.PatientID, data.Modality = "Miller^Anna", "19700101", modality
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "2.25.1", f"2.25.2.{len(modality)}", "2.25.3"
    data.InstanceNumber = number
    return data


def put_pixels(data: Dataset, frames: NDArray[np.uint16], bits_stored: int = 16) -> None:
    """Put (frames, rows, columns) of 16 bits into a data set."""
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = frames.shape[1:]
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, bits_stored, bits_stored - 1
    data.PixelData = frames.tobytes()
    data["PixelData"].VR = "OW"


def save_dicom(path: Path, data: Dataset) -> Path:
    """Write Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID("2.25.5")
    data.file_meta = meta
    data.save_as(path, enforce_file_format=True)
    return path


def packed(pixels: NDArray[np.int64]) -> tuple[bytes, bytes]:
    """Varian's predictor, pixel by pixel as it is described: the table of sizes, and the first values with the differences."""
    columns = pixels.shape[1]
    f = [int(value) for value in pixels.ravel()]
    values = b"".join(struct.pack("<i", value) for value in f[: columns + 1])
    codes = []
    for i in range(columns + 1, len(f)):
        difference = f[i] - f[i - 1] - f[i - columns] + f[i - columns - 1]
        code = 0 if -128 <= difference < 128 else 1 if -32768 <= difference < 32768 else 2
        codes.append(code)
        values += struct.pack(f"<{'bhi'[code]}", difference)
    codes += [0] * (-len(codes) % 4)
    table = bytes(a | b << 2 | c << 4 | d << 6 for a, b, c, d in zip(*[iter(codes)] * 4, strict=True))
    return table, values


def write_hnd(path: Path, counts: NDArray[np.int64], angle_deg: float, norm: float = 500.0, plain: bool = False) -> Path:
    """An OBI image: a header of 1024 bytes (512 for .hnc), then the table and the packed values, or 16-bit pixels."""
    rows, columns = counts.shape
    header = bytearray(512 if plain else 1024)
    struct.pack_into("<2I", header, 120, columns, rows)
    for at, value in ((352, COLUMN_PITCH_MM), (360, ROW_PITCH_MM), (432, angle_deg), (440, norm)):
        struct.pack_into("<d", header, at, value)
    body = counts.astype("<u2").tobytes() if plain else b"".join(packed(counts))
    path.write_bytes(bytes(header) + body)
    return path


def obi_xml(fan: str = "FullFan", offset_x_mm: float = 0.0, lateral_mm: float = 0.0, offset_y_mm: float = 0.0) -> str:
    """ProjectionInfo.xml."""
    values = {
        "CalibratedSAD": SID_MM,
        "CalibratedSID": SDD_MM,
        "CalibratedDetectorOffsetX": offset_x_mm,
        "CalibratedDetectorOffsetY": offset_y_mm,
        "DetectorPosLat": lateral_mm,
        "FanType": fan,
    }
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    return f'<?xml version="1.0"?><ProjectionInfo>{inside}</ProjectionInfo>'


def write_xim(
    path: Path, counts: NDArray[np.int64], numbers: dict[str, float], is_packed: bool = True, empty: bool = False
) -> Path:
    """A TrueBeam image; the properties behind the pixels are floats, with a text and a list among them."""
    rows, columns = (0, 0) if empty else counts.shape
    data = struct.pack("<8s6i", b"whatever", 3, columns, rows, 32, 4, int(is_packed))
    if not empty and is_packed:
        table, values = packed(counts)
        data += struct.pack("<i", len(table)) + table + struct.pack("<i", len(values)) + values
        data += struct.pack("<i", 4 * rows * columns)
    elif not empty:
        data += struct.pack("<i", 4 * rows * columns) + counts.astype("<i4").tobytes()
    data += struct.pack("<4i", 3, 7, 8, 9) + struct.pack("<i", len(numbers) + 3)
    for name, value in numbers.items():
        data += _named(name, 1) + struct.pack("<d", value)
    data += _named("Operator", 2) + struct.pack("<i", 6) + b"Miller"
    data += _named("List", 4) + struct.pack("<i2d", 16, 1.0, 2.0)
    data += _named("Count", 0) + struct.pack("<i", 5)
    path.write_bytes(data)
    return path


def _named(name: str, kind: int) -> bytes:
    return struct.pack("<i", len(name)) + name.encode() + struct.pack("<i", kind)


def scan_xml() -> str:
    """Scan.xml of a TrueBeam, with its name space."""
    return (
        '<?xml version="1.0"?><Scan xmlns="http://baden.varian.com/cr.xsd"><Acquisitions>'
        f"<SAD>{SID_MM}</SAD><SID>{SDD_MM}</SID><ImagerSizeX>{COLUMNS}</ImagerSizeX><ImagerResX>{COLUMN_PITCH_MM}</ImagerResX>"
        "</Acquisitions></Scan>"
    )


def write_his(path: Path, integrals: Float32) -> Path:
    """A flat panel's image: 68 bytes, 32 more, 16 bits that are 65536 less the intensity."""
    rows, columns = integrals.shape
    head = struct.pack("<HHHIHHHHHHHdH34s", 0x7000, 68, 100, 100 + 2 * rows * columns, 32, 1, 1, columns, rows, 1, 0, 0.0, 4, b"")
    raw = np.clip(np.round(65536 - 65536 * np.exp(-integrals.astype(np.float64))), 1, 65534).astype("<u2")
    path.write_bytes(head + bytes(32) + raw.tobytes())
    return path


def frames_xml(angles_deg: list[float], u_mm: float, v_mm: float, angle: str = "GantryAngle", centre: str = "UCentre") -> str:
    """_Frames.xml; files that were made anonymous lose a letter of the names."""
    frames = "".join(
        f"<Frame><Seq>{k}</Seq><{angle}>{value}</{angle}><{centre}>{u_mm}</{centre}><VCentre>{v_mm}</VCentre></Frame>"
        for k, value in enumerate(angles_deg)
    )
    return f'<?xml version="1.0" encoding="utf-8"?><ImageSet><Frames>{frames}</Frames></ImageSet>'


def xtekct(changes: dict[str, object] | None = None) -> str:
    """A .xtekct whose first view is at the initial angle 190 degrees, 180 more than ours."""
    values: dict[str, object] = {
        "Name": "probe",
        "Projections": VIEWS,
        "WhiteLevel": 60000,
        "DetectorPixelsX": COLUMNS,
        "DetectorPixelsY": ROWS,
        "DetectorPixelSizeX": COLUMN_PITCH_MM,
        "DetectorPixelSizeY": ROW_PITCH_MM,
        "SrcToObject": SID_MM,
        "SrcToDetector": SDD_MM,
        "InitialAngle": 190.0,
        "AngularStep": 360.0 / VIEWS,
    }
    return "[XTekCT]\n" + "".join(f"{name}={value}\n" for name, value in (values | (changes or {})).items())
