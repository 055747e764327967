"""Previews on request: a child process of the panel that loads torch and the scan once and then answers line by line.

A request is one JSON object on a line of stdin: ``id``, ``config`` (a `ReconstructionConfig`), ``view``, ``point_lps_mm``.
Every answer is one JSON object on a line of stdout with an ``event``: ``ready``, ``preview`` or ``failed``. Arrays go
through ``.npy`` files in a folder of the parent's. Only the newest waiting request is answered. The process ends when
stdin closes, however the parent ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from pydantic import ValidationError

from medrecon.config import DEFAULT_PRESETS, ReconstructionConfig, load_config
from medrecon.console.progress import emit
from medrecon.core.errors import ExitCode, MedreconError, UsageError
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ReadOptions
from medrecon.core.scans import SliceScan
from medrecon.core.settings import Config
from medrecon.core.volume import Volume
from medrecon.preview import Preview, View, preview


class Request(Config):
    """One plane that the panel wants to see."""

    id: int
    config: ReconstructionConfig
    view: View
    point_lps_mm: tuple[float, float, float]


def serve(path: Path, series: str | None, options: ReadOptions, scratch: Path, stdin: TextIO) -> None:
    """Read the scan, say that it is ready, and answer requests until stdin closes, which ends the process.

    Parameters
    ----------
    scratch : Path
        Existing folder for the arrays; the parent removes them.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(stdin, waiting), name="requests", daemon=True).start()
    started = time.perf_counter()
    import torch

    from medrecon import device
    from medrecon.readers import read

    torch.set_num_threads(1)  # slabs are thin, and threads that wait for each other on a busy machine cost seconds
    scan = read(path, series, options)
    if waiting.empty():
        _warm_up(scan)
    where = device.choose("auto")
    emit("ready", {"seconds": time.perf_counter() - started, "device": where.name, "reason": where.reason})
    for line in _newest(waiting):
        try:
            request = _understood(line)
            answer = _answer(scan, request)
            emit("preview", {"id": request.id, "view": request.view} | _saved(answer, scratch / f"{request.id}"))
        except MedreconError as error:
            emit("failed", {"id": _id_of(line), "code": error.code, "fact": error.fact, "hint": error.hint})


def _answer(scan: SliceScan | Volume | ProjectionScan, request: Request) -> Preview:
    """Make the plane that was asked for."""
    if isinstance(scan, ProjectionScan):
        from medrecon.preview_projections import preview_projections

        return preview_projections(scan, request.config, request.view, request.point_lps_mm)
    return preview(scan, request.config, request.view, request.point_lps_mm)


def _warm_up(scan: SliceScan | Volume | ProjectionScan) -> None:
    """Show one plane to nobody: libraries are loaded at their first use, which would make the first answer a slow one."""
    from medrecon.pipeline import preset_kind_of

    with contextlib.suppress(MedreconError):  # told when somebody asks
        config = load_config(DEFAULT_PRESETS[preset_kind_of(scan)])
        _answer(scan, Request(id=0, config=config, view="coronal", point_lps_mm=(0.0, 0.0, 0.0)))


def _listen(stdin: TextIO, waiting: queue.SimpleQueue[str]) -> None:
    for line in stdin:
        waiting.put(line)
    os._exit(ExitCode.OK)  # also in the middle of a preview: nobody is left to see it


def _newest(waiting: queue.SimpleQueue[str]) -> Iterator[str]:
    """Wait for requests and yield the newest one; what was asked before it is out of date."""
    while True:
        line = waiting.get()
        while not waiting.empty():
            line = waiting.get()
        yield line


def _understood(line: str) -> Request:
    try:
        return Request.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise UsageError("CFG-VALUE", f"preview: {place} {str(problem['msg']).removeprefix('Value error, ')}".strip()) from error


def _id_of(line: str) -> int | None:
    """Return the number of a request, also of one whose settings are wrong."""
    try:
        number = json.loads(line).get("id")
    except (ValueError, AttributeError):
        return None
    return number if isinstance(number, int) else None


def _saved(answer: Preview, name: Path) -> dict[str, Any]:
    """Save the arrays and describe them."""
    return {
        "plane": _save(answer.plane, name.with_suffix(".plane.npy")),
        "measured": None if answer.measured is None else _save(answer.measured, name.with_suffix(".measured.npy")),
        "to_lps_mm": answer.plane.grid.to_lps_mm.tolist(),
        "quantity": str(answer.plane.quantity),
        "result": {"shape": list(answer.grid.shape), "spacing_mm": list(answer.grid.spacing_mm)},
        "device": answer.device.name,
        "reason": answer.device.reason,
        "seconds": answer.seconds,
        "voxels": answer.voxels,
        "coarser": answer.coarser,
        "draft": answer.draft,
    }


def _save(volume: Volume, path: Path) -> str:
    np.save(path, volume.voxels, allow_pickle=False)  # whole before the answer names it
    return str(path)
