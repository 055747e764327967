"""Judge the header of a safetensors file before anything is allocated for its tensors.

A safetensors file is a length (8 bytes), a JSON header that says where each tensor lies, and their bytes. Here every
claim of the header is compared with the bytes in hand. Nothing is decoded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medrecon.core.errors import WeightsError
from medrecon.networks.manifest import unique_keys

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 4 * 1024 * 1024  # 10 000 tensors of long names take 2 MiB
_MOST_AXES = 8
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")
_KEYS = {"dtype", "shape", "data_offsets"}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True)
class TensorClaim:
    """What the header says of one tensor; offsets count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def header_length(first: bytes, file_bytes: int) -> int:
    """Return the length of the header from the first nine bytes of a file.

    Raises
    ------
    WeightsError
        ``MDL-FORMAT`` where these are the bytes of a pickle or a ZIP, ``MDL-HEADER`` where they begin no safetensors file.
    """
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    plausible = 2 <= length <= MOST_HEADER_BYTES and first[LENGTH_BYTES:] == b"{"
    if not plausible and first.startswith(_PICKLES):
        raise WeightsError("MDL-FORMAT", "the file is a pickle or a ZIP, whatever its name says", "Only safetensors are opened.")
    if not plausible:
        raise _bad("it does not begin as a safetensors file does")
    if length > file_bytes - LENGTH_BYTES:
        raise _bad(f"it announces a header of {length} bytes, the file has {file_bytes}")
    return length


def judge_header(header: bytes, data_bytes: int, most_tensors: int) -> Mapping[str, TensorClaim]:
    """Return what the header claims, by name of tensor, after comparing it with the bytes that there are.

    Parameters
    ----------
    header : bytes
    data_bytes : int
        Bytes in the file behind the header.
    most_tensors : int

    Raises
    ------
    WeightsError
        ``MDL-HEADER`` for too many tensors, impossible names, types, shapes or places, overlaps, holes, and data that are
        longer or shorter than announced.
    """
    try:
        table = json.loads(header, object_pairs_hook=unique_keys)
    except (RecursionError, ValueError) as error:
        raise _bad("it is not JSON, or names a tensor twice") from error
    table.pop("__metadata__", None)
    if not 0 < len(table) <= most_tensors:
        raise _bad(f"it holds {len(table)} tensors, 1 to {most_tensors} are read")
    claims = {name: _claim(number, name, entry) for number, (name, entry) in enumerate(table.items(), start=1)}
    _refuse_misplaced(claims, data_bytes)
    return claims


def _claim(number: int, name: str, entry: Any) -> TensorClaim:  # noqa: ANN401 (JSON is anything)
    """Turn one entry of the header into a claim that is consistent in itself; a tensor is named by its number."""
    if not _NAME.fullmatch(name):
        raise _bad(f"tensor {number} does not have the name of a parameter")
    if not isinstance(entry, dict) or set(entry) != _KEYS or entry["dtype"] not in tuple(_ITEM_BYTES):
        raise _bad(f"tensor {number} has no shape, place and known type")
    shape, offsets = _whole(entry["shape"], _MOST_AXES), _whole(entry["data_offsets"], 2)
    if shape is None or offsets is None or len(offsets) != 2:
        raise _bad(f"shape or place of tensor {number} are not lists of whole numbers")
    claimed, given = math.prod(shape) * _ITEM_BYTES[entry["dtype"]], offsets[1] - offsets[0]
    if claimed != given:
        raise _bad(f"the shape of tensor {number} needs {_size(claimed)}, its place holds {_size(given)}")
    return TensorClaim(entry["dtype"], shape, *offsets)


def _whole(values: Any, most: int) -> tuple[int, ...] | None:  # noqa: ANN401 (JSON is anything)
    """Return a list of natural numbers below 2**63 as a tuple, None for anything else; true and false are no numbers."""
    fits = isinstance(values, list) and len(values) <= most and all(type(v) is int and 0 <= v < 2**63 for v in values)
    return tuple(values) if fits else None


def _refuse_misplaced(claims: Mapping[str, TensorClaim], data_bytes: int) -> None:
    """Demand that the tensors follow each other without hole or overlap and fill the file."""
    reached = 0
    for claim in sorted(claims.values(), key=lambda claim: (claim.begin, claim.end)):
        if claim.begin != reached:
            raise _bad(f"tensors {'overlap' if claim.begin < reached else 'leave a hole'} at byte {_size(claim.begin)}")
        reached = claim.end
    if reached != data_bytes:
        raise _bad(f"the tensors take {_size(reached)}, the file holds {_size(data_bytes)} for them")


def _size(number: int) -> str:
    return f"{number} bytes" if abs(number) < 2**63 else "more bytes than can be counted"


def _bad(why: str) -> WeightsError:
    return WeightsError("MDL-HEADER", f"the weights' header cannot be trusted: {why}", "Take the file again from its source.")
