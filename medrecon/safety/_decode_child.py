"""The child process that decodes compressed pixels for `medrecon.safety.quarantine`; it is run, never imported.

It bounds itself first and imports numpy and pydicom afterwards. What it is asked comes on standard input: the sizes of a
JSON header and of the encapsulated pixels, then both. It answers with one JSON line a frame, followed by the frame's bytes,
or with one JSON line that says what went wrong by kind, never in words.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import IO, Any

PLUGINS = ("pylibjpeg", "pyjpegls", "pillow", "gdcm", "pydicom")  # the best kept first; each of them decodes only what it knows
PREFIX = struct.Struct(">QQ")


def bound_this_process(address_bytes: int, cpu_seconds: int) -> None:
    """Bound memory and time, forbid files and core dumps; where the system has no such limits the parent watches."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, address_bytes),
    ]
    for kind, most in wanted:
        _, hard = resource.getrlimit(kind)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (bound, bound))
        except (ValueError, OSError):  # macOS has no limit of the address space
            continue


def own_output() -> IO[bytes]:
    """Keep the way to the parent to ourselves: what a library prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return answers


def read_exactly(source: IO[bytes], size: int) -> bytes:
    """Read `size` bytes or raise `EOFError`."""
    data = source.read(size)
    if len(data) != size:
        raise EOFError
    return data


def say(answers: IO[bytes], answer: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Send one answer."""
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.write(payload)
    answers.flush()


def decode(job: dict[str, Any], pixels: bytes, answers: IO[bytes]) -> None:
    """Decode one file frame by frame; a decoder that fails before its first frame gives way to the next one."""
    from pydicom.pixels.decoders.base import get_decoder

    decoder = get_decoder(job["syntax"])
    plugins = [name for name in PLUGINS if name in decoder.available_plugins]
    if not plugins:
        say(answers, {"error": "codec"})
        return
    for last, plugin in enumerate(plugins, start=1 - len(plugins)):
        sent = 0
        try:
            for frame, _ in decoder.iter_array(pixels, raw=True, decoding_plugin=plugin, **job["options"]):
                if sent == job["frames"]:
                    break
                say(answers, {"frame": sent}, packed(frame, job["dtype"]))
                sent += 1
        except MemoryError:
            say(answers, {"error": "memory"})
            return
        except Exception as error:  # noqa: BLE001 (decoders raise anything; the parent hears its name)
            if sent == 0 and last < 0:
                continue
            say(answers, {"error": "decoder", "type": type(error).__name__})
            return
        if sent < job["frames"]:
            say(answers, {"error": "frames", "frames": sent})
        return


def packed(frame: Any, dtype: str) -> memoryview:  # noqa: ANN401 (numpy is imported late)
    """Return a frame's values in C order as little-endian integers of the width that the header allocates."""
    import numpy as np

    return np.ascontiguousarray(frame, dtype=dtype).view(np.uint8).data


def main() -> None:
    """Answer until the parent closes the pipe."""
    bound_this_process(address_bytes=int(sys.argv[1]), cpu_seconds=int(sys.argv[2]))
    answers = own_output()
    import warnings

    warnings.simplefilter("ignore")  # a library's warning may quote header values
    requests = sys.stdin.buffer
    while prefix := requests.read(PREFIX.size):
        header, pixels = PREFIX.unpack(prefix)
        job = json.loads(read_exactly(requests, header))
        try:
            decode(job, read_exactly(requests, pixels), answers)
        except MemoryError:
            say(answers, {"error": "memory"})


if __name__ == "__main__":
    main()
