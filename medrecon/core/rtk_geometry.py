"""The nine parameters per view in which RTK describes a scan, and the XML file in which it stores them.

RTK turns about the y axis of the IEC 61217 fixed frame; ours is DICOM's LPS. For a patient lying head first, supine,
``(x, y, z) in LPS = (x, -z, y) in IEC``. RTK's origin is the isocentre, so that the isocentre has to be told apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET  # the file's size is limited, and a DTD with entities is refused

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrecon.core.errors import GeometryError, InputError
from medrecon.core.grid import Float64
from medrecon.core.views import Detector, ViewGeometry

#: From the IEC fixed frame to LPS, head first, supine.
IEC_TO_LPS: Float64 = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

_MOST_XML_BYTES = 64 * 2**20
_ROOT, _VERSIONS = "RTKThreeDCircularGeometry", ("2", "3")
#: Element of the XML file for each parameter; angles are degrees there.
_ELEMENTS: Mapping[str, str] = {
    "sid_mm": "SourceToIsocenterDistance",
    "sdd_mm": "SourceToDetectorDistance",
    "source_offset_x_mm": "SourceOffsetX",
    "source_offset_y_mm": "SourceOffsetY",
    "projection_offset_x_mm": "ProjectionOffsetX",
    "projection_offset_y_mm": "ProjectionOffsetY",
    "in_plane_deg": "InPlaneAngle",
    "out_of_plane_deg": "OutOfPlaneAngle",
    "gantry_deg": "GantryAngle",
}


@dataclass(frozen=True, eq=False)
class RtkParameters:
    """RTK's description of a scan: nine numbers per view, each (n,).

    Parameters
    ----------
    gantry_deg, out_of_plane_deg, in_plane_deg : (n,)
        Turns of source and detector about y, x and z.
    sid_mm, sdd_mm : (n,)
        Source to isocentre and source to detector; ``sdd_mm`` is 0 for a parallel beam.
    source_offset_x_mm, source_offset_y_mm, projection_offset_x_mm, projection_offset_y_mm : (n,)
    cylinder_radius_mm : float
        0 for a flat detector.
    """

    gantry_deg: Float64
    sid_mm: Float64
    sdd_mm: Float64
    out_of_plane_deg: Float64
    in_plane_deg: Float64
    source_offset_x_mm: Float64
    source_offset_y_mm: Float64
    projection_offset_x_mm: Float64
    projection_offset_y_mm: Float64
    cylinder_radius_mm: float = 0.0

    def __post_init__(self) -> None:
        n = len(np.atleast_1d(self.gantry_deg))
        for name in _ELEMENTS:
            given = np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64))
            if given.shape not in ((n,), (1,)):
                raise GeometryError("PRJ-SHAPE", f"{name} has shape {given.shape}, there are {n} gantry angles")
            object.__setattr__(self, name, np.broadcast_to(given, (n,)).copy())

    def __len__(self) -> int:
        return len(self.gantry_deg)


def views_from_rtk(
    parameters: RtkParameters,
    detector_shape: tuple[int, int],
    pitch_mm: tuple[float, float],
    first_pixel_mm: tuple[float, float] | None = None,
    isocentre_lps_mm: ArrayLike = (0.0, 0.0, 0.0),
) -> ViewGeometry:
    """Turn RTK's parameters and the place of its projection images into views.

    Parameters
    ----------
    parameters : RtkParameters
    detector_shape, pitch_mm : (rows, columns), (row, column)
    first_pixel_mm : (row, column), optional
        Physical position of pixel (0, 0): the image's origin, y first. Centred where not given.
    isocentre_lps_mm : (3,)
        Where RTK's origin stands in the patient.
    """
    radius = parameters.cylinder_radius_mm
    detector = Detector(detector_shape, pitch_mm, radius or None)
    first = (-np.subtract(detector_shape, 1) / 2 * pitch_mm) if first_pixel_mm is None else np.asarray(first_pixel_mm)
    middle = first + np.subtract(detector_shape, 1) / 2 * pitch_mm
    along = [parameters.projection_offset_x_mm + middle[1], parameters.projection_offset_y_mm + middle[0]]
    frame = _rotations(parameters) @ IEC_TO_LPS.T  # rows u, v and the direction to the source, in LPS
    u, v, to_source = frame[:, 0], frame[:, 1], frame[:, 2]
    parallel = bool((parameters.sdd_mm == 0).all())
    depth = parameters.sid_mm - np.where(parallel, parameters.sid_mm, parameters.sdd_mm)
    isocentre = np.asarray(isocentre_lps_mm, dtype=np.float64)
    if radius:
        u, to_source, along_u, depth = _bend(u, to_source, along[0], depth, radius)
    else:
        along_u = along[0][:, None] * u
    centres = isocentre + along_u + along[1][:, None] * v + depth[:, None] * frame[:, 2]
    if parallel:
        return ViewGeometry(centres, u, v, detector, ray_directions=-frame[:, 2], isocentre_lps_mm=isocentre)
    place = np.stack([parameters.source_offset_x_mm, parameters.source_offset_y_mm, parameters.sid_mm], axis=1)
    sources = isocentre + np.einsum("ka,kai->ki", place, frame)
    return ViewGeometry(centres, u, v, detector, sources, isocentre_lps_mm=isocentre)


def views_to_rtk(views: ViewGeometry) -> RtkParameters:
    """Express views in RTK's parameters, for projection images whose origin is `first_pixel_mm`.

    Raises
    ------
    GeometryError
        ``PRJ-EXPORT`` for what RTK cannot say: a mirrored read-out, or a parallel beam that meets the detector askew.
    """
    if views.left_handed:
        raise GeometryError("PRJ-EXPORT", "RTK has no word for a mirrored read-out", "Reverse the columns and u.")
    u, v, to_source, centre = views.u, views.v, -views.normals, views.centres_lps_mm - views.isocentre
    radius = views.detector.curve_radius_mm or 0.0
    arc = np.zeros(len(views))
    if radius and views.sources_lps_mm is not None:
        u, to_source, centre, arc = _straighten(views, radius)
    frame = np.stack([u, v, to_source], axis=1)
    in_detector = np.einsum("kai,ki->ka", frame, centre)
    rotation = frame @ IEC_TO_LPS
    angles = {
        "out_of_plane_deg": np.degrees(-np.arcsin(np.clip(rotation[:, 2, 1], -1, 1))),
        "gantry_deg": np.mod(np.degrees(-np.arctan2(-rotation[:, 2, 0], rotation[:, 2, 2])), 360.0),
        "in_plane_deg": np.degrees(-np.arctan2(-rotation[:, 0, 1], rotation[:, 1, 1])),
    }
    if views.sources_lps_mm is None:
        if np.abs(np.asarray(views.ray_directions) + to_source).max() > 1e-9:
            raise GeometryError("PRJ-EXPORT", "RTK's parallel beam is perpendicular to the detector, this one is not")
        source, sdd = np.tile([0.0, 0.0, 1000.0], (len(views), 1)), np.zeros(len(views))
    else:
        source = np.einsum("kai,ki->ka", frame, views.sources_lps_mm - views.isocentre)
        sdd = source[:, 2] - in_detector[:, 2]
    return RtkParameters(
        sid_mm=source[:, 2],
        sdd_mm=sdd,
        source_offset_x_mm=source[:, 0],
        source_offset_y_mm=source[:, 1],
        projection_offset_x_mm=in_detector[:, 0] + arc,
        projection_offset_y_mm=in_detector[:, 1],
        cylinder_radius_mm=radius,
        **angles,
    )


def first_pixel_mm(detector: Detector) -> tuple[float, float]:
    """Physical position of pixel (0, 0), (row, column), that belongs to `views_to_rtk`: a centred panel."""
    return float(detector.row_mm(0)), float(detector.column_mm(0))


def rtk_matrices(parameters: RtkParameters) -> Float64:
    """RTK's projection matrices (n, 3, 4), from IEC mm to physical detector mm, as its XML file holds them."""
    n = len(parameters)
    shift, to_detector, turn = np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3, 4)), np.tile(np.eye(4), (n, 1, 1))
    shift[:, 0, 2] = parameters.source_offset_x_mm - parameters.projection_offset_x_mm
    shift[:, 1, 2] = parameters.source_offset_y_mm - parameters.projection_offset_y_mm
    parallel = parameters.sdd_mm == 0
    to_detector[:, 0, 0] = to_detector[:, 1, 1] = np.where(parallel, 1.0, -parameters.sdd_mm)
    to_detector[:, 2, 2] = np.where(parallel, 0.0, 1.0)
    to_detector[:, 2, 3] = np.where(parallel, 1.0, -parameters.sid_mm)
    turn[:, :3, :3] = _rotations(parameters)
    turn[:, 0, 3], turn[:, 1, 3] = -parameters.source_offset_x_mm, -parameters.source_offset_y_mm
    matrices: Float64 = shift @ to_detector @ turn
    return matrices


