"""The panel: four steps from a folder to a volume, a surface and files. Its widgets show `medrecon_napari.model`."""

from __future__ import annotations

from typing import Any

__all__ = ["ReconstructionPanel"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (the one public name, loaded when napari opens the panel)
    if name != "ReconstructionPanel":
        raise AttributeError(f"module 'medrecon_napari.panel' has no attribute {name!r}")
    from medrecon_napari.panel.widget import ReconstructionPanel

    return ReconstructionPanel
