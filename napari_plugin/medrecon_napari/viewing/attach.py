"""What every window with medical layers gets: letters, corner text, positions in the status bar, windows on the keys.

It happens when our readers open something, and when one of our widgets is opened; once per viewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medrecon_napari import preferences

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


def attach_to_current() -> None:
    """Attach to the current window; without one there is nothing to do."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        attach(viewer)


def attach(viewer: ViewerModel) -> None:
    """Give a viewer what medical layers need; a viewer that has it is left as it is."""
    from medrecon_napari.viewing import corner, letters

    if letters.is_there(viewer):
        return
    letters.add(viewer)
    corner.add(viewer)
    viewer.layers.events.inserted.connect(lambda event: adopt(viewer, event.value))
    for layer in list(viewer.layers):
        adopt(viewer, layer)
    set_radiological(viewer, preferences.radiological())


def adopt(viewer: ViewerModel, layer: Layer) -> None:
    """Let a new layer tell its positions, answer to the number keys, and look like the layers that are there."""
    from medrecon_napari.viewing import align, probe, windows

    align.lay_upon(viewer, layer)
    probe.describe_in_status(layer)
    windows.bind_keys(layer)
    windows.take_over(viewer, layer)


def set_radiological(viewer: ViewerModel, radiological: bool) -> None:
    """Show the patient's right on the left of the screen, as radiologists do, or on the right; never a mirror image in 3D."""
    viewer.scene.camera.orientation = ("towards", "down", "right") if radiological else ("away", "down", "left")


def is_radiological(viewer: ViewerModel) -> bool:
    """Whether axial and coronal views show the patient's right on the left of the screen."""
    shown: Any = viewer.scene.camera.orientation2d[1]
    return bool(shown == "right")


def tell(lines: Sequence[str]) -> None:
    """Show lines as one warning in the window."""
    if lines:
        from napari.utils.notifications import show_warning

        show_warning("\n".join(lines))
