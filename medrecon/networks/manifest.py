"""What stands beside every file of weights: which network, trained on what, by which commands, and how good it was.

The manifest is a page of JSON under the name of its weights. It is read as plain data, bounded, and it never decides
what is imported: it names one of our own networks and gives that network's settings.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, ValidationError

from medrecon.core.errors import WeightsError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.settings import Config

_MOST_BYTES = 256 * 1024
_NEAR = 1.02  # spacings are rounded in headers
Millimetres = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**40)]
Line = Annotated[str, Field(max_length=4000)]


class Training(Config):
    """How weights came about, and within which limits they were made to work.

    Ranges are (smallest, largest), None where the quantity has no meaning for the network. `metrics` are numbers measured
    on data that the training has not seen; the unit stands in the name, such as ``psnr_db_mni152_4mm_gap1``.
    """

    title: Line = ""
    spacing_mm: tuple[Millimetres, Millimetres] | None = None
    thickness_mm: tuple[Millimetres, Millimetres] | None = None
    gap_mm: tuple[Annotated[float, Field(ge=-100, le=100)], Annotated[float, Field(ge=-100, le=100)]] | None = None
    modalities: tuple[Line, ...] = ()
    training_data: Line
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    licence: Line = "Apache-2.0"
    trained_on: Annotated[Line, Field(description="device and precision, such as 'NVIDIA H100, bf16'")]
    trained_date: date
    training_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    seed: int = 0
    commands: tuple[Line, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    notes: tuple[Line, ...] = ()


class Manifest(Training):
    """A `Training` bound to one file of weights by its hash."""

    network: Annotated[str, Field(max_length=80)]
    config: dict[str, Any]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parameters: Count

    def outside_training(self, spacing_mm: float | None = None, thickness_mm: float | None = None) -> tuple[Finding, ...]:
        """Return a finding (``MDL-RANGE``, warn) for each quantity that lies outside what the network was trained on."""
        asked = {"spacing_mm": (spacing_mm, self.spacing_mm), "thickness_mm": (thickness_mm, self.thickness_mm)}
        return tuple(
            _out_of_range(name, value, limits)
            for name, (value, limits) in asked.items()
            if value is not None and limits is not None and not limits[0] / _NEAR <= value <= limits[1] * _NEAR
        )


def manifest_path(weights: Path) -> Path:
    """Return where the manifest of a file of weights stands: beside it, ending in ``.json``."""
    return weights.with_suffix(".json")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest as plain data.

    Raises
    ------
    WeightsError
        ``MDL-MISSING`` where there is none, ``MDL-MANIFEST`` where it is no manifest.
    """
    if not path.is_file():
        raise WeightsError("MDL-MISSING", "the manifest of the weights is missing", "It ends in .json and stands beside them.")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _no_manifest(f"it is larger than {_MOST_BYTES} bytes")
        return Manifest.model_validate(json.loads(path.read_bytes(), object_pairs_hook=unique_keys))
    except ValidationError as error:
        raise _no_manifest(f"{_first_problem(error)}") from error
    except (OSError, RecursionError, ValueError) as error:  # ValueError: not JSON, not UTF-8, a key twice
        raise _no_manifest(f"it cannot be read as JSON ({type(error).__name__})") from error


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of JSON pairs; raise `ValueError` for a key that stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the same key twice")
    return found


def _out_of_range(name: str, value: float, limits: tuple[float, float]) -> Finding:
    word, low, high = name.removesuffix("_mm"), *limits
    return Finding(
        code="MDL-RANGE",
        verdict=Verdict.WARN,
        fact=f"a {word} of {value:.2f} mm lies outside the {low:.2f} to {high:.2f} mm that the network was trained on",
        numbers={name: value, f"least_{name}": low, f"most_{name}": high},
        hint="Compare with a classical method, such as consistent_spline, before trusting fine detail.",
    )


def _first_problem(error: ValidationError) -> str:
    """Name the first wrong field that is ours; a key that came with the file is not repeated."""
    item = error.errors(include_url=False, include_input=False)[0]
    known = item["loc"] and item["loc"][0] in Manifest.model_fields
    return f"{item['loc'][0]}: {item['msg']}" if known else f"it does not have the fields of one ({item['type']})"


def _no_manifest(why: str) -> WeightsError:
    return WeightsError("MDL-MANIFEST", f"the manifest of the weights cannot be used: {why}", "Take the pair of files again.")
