"""Inflating what may be a bomb: in steps, against a limit, never all at once."""

from __future__ import annotations

import zlib

from medrecon.core.errors import DicomError
from medrecon.safety.limits import Limits

_STEP_IN = 64 * 1024
_STEP_OUT = 1024 * 1024


def inflate(deflated: bytes | memoryview, limits: Limits, announced_bytes: int | None = None, prefix: bytes = b"") -> bytes:
    """Inflate raw deflate data (RFC 1951, as in Deflated Explicit VR Little Endian).

    Parameters
    ----------
    announced_bytes : int, optional
        Size that a header promises; without it the limit follows from the size of the input.
    prefix : bytes
        What is put in front of the result, which costs no second copy here.

    Raises
    ------
    DicomError
        ``DCM-LIMIT`` at the limit, ``DCM-LENGTH`` where the data end too early, ``DCM-PARSE`` where they are no deflate data.
    """
    limit = allowed_bytes(len(deflated), limits) if announced_bytes is None else min(announced_bytes, limits.inflate_bytes)
    source, stream, pieces, total, at = memoryview(deflated), zlib.decompressobj(-zlib.MAX_WBITS), [prefix], 0, 0
    while not stream.eof:
        chunk: bytes | memoryview = stream.unconsumed_tail
        if not chunk:
            chunk, at = source[at : at + _STEP_IN], at + _STEP_IN
        piece = _step(stream, chunk)
        total += len(piece)
        if total > limit:
            raise DicomError("DCM-LIMIT", f"{len(deflated)} deflated bytes inflate beyond {limit} bytes.", "It may be an attack.")
        if not (chunk or piece or stream.eof):
            raise DicomError("DCM-LENGTH", f"the deflated data end too early, after {total} inflated bytes.", "Export it again.")
        pieces.append(piece)
    return b"".join(pieces)


def allowed_bytes(deflated_bytes: int, limits: Limits) -> int:
    """Return to what size data that announce none may inflate: small ones freely, others by ratio, none beyond the cap."""
    return min(limits.inflate_bytes, max(limits.inflate_free_bytes, limits.inflate_ratio * deflated_bytes))


def _step(stream: zlib._Decompress, chunk: bytes | memoryview) -> bytes:
    try:
        return stream.decompress(chunk, _STEP_OUT)
    except zlib.error as error:
        raise DicomError("DCM-PARSE", "the deflated data are damaged.", "Export the file again.") from error