def write_rtk_xml(parameters: RtkParameters) -> str:
    """Return the text of RTK's geometry file, version 3, with a matrix per view as RTK demands."""
    common = {name for name in _ELEMENTS if np.ptp(getattr(parameters, name)) == 0 and name != "gantry_deg"}
    lines = ['<?xml version="1.0"?>', "<!DOCTYPE RTKGEOMETRY>", f'<{_ROOT} version="3">']
    if parameters.cylinder_radius_mm:
        lines.append(_element("RadiusCylindricalDetector", parameters.cylinder_radius_mm))
    lines += [_element(_ELEMENTS[name], getattr(parameters, name)[0]) for name in _ELEMENTS if name in common]
    for k, matrix in enumerate(rtk_matrices(parameters)):
        own = [_element(_ELEMENTS[name], getattr(parameters, name)[k]) for name in _ELEMENTS if name not in common]
        rows = ["      " + " ".join(f"{value:.15g}" for value in row) for row in matrix]
        lines += ["  <Projection>", *own, "    <Matrix>", *rows, "    </Matrix>", "  </Projection>"]
    return "\n".join([*lines, f"</{_ROOT}>", ""])


def read_rtk_xml(text: bytes) -> RtkParameters:
    """Read RTK's geometry file, version 2 or 3.

    A value that is missing in a view carries over from the view before; one that never came is 0. A matrix is optional
    and, where present, must agree with the parameters to 0.001 relative to its largest entry.

    Raises
    ------
    InputError
        ``PRJ-XML`` for text that is no such file, ``PRJ-FEW`` for a file without views.
    """
    root = _parse(text)
    values = dict.fromkeys(_ELEMENTS, 0.0)
    views, matrices, radius = [], [], 0.0
    for element in root:
        if element.tag == "Projection":
            values |= dict(_known_values(element))
            views.append(dict(values))
            matrices.append(element.findtext("Matrix"))
        elif element.tag == "RadiusCylindricalDetector":
            radius = _number(element)
        else:
            values |= dict(_known_values([element]))
    if not views:
        raise InputError("PRJ-FEW", "the RTK geometry holds no Projection")
    parameters = RtkParameters(
        **{name: np.array([view[name] for view in views]) for name in _ELEMENTS}, cylinder_radius_mm=radius
    )
    _refuse_disagreeing_matrices(parameters, matrices)
    return parameters


