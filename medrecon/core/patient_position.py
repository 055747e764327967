"""How a patient lay in the scanner, and what that makes of the scanner's axes.

Readers of projections describe every scan as if the patient had lain head first, on the back; a patient who lay otherwise
is that same scanner, turned. Right-handed in every case: no position mirrors anything.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from medrecon.core.grid import Float64

_LEFT, _BACK, _HEAD = np.eye(3)


class PatientPosition(StrEnum):
    """Patient Position (0018,5100), seen by somebody who faces the scanner's front (DICOM PS3.3 C.7.3.1.1.2)."""

    HFS = "HFS"
    """Head first, supine: on the back."""
    HFP = "HFP"
    """Head first, prone: on the belly."""
    HFDR = "HFDR"
    """Head first, decubitus right: on the right side."""
    HFDL = "HFDL"
    """Head first, decubitus left: on the left side."""
    FFS = "FFS"
    FFP = "FFP"
    FFDR = "FFDR"
    FFDL = "FFDL"

    @property
    def words(self) -> str:
        """Return the position as a person would say it."""
        side = {"S": "supine", "P": "prone", "DR": "on the right side", "DL": "on the left side"}[self.value[2:]]
        return f"{'head' if self.value[0] == 'H' else 'feet'} first, {side} ({self.value})"


def from_supine(position: PatientPosition) -> Float64:
    """Return the rotation (3, 3) that takes LPS as it would be head first, supine, to the patient's own LPS.

    Head first and supine, the patient's left is at the viewer's right, the back is down and the head goes in; these are
    the scanner's axes, IEC 61217's x, -z and y.
    """
    lowest = {"S": _BACK, "P": -_BACK, "DR": -_LEFT, "DL": _LEFT}[position.value[2:]]
    inwards = _HEAD if position.value[0] == "H" else -_HEAD
    turn: Float64 = np.column_stack([np.cross(lowest, inwards), lowest, inwards])
    return turn


def between(lay: PatientPosition | None, truly: PatientPosition) -> Float64:
    """Return the motion (4, 4) of a geometry that was read as of one position, None being head first, supine, to another."""
    motion = np.eye(4)
    motion[:3, :3] = from_supine(truly) @ from_supine(lay or PatientPosition.HFS).T
    return motion


def position_of(text: str) -> PatientPosition | None:
    """Return the position that a header names; None for one that is missing or unknown (sitting, recumbent)."""
    name = text.strip().upper()
    return PatientPosition(name) if name in PatientPosition.__members__ else None
