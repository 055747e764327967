"""What the menu entries do; napari hands in the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari  # the menu finds out from the annotation what to hand in
from napari.settings import get_settings
from napari.utils.notifications import show_info, show_warning

from medrecon.core.errors import MedreconError
from medrecon_napari.viewing import attach, compare, maps, rectangles

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is opened with us once the user says so; the last one stands for folders.
OPENED_WITH_US = ("*.dcm", "*.dicom", "*.ima", "*.nii", "*.nii.gz", "*.nrrd", "*.nhdr", "*.mha", "*.mhd", "*/")


def before_after(viewer: napari.Viewer) -> None:
    """Show the measured slices and the result in turns."""
    _do(viewer, compare.before_after)


def difference(viewer: napari.Viewer) -> None:
    """Add what the result has that the slices have not."""
    _do(viewer, compare.add_difference)


def slices_as_rectangles(viewer: napari.Viewer) -> None:
    """Draw where the source slices stood, or remove the drawing."""
    _do(viewer, rectangles.toggle)


def coverage(viewer: napari.Viewer) -> None:
    """Show or hide what was measured, interpolated, not seen."""
    _do(viewer, lambda shown: maps.toggle(shown, "coverage"))


def residual(viewer: napari.Viewer) -> None:
    """Show or hide how far the result is from agreeing with the slices."""
    _do(viewer, lambda shown: maps.toggle(shown, "residual"))


def uncertainty(viewer: napari.Viewer) -> None:
    """Show or hide where the method itself is in doubt."""
    _do(viewer, lambda shown: maps.toggle(shown, "uncertainty"))


def open_scans_with_us() -> None:
    """Let napari open scans and folders with medrecon without asking; other readers stay a choice where we find nothing."""
    plugins = get_settings().plugins
    plugins.extension2reader = {**plugins.extension2reader, **dict.fromkeys(OPENED_WITH_US, "medrecon")}
    show_info("Scans and folders are opened with medrecon from now on. Preferences, Plugins takes it back.")


def _do(viewer: napari.Viewer, act: Callable[[napari.Viewer], object]) -> None:
    """Do it; a refusal is shown with its way out."""
    attach.attach(viewer)
    try:
        act(viewer)
    except MedreconError as error:
        show_warning(str(error))
