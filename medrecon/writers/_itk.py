"""What the writers of NRRD and MetaImage share: SimpleITK writes, compressed, in LPS."""

from __future__ import annotations

from pathlib import Path

from medrecon.core import interop
from medrecon.core.errors import OutputError
from medrecon.core.volume import Volume
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers._voxels import compare, label, lossless, not_as_meant


def write(volume: Volume, target: Path, context: WriteContext) -> None:  # noqa: ARG001 (the writers' contract)
    """Write a volume; whole Hounsfield units as int16, else float32. Same volume, same bytes.

    Raises
    ------
    GeometryError
        ``VOL-SHEARED`` where the axes are not perpendicular.
    OutputError
        ``OUT-SPACE``, ``OUT-WRITE``, or ``OUT-READBACK`` where the file does not read back as it was meant.
    """
    import SimpleITK

    place = interop.to_sitk(volume)
    image = SimpleITK.GetImageFromArray(lossless(volume))
    image.CopyInformation(place)
    image.SetMetaData("medrecon", label(volume))
    with replacing(target) as scratch:
        try:
            SimpleITK.WriteImage(image, str(scratch), useCompression=True)
        except RuntimeError as error:
            hint = "Check the output folder's permissions and its free space."
            raise OutputError("OUT-WRITE", "the result could not be written.", hint) from error
        try:
            written = SimpleITK.ReadImage(str(scratch))
        except RuntimeError as error:
            raise not_as_meant() from error
        compare(volume, SimpleITK.GetArrayViewFromImage(written), interop.sitk_grid(written))
