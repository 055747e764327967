"""A method's file that is half-written, empty or wrong costs that method alone, and says so with a code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from medrecon_napari.model import choice
from typer.testing import CliRunner

from medrecon import methods
from medrecon.cli import app
from medrecon.config import ReconstructionConfig, load_presets
from medrecon.core import registry
from medrecon.core.errors import UsageError

#: A file that is as it should be, and files that are not with what is to be said about them.
WHOLE = '''
from medrecon.core.settings import Config

INPUT = "slices"

class HalfConfig(Config):
    """Settings."""

def half(A, y, config, tick):
    """Do nothing."""
'''
BROKEN = {
    "def half(A, y, config": "SyntaxError in line 1",
    "import math\n1 / 0\n": "ZeroDivisionError in line 2",
    "import no_such_package_of_anybody": "it needs no_such_package_of_anybody, which is not installed",
    "\0": "SyntaxError",
    "raise RuntimeError('Jane Doe')": "RuntimeError in line 1",
    "": "its file defines no HalfConfig",
    WHOLE.replace('INPUT = "slices"', ""): "its file defines no INPUT",
    WHOLE.replace('"slices"', '"photographs"'): "its INPUT is none of slices, projections",
    WHOLE.replace("(Config)", ""): "HalfConfig is no Config",
    WHOLE.replace('"""Settings."""', "steps: int"): "its settings have no defaults",
    f"from collections.abc import Callable\n{WHOLE}".replace(
        '"""Settings."""', "of: Callable[[], None] | None = None"
    ): "no schema",
}
Put = Callable[[str, str], None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    """Return a function that puts a file among the methods, before those that are there."""
    monkeypatch.setattr(methods, "__path__", [str(tmp_path), *methods.__path__])

    def do(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"medrecon.methods.{name}", raising=False)
        forget()

    yield do
    sys.modules.pop("medrecon.methods.half", None)
    vars(methods).pop("half", None)
    forget()


def forget() -> None:
    choice.methods_for.cache_clear()
    choice.broken_methods.cache_clear()


@pytest.mark.parametrize(("source", "why"), BROKEN.items(), ids=BROKEN.values())
def test_a_broken_method_is_refused_by_its_name_and_the_others_are_all_there(put: Put, source: str, why: str) -> None:
    before = {method.name for method in methods.survey()[0]}
    put("half", source)
    usable, refused = methods.survey()
    assert {method.name for method in usable} == before
    assert refused["half"].code == "ARG-BROKEN"
    assert why in refused["half"].fact
    assert "Jane" not in str(refused["half"])
    assert ReconstructionConfig().method in before


def test_a_whole_method_in_the_same_place_is_usable(put: Put) -> None:
    put("half", WHOLE)
    usable, refused = methods.survey()
    assert "half" in {method.name for method in usable}
    assert not refused


def test_whoever_names_a_broken_method_is_told(put: Put) -> None:
    put("half", "def half(")
    with pytest.raises(UsageError, match="ARG-BROKEN: the method 'half' cannot be loaded: SyntaxError in line 1"):
        registry.load(methods, "half")
    with pytest.raises(ValueError, match="cannot be loaded: SyntaxError in line 1"):
        ReconstructionConfig(method="half")


def test_a_method_that_was_mended_is_usable_at_once(put: Put) -> None:
    put("half", "def half(")
    assert "half" in methods.survey()[1]
    put("half", WHOLE)
    assert methods.get("half").input == "slices"


def test_the_list_of_methods_shows_the_broken_one_as_unavailable(put: Put) -> None:
    put("half", "def half(")
    plain, as_json = CliRunner().invoke(app, ["methods"]), CliRunner().invoke(app, ["methods", "--json"])
    assert plain.exit_code == as_json.exit_code == 0, plain.output
    assert "unavailable" in plain.output
    assert "ARG-BROKEN" in plain.output
    told = {one["name"]: one for one in json.loads(as_json.output)}
    assert told["half"]["unavailable"]["code"] == "ARG-BROKEN"
    assert "unavailable" not in told["consistent_spline"]


def test_a_preset_whose_method_is_broken_is_unavailable_and_the_others_are_not(put: Put) -> None:
    put("fdk", "1 / 0")
    usable, refused = load_presets()
    assert {"fast", "best", "cbct-low-dose"} <= set(usable)
    assert "cbct-fast" in refused
    answer = CliRunner().invoke(app, ["presets", "--json"])
    assert answer.exit_code == 0, answer.output
    assert "ZeroDivisionError" in json.loads(answer.output)["cbct-fast"]["unavailable"]["fact"]


def test_the_panel_offers_what_is_whole_and_says_why_the_rest_is_not_there(put: Put) -> None:
    put("fdk", "1 / 0")
    assert "fdk" not in choice.methods_for("projections")
    assert "tv" in choice.methods_for("projections")
    assert "cbct-fast" not in choice.presets()
    assert choice.broken_methods()["fdk"].code == "ARG-BROKEN"


def test_slices_get_the_first_whole_method_where_those_of_all_their_presets_are_broken(put: Put, tmp_path: Path) -> None:
    from medrecon_napari.model.background import AtOnce
    from medrecon_napari.model.session import Session
    from medrecon_napari.model.workbench import Workbench

    from tests.makers_dicom import make_series

    for name in {load.method for load in load_presets()[0].values()} & set(choice.methods_for("slices")):
        put(name, "1 / 0")
    make_series(tmp_path / "study", shape=(8, 24, 20))
    bench = Workbench(AtOnce(), Session(tmp_path), {})
    bench.previews.open = lambda *_: None  # type: ignore[method-assign]  # no child process here
    bench.look_at(tmp_path / "study")
    assert bench.config.method in choice.methods_for("slices")
    assert bench.recipe() is not None
    bench.close()
