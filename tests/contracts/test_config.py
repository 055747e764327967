"""One configuration: presets, YAML, assignments and Python all end in the same model, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from medrecon.config import ReconstructionConfig, load_config, preset_names
from medrecon.core.errors import UsageError
from medrecon.core.settings import parse_value, read_yaml


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_survives_its_own_yaml(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(None, tmp_path / "again.yaml") == config
    assert load_config(None, tmp_path / "again.yaml").digest == config.digest


def test_assignments_lie_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("grid: {spacing_mm: 2.0, axes: patient}\n")
    config = load_config("fast", tmp_path / "mine.yaml", ("grid.spacing_mm=1.5",))
    assert config.grid.spacing_mm == 1.5
    assert config.grid.axes == "patient"


def test_another_method_drops_the_settings_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("method: consistent_spline\nsettings: {order: 1}\n")
    assert (
        load_config("fast", tmp_path / "mine.yaml", ("method=interpolate",)).settings
        == load_config(None, None, ("method=interpolate",)).settings
    )


def test_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"CFG-VALUE.*did you mean 'spacing_mm'"):
        load_config("fast", None, ("grid.spacing=1",))


def test_a_wrong_value_is_named_and_not_quoted() -> None:
    with pytest.raises(UsageError, match=r"CFG-VALUE.*grid.spacing_mm") as caught:
        load_config("fast", None, ("grid.spacing_mm=POISON",))
    assert "POISON" not in str(caught.value)


def test_unknown_methods_and_presets_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"[Dd]id you mean 'consistent_spline'"):
        ReconstructionConfig(method="consistent_splin")
    with pytest.raises(UsageError, match=r"CFG-VALUE.*consistent_spline"):
        load_config("fast", None, ("method=consistent_splin",))
    with pytest.raises(UsageError, match=r"ARG-NAME.*fast"):
        load_config("fastest")


BAD_YAML = {
    "alias bomb": "a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "repeated key": "method: interpolate\nmethod: consistent_spline\n",
    "deep nesting": "[" * 1000 + "]" * 1000,
    "python tag": "method: !!python/object/apply:os.system ['true']\n",
    "too large": "# " + "x" * 70_000,
    "not a mapping": "- method\n",
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_yaml_that_is_not_plain_data_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD_YAML[name])
    with pytest.raises(UsageError, match="CFG-FILE"):
        load_config("fast", tmp_path / "bad.yaml")


def test_good_yaml_of_the_same_kind_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("method: interpolate\ngrid: {axes: patient}\n")
    assert read_yaml(tmp_path / "good.yaml") == {"method": "interpolate", "grid": {"axes": "patient"}}
    assert parse_value("[1, 2]") == [1, 2]