def _rotations(parameters: RtkParameters) -> Float64:
    """Rows u, v and the direction to the source in the IEC frame, (n, 3, 3): Rz(-in plane) Rx(-out of plane) Ry(-gantry)."""
    z, x, y = (-np.radians(a) for a in (parameters.in_plane_deg, parameters.out_of_plane_deg, parameters.gantry_deg))
    zero, one = np.zeros_like(z), np.ones_like(z)
    about_z = [[np.cos(z), -np.sin(z), zero], [np.sin(z), np.cos(z), zero], [zero, zero, one]]
    about_x = [[one, zero, zero], [zero, np.cos(x), -np.sin(x)], [zero, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), zero, np.sin(y)], [zero, one, zero], [-np.sin(y), zero, np.cos(y)]]
    turns: Float64 = _stacked(about_z) @ _stacked(about_x) @ _stacked(about_y)
    return turns


def _stacked(rows: list[list[Float64]]) -> Float64:
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _bend(
    u: Float64, to_source: Float64, arc: Float64, depth: Float64, radius: float
) -> tuple[Float64, Float64, Float64, Float64]:
    """Move from the line where RTK's cylinder touches its flat panel to the middle of the panel, `arc` mm away."""
    angle = (arc / radius)[:, None]
    along_u = radius * (np.sin(angle) * u + (1 - np.cos(angle)) * to_source)
    return np.cos(angle) * u + np.sin(angle) * to_source, np.cos(angle) * to_source - np.sin(angle) * u, along_u, depth


