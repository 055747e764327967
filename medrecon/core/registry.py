"""Packages whose modules are the catalogue: methods, readers, writers.

The name of a file is the name that users type. Listing a package imports none of its modules; a module is imported
when it is used, and one that is broken costs nobody but those who name it. Modules whose name begins with an underscore
are helpers, except ``_3mf`` and its like: a name that cannot begin with its digit in Python. Modules that serve all the
others of their package are named in its `SERVING_ALL`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
import traceback
from types import ModuleType

from medrecon.core.errors import MedreconError, UsageError


def names(package: ModuleType) -> tuple[str, ...]:
    """Return the user-facing names in a package, sorted, without importing them."""
    found = {_shown(module.name) for module in pkgutil.iter_modules(package.__path__)}
    chosen = found - getattr(package, "SERVING_ALL", frozenset())
    return tuple(sorted(name for name in chosen if not name.startswith("_")))


def load(package: ModuleType, name: str, *needed: str) -> ModuleType:
    """Import one module of a package by its user-facing name.

    Parameters
    ----------
    needed : str
        Names that the module must define.

    Raises
    ------
    UsageError
        ``ARG-NAME`` where there is none of that name, ``ARG-BROKEN`` where its file cannot be loaded or is not whole.
    """
    known, kind = names(package), _kind(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = (f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(known)}."
        raise UsageError("ARG-NAME", f"there is no {kind} called {name[:40]!r}", hint)
    stem = f"_{name}" if name[0].isdigit() else name
    try:
        module = importlib.import_module(f"{package.__name__}.{stem}")
    except MedreconError:
        raise
    except Exception as error:
        raise broken(package, name, _what_happened(error, f"{stem}.py")) from error
    missing = [one for one in needed if not hasattr(module, one)]
    if missing:
        raise broken(package, name, f"its file defines no {missing[0]}")
    return module


def broken(package: ModuleType, name: str, why: str) -> UsageError:
    """Return the refusal of a module whose file is there and of no use."""
    hint = "Mend or remove its file, or install medrecon again; everything else works without it."
    return UsageError("ARG-BROKEN", f"the {_kind(package)} {name[:40]!r} cannot be loaded: {why}", hint)


def _kind(package: ModuleType) -> str:
    return package.__name__.rpartition(".")[2].removesuffix("s")


def _what_happened(error: Exception, file: str) -> str:
    """Name the kind of error and the line of the file; for what is not installed its name. Never the error's own text."""
    if isinstance(error, ModuleNotFoundError):
        return f"it needs {error.name}, which is not installed"
    own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(file)]
    line = error.lineno if isinstance(error, SyntaxError) else next(iter(own[-1:]), None)
    return type(error).__name__ + ("" if line is None else f" in line {line}")


def _shown(stem: str) -> str:
    return stem[1:] if re.match(r"_\d", stem) else stem
