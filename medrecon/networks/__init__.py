"""Networks, one file each.

A network file ``name.py`` holds the settings model ``NameConfig`` (a `medrecon.core.settings.Config` whose numbers are all
bounded, because a manifest may come from anywhere) and the class ``Name(nn.Module)``, made from such settings alone.
The files beside them that are no network serve all of them: weights on disk, their manifest, precision, tiling.
Listing the networks imports none of them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medrecon.core import registry
from medrecon.core.settings import Config, parse

if TYPE_CHECKING:
    from torch import nn

SERVING_ALL = frozenset({"heart", "manifest", "precision", "tiling", "weights"})


@dataclass(frozen=True, slots=True)
class Network:
    """One network: its name, settings model and module class."""

    name: str
    settings: type[Config]
    module: type[nn.Module]

    @property
    def summary(self) -> str:
        """First line of the network's docstring."""
        return (self.module.__doc__ or "").strip().partition("\n")[0]


def names() -> tuple[str, ...]:
    """Return the names of all networks."""
    return registry.names(sys.modules[__name__])


def get(name: str) -> Network:
    """Return a network by name; raise `UsageError` (``ARG-NAME``) where there is none."""
    module = registry.load(sys.modules[__name__], name)
    camel = "".join(word.capitalize() for word in name.split("_"))
    return Network(name, getattr(module, f"{camel}Config"), getattr(module, camel))


def build(name: str, settings: Config | dict[str, Any] | None = None) -> nn.Module:
    """Make a network with fresh weights.

    Parameters
    ----------
    name : str
        One of `names`.
    settings : Config or plain data, optional
        The network's own settings; without, its defaults.

    Raises
    ------
    UsageError
        ``ARG-NAME`` for a network that does not exist, ``CFG-VALUE`` for settings that it does not have.
    """
    network = get(name)
    return network.module(parse(network.settings, settings if settings is not None else {}, f"network {name}"))
