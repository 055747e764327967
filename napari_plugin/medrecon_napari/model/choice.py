"""What the user chose, and the command lines that do it: the panel runs nothing that cannot be typed.

A configuration is written as a preset and the assignments that lead from it to what was chosen, so that a command line
stands for itself and needs no file.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from medrecon import methods
from medrecon.config import DEFAULT_PRESETS, ReconstructionConfig, load_config, load_presets, preset_kind
from medrecon.core.reading import ReadOptions
from medrecon.surface.settings import SurfaceConfig
from medrecon_napari.model.child import python, trouble_from
from medrecon_napari.model.words import Trouble

#: What a run writes: all that the panel shows, and from which everything else can be exported.
RUN_FORMATS = ("nifti", "stl", "maps", "report")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a reconstruction was asked for.

    Parameters
    ----------
    path : Path
    series : str
        Id of the series.
    preset : str
    config : ReconstructionConfig
    options : ReadOptions
    """

    path: Path
    series: str
    preset: str
    config: ReconstructionConfig
    options: ReadOptions = field(default_factory=ReadOptions)


def run_command(recipe: Recipe, out: Path) -> tuple[str, ...]:
    """Return the command that reconstructs."""
    return python(
        "run",
        str(recipe.path),
        "--out",
        str(out),
        "--series",
        recipe.series,
        "--preset",
        recipe.preset,
        *_repeated("--set", assignments(recipe.preset, recipe.config)),
        *reading_flags(recipe.options),
        "--formats",
        ",".join(RUN_FORMATS),
        "--progress",
        "json",
    )


def surface_command(volume: Path, quantity: str, settings: SurfaceConfig, out: Path) -> tuple[str, ...]:
    """Return the command that makes a surface from a volume file."""
    default, chosen = SurfaceConfig().model_dump(mode="json"), settings.model_dump(mode="json")
    changed = [f"{name}={_as_yaml(value)}" for name, value in chosen.items() if value != default[name]]
    flags = _repeated("--set", changed)
    return python("surface", str(volume), "--out", str(out), *flags, "--quantity", quantity, "--progress", "json")


def export_command(
    result: Path, out: Path, formats: Iterable[str], recipe: Recipe, deidentify: bool, overwrite: bool
) -> tuple[str, ...]:
    """Return the command that exports a result."""
    return python(
        "export",
        str(result),
        "--out",
        str(out),
        "--formats",
        ",".join(formats),
        "--source",
        str(recipe.path),
        *reading_flags(recipe.options),
        *(("--deidentify",) if deidentify else ()),
        *(("--overwrite",) if overwrite else ()),
        "--progress",
        "json",
    )


def preview_command(path: Path, series: str, options: ReadOptions, scratch: Path) -> tuple[str, ...]:
    """Return the command that answers requests for previews."""
    allowed = (*_repeated("--allow", options.allow), *_spacing_flags(options))
    return python("preview", str(path), "--series", series, "--scratch", str(scratch), *allowed)


def reading_flags(options: ReadOptions) -> tuple[str, ...]:
    """Return how the input is read, as flags."""
    thickness = () if options.thickness_mm is None else ("--thickness", repr(options.thickness_mm))
    profile = () if options.profile is None else ("--profile", options.profile)
    return (*_repeated("--allow", options.allow), *_spacing_flags(options), *thickness, *profile)


def assignments(preset: str, config: ReconstructionConfig) -> tuple[str, ...]:
    """Return the ``--set`` assignments that turn a preset into a configuration; none where they are the same."""
    base, chosen = load_config(preset).model_dump(mode="json"), config.model_dump(mode="json")
    if chosen["method"] != base["method"]:  # a new method begins with its own defaults
        base["settings"] = methods.get(config.method).settings().model_dump(mode="json")
    return tuple(f"{name}={_as_yaml(value)}" for name, value in _changes(base, chosen))


def presets() -> dict[str, ReconstructionConfig]:
    """Return the presets by name, those left out whose method cannot be loaded."""
    return load_presets()[0]


@functools.cache
def methods_for(kind: str) -> tuple[str, ...]:
    """Return the methods that take a kind of series; the planes of a volume are slices too."""
    wanted = "slices" if kind == "volume" else kind
    return tuple(method.name for method in methods.survey()[0] if method.input == wanted)


@functools.cache
def broken_methods() -> Mapping[str, Trouble]:
    """Return in words why each method cannot be used whose file is broken, by its name."""
    return {name: trouble_from(error) for name, error in methods.survey()[1].items()}


def presets_for(kind: str, known: Mapping[str, ReconstructionConfig], reader: str = "") -> tuple[str, ...]:
    """Return the names of the presets whose method takes a kind of series; frames of a freehand probe have their own."""
    fitting, freehand = methods_for(kind), preset_kind(kind, reader) == "frames"
    usual = DEFAULT_PRESETS["frames"]
    return tuple(name for name, config in known.items() if config.method in fitting and (name == usual) == freehand)


def _changes(base: Mapping[str, Any], chosen: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what differs, by its dotted name; the method first, since it decides which settings there are."""
    for name in sorted(chosen, key=lambda name: name != "method"):
        value, before = chosen[name], base.get(name)
        if isinstance(value, dict) and isinstance(before, dict) and value:
            yield from _changes(before, value, f"{prefix}{name}.")
        elif value != before:
            yield f"{prefix}{name}", value


def _as_yaml(value: object) -> str:
    """Write a value as the command line reads it: YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _repeated(flag: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for value in values for part in (flag, value))


def _spacing_flags(options: ReadOptions) -> tuple[str, ...]:
    return () if options.spacing_mm is None else ("--input-spacing", ",".join(map(repr, options.spacing_mm)))
