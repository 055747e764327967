"""Smoothing that keeps the volume, and decimation that keeps the surface closed."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from medrecon.core.mesh import Surface
from medrecon.surface.enclosed import middle_mm
from medrecon.surface.pinches import open_pinches

_ONE_AT_A_TIME = threading.Lock()  # fast-simplification holds its mesh in global variables
_FIRST_STEP = 0.075  # mean edge, in the units of fast-simplification's thresholds: its first sweep moves 0.02 edges at most


def smooth(surface: Surface, iterations: int = 20, pass_band: float = 0.1, junctions: bool = False) -> Surface:
    """Damp short waves of the surface and keep long ones, and with them its volume; 0 iterations change nothing.

    Windowed sinc filter (Taubin, Zhang, Golub 1996, ECCV, 283). Borders of an open surface stay.

    Parameters
    ----------
    pass_band : float
        On a mesh of even edges of length e, waves longer than ``2 pi e / arccos(1 - pass_band)`` pass: 14 e for 0.1.
        Flying edges give edges of about 0.7 voxels.
    junctions : bool
        Whether to smooth where three or more sheets meet, too; a little slower.
    """
    if iterations == 0:
        return surface
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkFiltersCore import vtkWindowedSincPolyDataFilter

    sinc = vtkWindowedSincPolyDataFilter()
    sinc.SetInputData(surface.to_vtk())
    sinc.SetNumberOfIterations(iterations)
    sinc.SetPassBand(pass_band)
    sinc.NormalizeCoordinatesOn()
    sinc.FeatureEdgeSmoothingOff()
    sinc.BoundarySmoothingOff()
    sinc.SetNonManifoldSmoothing(junctions)
    sinc.Update()
    return replace(surface, vertices_lps_mm=vtk_to_numpy(sinc.GetOutput().GetPoints().GetData()))


def decimate(surface: Surface, target_triangles: int) -> Surface:
    """Merge edges where that moves the surface least, until `target_triangles` are left; open borders stay.

    Quadric error metric (Garland, Heckbert 1997, SIGGRAPH, 209). Merging may let two sheets touch; these are parted again,
    so that a watertight surface stays so. Where no edge can be merged without folding, more triangles are left.
    """
    if len(surface.triangles) <= target_triangles:
        return surface
    import fast_simplification

    middle, scale = middle_mm(surface), _FIRST_STEP / _mean_edge_mm(surface)
    with _ONE_AT_A_TIME:
        points, triangles = fast_simplification.simplify(
            (surface.vertices_lps_mm - middle) * scale,
            surface.triangles.astype(np.int32),
            target_count=target_triangles,
            preserve_border=True,
        )
    return open_pinches(replace(surface, vertices_lps_mm=points / scale + middle, triangles=triangles))


def _mean_edge_mm(surface: Surface) -> float:
    a, b, _ = surface.triangles.T
    vertices = surface.vertices_lps_mm
    return float(np.linalg.norm(vertices[a] - vertices[b], axis=1).mean())
