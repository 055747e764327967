"""The child process that decodes compressed pixels for `medrecon.safety.quarantine`; it is run, never imported.

It bounds itself first and imports numpy and pydicom afterwards. What it is asked comes on standard input: the sizes of a
JSON header and of the encapsulated pixels, then both. It answers with one JSON line a frame, followed by the frame's bytes,
or with one JSON line that says what went wrong by kind, never in words.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

PLUGINS = ("pylibjpeg", "pyjpegls", "pillow", "gdcm", "pydicom")  # the best kept first; each of them decodes only what it knows
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
PREFIX = struct.Struct(">QQ")


def bound_this_process(address_bytes: int, cpu_seconds: int) -> None:
    """Bound memory and time, forbid files and core dumps; where the system has no such limits the parent watches."""
    try:
        import resource
    except ImportError:  # Windows
        return
    spare = 5  # seconds between the signal that says why and the one that kills
    wanted = [
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + spare),
        (resource.RLIMIT_AS, address_bytes, address_bytes),
    ]
    for kind, soft, hard in wanted:
        most = resource.getrlimit(kind)[1]
        bounded = hard if most == resource.RLIM_INFINITY else min(hard, most)
        try:
            resource.setrlimit(kind, (min(soft, bounded), bounded))
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
    decoders = decoders_of(job)
    if not decoders:
        say(answers, {"error": "codec"})
    for fallbacks, frames_of in zip(reversed(range(len(decoders))), decoders, strict=True):
        sent = 0
        try:
            for frame in itertools.islice(frames_of(pixels), job["frames"]):
                say(answers, {"frame": sent}, packed(frame, job["dtype"]))
                sent += 1
        except MemoryError:
            say(answers, {"error": "memory"})
            return
        except Exception as error:  # noqa: BLE001 (decoders raise anything; the parent hears its name)
            if sent == 0 and fallbacks:
                continue
            say(answers, {"error": "decoder", "type": type(error).__name__})
            return
        if sent < job["frames"]:
            say(answers, {"error": "frames", "frames": sent})
        return


def decoders_of(job: dict[str, Any]) -> list[Callable[[bytes], Iterator[Any]]]:
    """Return the decoders that are installed for a file, the one to try first in front."""
    from pydicom.pixels.decoders.base import get_decoder

    if job["syntax"] == JPEG_EXTENDED and job["options"]["bits_stored"] > 8:
        has_gdcm = importlib.util.find_spec("gdcm") is not None
        return [functools.partial(twelve_bit_frames, options=job["options"])] if has_gdcm else []
    decoder = get_decoder(job["syntax"])
    available = [name for name in PLUGINS if name in decoder.available_plugins]
    return [functools.partial(plugin_frames, decoder=decoder, plugin=name, options=job["options"]) for name in available]


def plugin_frames(pixels: bytes, decoder: Any, plugin: str, options: dict[str, Any]) -> Iterator[Any]:  # noqa: ANN401 (imported late)
    """Yield the stored values of each frame with one of pydicom's plugins."""
    for frame, _ in decoder.iter_array(pixels, raw=True, decoding_plugin=plugin, **options):
        yield frame


def twelve_bit_frames(pixels: bytes, options: dict[str, Any]) -> Iterator[Any]:
    """Yield frames of JPEG Extended with 12 bits, which GDCM can decode although pydicom does not ask it to."""
    import gdcm
    import numpy as np
    from pydicom.encaps import generate_frames

    kind = np.dtype("<i2" if options["pixel_representation"] else "<u2")
    unused = 16 - options["bits_stored"]
    size = (options["rows"], options["columns"])
    stored = gdcm.PixelFormat(1, 16, options["bits_stored"], options["bits_stored"] - 1, options["pixel_representation"])
    for encoded in generate_frames(pixels, number_of_frames=options["number_of_frames"]):
        image = gdcm_image(gdcm, encoded, size)
        image.SetPixelFormat(stored)
        frame = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), dtype=kind).reshape(size)
        yield (frame << unused) >> unused


def gdcm_image(gdcm: Any, encoded: bytes, size: tuple[int, int]) -> Any:  # noqa: ANN401 (gdcm is untyped and imported late)
    """Wrap one encoded grey frame as GDCM wants it."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((size[1], size[0], 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(JPEG_EXTENDED)))
    return image


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
