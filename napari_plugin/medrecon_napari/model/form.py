"""A settings model as fields of a form: read from its JSON schema, so that a new setting shows up by itself.

What a schema can say beyond the kinds here becomes a field in which YAML is typed; nothing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["switch", "integer", "number", "choice", "text", "vector", "none", "value"]
Schema = Mapping[str, Any]

#: Endings of names that say a unit, and how it is written on the screen.
_UNITS = {"mm": "mm", "ms": "ms", "s": "s", "deg": "°", "rad": "rad", "hu": "HU", "ml": "mL"}
#: Names that would be shown as an abbreviation or in small letters.
_LABELS = {
    "eps": "Tolerated misfit",
    "region_lps_mm": "Region of interest",
    "axes": "Orientation",
    "path": "Slice model",
    "order": "Curve order",
    "tolerance": "Stop at error",
    "iterations": "Most steps",
    "seed": "Random seed",
}


@dataclass(frozen=True, slots=True)
class Editor:
    """One way to give a value.

    Parameters
    ----------
    kind : str
        ``switch`` (bool), ``integer``, ``number``, ``choice``, ``text``, ``vector`` (numbers), ``none`` (no value) or
        ``value`` (anything, as YAML).
    label : str
        What this way is called where there are several.
    minimum, maximum : float, optional
    above : bool
        Whether the minimum itself is excluded.
    below : bool
        Whether the maximum itself is excluded.
    choices : tuple
    length : int
        Of a vector.
    """

    kind: Kind
    label: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: bool = False
    below: bool = False
    choices: tuple[Any, ...] = ()
    length: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """One setting.

    Parameters
    ----------
    name : str
    label : str
    unit : str
    description : str
    default : object
    editors : tuple of Editor
        One, or several to choose from.
    """

    name: str
    label: str
    default: Any
    editors: tuple[Editor, ...]
    unit: str = ""
    description: str = ""
    path: tuple[str, ...] = field(default=())


def fields(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[Field]:
    """Yield the settings of a JSON schema, those of nested models after their names."""
    definitions = schema.get("$defs", {})
    for name, property_ in schema.get("properties", {}).items():
        nested = _resolved(property_, definitions)
        if nested.get("type") == "object" and "properties" in nested:
            yield from fields({**nested, "$defs": definitions}, (*path, name))
            continue
        editors = tuple(_editors(nested, definitions))
        description = _sentence(str(property_.get("description", nested.get("description", ""))))
        yield Field(name, label_of(name), nested.get("default"), editors, unit_of(name), description, (*path, name))


def label_of(name: str) -> str:
    """Return a setting's name as it is shown: ``spacing_mm`` as ``Spacing``."""
    if name in _LABELS:
        return _LABELS[name]
    words = name.split("_")
    if len(words) > 1 and words[-1] in _UNITS:
        words = words[:-1]
    return " ".join(words).capitalize()


def unit_of(name: str) -> str:
    """Return the unit that a setting's name ends in."""
    return _UNITS.get(name.rpartition("_")[2], "") if "_" in name else ""


def fitting(field_: Field, value: object) -> int:
    """Return which of a field's editors a value belongs to."""
    fitting_ones = [number for number, editor in enumerate(field_.editors) if _fits(editor, value)]
    special = (number for number in fitting_ones if field_.editors[number].kind != "value")
    return next(special, fitting_ones[0] if fitting_ones else len(field_.editors) - 1)


def _editors(schema: Schema, definitions: Mapping[str, Any]) -> Iterator[Editor]:
    if "anyOf" not in schema:
        yield _editor(schema)
        return
    for one in schema["anyOf"]:
        yield _editor(_resolved(one, definitions))


def _editor(schema: Schema) -> Editor:
    if "const" in schema:
        return Editor("choice", label=_word(schema["const"]), choices=(schema["const"],))
    if "enum" in schema:
        return Editor("choice", label="one of these", choices=tuple(schema["enum"]))
    kind = schema.get("type")
    if kind == "null":
        return Editor("none", label="automatic")
    if kind == "boolean":
        return Editor("switch", label="on or off")
    if kind in {"integer", "number"}:
        return _number(schema, "integer" if kind == "integer" else "number")
    if kind == "string":
        return Editor("text", label="text")
    if kind == "array" and _is_vector(schema):
        return Editor("vector", label=f"{len(schema['prefixItems'])} numbers", length=len(schema["prefixItems"]))
    return Editor("value", label="as YAML")


def _number(schema: Schema, kind: Literal["integer", "number"]) -> Editor:
    above, below = "exclusiveMinimum" in schema, "exclusiveMaximum" in schema
    low = schema.get("exclusiveMinimum", schema.get("minimum"))
    high = schema.get("exclusiveMaximum", schema.get("maximum"))
    return Editor(kind, label="a number", minimum=low, maximum=high, above=above, below=below)


def _is_vector(schema: Schema) -> bool:
    items = schema.get("prefixItems", [])
    return bool(items) and all(item.get("type") in {"number", "integer"} for item in items)


def _resolved(schema: Schema, definitions: Mapping[str, Any]) -> Schema:
    """Follow a reference to a definition; what stands beside it, such as a default, is kept."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    name = str(reference).rpartition("/")[2]
    return {**definitions.get(name, {}), **{key: value for key, value in schema.items() if key != "$ref"}}


def _fits(editor: Editor, value: object) -> bool:
    if editor.kind == "none":
        return value is None
    if editor.kind == "switch":
        return isinstance(value, bool)
    if editor.kind == "choice":
        return not isinstance(value, list | dict) and value in editor.choices
    if editor.kind == "text":
        return isinstance(value, str)
    if editor.kind == "vector":
        return isinstance(value, list | tuple) and len(value) == editor.length
    if editor.kind == "value":
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return editor.kind == "number" or float(value).is_integer()


def _word(value: object) -> str:
    return "automatic" if value == "auto" else str(value)


def _sentence(text: str) -> str:
    """Return a description as a sentence, without marks of the source text."""
    plain = re.sub(r"`([^`]*)`", r"\1", text).strip()
    if not plain:
        return ""
    plain = plain[:1].upper() + plain[1:]
    return plain if plain.endswith((".", "!", "?")) else f"{plain}."
