"""The one configuration: API argument, YAML file, command-line flags, panel form and recorded provenance.

Presets are YAML files in ``configs/``, shipped with the package. Nothing here loads torch: a method's settings model
is plain pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from medrecon import methods
from medrecon.core.errors import UsageError
from medrecon.core.hounsfield import HIGHEST_KEV, LOWEST_KEV
from medrecon.core.patient_position import PatientPosition
from medrecon.core.provenance import hash_of
from medrecon.core.reading import Positive
from medrecon.core.settings import Config, parse, parse_value, read_yaml
from medrecon.surface.settings import SurfaceConfig

Point = tuple[float, float, float]
#: What is used where the user names neither a preset nor a configuration, by the kind of scan.
DEFAULT_PRESETS: Mapping[str, str] = {"slices": "fast", "frames": "ultrasound", "projections": "cbct-fast"}
_OF_FRAMES = "tracked_frames"  # the reader of slices that a hand has placed


class GridConfig(Config):
    """The output grid."""

    spacing_mm: Positive | tuple[Positive, Positive, Positive] | None = Field(
        None,
        description="voxel size: one number, or slice, row, column; where not given, the finest in-plane spacing of slices, "
        "or the detector's pixel as it appears at the isocentre",
    )
    axes: Literal["scanner", "patient"] = Field(
        "scanner",
        description="of slices; scanner: along the images' rows, columns and normal; patient: along left, back and head, "
        "as projections always are",
    )
    region_lps_mm: tuple[Point, Point] | None = Field(
        None, description="two opposite corners (x, y, z) of a region of interest, LPS mm"
    )


class ProjectionConfig(Config):
    """How detector values become line integrals; slices do not look here."""

    open_beam: Positive | None = Field(None, description="counts in air, for scans of counts that bring no open-beam image")
    dark: float = Field(0.0, ge=0, allow_inf_nan=False, description="counts without a beam, for the same scans")
    bad_pixels: bool = Field(False, description="find detector pixels that answer unlike their neighbours, and leave them out")
    scatter: float = Field(
        0.0, ge=0, lt=1, description="scatter to take off, as a share of the faintest percent of each view; 0: none"
    )
    beam_hardening: tuple[float, ...] = Field(
        (), description="polynomial without constant that turns measured line integrals into those of one energy; empty: none"
    )
    rings: Literal["none", "sorting", "large"] = Field(
        "none", description="stripes to take out of the sinograms: thin ones (sorting), or wide ones too (large, slow)"
    )
    axis: Literal["as-read", "auto", "find"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        "as-read",
        description="where the axis of rotation appears: as the files say; found from opposite views (find); found where the "
        "beam is parallel and there are such views (auto); or a detector column, counted from 0",
    )
    tilt_deg: Literal["as-read", "find"] | Annotated[float, Field(ge=-10, le=10)] = Field(
        "as-read",
        description="how the image of that axis leans against the detector's columns: as the files say; found from opposite "
        "views (find); or degrees, positive where it moves to higher columns with growing row",
    )
    patient_position: PatientPosition | None = Field(
        None,
        description="how the patient lay: head or feet first (HF, FF), on the back, the belly, the right or the left side (S, P, "
        "DR, DL); not given: as the files say, else HFS",
    )


class Sample(Config):
    """A ball of known material in the reconstructed volume."""

    centre_lps_mm: Point
    radius_mm: Positive
    hounsfield: float = Field(allow_inf_nan=False, description="what it should measure: water 0, air -1000")


class HounsfieldConfig(Config):
    """What attenuation means in Hounsfield units; without any of these the result stays attenuation per mm."""

    scanner: bool = Field(True, description="take water's value from the files, where they carry it")
    water_per_mm: Positive | None = Field(None, description="attenuation of water in this spectrum, 1/mm")
    air_per_mm: float = Field(0.0, allow_inf_nan=False, description="attenuation of air beside it")
    effective_kev: float | None = Field(
        None, ge=LOWEST_KEV, le=HIGHEST_KEV, description="effective energy instead, keV: pure water's value is taken"
    )
    samples: tuple[Sample, ...] = Field((), description="known materials to measure instead: water, or water and air, or more")

    @model_validator(mode="after")
    def check_one_source(self) -> Self:
        """Refuse two contradicting sources of one value."""
        given = [name for name in ("water_per_mm", "effective_kev", "samples") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say the same thing twice: give one of them")
        return self


class ReconstructionConfig(Config):
    """Everything that decides how a scan becomes a volume and its surfaces."""

    method: str = Field("consistent_spline", description="name of a method, see `medrecon methods`")
    settings: Mapping[str, Any] = Field(default_factory=dict, description="settings of the method, checked against its own model")
    path: Literal["auto", "separable", "general"] = Field(
        "auto", description="auto: the fast path where the slices allow it; general: any pose; both give the same numbers"
    )
    grid: GridConfig = GridConfig()
    projections: ProjectionConfig = ProjectionConfig()
    hounsfield: HounsfieldConfig = HounsfieldConfig()
    surfaces: tuple[SurfaceConfig, ...] = Field((SurfaceConfig(),), description="surfaces to extract; may be empty")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = Field("auto", description="auto, cpu or cuda:N")
    seed: int = Field(0, ge=0, description="of everything random; recorded")

    @model_validator(mode="after")
    def check_method(self) -> Self:
        """Check the method's name and its settings against the method's own model, and fill in its defaults."""
        try:
            checked = parse(methods.get(self.method).settings, dict(self.settings), f"settings of {self.method}")
        except UsageError as error:
            raise ValueError(f"{error.fact} {error.hint}".strip()) from error
        object.__setattr__(self, "settings", checked.model_dump(mode="json"))
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration as understood, in canonical form."""
        return hash_of(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """Return the configuration as YAML that `load_config` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def preset_kind(kind: str, reader: str) -> str:
    """Name what a series is to `DEFAULT_PRESETS`: slices of a freehand probe are ``frames``, volumes are slices.

    Parameters
    ----------
    kind, reader : str
        Of a `SeriesInfo`.
    """
    if kind == "projections":
        return kind
    return "frames" if reader == _OF_FRAMES else "slices"


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets that ship with the package; recipes, ``train-*`` and ``compress-*``, are none."""
    files = resources.files("medrecon.configs").iterdir()
    names = (Path(file.name).stem for file in files if file.name.endswith(".yaml"))
    return tuple(sorted(name for name in names if not name.startswith(("train-", "compress-"))))


def load_presets() -> tuple[dict[str, ReconstructionConfig], dict[str, UsageError]]:
    """Return all presets that can be used by name, and why each of the others cannot: its method's file may be broken."""
    usable, refused = {}, {}
    for name in preset_names():
        try:
            usable[name] = load_config(name)
        except UsageError as error:
            refused[name] = error
    return usable, refused


def load_preset(name: str) -> dict[str, Any]:
    """Return a preset as plain data; raise `UsageError` (``ARG-NAME``) where there is none of that name."""
    if name not in preset_names():
        raise UsageError("ARG-NAME", f"there is no preset called {name[:40]!r}", f"Known: {', '.join(preset_names())}.")
    with resources.as_file(resources.files("medrecon.configs") / f"{name}.yaml") as path:
        return _mapping(read_yaml(path), f"preset {name}")


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user chose, before it is known what was measured and which preset lies below.

    Parameters
    ----------
    preset : str, optional
    file : Path, optional
    assignments : tuple of str

    Raises
    ------
    UsageError
        Where the choice fits no kind of scan.
    """

    preset: str | None = None
    file: Path | None = None
    assignments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        errors = [error for error in map(self._refusal, DEFAULT_PRESETS) if error is not None]
        if len(errors) == len(DEFAULT_PRESETS):
            raise errors[0]

    def config(self, kind: str) -> ReconstructionConfig:
        """Return the configuration for ``slices`` or ``projections``; raise as `load_config` does."""
        return load_config(self.preset or DEFAULT_PRESETS[kind], self.file, self.assignments)

    def _refusal(self, kind: str) -> UsageError | None:
        try:
            self.config(kind)
        except UsageError as error:
            return error
        return None


def load_config(preset: str | None = None, file: Path | None = None, assignments: tuple[str, ...] = ()) -> ReconstructionConfig:
    """Build the configuration from a preset, a YAML file over it, and ``a.b=value`` assignments over both.

    Without a preset it is the one of slices; `Choice` waits until it is known what was measured.

    Raises
    ------
    UsageError
        ``ARG-NAME``, ``CFG-FILE`` or ``CFG-VALUE``, naming the setting.
    """
    data = load_preset(preset or DEFAULT_PRESETS["slices"])
    if file is not None:
        data = _merged(data, _mapping(read_yaml(file), file.name))
    for assignment in assignments:
        data = _merged(data, _assigned(assignment))
    return parse(ReconstructionConfig, data, "configuration")


def load_surface_config(assignments: tuple[str, ...] = ()) -> SurfaceConfig:
    """Build the settings of a surface from ``name=value`` assignments over the defaults; raise as `load_config` does."""
    return parse(SurfaceConfig, assigned(assignments), "surface settings")


def assigned(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Turn ``name=value`` assignments into plain data; raise `UsageError` (``CFG-VALUE``) for what is none."""
    data: dict[str, Any] = {}
    for assignment in assignments:
        data |= _assigned(assignment)
    return data


def _assigned(assignment: str) -> dict[str, Any]:
    """Turn ``grid.spacing_mm=1.0`` into nested plain data."""
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise UsageError(
            "CFG-VALUE", f"{assignment[:60]!r} is not of the form setting=value", "Write for example grid.spacing_mm=1.0."
        )
    value = parse_value(text)
    for key in reversed(path.strip().split(".")):
        value = {key: value}
    return value if isinstance(value, dict) else {}


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, mapping by mapping; a new method drops the settings of the old one."""
    if over.get("method", base.get("method")) != base.get("method"):
        base = {**base, "settings": {}}
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _mapping(data: object, where: str) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError("CFG-FILE", f"{where} holds {type(data).__name__}, not settings with their names")
    return data
