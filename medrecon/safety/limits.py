"""How much a file may ask of this machine, each number with its reason.

The numbers are compared with bytes in hand before anything is allocated. Raising one is a decision of the user, made by
name; nothing here reads a file.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medrecon.core.errors import MemoryBudgetError
from medrecon.core.settings import Config

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Limits(Config):
    """Limits for reading untrusted files.

    Sizes are bytes, times are seconds. `length_beyond_end` is the one laxness: real files exist whose sequence claims
    more bytes than are there although all its items are whole.
    """

    file_bytes: Annotated[int, Field(gt=0, description="one file; large multi-frame objects reach gigabytes")] = 4 * GIB
    header_bytes: Annotated[int, Field(gt=0, description="a file without its pixels; measured in good files: at most 0.3 MB")] = (
        64 * MIB
    )
    value_bytes: Annotated[
        int, Field(gt=0, description="one value that is not bulk data; measured in good files: at most 0.24 MB")
    ] = 16 * MIB
    elements: Annotated[
        int, Field(gt=0, description="elements per file; enhanced MR has 73 to 128 per frame, so 10 000 frames fit")
    ] = 2_000_000
    nesting: Annotated[
        int, Field(gt=0, description="depth of sequences; DCMTK's default; good files reach 4, pydicom breaks at 100 to 300")
    ] = 64
    length_beyond_end: Annotated[
        bool, Field(description="cut a length at the bytes that are left instead of refusing the file")
    ] = False
    inflate_bytes: Annotated[int, Field(gt=0, description="inflated size where the header announces none")] = 2 * GIB
    inflate_free_bytes: Annotated[int, Field(gt=0, description="inflated size up to which the ratio is not looked at")] = 64 * MIB
    inflate_ratio: Annotated[
        int, Field(gt=0, description="inflated to deflated size beyond that; measured in a legal deflated file: 61")
    ] = 64
    side: Annotated[int, Field(gt=0, description="Rows and Columns; above any detector in use")] = 16_384
    frame_bytes: Annotated[int, Field(gt=0, description="one frame; 16 384 squared with 16 bits")] = 512 * MIB
    frames: Annotated[int, Field(gt=0, description="frames per file; above any acquisition in use")] = 100_000
    volume_share: Annotated[
        float, Field(gt=0, le=1, description="share of the free memory that decoded pixels may take; leaves room for the method")
    ] = 0.5
    child_seconds: Annotated[int, Field(gt=0, description="longest wait for one decoded frame")] = 120
    child_base_bytes: Annotated[
        int, Field(gt=0, description="address space of interpreter, numpy and pydicom; they map 0.14 GB")
    ] = 512 * MIB
    child_factor: Annotated[
        int, Field(gt=0, description="times the size of one frame on top: encoded, decoded and converted")
    ] = 3
    folder_files: Annotated[int, Field(gt=0, description="files per folder; time to list them")] = 200_000
    yaml_bytes: Annotated[int, Field(gt=0, description="a page of settings")] = 64 * KIB
    tensors: Annotated[int, Field(gt=0, description="tensors in a file of weights; large nets have about 1 000")] = 10_000


def free_memory_bytes() -> int:
    """Return how much memory could be used now without pushing anything out, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available)


def refuse_volume(needed_bytes: int, limits: Limits, free_bytes: int | None = None) -> None:
    """Refuse decoded pixels that would take more than their share of the free memory.

    Raises
    ------
    MemoryBudgetError
        ``MEM-VOLUME`` with both sizes.
    """
    free = free_memory_bytes() if free_bytes is None else free_bytes
    if needed_bytes > limits.volume_share * free:
        raise MemoryBudgetError(
            "MEM-VOLUME",
            f"the pixels take {needed_bytes} bytes, more than {limits.volume_share:.0%} of the {free} bytes that are free.",
            "Close other programs, read fewer series, or use a machine with more memory.",
        )
