"""Reconstruction methods, one file each.

A method file ``name.py`` holds the settings model ``NameConfig`` (a `medrecon.core.settings.Config`), a function
``name(A, y, config, tick)`` that returns ``x`` as a float32 tensor of shape ``A.domain``, or a `Reconstructed` where it
knows more than x, and in its docstring the citation. ``INPUT`` says what it takes: ``slices`` or ``projections``. Torch is
imported inside functions only, so that a method's settings can be shown without loading it. ``PREVIEW``, where a file has
it, names the method that stands in for one too slow for a preview.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic.errors import PydanticUserError

from medrecon.core import registry
from medrecon.core.errors import UsageError
from medrecon.core.findings import Finding
from medrecon.core.settings import Config

if TYPE_CHECKING:
    from torch import Tensor

_INPUTS = ("slices", "projections")


@dataclass(frozen=True, slots=True, eq=False)
class Reconstructed:
    """What a method made, where it is more than a volume.

    Parameters
    ----------
    x : (slices, rows, columns) Tensor, float32
    uncertainty : (slices, rows, columns) Tensor, float32, optional
        How far two ways of making the volume are apart at a voxel, in its unit; a sign of doubt, no confidence interval.
    findings : tuple of Finding
        What the user should know about how it was made.
    coverage : (slices, rows, columns) Tensor, uint8, optional
        Where the method itself knows which voxels were measured (2), filled in between (1), and never seen (0); the levels
        of `medrecon.quality.coverage`, which else tells it from where the slices stand.
    """

    x: Tensor
    uncertainty: Tensor | None = None
    findings: tuple[Finding, ...] = ()
    coverage: Tensor | None = None

    @classmethod
    def of(cls, made: Tensor | Reconstructed) -> Reconstructed:
        """Return what a method returned in its fuller form."""
        return made if isinstance(made, cls) else cls(made)  # type: ignore[arg-type]  # what is left is a tensor


@dataclass(frozen=True, slots=True)
class Method:
    """One reconstruction method: its name, settings model, function and kind of input."""

    name: str
    settings: type[Config]
    run: Callable[..., Any]
    input: str
    preview: str | None = None

    @property
    def summary(self) -> str:
        """First line of the method's docstring."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]

    def checked_for(self, kind: str) -> Method:
        """Return this method if it takes this kind of input; raise `UsageError` (``ARG-INPUT``) otherwise."""
        if self.input == kind:
            return self
        raise UsageError(
            "ARG-INPUT",
            f"the method {self.name} takes {self.input}, the scan is made of {kind}",
            f"`medrecon presets` lists presets that take {kind}, `medrecon methods` the methods.",
        )


def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return registry.names(sys.modules[__name__])


def get(name: str) -> Method:
    """Return a method by name; raise `UsageError`: ``ARG-NAME`` where there is none, ``ARG-BROKEN`` where its file is broken."""
    package, settings = sys.modules[__name__], "".join(word.capitalize() for word in name.split("_")) + "Config"
    module = registry.load(package, name, settings, name, "INPUT")
    method = Method(name, getattr(module, settings), getattr(module, name), module.INPUT, getattr(module, "PREVIEW", None))
    if not (isinstance(method.settings, type) and issubclass(method.settings, Config) and callable(method.run)):
        raise registry.broken(package, name, f"{settings} is no Config, or {name} no function")
    if method.input not in _INPUTS:
        raise registry.broken(package, name, f"its INPUT is none of {', '.join(_INPUTS)}")
    return method


def survey() -> tuple[tuple[Method, ...], dict[str, UsageError]]:
    """Return all methods that can be used, and by its name why each of the others cannot: a broken file costs its own method."""
    usable, refused = [], {}
    for name in names():
        try:
            usable.append(_with_a_form(get(name)))
        except UsageError as error:
            refused[name] = error
    return tuple(usable), refused


def _with_a_form(method: Method) -> Method:
    """Return a method whose settings can be shown: they have defaults, and a schema."""
    try:
        method.settings()
        method.settings.model_json_schema()
    except (ValueError, PydanticUserError) as error:
        why = f"its settings have no defaults or no schema ({type(error).__name__})"
        raise registry.broken(sys.modules[__name__], method.name, why) from error
    return method
