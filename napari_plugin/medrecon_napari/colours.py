"""Colours of overlays as plain data, which napari takes in place of its own colormap objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Values of the coverage layer: the engine's 2 measured, 1 interpolated, 0 not seen, so that no value is napari's background.
MEASURED, INTERPOLATED, UNSEEN = 1, 2, 3

COVERAGE_NAMES: Mapping[int, str] = {MEASURED: "measured", INTERPOLATED: "interpolated", UNSEEN: "not seen"}
COVERAGE_COLOURS: Mapping[int | None, tuple[float, float, float, float]] = {
    MEASURED: (0.10, 0.75, 0.45, 0.20),
    INTERPOLATED: (1.00, 0.70, 0.00, 0.85),
    UNSEEN: (0.85, 0.10, 0.75, 0.85),
    None: (0.0, 0.0, 0.0, 0.0),
}
COVERAGE_LEGEND = "Coverage\ngreen: measured\namber: interpolated\nmagenta: not seen"

#: Clear in the middle, so that it can lie upon an image: blue where too low, red where too high.
DIVERGING: Mapping[str, Any] = {
    "name": "medrecon difference",
    "colors": [(0.15, 0.45, 1.0, 1.0), (0.15, 0.45, 1.0, 0.0), (1.0, 0.25, 0.10, 0.0), (1.0, 0.25, 0.10, 1.0)],
    "controls": [0.0, 0.5, 0.5, 1.0],
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
