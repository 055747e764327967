"""What ``medrecon compress`` prints: one row for each variant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from medrecon.console import progress as console_progress
from medrecon.console.progress import Style
from medrecon.core.progress import Stages

if TYPE_CHECKING:
    from medrecon.training.compression.run import Row, Table

#: Where variants go by default, each network's into a folder of its name.
HOME = Path("compressed")


def compress(name_or_path: str, out: Path | None, assignments: tuple[str, ...], as_json: bool, style: Style) -> None:
    """Make the variants, show progress, and print the table."""
    from medrecon.training.compression.config import load_compression
    from medrecon.training.compression.run import compress as make_variants

    config = load_compression(name_or_path, assignments)
    with console_progress.shown(style) as report:
        tick = Stages({"compress": 1.0}, report).tick("compress")
        table = make_variants(config, out or HOME / Path(config.weights).stem, tick)
    if as_json or style is Style.JSON:
        console_progress.write_json(table.model_dump(mode="json"))
    else:
        Console(width=200).print(shown(table))


def shown(table: Table) -> Shown:
    """Return the table for people; times are of one call of the network's heart."""
    first = table.rows[0]
    metrics = list(first.metrics)
    title = f"{table.network}, judged by {Path(table.recipe).stem}, {table.threads} thread(s)"
    grid = Shown(
        "variant", "kB", "CPU ms", "times as fast", *metrics, "lost dB", "apart", "note", title=title, title_justify="left"
    )
    for row in table.rows:
        grid.add_row(*_cells(row, first, metrics))
    return grid


def _cells(row: Row, first: Row, metrics: list[str]) -> list[str]:
    if row.failed:
        return [row.name, *[""] * (5 + len(metrics)), escape(f"failed: {row.failed}")]
    numbers = (f"{row.metrics[name]:.4g}" if name in row.metrics else "" for name in metrics)
    return [
        row.name,
        f"{row.bytes / 1000:.0f}",
        f"{1000 * row.cpu_seconds:.1f}",
        f"{first.cpu_seconds / max(row.cpu_seconds, 1e-9):.2f}",
        *numbers,
        "" if row.lost_db is None else f"{row.lost_db:+.2f}",
        f"{row.apart:.2%}",
        escape(row.note + ("; halves size or time" if row.halves else "")),
    ]
