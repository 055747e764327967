"""Print a benchmark as a table, and write it as JSON where asked: one shape for all scripts in this folder."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows ``--json FILE``."""
    found = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    found.add_argument("--json", type=Path, help="write the rows to this file")
    return found


def say(line: str) -> None:
    """Tell on standard error how far a long benchmark has got."""
    print(line, file=sys.stderr, flush=True)


def show(title: str, rows: Sequence[Mapping[str, Any]], json_file: Path | None) -> None:
    """Print the rows under their common keys, and write them with the machine's description where a file is given."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[k]) for row in cells)) for k, name in enumerate(names)]
    print(title)
    for line in (names, ["-" * width for width in widths], *cells):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    if json_file is not None:
        machine = {
            "system": platform.system(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"title": title, "machine": machine, "rows": list(rows)}, indent=1), encoding="utf-8")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
