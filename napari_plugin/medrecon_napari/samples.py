"""Sample scans with known truth for File, Open Sample.

They belong to the project, not to the installed package, since megabytes of scans are no part of a program: they are
looked for where ``MEDRECON_SAMPLE_DATA`` points, then beside the package, where a checkout has them.
"""

from __future__ import annotations

import os
from pathlib import Path

import medrecon as mr
from medrecon.core.errors import InputError
from medrecon_napari.layers import LayerData, scan_layers
from medrecon_napari.results import beside

VARIABLE = "MEDRECON_SAMPLE_DATA"


def mr_brain() -> list[LayerData]:
    """Return a brain scanned in thick, oblique slices, and the truth they were made from."""
    return _sample("mr_brain_thick")


def ct_head() -> list[LayerData]:
    """Return a head scanned with a tilted gantry, and the truth it was computed from; the bead is on the left."""
    return _sample("ct_head_tilted")


def cone_beam_head() -> list[LayerData]:
    """Return the views of a head in a cone beam, to be reconstructed in the panel."""
    scan = folder_of("cone_beam_head") / "scan.yaml"
    return scan_layers(mr.read(scan), str(scan))


def ultrasound_sweep() -> list[LayerData]:
    """Return the frames of a tracked freehand probe, one after another, to be put into a volume in the panel."""
    scan = folder_of("ultrasound_sweep") / "scan"
    return scan_layers(mr.read(scan), str(scan))


def folder_of(name: str) -> Path:
    """Return the folder of one sample.

    Raises
    ------
    InputError
        ``NAP-SAMPLE`` where it is not on this machine.
    """
    given = os.environ.get(VARIABLE)
    places = [Path(given)] if given else [Path(mr.__file__).resolve().parents[1] / "sample_data"]
    for place in places:
        if (place / name).is_dir():
            return place / name
    raise InputError(
        "NAP-SAMPLE",
        f"the sample {name} is not on this machine",
        f"Get the folder sample_data of the project's repository and let {VARIABLE} name it.",
    )


def _sample(name: str) -> list[LayerData]:
    """Return the slices, visible, and the truth, hidden, both at their places."""
    from medrecon_napari.viewing.attach import attach_to_current

    folder = folder_of(name)
    slices = scan_layers(mr.read(folder / "dicom"), str(folder / "dicom"))
    data, arguments, kind = scan_layers(mr.read(folder / "truth.nii.gz"), str(folder / "truth.nii.gz"))[0]
    window = slices[0][1]["contrast_limits"]
    truth = (data, arguments | {"name": f"truth of {name}", "visible": False, "contrast_limits": window}, kind)
    attach_to_current()
    return [beside(truth, slices[0]), *slices]
