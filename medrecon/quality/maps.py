"""Quality maps on the grid of the result, to be laid over it by a viewer."""

from __future__ import annotations

import numpy as np

from medrecon.core.scans import SliceScan
from medrecon.core.volume import Quantity, Volume
from medrecon.quality.assess import Quality


def coverage_volume(volume: Volume, quality: Quality) -> Volume:
    """Return the coverage on the result's grid: 2 measured, 1 between slices, 0 not seen."""
    return Volume(quality.coverage.astype(np.float32), volume.grid, Quantity.ARBITRARY, source=volume.source)


def residual_volume(volume: Volume, scan: SliceScan, quality: Quality) -> Volume:
    """Spread the residual of the slices over the voxels that each slice saw, as a weighted mean.

    Voxels that no slice saw hold 0.
    """
    import torch

    from medrecon.operators.slice_sampler import SliceSampler

    A = SliceSampler(scan.poses, volume.grid, measured=scan.measured, stack=scan.stack)
    spread = A.adjoint(torch.from_numpy(quality.residual_map))
    weights = A.weights_per_voxel().to(spread)
    mean = torch.where(weights > 1e-6, spread / weights.clamp_min(1e-6), torch.zeros_like(spread))
    return Volume(mean.numpy(), volume.grid, Quantity.ARBITRARY, source=volume.source)
