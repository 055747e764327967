"""The base of every settings model, and how a YAML file becomes plain data.

A settings model is frozen and refuses keys that it does not know, naming the nearest one it does. YAML is read as
plain data: no aliases, no key twice, no tags, at most 64 kB.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from medrecon.core.errors import UsageError

_MOST_YAML_BYTES = 64 * 1024
Model = TypeVar("Model", bound=BaseModel)


class Config(BaseModel):
    """Base of every settings model: frozen, no extra keys, input values kept out of messages."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def name_the_nearest_key(cls, data: Any) -> Any:  # noqa: ANN401 (pydantic hands in anything)
        """Name the nearest known key where an unknown one was given."""
        unknown = sorted(map(str, set(data) - set(cls.model_fields))) if isinstance(data, dict) else []
        if unknown:
            near = difflib.get_close_matches(unknown[0], cls.model_fields, n=1)
            raise ValueError(f"unknown setting {unknown[0]!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        return data


def parse(model: type[Model], data: object, where: str) -> Model:
    """Validate plain data against a settings model; raise `UsageError` (``CFG-VALUE``) naming the setting."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors(include_url=False, include_input=False)[:3])
        raise UsageError("CFG-VALUE", f"{where}: {problems}.") from error


def read_yaml(path: Path) -> Any:  # noqa: ANN401 (YAML is anything)
    """Read a YAML file as plain data.

    Raises
    ------
    UsageError
        ``CFG-FILE`` where the file cannot be read, is too large, or is not plain YAML.
    """
    try:
        if path.stat().st_size > _MOST_YAML_BYTES:
            raise UsageError("CFG-FILE", f"{path.name} is larger than {_MOST_YAML_BYTES} bytes")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)  # noqa: S506 (built on the safe loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("CFG-FILE", f"{path.name} cannot be read as text ({type(error).__name__})") from error
    except RecursionError as error:
        raise UsageError("CFG-FILE", f"{path.name} is nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise UsageError("CFG-FILE", f"{path.name}{place}: {problem}") from error


def parse_value(text: str) -> Any:  # noqa: ANN401 (YAML is anything)
    """Read one value as YAML would: the right-hand side of ``--set key=value``."""
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 (built on the safe loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError("CFG-VALUE", f"{text[:40]!r} is not a YAML value") from error


class _PlainLoader(yaml.SafeLoader):
    """YAML as plain data: no aliases, no key twice."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:  # noqa: ANN401 (as in PyYAML)
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it untyped
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(set(map(repr, keys))) < len(keys):
            raise ConstructorError(None, None, "the same key twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _problem(item: Any) -> str:  # noqa: ANN401 (pydantic's ErrorDetails)
    """One pydantic error as a few words: the setting's path and what is wrong with it."""
    place = ".".join(map(str, item["loc"]))
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
