"""A scan as RTK reads it: ``geometry.xml`` and ``projections.mha``, whose origin is the detector's own coordinate."""

from __future__ import annotations

from pathlib import Path

from medrecon.core.errors import OutputError
from medrecon.core.projections import ProjectionScan
from medrecon.core.rtk_geometry import first_pixel_mm, views_to_rtk, write_rtk_xml
from medrecon.safety.atomic import replacing_folder


def write(scan: ProjectionScan, target: Path) -> None:
    """Write a scan into the folder `target`, which appears when it is whole.

    Raises
    ------
    GeometryError
        ``PRJ-EXPORT`` for what RTK cannot express.
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    import SimpleITK

    text = write_rtk_xml(views_to_rtk(scan.views))
    row, column = first_pixel_mm(scan.views.detector)
    image = SimpleITK.GetImageFromArray(scan.pixels)
    image.SetSpacing((scan.views.detector.pitch_mm[1], scan.views.detector.pitch_mm[0], 1.0))
    image.SetOrigin((column, row, 0.0))
    with replacing_folder(target) as folder:
        (folder / "geometry.xml").write_text(text, encoding="utf-8")
        try:
            SimpleITK.WriteImage(image, str(folder / "projections.mha"))
        except RuntimeError as error:
            hint = "Check the output folder's permissions and its free space."
            raise OutputError("OUT-WRITE", "the projections could not be written.", hint) from error
