"""Extract a surface from a volume in a MONAI pipeline."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform, Transform

from medrecon.core.mesh import Surface
from medrecon.surface.extract import make_surface
from medrecon.surface.settings import SurfaceConfig
from medrecon.transforms import carry


class ExtractSurface(Transform):
    """Turn a MetaTensor (1, column, row, slice) into a `Surface` in LPS millimetres.

    Parameters
    ----------
    config : SurfaceConfig, optional
    """

    def __init__(self, config: SurfaceConfig | None = None) -> None:
        super().__init__()
        self.config = config or SurfaceConfig()

    def __call__(self, tensor: MetaTensor) -> Surface:
        """Return the surface with its measures."""
        return make_surface(carry.to_volume(tensor), self.config)


class ExtractSurfaced(MapTransform):
    """Dictionary version of `ExtractSurface`.

    ``{key}_vertices_lps_mm`` (n, 3) and ``{key}_triangles`` (m, 3) are tensors, so that a DataLoader can batch them one
    at a time; ``{key}_measures`` is a mapping of numbers.
    """

    def __init__(self, keys: KeysCollection, config: SurfaceConfig | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.extract = ExtractSurface(config)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the surface of each key beside it."""
        out = dict(data)
        for key in self.key_iterator(out):
            surface = self.extract(out[key])
            out[f"{key}_vertices_lps_mm"] = torch.tensor(surface.vertices_lps_mm)
            out[f"{key}_triangles"] = torch.tensor(surface.triangles)
            out[f"{key}_measures"] = {
                name: value for name, value in surface.measures.items() if isinstance(value, (bool, int, float))
            }
        return out
