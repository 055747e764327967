"""Quality maps of a result from projections, on its grid."""

from __future__ import annotations

from medrecon.core.projections import ProjectionScan
from medrecon.core.volume import Quantity, Volume
from medrecon.quality.assess import Quality
from medrecon.quality.assess_projections import ProjectionQuality


def projection_residual_volume(volume: Volume, scan: ProjectionScan, quality: Quality) -> Volume:
    """Spread the residual of the projections back along their rays, as a mean weighted by the way in each voxel, per mm."""
    import torch

    from medrecon.operators.xray_transform import XRayTransform

    if not isinstance(quality, ProjectionQuality):
        raise TypeError("the quality is that of slices")
    which = list(quality.residual_views)
    measured = None if scan.measured is None else torch.tensor(scan.measured[which])
    A = XRayTransform(scan.views.take(which), volume.grid, measured)
    way = A.forward(torch.ones(A.domain))
    residual = torch.tensor(quality.residual_map)
    per_mm = torch.where(way > 1e-3 * way.max(), residual / way.clamp_min(1e-6), torch.zeros_like(residual))
    both = A.adjoint(torch.stack([per_mm, (way > 1e-3 * way.max()).to(way)]))
    mean = torch.where(both[1] > 1e-6 * both[1].max(), both[0] / both[1].clamp_min(1e-12), torch.zeros_like(both[0]))
    return Volume(mean.numpy(), volume.grid, Quantity.ARBITRARY, source=volume.source)
