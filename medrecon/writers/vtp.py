"""VTP, VTK polygon data: double precision, with the space and the unit as field data, where 3D Slicer looks for them."""

from __future__ import annotations

from pathlib import Path

from medrecon.core.mesh import Surface
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers._mesh_text import statement

WRITES = "surface"
TARGET = "surface-{name}.vtp"


def write(surface: Surface, target: Path, context: WriteContext) -> None:  # noqa: ARG001 (the writers' contract)
    """Write a surface in LPS mm, double precision. Same surface, same bytes.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    from vtkmodules.vtkCommonCore import vtkStringArray
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    data = surface.to_vtk()
    for name, value in (("SPACE", "LPS"), ("UNITS", "mm"), ("STATEMENT", statement(surface))):
        field = vtkStringArray()
        field.SetName(name)
        field.InsertNextValue(value)
        data.GetFieldData().AddArray(field)
    writer = vtkXMLPolyDataWriter()
    writer.SetInputData(data)
    writer.SetDataModeToBinary()
    writer.SetCompressorTypeToZLib()
    writer.WriteToOutputStringOn()  # VTK would only print that a disk is full
    writer.Write()
    with replacing(target) as scratch:
        scratch.write_bytes(writer.GetOutputString().encode("ascii"))
