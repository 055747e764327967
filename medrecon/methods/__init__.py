"""Reconstruction methods, one file each.

A method file ``name.py`` holds the settings model ``NameConfig`` (a `medrecon.core.settings.Config`), a function
``name(A, y, config, tick)`` that returns ``x`` as a float32 tensor of shape ``A.domain``, and in its docstring the
citation. ``INPUT`` says what it takes: ``slices`` or ``projections``. Torch is imported inside functions only, so
that a method's settings can be shown without loading it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medrecon.core import registry
from medrecon.core.settings import Config


@dataclass(frozen=True, slots=True)
class Method:
    """One reconstruction method: its name, settings model, function and kind of input."""

    name: str
    settings: type[Config]
    run: Callable[..., Any]
    input: str

    @property
    def summary(self) -> str:
        """First line of the method's docstring."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return registry.names(sys.modules[__name__])


def get(name: str) -> Method:
    """Return a method by name; raise `UsageError` (``ARG-NAME``) where there is none."""
    module = registry.load(sys.modules[__name__], name)
    camel = "".join(word.capitalize() for word in name.split("_"))
    return Method(name, getattr(module, f"{camel}Config"), getattr(module, name), module.INPUT)
