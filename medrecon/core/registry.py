"""Packages whose modules are the catalogue: methods, readers, writers.

The name of a file is the name that users type. Listing a package imports none of its modules; a module is imported
when it is used. Modules whose name begins with an underscore are helpers, except ``_3mf`` and its like: a name that
cannot begin with its digit in Python. Modules that serve all the others of their package are named in its `SERVING_ALL`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from types import ModuleType

from medrecon.core.errors import UsageError


def names(package: ModuleType) -> tuple[str, ...]:
    """Return the user-facing names in a package, sorted, without importing them."""
    found = {_shown(module.name) for module in pkgutil.iter_modules(package.__path__)}
    chosen = found - getattr(package, "SERVING_ALL", frozenset())
    return tuple(sorted(name for name in chosen if not name.startswith("_")))


def load(package: ModuleType, name: str) -> ModuleType:
    """Import one module of a package by its user-facing name; raise `UsageError` (``ARG-NAME``) where there is none."""
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        kind = package.__name__.rpartition(".")[2].removesuffix("s")
        hint = (f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(known)}."
        raise UsageError("ARG-NAME", f"there is no {kind} called {name[:40]!r}", hint)
    stem = f"_{name}" if name[0].isdigit() else name
    return importlib.import_module(f"{package.__name__}.{stem}")


def _shown(stem: str) -> str:
    return stem[1:] if re.match(r"_\d", stem) else stem
