"""The settings of a surface: what they offer, what each tissue means, and that showing them loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from medrecon.core.errors import UsageError
from medrecon.core.grid import Grid
from medrecon.core.settings import parse
from medrecon.core.volume import Quantity, Volume
from medrecon.surface.extract import make_surface
from medrecon.surface.settings import SurfaceConfig, TissueName
from medrecon.surface.tissues import HOUNSFIELD_PRESETS, Tissue, choose
from tests.makers_surfaces import chest

HEAVY = ("vtkmodules", "trimesh", "skimage", "scipy", "torch", "fast_simplification")


def test_showing_the_settings_loads_nothing_heavy() -> None:
    code = f"import sys, medrecon.surface.extract, medrecon.surface.settings; sys.exit(any(n in sys.modules for n in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_heavy_check_fails_once_trimesh_is_loaded() -> None:
    code = f"import sys, trimesh; sys.exit(any(n in sys.modules for n in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1


def test_every_setting_says_what_it_does() -> None:
    assert all(field.description for field in SurfaceConfig.model_fields.values())


def test_every_tissue_that_is_offered_is_known() -> None:
    assert set(get_args(TissueName)) == {*HOUNSFIELD_PRESETS, "auto", "foreground"}


@pytest.mark.parametrize(
    "wrong",
    [{"tissue": "brain"}, {"tisue": "bone"}, {"level": float("nan")}, {"smoothing_iterations": -1}, {"smoothing_pass_band": 0}],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError) as raised:
        parse(SurfaceConfig, wrong, "surface")
    assert raised.value.code == "CFG-VALUE"


@pytest.mark.parametrize(
    ("level", "name"), [(300.0, "level-300"), (-300.0, "level-minus-300"), (0.02, "level-0.02"), (-0.5, "level-minus-0.5")]
)
def test_a_level_goes_before_the_tissue_and_names_the_surface(level: float, name: str) -> None:
    volume, _ = chest()
    assert choose(volume, SurfaceConfig(tissue="bone", level=level)) == Tissue(name, low=level)


def test_auto_means_skin_in_hounsfield_units_and_foreground_elsewhere() -> None:
    volume, _ = chest()
    assert choose(volume, SurfaceConfig()).name == "skin"
    assert choose(replace(volume, quantity=Quantity.ARBITRARY), SurfaceConfig()).name == "foreground"


@pytest.mark.parametrize("quantity", [Quantity.ARBITRARY, Quantity.ATTENUATION_PER_MM])
@pytest.mark.parametrize("tissue", HOUNSFIELD_PRESETS)
def test_hounsfield_tissues_are_refused_in_other_quantities(tissue: TissueName, quantity: Quantity) -> None:
    volume, _ = chest()
    with pytest.raises(UsageError, match=quantity.value) as raised:
        make_surface(replace(volume, quantity=quantity), SurfaceConfig(tissue=tissue))
    assert raised.value.code == "SRF-QUANTITY"


@pytest.mark.parametrize("tissue", ["skin", "bone", "lung"])
def test_a_tissue_encloses_the_organ_of_the_phantom(tissue: TissueName) -> None:
    volume, truth_ml = chest()
    surface = make_surface(volume, SurfaceConfig(tissue=tissue, smoothing_iterations=0))
    assert surface.name == tissue
    assert surface.measures["watertight"]
    assert surface.measures["components"] == (2 if tissue == "lung" else 1)
    assert surface.measures["volume_ml"] == pytest.approx(truth_ml[tissue], rel=0.03)


def test_lungs_look_outward_although_they_are_the_darker_side() -> None:
    volume, _ = chest()
    mesh = make_surface(volume, SurfaceConfig(tissue="lung")).to_trimesh()
    away = mesh.triangles_center[:, 0] - np.where(mesh.triangles_center[:, 0] > 0, 65, -65)
    outer = np.abs(away) > 40  # at the sides of each lung
    outward = mesh.face_normals[outer, 0] * np.sign(away[outer])
    assert np.average(outward, weights=mesh.area_faces[outer]) > 0.8


def test_the_lung_check_fails_where_air_outside_the_body_counts_too() -> None:
    volume, truth_ml = chest()
    inverted = volume.with_voxels(-volume.voxels)
    surface = make_surface(inverted, SurfaceConfig(level=400.0, largest_component=True))
    assert surface.measures["volume_ml"] != pytest.approx(truth_ml["lung"], rel=0.5)


@pytest.mark.parametrize(("tissue", "low", "high"), [("soft-tissue", 40, 40), ("muscle", 40, 40), ("fat", -100, -100)])
def test_a_tissue_between_two_values_encloses_only_those(tissue: TissueName, low: float, high: float) -> None:
    values = np.full((30, 30, 30), -1000.0, dtype=np.float32)
    values[5:25, 5:25, 5:25] = 1000
    values[8:22, 8:22, 8:14], values[8:22, 8:22, 16:22] = low, (low + high) / 2
    volume = Volume(values, Grid(values.shape, np.eye(4)), Quantity.HOUNSFIELD)
    surface = make_surface(volume, SurfaceConfig(tissue=tissue, smoothing_iterations=0, largest_component=False))
    inside = [v for v in surface.vertices_lps_mm if (v > 7).all() and (v < 22).all()]
    assert inside


def test_foreground_is_the_brighter_class_of_a_picture_in_two_greys(rng: np.random.Generator) -> None:
    values = rng.normal(20, 3, (40, 40, 40))
    values[10:30, 12:28, 8:32] += 180
    volume = Volume(values.astype(np.float32), Grid(values.shape, np.eye(4)))
    assert choose(volume, SurfaceConfig()).low == pytest.approx(110, abs=1)
    assert make_surface(volume).measures["volume_ml"] == pytest.approx(20 * 16 * 24 / 1000, rel=0.02)


def test_foreground_does_not_look_at_what_was_not_seen(rng: np.random.Generator) -> None:
    values = rng.normal(20, 3, (40, 40, 40)).astype(np.float32)
    values[10:30, 12:28, 8:32] += 180
    values[:, :, 36:] = np.nan
    values[:, 38:] = 5000
    seen = values < 4000
    chosen = choose(Volume(values, Grid(values.shape, np.eye(4)), seen=seen), SurfaceConfig())
    assert chosen.low == pytest.approx(110, abs=1)
