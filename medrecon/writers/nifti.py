"""NIfTI: one gzipped file in mm, its affine as sform, and as qform where a qform can hold it."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from medrecon.core import interop
from medrecon.core.volume import Volume
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers._voxels import compare, label, lossless, not_as_meant

WRITES = "volume"
TARGET = "volume.nii.gz"


def write(volume: Volume, target: Path, context: WriteContext) -> None:  # noqa: ARG001 (the writers' contract)
    """Write a volume; whole Hounsfield units as int16, else float32. Same volume, same bytes.

    Raises
    ------
    OutputError
        ``OUT-SPACE``, ``OUT-WRITE``, or ``OUT-READBACK`` where the file does not read back as it was meant.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    image = interop.to_nibabel(volume)
    values = lossless(volume).transpose(2, 1, 0)
    image.header.set_data_dtype(values.dtype)
    image.header["descrip"] = label(volume).encode()
    with replacing(target) as scratch:
        nibabel.Nifti1Image(values, None, image.header).to_filename(scratch)
        try:
            written = nibabel.Nifti1Image.from_filename(scratch, mmap=False)
            found = np.asarray(written.dataobj).transpose(2, 1, 0)
        except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as error:
            raise not_as_meant() from error
        compare(volume, found, interop.grid_from_ras(written.shape, written.affine))
