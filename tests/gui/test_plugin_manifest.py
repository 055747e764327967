"""The manifest is valid, everything that it names is there, and the window's process never loads torch."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from npe2 import PluginManager, PluginManifest

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "napari_plugin" / "medrecon_napari" / "napari.yaml"


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(MANIFEST)


def test_npe2_finds_the_manifest_valid() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(MANIFEST)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_npe2_validate_fails_on_a_manifest_with_an_unknown_menu_command(tmp_path: Path) -> None:
    broken = tmp_path / "napari.yaml"
    broken.write_text(MANIFEST.read_text(encoding="utf-8").replace("medrecon.get_reader", "no such command"), encoding="utf-8")
    answer = subprocess.run([sys.executable, "-m", "npe2", "validate", str(broken)], capture_output=True, text=True, check=False)
    assert answer.returncode != 0


def test_everything_that_the_manifest_names_can_be_imported(manifest: PluginManifest) -> None:
    for command in manifest.contributions.commands or ():
        assert command.python_name is not None
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), command.id


def test_every_command_that_is_contributed_is_declared(manifest: PluginManifest) -> None:
    contributed = manifest.contributions
    declared = {command.id for command in contributed.commands or ()}
    used = {one.command for part in (contributed.readers, contributed.writers, contributed.widgets) for one in part or ()}
    used |= {sample.command for sample in contributed.sample_data or () if hasattr(sample, "command")}
    used |= {item.command for items in contributed.menus.values() for item in items if hasattr(item, "command")}
    assert used <= declared
    assert used == declared, "a command that nothing uses"


def test_napari_finds_the_plugin_by_the_name_of_the_distribution() -> None:
    assert "medrecon" in {entry.name for entry in metadata.entry_points(group="napari.manifest")}
    manager = PluginManager.instance()
    manager.discover()
    assert manager.get_manifest("medrecon").package_metadata is not None


@pytest.mark.parametrize(
    "name",
    [
        "a.dcm",
        "A.DCM",
        "a.ima",
        "DICOMDIR",
        "IM000001",
        "IMG0042",
        "I10",
        "00000001",
        "1.2.840.113619.2.5.1",
        "a.nii",
        "a.nii.gz",
        "A.NII.GZ",
        "a.nrrd",
        "a.nhdr",
        "a.mha",
        "a.mhd",
        "study.zip",
    ],
)
def test_the_patterns_fit_the_names_that_scans_have(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    readers = PluginManager.instance().iter_compatible_readers([str(tmp_path / name)])
    assert "medrecon" in {reader.plugin_name for reader in readers}


@pytest.mark.parametrize("name", ["a.tif", "im1.png", "1.tiff", "notes.txt", "img0042.jpg", "table.csv"])
def test_the_patterns_leave_other_files_to_other_readers(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    readers = PluginManager.instance().iter_compatible_readers([str(tmp_path / name)])
    assert "medrecon" not in {reader.plugin_name for reader in readers}


def test_a_folder_may_be_dropped(tmp_path: Path) -> None:
    readers = PluginManager.instance().iter_compatible_readers([str(tmp_path)])
    assert "medrecon" in {reader.plugin_name for reader in readers}


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after some code, without a window."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    return set(json.loads(answer.stdout.splitlines()[-1]))


OPEN_A_SERIES = """
from pathlib import Path
from napari.components import ViewerModel
from napari.layers import Layer
from medrecon_napari.reading import get_reader
from medrecon_napari.viewing.attach import attach
viewer = ViewerModel()
attach(viewer)
folder = "sample_data/mr_brain_thick/dicom"
for layer in get_reader(folder)(folder):
    viewer.add_layer(Layer.create(*layer))
viewer.dims.order = (1, 0, 2)
assert viewer.canvas.overlays["medrecon_left"].text == "R"
"""
EVERY_MODULE = """
import pkgutil, importlib, medrecon_napari
for module in pkgutil.walk_packages(medrecon_napari.__path__, "medrecon_napari."):
    importlib.import_module(module.name)
"""


def test_the_process_of_the_window_never_loads_torch() -> None:
    assert loaded_after(OPEN_A_SERIES + EVERY_MODULE) & {"torch", "monai"} == set()


def test_the_check_for_torch_sees_torch() -> None:
    assert "torch" in loaded_after("import medrecon.operators.linear")
