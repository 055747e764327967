"""A `SliceScan` as a MetaTensor and back: what a MONAI pipeline carries from loading to reconstruction.

The pixels are the tensor (1, column, row, slice), as MONAI's own readers lay them out. Every slice keeps its own pose
and thickness in the metadata, as tensors and plain values, so that a DataLoader can collate them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrecon.core.errors import UsageError
from medrecon.core.profile import SliceProfile
from medrecon.core.scans import SlicePoses, SliceScan
from medrecon.core.volume import Quantity, Volume

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_POSES = "slice_poses_to_lps_mm"


def to_metatensor(scan: SliceScan) -> MetaTensor:
    """Carry a scan as a MetaTensor (1, column, row, slice).

    The affine is exact for regular series; for others it is the line through the first and the last slice, and
    ``meta["regular"]`` is False. Reconstruction uses the poses, never this affine.
    """
    affine, regular = _regular_affine(scan.poses)
    tensor = torch.from_numpy(np.ascontiguousarray(scan.pixels.transpose(2, 1, 0))[None])
    measured = np.ones(scan.pixels.shape, dtype=bool) if scan.measured is None else scan.measured
    meta = {
        _POSES: torch.tensor(scan.poses.to_lps_mm),
        "slice_thickness_mm": torch.tensor(scan.poses.thickness_mm),
        "slice_profile": scan.poses.profile.kind,
        "slice_profile_table": [list(pair) for pair in scan.poses.profile.table],
        "slice_stack": torch.tensor(scan.stack),
        "measured": torch.from_numpy(np.ascontiguousarray(measured)),
        "quantity": str(scan.quantity),
        "modality": scan.source.modality,
        "series_id": scan.source.series_id,
        "verdict": str(scan.verdict),
        "regular": regular,
    }
    return MetaTensor(tensor, affine=torch.tensor(affine), meta=meta)


def to_scan(tensor: MetaTensor) -> SliceScan:
    """Turn a tensor made by `to_metatensor` back into a scan.

    Raises
    ------
    UsageError
        ``TRF-SCAN`` where the tensor has lost its poses, or was resampled after loading.
    """
    meta: dict[str, Any] = tensor.meta if isinstance(tensor, MetaTensor) else {}
    hint = "Reconstruct right after LoadSeriesd; spatial transforms belong after reconstruction."
    if _POSES not in meta:
        raise UsageError("TRF-SCAN", "the tensor carries no slice poses", hint)
    pixels = np.ascontiguousarray(tensor.detach().cpu().numpy()[0].transpose(2, 1, 0))
    if pixels.shape != tuple(meta["measured"].shape):
        raise UsageError(
            "TRF-SCAN", f"slices of shape {pixels.shape} do not fit poses made for {tuple(meta['measured'].shape)}", hint
        )
    table = tuple((float(depth), float(weight)) for depth, weight in meta["slice_profile_table"])
    profile = SliceProfile(meta["slice_profile"], table)
    poses = SlicePoses(meta[_POSES].numpy(), (pixels.shape[1], pixels.shape[2]), meta["slice_thickness_mm"].numpy(), profile)
    measured = meta["measured"].numpy()
    quantity = Quantity(meta["quantity"])
    return SliceScan(pixels, poses, quantity, None if measured.all() else measured, meta["slice_stack"].numpy())


def volume_to_metatensor(volume: Volume) -> MetaTensor:
    """Carry a volume as a MetaTensor (1, column, row, slice) that remembers its quantity."""
    tensor = volume.to_metatensor()
    tensor.meta["quantity"] = str(volume.quantity)
    return tensor


def to_volume(tensor: MetaTensor) -> Volume:
    """Turn a MetaTensor (1, column, row, slice) back into a volume, with the quantity it remembers."""
    return Volume.from_metatensor(tensor, Quantity(tensor.meta.get("quantity", Quantity.ARBITRARY)))


def _regular_affine(poses: SlicePoses) -> tuple[np.ndarray, bool]:
    """Voxel-to-RAS affine for (column, row, slice), and whether every slice stands where it says (to 0.01 mm)."""
    first, count = poses.to_lps_mm[0], len(poses)
    step = (poses.to_lps_mm[-1, :3, 3] - first[:3, 3]) / (count - 1) if count > 1 else first[:3, 0] * poses.thickness_mm[0]
    expected = first[:3, 3] + np.arange(count)[:, None] * step
    regular = poses.are_parallel and bool(np.abs(poses.to_lps_mm[:, :3, 3] - expected).max() < 0.01)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = first[:3, 2], first[:3, 1], step, first[:3, 3]
    return _RAS_FROM_LPS @ affine, regular
