"""What training draws from disk: repeatable, right in space, held out by subject, and not stopped by a bad file."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medrecon.core.errors import InputError
from medrecon.core.grid import Grid
from medrecon.core.volume import Quantity, Volume
from medrecon.training.augment import patch
from medrecon.training.config import AugmentConfig, SourceConfig
from medrecon.training.mixture import Mixture
from medrecon.training.tasks import generator

STILL = AugmentConfig(rotation_deg=0, translation_mm=0, scaling=0, flips=0, elastic_mm=0, intensity=0, gamma=0)
SPACING = (3.0, 1.0, 0.5)


def ball(radius_mm: float = 9.0, quantity: Quantity = Quantity.ARBITRARY) -> Volume:
    """A ball in the middle of a box of 40 mm with anisotropic voxels, its border a millimetre wide."""
    axes = [np.arange(int(42 / step)) * step for step in SPACING]
    far = np.sqrt(sum((axis - axis.mean()) ** 2 for axis in np.meshgrid(*axes, indexing="ij")))
    values = np.clip(radius_mm - far + 0.5, 0, 1).astype(np.float32)
    shape = (values.shape[0], values.shape[1], values.shape[2])
    return Volume(values, Grid.from_parts(shape, SPACING, (0, 0, 0)), quantity)


def test_without_changes_the_whole_volume_comes_back() -> None:
    volume = ball()
    drawn = patch(volume, volume.grid.shape, None, STILL, generator(0, 0))
    assert torch.allclose(drawn.voxels, volume.to_torch(), atol=1e-5)
    assert drawn.spacing_mm == volume.spacing_mm


@pytest.mark.parametrize("seed", range(4))
def test_a_ball_turned_shifted_and_flipped_stays_a_ball_of_its_size(seed: int) -> None:
    moved = STILL.model_copy(update={"rotation_deg": 90.0, "translation_mm": 3.0, "flips": 0.5})
    drawn = patch(ball(), (40, 40, 40), (1.0, 1.0, 1.0), moved, generator(seed, 0))
    assert float(drawn.voxels.sum()) == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.03)
    spread = torch.nonzero(drawn.voxels > 0.5).float().std(dim=0)
    assert float(spread.max() / spread.min()) == pytest.approx(1.0, abs=0.08)


def test_the_ball_check_sees_a_rotation_that_forgets_the_voxel_size() -> None:
    volume = ball()
    careless = Volume(volume.voxels, Grid.from_parts(volume.grid.shape, (1.0, 1.0, 1.0), (0, 0, 0)))
    turned = STILL.model_copy(update={"rotation_deg": 90.0})
    drawn = patch(careless, (40, 40, 40), (1.0, 1.0, 1.0), turned, generator(0, 0))
    spread = torch.nonzero(drawn.voxels > 0.5).float().std(dim=0)
    assert float(spread.max() / spread.min()) > 1.2


def test_scaling_and_bending_change_the_size_and_no_more_than_asked() -> None:
    scaled = STILL.model_copy(update={"scaling": 0.2})
    sizes = [float(patch(ball(), (40, 40, 40), (1.0,) * 3, scaled, generator(seed, 1)).voxels.sum()) for seed in range(6)]
    whole = 4 / 3 * np.pi * 9**3
    assert max(sizes) / min(sizes) > 1.1
    assert whole / 1.25**3 < min(sizes)
    assert max(sizes) < whole * 1.3**3
    bent = STILL.model_copy(update={"elastic_mm": 2.0})
    difference = (
        patch(ball(), (40, 40, 40), (1.0,) * 3, bent, generator(1, 1)).voxels
        - patch(ball(), (40, 40, 40), (1.0,) * 3, STILL, generator(1, 1)).voxels
    )
    assert float(difference.abs().max()) > 0.2


def test_ct_keeps_air_where_it_is_and_other_contrast_changes() -> None:
    loud = STILL.model_copy(update={"intensity": 0.3, "gamma": 0.5})
    base = ball(quantity=Quantity.HOUNSFIELD)
    head = base.with_voxels((base.voxels * 1040 - 1000).astype(np.float32))
    drawn = patch(head, (40, 40, 40), (1.0,) * 3, loud, generator(2, 0)).voxels
    assert float(drawn.min()) == pytest.approx(-1000, abs=0.5)
    assert abs(float(drawn.max()) - 40) > 5
    free = patch(ball(), (40, 40, 40), (1.0,) * 3, loud, generator(2, 0)).voxels
    assert abs(float(free.min())) > 0.001


def test_a_patch_of_a_mostly_empty_volume_shows_something() -> None:
    axes = [np.arange(n) for n in (64, 64, 64)]
    far = np.sqrt(sum((axis - 12.0) ** 2 for axis in np.meshgrid(*axes, indexing="ij")))
    values = (far < 9).astype(np.float32)
    volume = Volume(values, Grid.from_parts((64, 64, 64), (1, 1, 1), (0, 0, 0)))
    shown = [float(patch(volume, (24, 24, 24), None, STILL, generator(seed, 2)).voxels.max()) > 0 for seed in range(12)]
    assert sum(shown) >= 9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six subjects with a volume each, constant at the subject's number plus a ramp."""
    for number in range(6):
        path = tmp_path / f"s{number}" / "t1.nii"
        path.parent.mkdir()
        values = np.full((12, 12, 12), 100.0 * number, dtype=np.float32) + np.arange(12, dtype=np.float32)
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(path)
    return tmp_path


