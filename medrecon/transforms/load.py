"""Load a series of slices, or a volume, by the project's own readers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform, Transform

from medrecon.core.errors import UsageError
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ReadOptions
from medrecon.core.scans import SliceScan
from medrecon.readers import read
from medrecon.transforms import carry


class LoadSeries(Transform):
    """Read a path into a MetaTensor (1, column, row, slice).

    Parameters
    ----------
    series : str, optional
        Id of the series, needed where the path holds several usable ones.
    options : ReadOptions, optional
    """

    def __init__(self, series: str | None = None, options: ReadOptions | None = None) -> None:
        super().__init__()
        self.series = series
        self.options = options or ReadOptions()

    def __call__(self, path: str | Path) -> MetaTensor:
        """Return slices with their poses, or a volume, as the path holds."""
        found = read(Path(path), self.series, self.options)
        if isinstance(found, ProjectionScan):
            raise UsageError("ARG-INPUT", "this transform loads slices and volumes, the path holds X-ray projections")
        return carry.to_metatensor(found) if isinstance(found, SliceScan) else carry.volume_to_metatensor(found)


class LoadSeriesd(MapTransform):
    """Dictionary version of `LoadSeries`.

    Parameters
    ----------
    keys : keys whose values are paths
    series, options : see `LoadSeries`
    """

    def __init__(
        self,
        keys: KeysCollection,
        series: str | None = None,
        options: ReadOptions | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadSeries(series, options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the paths replaced by tensors."""
        return dict(data) | {key: self.load(data[key]) for key in self.key_iterator(data)}
