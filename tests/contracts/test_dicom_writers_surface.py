"""An encapsulated STL conforms, stands in its source's frame of reference, and holds the surface in LPS millimetres."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import trimesh
from pydicom.uid import EncapsulatedSTLStorage

from medrecon.core.mesh import Surface
from medrecon.core.source import Source
from medrecon.writers import dicom, dicom_stl
from medrecon.writers._stl import stl_bytes
from tests.makers_dicom import POISON, make_series
from tests.makers_written_dicom import CONTEXT, dcentvfy_complaints, dciodvfy_errors, files_in, source_of, standing, turned_grid

#: A tetrahedron with no symmetry, off the centre of the patient; all its corners differ in every coordinate.
CORNERS = np.array([[-80.5, 40.25, 12.0], [35.0, 42.5, 10.0], [-79.0, -61.0, 11.0], [-78.0, 41.0, 155.75]])
TETRAHEDRON = Surface(CORNERS, np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]), "bone")


@pytest.fixture(scope="module", params=["CT", "MR"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_series(tmp_path_factory.mktemp("source"), modality=request.param, shape=(3, 6, 5))


@pytest.fixture
def source(files: list[Path]) -> Source:
    return source_of(files)


def write(surface: Surface, path: Path, source: Source) -> pydicom.Dataset:
    dicom_stl.write(surface, path, replace(CONTEXT, source=source))
    return pydicom.dcmread(path)


def test_the_validators_find_no_error(files: list[Path], source: Source, tmp_path: Path) -> None:
    write(TETRAHEDRON, tmp_path / "surface.dcm", source)
    dicom.write(standing(turned_grid(), source=source), tmp_path / "dicom", CONTEXT)
    assert dciodvfy_errors(tmp_path / "surface.dcm") == []
    assert dcentvfy_complaints([*files, *files_in(tmp_path / "dicom"), tmp_path / "surface.dcm"]) == []


@pytest.mark.parametrize("modality", ["", "CT", "US", "PT"])
def test_the_validator_finds_no_error_without_a_dicom_source(modality: str, tmp_path: Path) -> None:
    write(TETRAHEDRON, tmp_path / "surface.dcm", Source(modality=modality))
    assert dciodvfy_errors(tmp_path / "surface.dcm") == []


def test_the_validator_check_fails_without_the_unit(source: Source, tmp_path: Path) -> None:
    made = write(TETRAHEDRON, tmp_path / "surface.dcm", source)
    del made.MeasurementUnitsCodeSequence
    made.save_as(tmp_path / "broken.dcm")
    assert any("MeasurementUnitsCodeSequence" in error for error in dciodvfy_errors(tmp_path / "broken.dcm"))


def test_the_surface_inside_is_the_one_that_was_given(source: Source, tmp_path: Path) -> None:
    made = write(TETRAHEDRON, tmp_path / "surface.dcm", source)
    assert made.EncapsulatedDocumentLength == len(made.EncapsulatedDocument)
    mesh = trimesh.load_mesh(io.BytesIO(made.EncapsulatedDocument), file_type="stl")
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds, [CORNERS.min(axis=0), CORNERS.max(axis=0)], atol=1e-5)
    volume = abs(float(np.linalg.det(CORNERS[1:] - CORNERS[0]))) / 6
    assert mesh.volume == pytest.approx(volume, rel=1e-6)  # positive: normals point outwards


def test_the_surface_check_fails_on_an_inverted_surface(source: Source, tmp_path: Path) -> None:
    inside_out = replace(TETRAHEDRON, triangles=TETRAHEDRON.triangles[:, ::-1])
    made = write(inside_out, tmp_path / "surface.dcm", source)
    assert trimesh.load_mesh(io.BytesIO(made.EncapsulatedDocument), file_type="stl").volume < 0


def test_the_object_says_what_it_is_and_where_it_stands(files: list[Path], source: Source, tmp_path: Path) -> None:
    first = pydicom.dcmread(files[0])
    made = write(TETRAHEDRON, tmp_path / "surface.dcm", source)
    assert made.SOPClassUID == EncapsulatedSTLStorage
    assert made.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert made.StudyInstanceUID == first.StudyInstanceUID
    assert (made.Modality, made.MIMETypeOfEncapsulatedDocument) == ("M3D", "model/stl")
    assert made.MeasurementUnitsCodeSequence[0].CodeValue == "mm"
    assert made.ConceptNameCodeSequence[0].CodeValue == {"CT": "85040-4", "MR": "85041-2"}[first.Modality]
    assert made.SeriesDescription == "bone surface research use"
    assert made.ContentQualification == "RESEARCH"
    named = [item.ReferencedSOPInstanceUID for item in made.SourceInstanceSequence]
    assert named == [pydicom.dcmread(path).SOPInstanceUID for path in files]


def test_volume_and_surfaces_of_one_result_share_a_frame_but_no_series(source: Source, tmp_path: Path) -> None:
    dicom.write(standing(turned_grid(), source=source), tmp_path / "dicom", CONTEXT)
    bone = write(TETRAHEDRON, tmp_path / "bone.dcm", source)
    skin = write(replace(TETRAHEDRON, name="skin"), tmp_path / "skin.dcm", source)
    image = pydicom.dcmread(files_in(tmp_path / "dicom")[0])
    assert len({made.FrameOfReferenceUID for made in (image, bone, skin)}) == 1
    assert len({made.SeriesInstanceUID for made in (image, bone, skin)}) == 3
    assert len({made.SOPInstanceUID for made in (image, bone, skin)}) == 3


def test_the_same_surface_gives_the_same_bytes(source: Source, tmp_path: Path) -> None:
    for name in ("once.dcm", "again.dcm"):
        write(TETRAHEDRON, tmp_path / name, source)
    assert (tmp_path / "once.dcm").read_bytes() == (tmp_path / "again.dcm").read_bytes()


def test_a_name_that_no_file_should_bear_is_only_text(source: Source, tmp_path: Path) -> None:
    made = write(replace(TETRAHEDRON, name="../Ä\\B\x1b" + "x" * 200), tmp_path / "surface.dcm", source)
    assert len(made.SeriesDescription) <= 64
    assert made.SeriesDescription.endswith(" research use")
    assert made.DocumentTitle.endswith(" research use")
    assert dciodvfy_errors(tmp_path / "surface.dcm") == []
    assert not any(part in path.name for path in tmp_path.iterdir() for part in POISON.split("^"))


@pytest.mark.parametrize("header", ["solid bone", "Ä"])
def test_a_header_by_which_programs_would_mistake_the_file_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="solid"):
        stl_bytes(TETRAHEDRON, header)


def test_binary_stl_has_the_layout_that_everybody_reads() -> None:
    document = stl_bytes(TETRAHEDRON)
    assert len(document) == 84 + 50 * 4
    assert document[:80].rstrip() == b"medrecon SPACE=LPS UNITS=mm"
    record = np.frombuffer(document[84:134], dtype="<f4", count=12).reshape(4, 3)
    np.testing.assert_allclose(record[1:], CORNERS[[0, 1, 2]], rtol=1e-6)
    normal = np.cross(CORNERS[1] - CORNERS[0], CORNERS[2] - CORNERS[0])
    np.testing.assert_allclose(record[0], normal / np.linalg.norm(normal), atol=1e-6)


def test_a_triangle_without_area_has_no_normal() -> None:
    flat = Surface(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    np.testing.assert_array_equal(np.frombuffer(stl_bytes(flat)[84:96], dtype="<f4"), [0, 0, 0])
