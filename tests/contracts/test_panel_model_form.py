"""Every setting of every model becomes a field, and every choice becomes a command line that means the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from medrecon_napari.model import words
from medrecon_napari.model.choice import (
    Recipe,
    assignments,
    export_command,
    methods_for,
    presets,
    run_command,
    surface_command,
)
from medrecon_napari.model.estimate import Rates, given_s, result_shape, work_of
from medrecon_napari.model.form import Field as FormField
from medrecon_napari.model.form import fields, fitting
from medrecon_napari.model.words import allowances, duration, gaps, gigabytes, skipped, spacing
from pydantic import BaseModel, Field

import medrecon as mr
from medrecon import methods
from medrecon.config import ReconstructionConfig, load_config, load_surface_config
from medrecon.core.findings import Finding, Verdict
from medrecon.core.reading import ReadOptions, SeriesInfo, Skipped
from medrecon.surface.settings import SurfaceConfig

MODELS: dict[str, type[BaseModel]] = {"surface": SurfaceConfig} | {name: methods.get(name).settings for name in methods.names()}


def leaves(data: dict[str, Any], path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The paths of all values of nested plain data, lists and method settings counting as one value."""
    found: set[tuple[str, ...]] = set()
    for name, value in data.items():
        found |= leaves(value, (*path, name)) if isinstance(value, dict) and value and name != "settings" else {(*path, name)}
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_has_a_field_whose_default_fits_one_of_its_editors(name: str) -> None:
    made = list(fields(MODELS[name].model_json_schema()))
    assert {field.path for field in made} == leaves(MODELS[name]().model_dump(mode="json"))
    for field in made:
        assert field.label
        assert field.description, f"{field.name} needs a description: it is the tooltip"
        assert field.editors[fitting(field, field.default)].kind != "value" or field.default is None


def test_the_configuration_has_a_field_for_every_value() -> None:
    made = {field.path for field in fields(ReconstructionConfig.model_json_schema())}
    assert made == leaves(ReconstructionConfig().model_dump(mode="json"))


class Made(BaseModel):
    """One setting of each kind."""

    length_mm: Annotated[float, Field(gt=0, le=10, description="how `long`")] = 1.0
    count: Annotated[int, Field(ge=1)] = 2
    mode: Literal["a", "b"] = "a"
    strength: float | Literal["auto"] = "auto"
    centre: tuple[float, float, float] | None = None
    on: bool = False
    name: str = ""
    table: dict[str, float] = Field(default_factory=dict)


def made_field(name: str) -> FormField:
    return next(field for field in fields(Made.model_json_schema()) if field.name == name)


def test_limits_units_and_descriptions_come_from_the_model() -> None:
    length = made_field("length_mm")
    (editor,) = length.editors
    assert (length.label, length.unit, length.description) == ("Length", "mm", "How long.")
    assert (editor.minimum, editor.above, editor.maximum, editor.below) == (0, True, 10, False)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("count", ["integer"]),
        ("mode", ["choice"]),
        ("strength", ["number", "choice"]),
        ("centre", ["vector", "none"]),
        ("on", ["switch"]),
        ("name", ["text"]),
        ("table", ["value"]),
    ],
)
def test_each_kind_of_setting_gets_its_editor_and_an_unknown_one_gets_yaml(name: str, kinds: list[str]) -> None:
    assert [editor.kind for editor in made_field(name).editors] == kinds


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("strength", 0.5, "number"), ("strength", "auto", "choice"), ("centre", None, "none"), ("centre", [1, 2, 3], "vector")],
)
def test_a_value_is_shown_by_the_editor_that_it_belongs_to(name: str, value: object, kind: str) -> None:
    field = made_field(name)
    assert field.editors[fitting(field, value)].kind == kind


SPACINGS = st.none() | st.floats(0.1, 5) | st.tuples(*[st.floats(0.1, 5)] * 3)
SURFACES = st.builds(SurfaceConfig, tissue=st.sampled_from(["auto", "bone"]), level=st.none() | st.floats(-1000, 3000))


