"""Reconstruct loaded slices into an isotropic volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform, Transform

from medrecon.config import ReconstructionConfig, load_config
from medrecon.pipeline import reconstruct
from medrecon.result import Result
from medrecon.transforms import carry


class ReconstructSlices(Transform):
    """Turn a MetaTensor from `LoadSeries` into the reconstructed volume, a MetaTensor (1, column, row, slice).

    Parameters
    ----------
    config : ReconstructionConfig, optional
        Instead of `preset`. Surfaces are left to `ExtractSurface`.
    preset : str
    """

    def __init__(self, config: ReconstructionConfig | None = None, preset: str = "fast") -> None:
        super().__init__()
        chosen = config if config is not None else load_config(preset)
        self.config = chosen.model_copy(update={"surfaces": ()})

    def __call__(self, tensor: MetaTensor) -> MetaTensor:
        """Return the volume; ``meta`` holds the relative residual and the verdict."""
        return self.with_coverage(tensor)[0]

    def with_coverage(self, tensor: MetaTensor) -> tuple[MetaTensor, MetaTensor]:
        """Return the volume and its coverage map: 2 measured, 1 between slices, 0 not seen."""
        result = reconstruct(carry.to_scan(tensor), self.config)
        volume = carry.volume_to_metatensor(result.volume)
        volume.meta |= {"residual": result.quality.residual, "verdict": str(result.verdict)}
        return volume, _coverage(result, volume)


class ReconstructSlicesd(MapTransform):
    """Dictionary version of `ReconstructSlices`; the coverage map goes to ``{key}_coverage``."""

    def __init__(
        self,
        keys: KeysCollection,
        config: ReconstructionConfig | None = None,
        preset: str = "fast",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reconstruct = ReconstructSlices(config, preset)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the slices replaced by volumes, and the coverage maps beside them."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key], out[f"{key}_coverage"] = self.reconstruct.with_coverage(out[key])
        return out


def _coverage(result: Result, volume: MetaTensor) -> MetaTensor:
    coverage = np.ascontiguousarray(result.quality.coverage.transpose(2, 1, 0))[None]
    return MetaTensor(torch.from_numpy(coverage), affine=volume.affine)