def _straighten(views: ViewGeometry, radius: float) -> tuple[Float64, Float64, Float64, Float64]:
    """Find where a curved panel touches RTK's flat one: on the line from its axis through the isocentre.

    Returns u and the direction to the source there, the point from the isocentre, and the arc to the panel's middle.
    """
    axis = views.centres_lps_mm - radius * views.normals
    line = axis - views.isocentre
    line = line - np.einsum("ki,ki->k", line, views.v)[:, None] * views.v
    length = np.linalg.norm(line, axis=1, keepdims=True)
    normal = np.where(length > 1e-6, line / np.maximum(length, 1e-6), views.normals)
    normal = normal * np.sign(np.einsum("ki,ki->k", normal, views.normals))[:, None]
    u = np.cross(normal, views.v)
    arc = radius * np.arctan2(np.einsum("ki,ki->k", views.normals, u), np.einsum("ki,ki->k", views.normals, normal))
    return u, -normal, axis + radius * normal - views.isocentre, arc


def _element(name: str, value: float) -> str:
    return f"    <{name}>{value:.15g}</{name}>"


def _parse(text: bytes) -> ET.Element:
    if len(text) > _MOST_XML_BYTES:
        raise InputError("PRJ-XML", f"the RTK geometry has {len(text)} bytes, at most {_MOST_XML_BYTES} are read")
    if re.search(rb"<!ENTITY", text):
        raise InputError("PRJ-XML", "the RTK geometry defines entities, which no scanner's file does")
    try:
        root = ET.fromstring(text)  # noqa: S314 (no entities, limited size)
    except ET.ParseError as error:
        raise InputError("PRJ-XML", f"the RTK geometry is not XML (line {error.position[0]})") from error
    if root.tag != _ROOT or root.get("version") not in _VERSIONS:
        raise InputError("PRJ-XML", f"this is no RTK geometry of version {' or '.join(_VERSIONS)}")
    return root


def _known_values(elements: ET.Element | list[ET.Element]) -> Iterator[tuple[str, float]]:
    """Yield the parameters among some elements; ``Angle`` is the old name of ``GantryAngle``."""
    names = {element: name for name, element in _ELEMENTS.items()} | {"Angle": "gantry_deg"}
    for element in elements:
        if element.tag in names:
            yield names[element.tag], _number(element)


def _number(element: ET.Element) -> float:
    try:
        value = float(element.text or "")
    except ValueError as error:
        raise InputError("PRJ-XML", "an element of the RTK geometry does not hold a number") from error
    if not np.isfinite(value):
        raise InputError("PRJ-XML", "an element of the RTK geometry is not finite")
    return value


def _refuse_disagreeing_matrices(parameters: RtkParameters, texts: list[str | None]) -> None:
    computed = rtk_matrices(parameters)
    for k, text in enumerate(texts):
        if text is None:
            continue
        try:
            given: NDArray[np.float64] = np.array(text.split(), dtype=np.float64).reshape(3, 4)
        except ValueError as error:
            raise InputError("PRJ-XML", f"the matrix of view {k + 1} does not hold 12 numbers") from error
        off = float(np.abs(given - computed[k]).max() / np.abs(computed[k]).max())
        if not off < 1e-3:
            raise InputError("PRJ-XML", f"matrix and parameters of view {k + 1} disagree by {off:.1e}", "Which of them is right?")
