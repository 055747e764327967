"""The tutorial shows what is there: pictures that the script takes, keys and verdicts as the plugin has them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from medrecon_napari.model.words import VERDICTS
from medrecon_napari.panel.load_step import _SIGNS
from medrecon_napari.window_level import HOUNSFIELD_PRESETS
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINKS = re.findall(r"\]\(([^)#]+)\)", TEXT)


@pytest.mark.parametrize("link", LINKS)
def test_every_link_of_the_tutorial_leads_somewhere(link: str) -> None:
    assert link.startswith("http") or (PAGE.parent / link).is_file()


@pytest.mark.parametrize("link", [link for link in LINKS if link.endswith(".png")])
def test_every_picture_is_a_whole_window_that_can_be_read(link: str) -> None:
    with Image.open(PAGE.parent / link) as picture:
        assert picture.width >= 1200
        assert picture.height >= 800
        assert np.ptp(np.asarray(picture.convert("L"))) > 200, "an empty or faded window"


def test_every_picture_is_taken_by_the_script() -> None:
    source = (ROOT / "docs" / "screenshots.py").read_text(encoding="utf-8")
    functions = {one.name for one in ast.parse(source).body if isinstance(one, ast.FunctionDef)}
    named = set(re.findall(r'"(panel_\w+\.png)"', source)) | {f"napari_{name}.png" for name in functions}
    assert {Path(link).name for link in LINKS if link.endswith(".png")} <= named
    assert len(LINKS) > 8


def test_the_table_of_keys_says_what_the_keys_do() -> None:
    said = re.findall(r"^\| (\d) \| ([\w ]+): centre (-?\d+), width (\d+) HU \|$", TEXT, re.MULTILINE)
    windows = [(key, window.name, f"{window.centre:g}", f"{window.width:g}") for key, window in HOUNSFIELD_PRESETS.items()]
    assert said == windows


def test_every_verdict_is_explained_as_the_table_shows_it() -> None:
    shown = {f"{_SIGNS[verdict]} {name}" for verdict, (name, _) in VERDICTS.items()}
    assert set(re.findall(r"^\| ([✓!✕] \w+) \|", TEXT, re.MULTILINE)) == shown


def test_every_name_in_bold_stands_on_a_button_or_in_a_menu() -> None:
    plugin = ROOT / "napari_plugin" / "medrecon_napari"
    files = [*plugin.rglob("*.py"), plugin / "napari.yaml"]
    source = " ".join(path.read_text(encoding="utf-8") for path in files) + " ok Plugins "
    names = {part.strip() for name in re.findall(r"\*\*([^*]+)\*\*", TEXT) for part in name.split("→")}
    tissues = {"Bone"}  # made from the engine's list
    assert {name for name in names - tissues if name not in source} == set()