@st.composite
def configs(draw: st.DrawFn) -> ReconstructionConfig:
    """Draw configurations that differ from the presets in all that the form can change."""
    method = draw(st.sampled_from(["consistent_spline", "interpolate"]))
    settings: dict[str, object] = {"order": draw(st.sampled_from([0, 1, 3]))}
    if method == "consistent_spline":
        settings["eps"] = draw(st.floats(1e-6, 10))
    data = {
        "method": method,
        "settings": settings,
        "path": draw(st.sampled_from(["auto", "general"])),
        "grid": {"spacing_mm": draw(SPACINGS), "axes": draw(st.sampled_from(["scanner", "patient"]))},
        "surfaces": draw(st.lists(SURFACES, max_size=2)),
        "seed": draw(st.integers(0, 10)),
    }
    return ReconstructionConfig.model_validate(data)


@given(configs(), st.sampled_from(sorted(presets())))
def test_the_command_line_says_exactly_what_was_chosen(config: ReconstructionConfig, preset: str) -> None:
    assert load_config(preset, None, assignments(preset, config)) == config


def test_the_command_line_check_fails_where_an_assignment_is_left_out() -> None:
    config = ReconstructionConfig(seed=3)
    assert load_config("fast", None, assignments("fast", config)[1:]) != config


def test_a_preset_as_it_is_needs_no_assignments() -> None:
    for name, config in presets().items():
        assert assignments(name, config) == ()


@given(configs())
def test_saved_settings_are_read_back_by_the_command_line(config: ReconstructionConfig) -> None:
    data = yaml.safe_load(config.to_yaml())
    assert ReconstructionConfig.model_validate(data) == config


def test_saved_settings_are_the_same_whatever_preset_lies_below_them(tmp_path: Path) -> None:
    config = ReconstructionConfig.model_validate({"method": "interpolate", "settings": {"order": 1}, "seed": 4})
    (tmp_path / "saved.yaml").write_text(config.to_yaml(), encoding="utf-8")
    for preset in presets():
        assert load_config(preset, tmp_path / "saved.yaml") == config


def test_the_run_command_names_everything_that_decides_the_result() -> None:
    options = ReadOptions(allow=("missing-slices",), spacing_mm=(2.0, 1.0, 0.5))
    command = run_command(Recipe(Path("a b"), "series-1", "fast", ReconstructionConfig(seed=1), options), Path("out"))
    text = " ".join(command)
    assert command[1:5] == ("-m", "medrecon", "run", "a b")
    for part in ("--series series-1", "--preset fast", "--set seed=1", "--allow missing-slices", "--input-spacing 2.0,1.0,0.5"):
        assert part in text


def test_the_surface_command_says_exactly_what_was_chosen() -> None:
    settings = SurfaceConfig(tissue="bone", smoothing_iterations=0, target_triangles=None)
    command = surface_command(Path("v.nii.gz"), "hounsfield", settings, Path("s.stl"))
    given_ = tuple(command[k + 1] for k, part in enumerate(command) if part == "--set")
    assert load_surface_config(given_) == settings


def test_the_export_command_leaves_the_patient_out_only_when_asked() -> None:
    recipe = Recipe(Path("study"), "series-1", "fast", ReconstructionConfig())
    plain = export_command(Path("r"), Path("o"), ("dicom",), recipe, deidentify=False, overwrite=False)
    without = export_command(Path("r"), Path("o"), ("dicom",), recipe, deidentify=True, overwrite=False)
    assert set(without) - set(plain) == {"--deidentify"}


def test_only_methods_that_take_the_series_are_offered() -> None:
    assert "consistent_spline" in methods_for("slices")
    assert methods_for("volume") == methods_for("slices")
    assert not set(methods_for("projections")) & set(methods_for("slices"))


def series(**changes: Any) -> SeriesInfo:
    data: dict[str, Any] = {"id": "series-1", "reader": "dicom", "kind": "slices", "modality": "CT", "shape": (10, 20, 30)}
    return SeriesInfo(**(data | {"spacing_mm": (5.0, 1.0, 1.0), "thickness_mm": (5.0, 5.0)} | changes))


