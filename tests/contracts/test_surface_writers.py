"""Mesh files, read back by programs that somebody else wrote: same vertices in mm, same triangles, space and unit named."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOGeometry import vtkOBJReader, vtkSTLReader
from vtkmodules.vtkIOPLY import vtkPLYReader
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

from medrecon import writers
from medrecon.core.errors import OutputError
from medrecon.core.mesh import Surface
from medrecon.core.volume import Volume
from medrecon.surface.extract import make_surface
from medrecon.surface.settings import SurfaceConfig
from medrecon.writers import WriteContext
from tests.makers_surfaces import STANDING, Ellipsoid, grid_around, mirrored

FORMATS = ("stl", "ply", "obj", "glb", "3mf", "vtp")
Corners = NDArray[np.float64]
every_format = pytest.mark.parametrize("format_name", FORMATS)


@pytest.fixture(scope="module")
def surface() -> Surface:
    volume: Volume = Ellipsoid().on(grid_around(STANDING["oblique"] * 3))
    return replace(make_surface(volume, SurfaceConfig(level=0.0)), name="bone")


def write(surface: Surface, format_name: str, folder: Path) -> Path:
    writer = writers.get(format_name)
    path = folder / writer.target.format(name=surface.name)
    writer.write(surface, path, WriteContext())
    return path


# --- the eyes of others: corners (m, 3, 3) of all triangles in file order --------------------------------------------


def by_trimesh(path: Path) -> Corners:
    loaded = trimesh.load_scene(path, process=False)
    mesh = loaded.to_geometry()
    corners: Corners = np.asarray(mesh.vertices)[mesh.faces]
    return corners


def by_vtk(reader: Callable[[], object]) -> Callable[[Path], Corners]:
    def read(path: Path) -> Corners:
        data = read_by_vtk(reader, path).GetOutput()  # type: ignore[attr-defined]  # VTK is untyped
        points = vtk_to_numpy(data.GetPoints().GetData()).astype(np.float64)
        corners: Corners = points[vtk_to_numpy(data.GetPolys().GetConnectivityArray()).reshape(-1, 3)]
        return corners

    return read


def read_by_vtk(reader: Callable[[], object], path: Path) -> object:
    eye = reader()
    eye.SetFileName(str(path))  # type: ignore[attr-defined]  # VTK is untyped
    eye.Update()  # type: ignore[attr-defined]  # VTK is untyped
    return eye


def in_lps_mm(gltf_metres: Corners) -> Corners:
    """What the glTF specification says about +y up and +z front, undone: left = x, back = -z, head = y."""
    return np.stack([gltf_metres[..., 0], -gltf_metres[..., 2], gltf_metres[..., 1]], axis=-1) * 1000


EYES: dict[str, tuple[str, Callable[[Path], Corners]]] = {
    "STL by trimesh": ("stl", by_trimesh),
    "STL by VTK": ("stl", by_vtk(vtkSTLReader)),
    "PLY by trimesh": ("ply", by_trimesh),
    "PLY by VTK": ("ply", by_vtk(vtkPLYReader)),
    "OBJ by trimesh": ("obj", by_trimesh),
    "OBJ by VTK": ("obj", by_vtk(vtkOBJReader)),
    "3MF by trimesh": ("3mf", by_trimesh),
    "GLB by trimesh": ("glb", lambda path: in_lps_mm(by_trimesh(path))),
    "VTP by VTK": ("vtp", by_vtk(vtkXMLPolyDataReader)),
}
every_eye = pytest.mark.parametrize(("format_name", "eye"), EYES.values(), ids=EYES)


@every_eye
def test_others_read_the_same_triangles_in_mm(
    surface: Surface, tmp_path: Path, format_name: str, eye: Callable[[Path], Corners]
) -> None:
    found = eye(write(surface, format_name, tmp_path))
    assert found == pytest.approx(surface.vertices_lps_mm[surface.triangles], abs=2e-5)


@every_eye
def test_the_reading_check_fails_on_a_mirrored_surface(
    surface: Surface, tmp_path: Path, format_name: str, eye: Callable[[Path], Corners]
) -> None:
    found = eye(write(mirrored(surface), format_name, tmp_path))
    assert np.abs(found - surface.vertices_lps_mm[surface.triangles]).max() > 1


@every_format
def test_what_others_read_is_watertight_with_its_volume_and_looks_outward(
    surface: Surface, tmp_path: Path, format_name: str
) -> None:
    eye = next(eye for name, eye in EYES.values() if name == format_name)
    corners = eye(write(surface, format_name, tmp_path))
    mesh = trimesh.Trimesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), process=True)
    assert mesh.is_watertight
    assert mesh.volume / 1000 == pytest.approx(surface.measures["volume_ml"], rel=1e-5)


# --- space, unit and label -------------------------------------------------------------------------------------------


def words(path: Path) -> str:
    """What a program that looks for the coordinate system finds where 3D Slicer looks, or where the format keeps words."""
    match path.suffix:
        case ".stl":
            return str(read_by_vtk(vtkSTLReader, path).GetHeader())  # type: ignore[attr-defined]  # VTK is untyped
        case ".ply":
            comments = read_by_vtk(vtkPLYReader, path).GetComments()  # type: ignore[attr-defined]  # VTK is untyped
            return "\n".join(comments.GetValue(k) for k in range(comments.GetNumberOfValues()))
        case ".obj":
            return str(read_by_vtk(vtkOBJReader, path).GetComment())  # type: ignore[attr-defined]  # VTK is untyped
        case ".vtp":
            fields = read_by_vtk(vtkXMLPolyDataReader, path).GetOutput().GetFieldData()  # type: ignore[attr-defined]
            return "\n".join(f"{n}={fields.GetAbstractArray(n).GetValue(0)}" for n in ("SPACE", "UNITS", "STATEMENT"))
        case ".3mf":
            with zipfile.ZipFile(path) as archive:
                root = ET.fromstring(archive.read("3D/3dmodel.model"))
            assert root.get("unit") == "millimeter"
            return "\n".join(entry.text or "" for entry in root if entry.tag.endswith("metadata"))
        case _:
            length = struct.unpack("<I", path.read_bytes()[12:16])[0]
            extras = json.loads(path.read_bytes()[20 : 20 + length])["asset"]["extras"]
            return f"SPACE={extras['space']} UNITS={extras['unit']} {extras['statement']}"


@every_format
def test_the_file_says_lps_mm_and_research_use(surface: Surface, tmp_path: Path, format_name: str) -> None:
    found = words(write(surface, format_name, tmp_path))
    for token in ("SPACE=LPS", "research use", "bone"):
        assert token in found
    assert "UNITS=mm" in found or "1 unit = 1.000000 mm" in found


def test_the_word_check_fails_on_a_file_by_trimesh(surface: Surface, tmp_path: Path) -> None:
    surface.to_trimesh().export(tmp_path / "plain.ply")
    assert "SPACE=LPS" not in words(tmp_path / "plain.ply")


def test_a_binary_stl_never_begins_like_a_text_one(surface: Surface, tmp_path: Path) -> None:
    data = write(replace(surface, name="solid " * 30), "stl", tmp_path).read_bytes()
    assert not data.lower().startswith(b"solid")
    assert len(data) == 84 + 50 * len(surface.triangles)


def test_in_a_glb_the_head_is_up_the_front_faces_the_viewer_and_a_metre_is_a_metre(tmp_path: Path) -> None:
    corners = np.array([[0, 0, 0], [100, 0, 0], [0, -50, 0], [0, 0, 1700]], dtype=np.float64)  # 100 left, 50 front, 1700 up
    tetrahedron = Surface(corners, np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]))
    scene = trimesh.load_scene(write(tetrahedron, "glb", tmp_path), process=False)
    assert scene.bounds == pytest.approx(np.array([[0, 0, 0], [0.1, 1.7, 0.05]]))


# --- files -----------------------------------------------------------------------------------------------------------


@every_format
def test_the_same_surface_gives_the_same_bytes_and_leaves_nothing_else(
    surface: Surface, tmp_path: Path, format_name: str
) -> None:
    first = write(surface, format_name, tmp_path)
    before = first.read_bytes()
    assert write(surface, format_name, tmp_path).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [f"surface-bone.{format_name}"]


@every_format
def test_a_folder_that_is_not_there_is_an_error_with_a_code(surface: Surface, tmp_path: Path, format_name: str) -> None:
    with pytest.raises(OutputError) as raised:
        write(surface, format_name, tmp_path / "missing")
    assert raised.value.code == "OUT-WRITE"


@every_format
def test_a_name_with_strange_letters_does_no_harm(surface: Surface, tmp_path: Path, format_name: str) -> None:
    path = tmp_path / f"out.{format_name}"
    writers.get(format_name).write(replace(surface, name="Knöchel <&> 骨"), path, WriteContext())
    eye = next(eye for name, eye in EYES.values() if name == format_name)
    assert len(eye(path)) == len(surface.triangles)
