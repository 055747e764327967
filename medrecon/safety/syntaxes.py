"""The transfer syntaxes that are read, how their data sets are written, and those that are known but cannot be read."""

from __future__ import annotations

from collections.abc import Mapping

from medrecon.core.errors import DicomError
from medrecon.safety.elements import Encoding

IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"

#: Compressed transfer syntaxes that can be read: name, and the package that decodes it.
COMPRESSED: Mapping[str, tuple[str, str]] = {
    "1.2.840.10008.1.2.4.50": ("JPEG Baseline", "Pillow"),
    "1.2.840.10008.1.2.4.51": ("JPEG Extended", "python-gdcm"),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless, first-order prediction", "python-gdcm"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS Lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS Near-lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 Lossless", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.201": ("High-Throughput JPEG 2000 Lossless", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.202": ("High-Throughput JPEG 2000 Lossless RPCL", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("High-Throughput JPEG 2000", "pylibjpeg-openjpeg"),
    RLE: ("RLE Lossless", "pylibjpeg-rle"),
}
_NATIVE: Mapping[str, Encoding] = {
    IMPLICIT_LITTLE: Encoding(explicit=False),
    EXPLICIT_LITTLE: Encoding(explicit=True),
    EXPLICIT_BIG: Encoding(explicit=True, little=False),
}
_UNREADABLE: Mapping[str, str] = {
    "1.2.840.10008.1.2.1.98": "Encapsulated Uncompressed",
    "1.2.840.10008.1.2.4.92": "JPEG 2000 Part 2 Lossless",
    "1.2.840.10008.1.2.4.93": "JPEG 2000 Part 2",
    "1.2.840.10008.1.2.4.94": "JPIP Referenced",
    "1.2.840.10008.1.2.4.95": "JPIP Referenced Deflate",
    "1.2.840.10008.1.2.4.100": "MPEG-2 video",
    "1.2.840.10008.1.2.4.101": "MPEG-2 video",
    "1.2.840.10008.1.2.4.102": "MPEG-4 video",
    "1.2.840.10008.1.2.4.103": "MPEG-4 video",
    "1.2.840.10008.1.2.4.104": "MPEG-4 video",
    "1.2.840.10008.1.2.4.105": "MPEG-4 video",
    "1.2.840.10008.1.2.4.106": "MPEG-4 video",
    "1.2.840.10008.1.2.4.107": "HEVC video",
    "1.2.840.10008.1.2.4.108": "HEVC video",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame",
}


def encoding(syntax: str) -> Encoding:
    """Return how a data set of this transfer syntax is written; refuse with ``DCM-CODEC`` what is not on the list."""
    if syntax in _NATIVE:
        return _NATIVE[syntax]
    if syntax in COMPRESSED:
        return Encoding(explicit=True)
    name = _UNREADABLE.get(syntax, "a transfer syntax that is not on medrecon's list")
    hint = "No package that medrecon uses can decode it; export the series again uncompressed (Explicit VR Little Endian)."
    raise DicomError("DCM-CODEC", f"the pixels are stored as {name}.", hint)
