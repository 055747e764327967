"""Colours of overlays as plain data, which napari takes in place of its own colormap objects, and the words beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: How units are written beside values.
UNITS: Mapping[str, str] = {"hounsfield": "HU", "attenuation_per_mm": "1/mm", "arbitrary": ""}

#: Values of the coverage layer: the engine's 2 measured, 1 interpolated, 0 not seen, so that no value is napari's background.
MEASURED, INTERPOLATED, UNSEEN = 1, 2, 3

COVERAGE_NAMES: Mapping[int, str] = {MEASURED: "measured", INTERPOLATED: "interpolated", UNSEEN: "not seen"}
#: One colour for each of these values, none between them.
COVERAGE: Mapping[str, Any] = {
    "name": "medrecon coverage",
    "colors": [(0.10, 0.75, 0.45, 0.20), (1.00, 0.70, 0.00, 0.85), (0.85, 0.10, 0.75, 0.85)],
    "controls": [0.0, 1 / 3, 2 / 3, 1.0],
    "interpolation": "zero",
}
COVERAGE_LIMITS = (MEASURED - 0.5, UNSEEN + 0.5)
COVERAGE_LEGEND = "Coverage\ngreen: measured\namber: interpolated\nmagenta: not seen"

#: Clear in the middle, so that it can lie upon an image: blue where too low, red where too high.
DIVERGING: Mapping[str, Any] = {
    "name": "medrecon difference",
    "colors": [(0.15, 0.45, 1.0, 1.0), (0.15, 0.45, 1.0, 0.0), (1.0, 0.25, 0.10, 0.0), (1.0, 0.25, 0.10, 1.0)],
    "controls": [0.0, 0.5, 0.5, 1.0],
}

#: Clear where the method is sure, then yellow, then red.
UNCERTAIN: Mapping[str, Any] = {
    "name": "medrecon uncertainty",
    "colors": [(1.0, 0.9, 0.2, 0.0), (1.0, 0.8, 0.1, 0.6), (0.95, 0.1, 0.05, 0.95)],
    "controls": [0.0, 0.5, 1.0],
}

#: Surfaces by tissue; the rest is bone-coloured.
TISSUE_COLOURS: Mapping[str, str] = {
    "skin": "#e0ac8d",
    "bone": "#e8dcc0",
    "lung": "#d98c8c",
    "soft-tissue": "#c46a5a",
    "muscle": "#a8443c",
    "fat": "#f0d878",
    "foreground": "#d8c8b8",
}
OTHER_SURFACE = "#e8dcc0"
