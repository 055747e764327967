"""Write what RTK and ASTRA make of a few scans, as the judges of `tests/laws/test_views_conversions.py`.

Run with itk-rtk 2.7 and astra-toolbox 2.5 installed: ``python -m tests.golden.make_xray_peers``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ANGLES = (0.3, 1.7, 4.4)


def main() -> None:
    """Write both files anew."""
    for name, content in (("xray_rtk.json", rtk_cases()), ("xray_astra.json", astra_cases())):
        (HERE / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")


def rtk_cases() -> dict[str, Any]:
    """Geometry file, source positions and exact projections of an ellipsoid, in RTK's own frame."""
    everything = {"cone": (600, 1000), "cylinder": (600, 1000)}
    cases: dict[str, Sequence[tuple[float, ...]]]
    cases = {name: [(*d, a, 5, -6, 0.05, 0.02, 1.5, -0.7) for a in ANGLES] for name, d in everything.items()}
    cases["varying"] = [(600, 1000 + 20 * k, a, 5 + k, -6 * k, 0.05 * k, 0.02, 1.5, -0.7 * k) for k, a in enumerate(ANGLES)]
    cases["parallel"] = [(600, 0, a, 5, -6, 0, 0.02, 0, 0) for a in ANGLES]
    cases["focused"] = [(600, 1000, a, 8, 0, 0, 0, 0, 0) for a in ANGLES]
    radii = {"cylinder": 600.0, "focused": 1000.0}
    found = {name: _ellipsoid(parameters, radii.get(name, 0.0)) for name, parameters in cases.items()}
    return found | {"shepp_logan": _shepp_logan([(600, 1200, a, 20, 15, 0, 0, 0, 0) for a in (0.4, 2.0)])}


def _ellipsoid(parameters: Sequence[tuple[float, ...]], radius: float) -> dict[str, Any]:
    import itk
    from itk import RTK

    image = itk.Image[itk.F, 3]
    geometry = _geometry(parameters, radius)
    phantom = RTK.RayEllipsoidIntersectionImageFilter[image, image].New()
    empty = _empty([-30.0, -22.0, 0.0], [5.0, 4.0, 1.0], [13, 12, len(parameters)])
    phantom.SetInput(empty.GetOutput())
    phantom.SetGeometry(geometry)
    phantom.SetDensity(1.0)
    phantom.SetAxis([14.0, 9.0, 6.0])
    phantom.SetCenter([5.0, -3.0, 2.0])
    phantom.Update()
    return {
        "xml": _xml(geometry),
        "sources": [list(geometry.GetSourcePosition(k))[:3] for k in range(len(parameters))],
        "projections": np.round(itk.array_from_image(phantom.GetOutput()), 5).tolist(),
    }


def _shepp_logan(parameters: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    import itk
    from itk import RTK

    image = itk.Image[itk.F, 3]
    geometry = _geometry(parameters, 0.0)
    phantom = RTK.SheppLoganPhantomFilter[image, image].New()
    empty = _empty([-240.0, -240.0, 0.0], [32.0, 32.0, 1.0], [16, 16, len(parameters)])
    phantom.SetInput(empty.GetOutput())
    phantom.SetGeometry(geometry)
    phantom.SetPhantomScale(128.0)
    phantom.Update()
    return {"xml": _xml(geometry), "projections": np.round(itk.array_from_image(phantom.GetOutput()), 4).tolist()}


def _geometry(parameters: Sequence[tuple[float, ...]], radius: float) -> Any:
    from itk import RTK

    geometry = RTK.ThreeDCircularProjectionGeometry.New()
    for view in parameters:
        geometry.AddProjectionInRadians(*map(float, view))
    if radius:
        geometry.SetRadiusCylindricalDetector(radius)
    return geometry


def _empty(origin: list[float], spacing: list[float], size: list[int]) -> Any:
    import itk
    from itk import RTK

    source = RTK.ConstantImageSource[itk.Image[itk.F, 3]].New()
    source.SetOrigin(origin)
    source.SetSpacing(spacing)
    source.SetSize(size)
    source.SetConstant(0.0)
    return source


def _xml(geometry: Any) -> str:
    from itk import RTK

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "geometry.xml"
        writer = RTK.ThreeDCircularProjectionGeometryXMLFileWriter.New()
        writer.SetFilename(str(path))
        writer.SetObject(geometry)
        writer.WriteFile()
        return path.read_text()


def astra_cases() -> dict[str, Any]:
    """ASTRA's own vectors of its named geometries, and its two-dimensional fan through a few squares."""
    import astra

    angles = np.array(ANGLES)
    cone = astra.create_proj_geom("cone", 2.0, 1.5, 5, 8, angles, 600, 350)
    parallel = astra.create_proj_geom("parallel3d", 2.0, 1.5, 5, 8, angles)
    squares = np.zeros((24, 24), np.float32)
    squares[4:9, 13:20], squares[15, 3] = 1, 2
    fan = astra.create_proj_geom("fanflat", 1.5, 20, angles, 60, 30)
    _, sinogram = astra.create_sino(squares, astra.create_projector("line_fanflat", fan, astra.create_vol_geom(24, 24)))
    return {
        "cone_vec": astra.functions.geom_2vec(cone)["Vectors"].tolist(),
        "parallel3d_vec": astra.functions.geom_2vec(parallel)["Vectors"].tolist(),
        "squares": squares.tolist(),
        "fan": np.round(sinogram, 5).tolist(),
    }


if __name__ == "__main__":
    main()
