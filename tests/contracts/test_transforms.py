"""The MONAI transforms work in a real Compose and a real DataLoader, and agree with the Python API."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:monai")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from tests.makers_dicom import make_series

    root = tmp_path_factory.mktemp("series")
    for seed in range(2):
        make_series(root / str(seed), shape=(8, 32, 24), seed=seed)
    return [root / str(seed) for seed in range(2)]


def test_a_compose_ends_in_the_volume_that_the_python_api_gives(folders: list[Path]) -> None:
    from monai.transforms import Compose

    import medrecon as mr
    from medrecon.transforms import ExtractSurfaced, LoadSeriesd, ReconstructSlicesd

    chain = Compose([LoadSeriesd("image"), ReconstructSlicesd("image"), ExtractSurfaced("image")])
    out = chain({"image": folders[0]})
    expected = mr.reconstruct(mr.read(folders[0]))
    assert np.array_equal(out["image"].numpy()[0].transpose(2, 1, 0), expected.volume.voxels)
    assert torch.allclose(out["image"].affine, expected.volume.to_metatensor().affine)
    assert np.array_equal(out["image_coverage"].numpy()[0].transpose(2, 1, 0), expected.quality.coverage)
    assert np.allclose(out["image_vertices_lps_mm"].numpy(), expected.surfaces[0].vertices_lps_mm)
    assert out["image_measures"]["volume_ml"] == pytest.approx(expected.surfaces[0].measures["volume_ml"])


def test_later_monai_transforms_and_a_dataloader_take_the_result(folders: list[Path]) -> None:
    from monai.data import DataLoader, Dataset
    from monai.transforms import Compose, Orientationd, ScaleIntensityd

    from medrecon.transforms import LoadSeriesd, ReconstructSlicesd

    chain = Compose(
        [LoadSeriesd("image"), ReconstructSlicesd("image"), Orientationd("image", axcodes="RAS"), ScaleIntensityd("image")]
    )
    batches = list(DataLoader(Dataset([{"image": folder} for folder in folders], chain), batch_size=2, num_workers=0))
    assert batches[0]["image"].shape[0] == 2
    assert float(batches[0]["image"].max()) == pytest.approx(1.0)


def test_a_tensor_that_was_resampled_after_loading_is_refused(folders: list[Path]) -> None:
    from medrecon.core.errors import UsageError
    from medrecon.transforms import LoadSeries, ReconstructSlices

    tensor = LoadSeries()(folders[0])
    with pytest.raises(UsageError, match="TRF-SCAN"):
        ReconstructSlices()(tensor[:, ::2])
    assert ReconstructSlices()(tensor).shape[0] == 1
