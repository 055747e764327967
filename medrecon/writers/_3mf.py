"""3MF: what newer printers prefer to STL, since it carries the unit."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

from medrecon.core.mesh import Surface
from medrecon.safety.atomic import replacing
from medrecon.writers import WriteContext
from medrecon.writers._mesh_text import lines, statement

WRITES = "surface"
TARGET = "surface-{name}.3mf"

_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_CONTENT_TYPES = (
    f'{_XML}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELATIONS = (
    f'{_XML}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>'
    "</Relationships>"
)
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time a ZIP can hold: same surface, same bytes


def write(surface: Surface, target: Path, context: WriteContext) -> None:  # noqa: ARG001 (the writers' contract)
    """Write a surface in LPS mm, to 10 nm. Same surface, same bytes.

    Raises
    ------
    OutputError
        ``OUT-SPACE`` or ``OUT-WRITE``.
    """
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        for name, text in (
            ("[Content_Types].xml", _CONTENT_TYPES),
            ("_rels/.rels", _RELATIONS),
            ("3D/3dmodel.model", _model(surface)),
        ):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), text, zipfile.ZIP_DEFLATED, compresslevel=6)
    with replacing(target) as scratch:
        scratch.write_bytes(package.getvalue())


def _model(surface: Surface) -> str:
    vertices = lines('<vertex x="%.5f" y="%.5f" z="%.5f"/>\n', surface.vertices_lps_mm)
    triangles = lines('<triangle v1="%d" v2="%d" v3="%d"/>\n', surface.triangles)
    return (
        f'{_XML}<model unit="millimeter" xml:lang="en-US" xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">\n'
        f'<metadata name="Title">{escape(surface.name)}</metadata>\n'
        f'<metadata name="Description">{escape(statement(surface))}</metadata>\n'
        '<metadata name="Application">medrecon</metadata>\n'
        f'<resources><object id="1" type="model"><mesh><vertices>\n{vertices}</vertices><triangles>\n{triangles}</triangles>'
        '</mesh></object></resources>\n<build><item objectid="1"/></build></model>\n'
    )