def subjects(mixture: Mixture, draws: int = 60) -> set[int]:
    drawn = (mixture.draw(generator(0, index), (6, 6, 6)).voxels for index in range(draws))
    return {round(float(voxels.min()) / 100) for voxels in drawn}


def test_held_out_subjects_are_never_drawn_and_the_division_stays(folder: Path) -> None:
    source = SourceConfig(path=folder, held_out=0.34)
    mixture = Mixture([source], STILL)
    kept = {round(float(drawn.voxels.min()) / 100) for drawn in mixture.held_out()}
    assert len(kept) == 2
    assert subjects(mixture) == set(range(6)) - kept
    again = Mixture([source], STILL)
    assert {round(float(drawn.voxels.min()) / 100) for drawn in again.held_out()} == kept
    assert subjects(Mixture([SourceConfig(path=folder, held_out=0)], STILL)) == set(range(6))


def test_a_draw_depends_on_its_numbers_and_not_on_what_was_drawn_before(folder: Path) -> None:
    source = SourceConfig(path=folder, cached=1)
    fresh = Mixture([source]).draw(generator(3, 7), (6, 6, 6)).voxels
    used = Mixture([source])
    for index in range(10):
        used.draw(generator(0, index), (6, 6, 6))
    assert torch.equal(used.draw(generator(3, 7), (6, 6, 6)).voxels, fresh)
    assert not torch.equal(used.draw(generator(3, 8), (6, 6, 6)).voxels, fresh)


def test_a_damaged_file_is_left_out_and_named_by_its_code(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    mixture = Mixture([SourceConfig(path=folder, held_out=0)], STILL)
    victim = folder / "s2" / "t1.nii"
    victim.write_bytes(victim.read_bytes()[:600])
    with caplog.at_level(logging.WARNING):
        assert subjects(mixture) == {0, 1, 3, 4, 5}
    assert len(caplog.records) == 1
    assert "INP-CHANGED" in caplog.text
    assert "s2" not in caplog.text


def test_where_every_volume_is_too_coarse_nothing_is_drawn(folder: Path) -> None:
    mixture = Mixture([SourceConfig(path=folder, coarsest_mm=0.9)], STILL)
    with pytest.raises(InputError, match="TRN-DATA"):
        mixture.draw(generator(0, 0), (6, 6, 6))
    assert subjects(Mixture([SourceConfig(path=folder, coarsest_mm=1.0, held_out=0)], STILL)) == set(range(6))


def test_sources_are_drawn_by_their_weight(folder: Path) -> None:
    often = SourceConfig(path=folder / "s1", weight=3.0, held_out=0)
    seldom = SourceConfig(path=folder / "s4", weight=1.0, held_out=0)
    mixture = Mixture([often, seldom], STILL)
    first = [float(mixture.draw(generator(0, index), (6, 6, 6)).voxels.min()) < 200 for index in range(200)]
    assert 0.65 < np.mean(first) < 0.85


def test_no_sources_are_an_empty_mixture() -> None:
    assert len(Mixture()) == 0
    assert list(Mixture().held_out()) == []