HOLE = Finding("DCM-GAP", Verdict.REFUSED, "a hole", allow="missing-slices")


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (series(), "none"),
        (series(thickness_mm=(3.0, 3.0)), "2 mm"),
        (series(thickness_mm=(6.0, 6.0)), "overlap 1 mm"),
        (series(findings=(HOLE,)), "missing"),
        (series(spacing_mm=(None, 1.0, 1.0)), "uneven"),
        (series(kind="volume"), "–"),
    ],
)
def test_what_lies_between_slices_is_said_in_a_word(info: SeriesInfo, words: str) -> None:
    assert gaps(info) == words


def test_a_way_out_is_offered_only_where_it_leads_out() -> None:
    assert set(allowances(series(findings=(HOLE,)))) == {"missing-slices"}
    assert allowances(series(findings=(HOLE, Finding("DCM-TAG", Verdict.REFUSED, "gone")))) == {}
    assert allowances(series()) == {}


def test_numbers_are_said_as_people_say_them() -> None:
    assert spacing(series()) == "5 × 1 × 1"
    assert [duration(s) for s in (0.2, 12.4, 125, 1500, 7200)] == ["a second", "12 s", "2 min 5 s", "25 min", "2.0 h"]
    assert [gigabytes(size) for size in (3e6, 2.25e9)] == ["3 MB", "2.2 GB"]
    assert skipped([Skipped(1, "text", "INP-OTHER"), Skipped(2, "text", "INP-OTHER")]) == "2 other files left alone: 2 text."


def test_the_estimated_result_has_the_shape_that_the_engine_plans(tmp_path: Path) -> None:
    import medrecon as mr
    from medrecon.core.output_grid import plan_grid
    from tests.makers_dicom import make_series

    make_series(tmp_path, shape=(8, 32, 24), spacing_mm=(4.0, 1.0, 1.0), thickness_mm=4.0)
    (info,) = mr.find(tmp_path)
    scan = mr.read(tmp_path, info)
    for wanted in (None, 2.0, (2.0, 1.0, 1.0)):
        assert result_shape(info, wanted) == plan_grid(scan.poses, wanted).shape  # type: ignore[union-attr]  # made as slices


def test_estimates_follow_what_runs_took_on_this_machine() -> None:
    rates = Rates({})
    first = rates.estimate("m", (100, 100, 100), 10)
    rates.learn("m", 1_000_000, 33.0)
    assert not first.from_here
    assert rates.estimate("m", (100, 100, 200), 10).seconds == pytest.approx(63.0)
    assert rates.estimate("m", (100, 100, 200), 10).from_here
    assert work_of("m", "general") != work_of("m", "auto")


def test_the_time_that_a_method_is_given_to_learn_is_in_the_estimate_whatever_the_size() -> None:
    rates = Rates({})
    given = given_s(load_config("best").settings)
    assert given == 200
    assert given_s(load_config("fast").settings) == 0
    small, large = (rates.estimate("m", (n, 100, 100), 10, given).seconds for n in (1, 100))
    assert 200 < small < large < 220


HINTS = [
    "Export the series again, or pass allow=['missing-slices'] (--allow missing-slices) to infer the hole and mark it.",
    "Choose one of them, or pass allow=['duplicates'] (--allow duplicates) to average them.",
    "Pass allow=['bad-pixels'] (--allow bad-pixels) to use it as it is.",
    "Pass --overwrite to replace it.",
    "Give it: spacing_mm=(slice, row, column), or --input-spacing.",
    "Give it: spacing_mm=(1, row, column) or --input-spacing 1,row,column; the first number is not used.",
    "Correct the header, or give the spacing (--input-spacing).",
]


@pytest.mark.parametrize("hint", HINTS)
def test_advice_for_the_command_line_becomes_advice_for_the_screen(hint: str) -> None:
    assert "--" in hint
    said = words.on_screen(hint)
    assert "--" not in said
    assert "=" not in said
    assert said.endswith(".")


def test_the_hints_of_this_test_are_those_of_the_engine() -> None:
    files = Path(mr.__file__).parent.rglob("*.py")
    source = " ".join(path.read_text(encoding="utf-8") for path in files).replace("{first.allow}", "bad-pixels")
    assert [hint for hint in HINTS if hint not in source] == []
