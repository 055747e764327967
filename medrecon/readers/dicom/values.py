"""From stored values to real ones: padding, inversion, rescale; and what the real values say about their unit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.findings import Finding, Verdict
from medrecon.readers.dicom.headers import Image

_AIR_AND_WATER = ((-50.0, 100.0), (900.0, 1200.0))  # where both lie in a CT that is 1024 too high
_BELOW_AIR = -200.0  # no such value is in a CT that is 1024 too high
_LEAST_SHARE = 0.05
_SAMPLED = 4  # every fourth row and column tells enough


def padding_of(stored: NDArray[Any], image: Image) -> NDArray[np.bool_] | None:
    """Return where stored values are padding or no numbers, None where none are."""
    if stored.dtype.kind == "f":
        padded = ~np.isfinite(stored)
    elif image.padding is None:
        return None
    else:
        low, high = image.padding
        padded = stored == low if low == high else (stored >= low) & (stored <= high)
    return padded if padded.any() else None


def real_values(stored: NDArray[Any], image: Image, out: NDArray[np.float32]) -> None:
    """Invert where low values are meant to be bright, and rescale, into `out` (rows, columns)."""
    if image.file.inverted:
        stored = _inverted(stored, image)
    exact = np.float32 if stored.dtype.itemsize <= 2 else np.float64  # float32 holds 16-bit integers exactly
    slope, intercept = image.scaling.slope, image.scaling.intercept
    if slope == 1 and exact is np.float32:
        np.copyto(out, stored)  # and then in place: two passes of plain loops take less than one that casts as it adds
        np.add(out, exact(intercept), out=out)
        return
    if slope == 1:
        np.add(stored, exact(intercept), out=out, dtype=exact, casting="unsafe")
        return
    real = np.multiply(stored, exact(slope), dtype=exact)
    np.add(real, exact(intercept), out=out, casting="unsafe")


def looks_1024_too_high(pixels: NDArray[np.float32]) -> Finding | None:
    """Find a CT whose air lies near 0 and whose soft tissue lies near 1064: Hounsfield units whose intercept was lost."""
    if any(float(image.min()) < _BELOW_AIR for image in pixels[:, ::_SAMPLED, ::_SAMPLED]):  # ends early in nearly every CT
        return None
    sample = pixels[:, ::_SAMPLED, ::_SAMPLED].copy()
    shares = [float(((sample > low) & (sample < high)).mean()) for low, high in _AIR_AND_WATER]
    if min(shares) < _LEAST_SHARE:
        return None
    fact = (
        f"{shares[0]:.0%} of the pixels lie near 0 and {shares[1]:.0%} near 1064, as air and soft tissue do when 1024 was never "
        "subtracted; the values are used as they are and not called Hounsfield units."
    )
    return Finding("DCM-HU1024", Verdict.WARN, fact, {"air_share": round(shares[0], 4), "tissue_share": round(shares[1], 4)})


def constant_corners(pixels: NDArray[np.float32]) -> Finding | None:
    """Find one lowest value in all corners of all slices, as outside a reconstruction circle, which no tag calls padding."""
    corners = pixels[:, :: pixels.shape[1] - 1 or 1, :: pixels.shape[2] - 1 or 1]
    value = float(corners.min())
    if value != float(corners.max()) or value != float(pixels[:, ::_SAMPLED, ::_SAMPLED].min()):
        return None
    fact = f"the corners of all slices hold the lowest value, {value:g}; no tag calls it padding, so it counts as measured."
    return Finding("DCM-CORNERS", Verdict.OK, fact, {"value": value})


def _inverted(stored: NDArray[Any], image: Image) -> NDArray[Any]:
    if stored.dtype.kind == "f":
        return -stored
    signed = image.file.layout.pixel_representation
    both_ends = -1 if signed else (1 << image.file.layout.bits_stored) - 1
    flipped: NDArray[Any] = both_ends - stored.astype(np.int64)
    return flipped
