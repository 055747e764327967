"""Measures a volume as an X-ray scanner would: projections along a circle or a helix, with photon noise, for tests and training.

The projections come from the forward model that reconstruction inverts, so a result on them flatters. No patient text of
the volume's source is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from medrecon.config import assigned
from medrecon.core.errors import UsageError
from medrecon.core.grid import Float64
from medrecon.core.hounsfield import HounsfieldCalibration
from medrecon.core.projections import Measured, ProjectionScan
from medrecon.core.reading import Positive, ReadOptions
from medrecon.core.settings import Config, parse
from medrecon.core.source import Source
from medrecon.core.views import Detector, ViewGeometry
from medrecon.core.volume import Quantity, Volume

_HELICAL_ROWS = 32
_HELICAL_OVERLAP = 0.8  # of the rows' height at the axis, that the table moves in a turn
_MARGIN_PX = 2  # about the volume's shadow on the detector
_LARGEST_SIDE = 4096


class ScannerConfig(Config):
    """An X-ray scanner and how it is used."""

    geometry: Literal["cone", "fan", "parallel", "helical"] = Field("cone", description="kind of beam and path")
    views: int = Field(360, ge=3, le=100_000, description="number of projections; for a helix, of each turn")
    arc_deg: float = Field(360.0, gt=0, le=360, description="arc that the views span, the last step included; a helix turns on")
    first_deg: float = Field(
        0.0, allow_inf_nan=False, description="of the first view; at 0 the source is in front of the patient"
    )
    sid_mm: Positive = Field(1000.0, description="source to axis")
    sdd_mm: Positive = Field(1500.0, description="source to detector")
    rows: Annotated[int, Field(ge=1, le=_LARGEST_SIDE)] | None = Field(None, description="of the detector; as the volume needs")
    columns: Annotated[int, Field(ge=1, le=_LARGEST_SIDE)] | None = Field(
        None, description="of the detector; as the volume needs"
    )
    pixel_mm: Positive | None = Field(None, description="at the detector; as the voxels appear there, where not given")
    offset_u_mm: float = Field(0.0, allow_inf_nan=False, description="detector beside the central ray, along its columns")
    curved: bool = Field(False, description="detector on a cylinder about the source")
    pitch_mm_per_turn: Positive | None = Field(
        None, description="of a helix; 0.8 of the rows' height at the axis where not given"
    )
    water_per_mm: Positive = Field(0.0206, description="attenuation of water, for volumes in Hounsfield units; 60 keV")
    photons: Positive | None = Field(None, description="in air, for each pixel; no noise where not given")
    electronic: float = Field(0.0, ge=0, allow_inf_nan=False, description="noise of the electronics, photons")
    counts: bool = Field(False, description="leave photons as they are counted, instead of line integrals")
    seed: int = Field(0, ge=0, description="of the noise")


def simulate_projections(
    volume: Volume, scanner: ScannerConfig | None = None, isocentre_lps_mm: tuple[float, float, float] | None = None
) -> ProjectionScan:
    """Take projections of a volume.

    Parameters
    ----------
    volume : Volume
        In Hounsfield units or attenuation per mm; what was never seen counts as air.
    scanner : ScannerConfig, optional
    isocentre_lps_mm : (3,), optional
        The volume's centre where not given.

    Raises
    ------
    UsageError
        ``ARG-SCANNER`` for values of unknown meaning, and for counts without a number of photons.
    GeometryError
        ``PRJ-GEOM`` for a scanner that cannot be.
    """
    import torch

    from medrecon.operators.xray_transform import XRayTransform
    from medrecon.preprocess.noise import add_noise, noisy_counts

    scanner = scanner or ScannerConfig()
    if scanner.counts and scanner.photons is None:
        raise UsageError("ARG-SCANNER", "no scanner counts without photons", "Give their number: photons=100000.")
    x = attenuation_of(volume, scanner.water_per_mm)
    views = plan_views(volume, scanner, isocentre_lps_mm)
    pixels = XRayTransform(views, volume.grid).forward(torch.tensor(x)).numpy()
    measures = Measured.COUNTS if scanner.counts else Measured.LINE_INTEGRALS
    if scanner.photons is not None:
        detect = noisy_counts if scanner.counts else add_noise
        pixels = detect(pixels, scanner.photons, scanner.electronic, scanner.seed)
    return ProjectionScan(pixels, views, measures, source=Source(modality=volume.source.modality))


def attenuation_of(volume: Volume, water_per_mm: float) -> np.ndarray:
    """Return the voxels as attenuation in 1/mm, 0 where the volume was never seen."""
    if volume.quantity is Quantity.ARBITRARY:
        raise UsageError(
            "ARG-SCANNER", "X-rays cannot be followed through arbitrary values", "Say what they are: --quantity hounsfield."
        )
    voxels = volume.voxels
    if volume.quantity is Quantity.HOUNSFIELD:
        voxels = HounsfieldCalibration(water_per_mm).to_attenuation(voxels)
    usable = np.isfinite(voxels) if volume.seen is None else np.isfinite(voxels) & volume.seen
    return np.where(usable, voxels, np.float32(0))


def plan_views(
    volume: Volume, scanner: ScannerConfig, isocentre_lps_mm: tuple[float, float, float] | None = None
) -> ViewGeometry:
    """Place source and detector so that, unless the scanner says otherwise, every view sees the whole volume."""
    grid = volume.grid
    isocentre = grid.to_lps((np.asarray(grid.shape) - 1) / 2) if isocentre_lps_mm is None else np.asarray(isocentre_lps_mm)
    detector = _detector(scanner, grid.corners_lps_mm() - isocentre, min(grid.spacing_mm))
    angles = np.radians(scanner.first_deg + np.arange(scanner.views) * scanner.arc_deg / scanner.views)
    if scanner.geometry == "parallel":
        return ViewGeometry.parallel(
            np.mod(angles, 2 * np.pi), detector, offset_u_mm=scanner.offset_u_mm, isocentre_lps_mm=isocentre
        )
    if scanner.geometry == "helical":
        return _helix(scanner, detector, grid.corners_lps_mm(), isocentre)
    return ViewGeometry.cone(
        np.mod(angles, 2 * np.pi),
        scanner.sid_mm,
        scanner.sdd_mm,
        detector,
        offset_u_mm=scanner.offset_u_mm,
        isocentre_lps_mm=isocentre,
    )


def simulate_projection_file(
    volume: Path,
    out: Path,
    scanner: ScannerConfig | None = None,
    form: str = "stack",
    options: ReadOptions | None = None,
) -> Path:
    """Take projections of a volume file and write them into the folder `out`, which is returned.

    Parameters
    ----------
    form : str
        ``stack`` (our YAML geometry, which keeps the place in the patient) or ``rtk``, whose isocentre is the patient
        space's origin.

    Raises
    ------
    UsageError
        ``ARG-NAME`` for an unknown format, ``ARG-INPUT`` where `volume` holds no volume; those of `simulate_projections`.
    """
    from medrecon.readers import read
    from medrecon.writers import _projections_rtk, _projections_stack

    if form not in ("stack", "rtk"):
        raise UsageError("ARG-NAME", f"projections cannot be written as {form[:40]!r}", "Known: stack, rtk.")
    known = read(volume, None, options)
    if not isinstance(known, Volume):
        raise UsageError("ARG-INPUT", "projections can be simulated from a volume only", "Give a NIfTI, NRRD or MetaImage file.")
    scan = simulate_projections(known, scanner, (0.0, 0.0, 0.0) if form == "rtk" else None)
    out.parent.mkdir(parents=True, exist_ok=True)
    (_projections_rtk if form == "rtk" else _projections_stack).write(scan, out)
    return out


def load_scanner(assignments: tuple[str, ...] = ()) -> ScannerConfig:
    """Build the settings of a scanner from ``name=value`` assignments over the defaults; raise `UsageError` (``CFG-VALUE``)."""
    return parse(ScannerConfig, assigned(assignments), "scanner settings")


def _detector(scanner: ScannerConfig, corners_mm: Float64, voxel_mm: float) -> Detector:
    """Fit a detector to the shadow of the volume's corners, given relative to the isocentre."""
    diverging = scanner.geometry != "parallel"
    magnification = scanner.sdd_mm / scanner.sid_mm if diverging else 1.0
    pixel = scanner.pixel_mm or voxel_mm * magnification
    radius, height = float(np.hypot(corners_mm[:, 0], corners_mm[:, 1]).max()), float(np.abs(corners_mm[:, 2]).max())
    if diverging and radius >= scanner.sid_mm:
        raise UsageError(
            "ARG-SCANNER", f"the source, {scanner.sid_mm:g} mm from the axis, would turn inside the volume", "Enlarge sid_mm."
        )
    across = scanner.sdd_mm * radius / np.sqrt(scanner.sid_mm**2 - radius**2) if diverging else radius
    along = height * scanner.sdd_mm / (scanner.sid_mm - radius) if diverging else height
    columns = scanner.columns or _pixels(2 * (across + abs(scanner.offset_u_mm)), pixel)
    default_rows = {"fan": 1, "helical": _HELICAL_ROWS}.get(scanner.geometry) or _pixels(2 * along, pixel)
    radius_mm = scanner.sdd_mm if scanner.curved and diverging else None
    return Detector((scanner.rows or default_rows, columns), (pixel, pixel), radius_mm)


def _pixels(size_mm: float, pixel_mm: float) -> int:
    return min(int(np.ceil(size_mm / pixel_mm)) + 2 * _MARGIN_PX, _LARGEST_SIDE)


def _helix(scanner: ScannerConfig, detector: Detector, corners_lps_mm: Float64, isocentre: Float64) -> ViewGeometry:
    """Turn from below the volume to above it, half a turn further on both sides."""
    pitch = scanner.pitch_mm_per_turn or _HELICAL_OVERLAP * detector.size_mm[0] * scanner.sid_mm / scanner.sdd_mm
    low, high = float(corners_lps_mm[:, 2].min()), float(corners_lps_mm[:, 2].max())
    turns = (high - low) / pitch + 1
    count = int(np.ceil(turns * scanner.views))
    return ViewGeometry.helical(
        np.radians(scanner.first_deg) + np.arange(count) * 2 * np.pi / scanner.views,
        scanner.sid_mm,
        scanner.sdd_mm,
        detector,
        pitch_mm_per_turn=pitch,
        z0_mm=low - pitch / 2,
        offset_u_mm=scanner.offset_u_mm,
        axis_lps_mm=(float(isocentre[0]), float(isocentre[1])),
    )
