"""fastMRI volumes as NYU distributes them: HDF5 with k-space, of which only the reconstructed magnitude is read.

``file1000001.h5`` with ``reconstruction_rss`` (slices, rows, columns) or ``reconstruction_esc``, the voxel size in its
``ismrmrd_header`` and the patient's number, already a hash, in its attributes: one patient's volumes are held out together.
Knees, brains, prostates. Zbontar et al. 2018, arXiv:1811.08839. Files without a reconstruction (the test parts) are left out.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from medrecon.core.errors import InputError
from medrecon.core.grid import Grid
from medrecon.core.reading import ReadOptions
from medrecon.core.volume import Volume
from medrecon.readers import _hdf5
from medrecon.training.loaders import Case

_IMAGES = ("reconstruction_rss", "reconstruction_esc", "rss")
_HEADER = "ismrmrd_header"
_RECON_SPACE = re.compile(r"<reconSpace>(.*?)</reconSpace>", re.DOTALL)
_MOST_HEADER_BYTES = 4 * 2**20


def cases(path: Path, options: ReadOptions) -> tuple[Case, ...]:  # noqa: ARG001 (nothing here can be allowed)
    """List the files that hold a reconstruction."""
    found = []
    for file in sorted(path.rglob("*.h5")):
        place = _image(file)
        if place is not None:
            found.append(Case(file.relative_to(path).as_posix(), partial(_volume, file, place), _patient(file)))
    return tuple(found)


def _image(file: Path) -> _hdf5.Place | None:
    places = (_hdf5.locate(file, name) for name in _IMAGES)
    return next((place for place in places if place is not None and len(_hdf5.shape_of(place)) == 3), None)


def _patient(file: Path) -> str:
    with _hdf5.opened(file) as found:
        return str(found.attrs.get("patient_id", ""))


def _volume(file: Path, place: _hdf5.Place) -> Volume:
    pixels = _hdf5.frames(place, np.arange(_hdf5.shape_of(place)[0])).astype(np.float32)
    shape = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
    return Volume(pixels, Grid.from_parts(shape, _spacing_mm(_header(file)), (0, 0, 0)))


def _header(file: Path) -> str:
    """Return the ISMRMRD header of a file, bounded."""
    with _hdf5.opened(file) as found:
        data = found.get(_HEADER)
        if data is None or data.shape != () or data.id.get_storage_size() > _MOST_HEADER_BYTES:
            raise _no_size()
        text = data[()]
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _spacing_mm(header: str) -> tuple[float, float, float]:
    """Return (slice, row, column) from the field of view and the matrix; a 2D scan's depth is that of one slice."""
    space = _RECON_SPACE.search(header)
    if space is None:
        raise _no_size()
    field, matrix = (_triple(space.group(1), name) for name in ("fieldOfView_mm", "matrixSize"))
    depth = field[2] / matrix[2] if matrix[2] > 1 else field[2]
    return depth, field[0] / matrix[0], field[1] / matrix[1]  # rows run along the readout, x


def _triple(text: str, name: str) -> tuple[float, float, float]:
    block = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    found = dict(re.findall(r"<([xyz])>\s*([0-9.eE+-]+)\s*</\1>", block.group(1))) if block else {}
    try:
        x, y, z = (float(found[axis]) for axis in "xyz")
    except (KeyError, ValueError) as error:
        raise _no_size() from error
    if min(x, y, z) <= 0:
        raise _no_size()
    return x, y, z


def _no_size() -> InputError:
    return InputError("TRN-CASE", "a file of the data set does not say how large its voxels are", "It is left out.")
