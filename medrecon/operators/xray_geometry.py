"""Line integrals that can be differentiated with respect to where source and detector stand.

For calibration: a misfit of projections tells how to move the scanner. Computed by the reference, in plain torch, with
ordinary autograd; so keep the problem small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrecon.core.grid import Grid
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators import _xray_reference as reference


@dataclass(frozen=True, eq=False)
class ViewTensors:
    """The vectors of a `ViewGeometry` as float64 tensors, to be moved and differentiated.

    Parameters
    ----------
    centres_lps_mm : (n, 3)
    u, v : (n, 3)
        Unit vectors; whoever changes them keeps them so.
    detector : Detector
    sources_lps_mm : (n, 3), optional
    ray_directions : (n, 3), optional
    """

    centres_lps_mm: Tensor
    u: Tensor
    v: Tensor
    detector: Detector
    sources_lps_mm: Tensor | None = None
    ray_directions: Tensor | None = None

    @classmethod
    def of(cls, views: ViewGeometry) -> ViewTensors:
        """Copy the vectors of views."""
        return cls(
            torch.tensor(views.centres_lps_mm),
            torch.tensor(views.u),
            torch.tensor(views.v),
            views.detector,
            None if views.sources_lps_mm is None else torch.tensor(views.sources_lps_mm),
            None if views.ray_directions is None else torch.tensor(views.ray_directions),
        )

    def views(self) -> ViewGeometry:
        """Return the views that these tensors describe now."""
        arrays = (t if t is None else t.detach().cpu().numpy() for t in (self.sources_lps_mm, self.ray_directions))
        sources, rays = arrays
        centres, u, v = (t.detach().cpu().numpy() for t in (self.centres_lps_mm, self.u, self.v))
        return ViewGeometry.from_vectors(sources, centres, u, v, self.detector, ray_directions=rays)


def line_integrals(x: Tensor, tensors: ViewTensors, grid: Grid) -> Tensor:
    """Integrate a volume (slices, rows, columns) along all rays: (views, rows, columns).

    The result carries gradients to `x` and to every tensor of the geometry that requires one. The gradient is that of
    the interpolated volume: it ignores that at isolated positions a ray changes its main axis.
    """
    to_index = torch.linalg.inv(torch.tensor(grid.to_lps_mm[:3, :3]))
    origin, detector = torch.tensor(grid.origin_lps_mm), tensors.detector
    middle = _column_points(tensors)
    columns = (middle + float(detector.row_mm(0)) * tensors.v[:, None] - origin) @ to_index.T
    if tensors.sources_lps_mm is not None:
        origins = (tensors.sources_lps_mm - origin) @ to_index.T
    elif tensors.ray_directions is not None:
        origins = -tensors.ray_directions @ to_index.T
    else:
        raise ValueError("the views have neither sources nor ray directions")
    rays = reference.RayTensors(
        columns,
        detector.pitch_mm[0] * tensors.v @ to_index.T,
        origins,
        tensors.sources_lps_mm is None,
        torch.tensor(grid.to_lps_mm[:3, :3]),
        grid.shape,
        detector.shape,
    )
    return reference.forward(rays, x[None])[0]


def _column_points(tensors: ViewTensors) -> Tensor:
    """Where each column crosses the detector's middle line, (n, columns, 3)."""
    detector = tensors.detector
    u_mm = torch.tensor(detector.column_mm(np.arange(detector.shape[1])))
    if detector.curve_radius_mm is None:
        return tensors.centres_lps_mm[:, None] + u_mm[:, None] * tensors.u[:, None]
    angle, normal = u_mm[:, None] / detector.curve_radius_mm, torch.linalg.cross(tensors.v, tensors.u)
    bent = torch.sin(angle) * tensors.u[:, None] + (torch.cos(angle) - 1) * normal[:, None]
    points: Tensor = tensors.centres_lps_mm[:, None] + detector.curve_radius_mm * bent
    return points
