"""Sequences of tracked frames as PLUS writes them, made without the reader: text by hand, pixels by numpy and zlib."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
#: Half a millimetre a pixel, the image's y axis away from the probe; mirrored, as many calibrations are.
CALIBRATION = np.array([[0.5, 0, 0, -3], [0, 0.4, 0, 2], [0, 0, -0.5, 0], [0, 0, 0, 1]])


def at(x: float = 0.0, y: float = 0.0, z: float = 0.0, turn_deg: float = 0.0) -> Matrix:
    """A rigid pose: turned about the x axis, then moved."""
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    return np.array([[1, 0, 0, x], [0, c, -s, y], [0, s, c, z], [0, 0, 0, 1]])


def words(matrix: Matrix) -> str:
    return " ".join(repr(float(value)) for value in matrix.ravel())


def sweep(count: int, step_mm: float = 1.0, turn_deg: float = 0.5) -> list[dict[str, str]]:
    """The fields of frames of a probe that moves along z and turns a little, with a reference body that moves as well."""
    return [
        {
            "ProbeToTrackerTransform": words(at(10, 20, 30 + k) @ at(z=step_mm * k, turn_deg=turn_deg * k)),
            "ProbeToTrackerTransformStatus": "OK",
            "ReferenceToTrackerTransform": words(at(10, 20, 30 + k)),
            "ReferenceToTrackerTransformStatus": "OK",
            "Timestamp": f"{k / 10}",
            "ImageStatus": "OK",
        }
        for k in range(count)
    ]


def write_sequence(
    path: Path,
    pixels: NDArray[np.uint8],
    frames: Sequence[Mapping[str, str]],
    *,
    packed: bool = False,
    raw_beside: str = "",
    extra: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> Path:
    """Write frames (n, rows, columns) with their fields; `extra` are fields of the whole file and may replace others."""
    data = zlib.compress(pixels.tobytes()) if packed else pixels.tobytes()
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(packed),
        **({"CompressedDataSize": str(len(data))} if packed else {}),
        "DimSize": " ".join(map(str, pixels.shape[::-1])),
        "ElementSpacing": "1 1 1",
        "ElementType": "MET_UCHAR",
        "Offset": "0 0 0",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "UltrasoundImageOrientation": "MFA",
        **(extra or {}),
    }
    for k, fields in enumerate(frames):
        header |= {f"Seq_Frame{k:04d}_{name}": value for name, value in fields.items()}
    lines = [f"{key} = {value}" for key, value in header.items() if key not in without]
    lines.append(f"ElementDataFile = {raw_beside or 'LOCAL'}")
    text = ("\n".join(lines) + "\n").encode("latin-1")
    path.write_bytes(text if raw_beside else text + data)
    if raw_beside:
        (path.parent / raw_beside).write_bytes(data)
    return path


def write_config(path: Path, calibration: Matrix = CALIBRATION, cut: str = "") -> Path:
    """Write a PLUS configuration: a calibration, and attributes of its VolumeReconstruction."""
    path.write_text(
        f"""<PlusConfiguration version="2.1">
  <CoordinateDefinitions>
    <Transform From="Image" To="Probe" Matrix="{words(calibration)}" Error="1.6" Date="022312_110631" />
  </CoordinateDefinitions>
  <VolumeReconstruction OutputSpacing="0.5 0.5 0.5" {cut} Interpolation="LINEAR" />
</PlusConfiguration>
""",
        encoding="utf-8",
    )
    return path
