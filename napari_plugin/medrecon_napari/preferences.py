"""What the user chose on napari's page of preferences; the defaults stand in the manifest.

Without a window, or before napari has read the manifest, the defaults hold.
"""

from __future__ import annotations

from typing import Any

_DEFAULTS = {"preset": "fast", "device": "auto", "hide_identity": True, "radiological": True}


def preset() -> str:
    """Return the preset with which the panel begins."""
    return str(_get("reconstruction", "preset"))


def device() -> str:
    """Return the device with which the panel begins."""
    return str(_get("reconstruction", "device"))


def hide_identity() -> bool:
    """Whether windows open with the patient's identity hidden."""
    return bool(_get("viewing", "hide_identity"))


def radiological() -> bool:
    """Whether the patient's right is shown on the left of the screen."""
    return bool(_get("viewing", "radiological"))


def _get(category: str, name: str) -> Any:  # noqa: ANN401 (a value of the manifest)
    from napari.settings import get_plugin_settings

    ours = get_plugin_settings().get("medrecon")
    return _DEFAULTS[name] if ours is None else getattr(getattr(ours, category), name)
