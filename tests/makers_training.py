"""The shipped recipes made so small that a test can run them."""

from __future__ import annotations

from medrecon.training.config import TrainingConfig, find_recipe, load_training

_PLANES = (
    "settings.slices=6",
    "settings.columns=16",
    "settings.held_out=1",
    "batch=2",
)
_RECURRENT = (*_PLANES, "network.settings={channels: 4, steps: 1, functions: 4, blocks: 1}")
_SCANS = (
    "settings.scans=1",
    "settings.held_out=1",
    "settings.rows=[16, 18]",
    "settings.slices=[8, 9]",
    "settings.views=[8, 10]",
    "batch=1",
)

_PATCHES = (
    *_SCANS,
    "precision=float32",  # torch 2.13 now and then trains patches this small to NaN in bfloat16
    "settings.tv_iterations=2",
    "settings.patch=[8, 16, 16]",
)

#: For each recipe, what makes a few steps of it cost a second or two.
SMALL: dict[str, tuple[str, ...]] = {
    "train-flow": (
        "batch=2",
        "settings.pixels=32",
        "settings.motion=2.0",
        "settings.pairs=2",
        "network.settings={levels: 1, channels: 4, layers: 1}",
    ),
    "train-recurrent": _RECURRENT,
    "train-zero-shot": (*_PLANES, "network.settings={inputs: 3, channels: 4, blocks: 1, basis: 4}"),
    "train-from-dicom": _RECURRENT,
    "train-refine": (*_PATCHES, "network.settings={channels: 4, widths: [4, 8], units: 1}"),
    "train-refine-passes": _PATCHES,
    "train-primal-dual": (*_SCANS, "network.settings={steps: 1, memory: 1, width: 4}"),
}


def small(recipe: str = "train-flow", *more: str) -> TrainingConfig:
    """Return a recipe in its small form, on the CPU, with further assignments laid over it."""
    return load_training(find_recipe(recipe), (*SMALL[recipe], "device=cpu", *more))
