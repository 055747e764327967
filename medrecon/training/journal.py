"""The log of a training: one JSON object a line, appended at once, cut back to the checkpoint when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medrecon.safety.atomic import replacing


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def entries(path: Path) -> list[dict[str, Any]]:
    """Return all whole lines; a last one that was cut off by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def cut(path: Path, step: int) -> None:
    """Leave out what was written after `step`: the run does it again."""
    kept = [entry for entry in entries(path) if entry["step"] <= step]
    with replacing(path) as scratch:
        scratch.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
