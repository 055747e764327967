"""Progress on a terminal, as plain lines, as JSON, or for 3D Slicer.

``rich`` and ``plain`` go to stderr, where people look; ``json`` and ``slicer`` go to stdout, where programs read.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

from medrecon.core.progress import Progress, Reporter

_PLAIN_EVERY_S = 5.0


class Style(StrEnum):
    """How progress is shown."""

    RICH = "rich"
    PLAIN = "plain"
    JSON = "json"
    SLICER = "slicer"
    NONE = "none"


def default_style() -> Style:
    """Return rich on a terminal, plain lines elsewhere."""
    return Style.RICH if sys.stderr.isatty() else Style.PLAIN


@contextlib.contextmanager
def shown(style: Style) -> Iterator[Reporter]:
    """Yield a reporter that shows progress in the given style until the block ends."""
    show = {Style.RICH: _rich, Style.PLAIN: _plain, Style.JSON: _json, Style.SLICER: _slicer, Style.NONE: _none}[style]
    with show() as reporter:
        yield reporter


def write_json(data: object) -> None:
    """Write one indented JSON document to stdout."""
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def emit(event: str, data: Mapping[str, object]) -> None:
    """Write one JSON object on a line of its own to stdout, at once."""
    sys.stdout.write(json.dumps({"event": event, **data}) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _rich() -> Iterator[Reporter]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rest]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start", total=1.0, rest="")

        def show(p: Progress) -> None:
            if p.note:
                bar.console.print(p.note, markup=False, highlight=False, soft_wrap=True)
            bar.update(task, completed=p.fraction, description=p.stage, rest=_rest(p))

        yield show


@contextlib.contextmanager
def _plain() -> Iterator[Reporter]:
    def show(p: Progress) -> None:
        if p.note:
            _say(sys.stderr.write, f"{p.stage}: {p.note}")
        thinned(p)

    thinned = _every(_PLAIN_EVERY_S, lambda p: _say(sys.stderr.write, f"{p.stage}: {p.fraction:.0%} {_rest(p)}".rstrip()))
    yield show


@contextlib.contextmanager
def _json() -> Iterator[Reporter]:
    yield lambda p: emit(
        "progress",
        {
            "stage": p.stage,
            "fraction": round(p.fraction, 4),
            "elapsed_s": round(p.elapsed_s, 2),
            "remaining_s": None if p.remaining_s is None else round(p.remaining_s, 1),
        }
        | ({"note": p.note} if p.note else {}),
    )


@contextlib.contextmanager
def _slicer() -> Iterator[Reporter]:
    """3D Slicer's execution model reads these tags from stdout."""

    def say(text: str) -> None:
        _say(sys.stdout.write, text)
        sys.stdout.flush()

    say("<filter-start><filter-name>medrecon</filter-name><filter-comment>reconstruction</filter-comment></filter-start>")
    yield lambda p: say(f"<filter-progress>{p.fraction:.3f}</filter-progress>")
    say("<filter-end><filter-name>medrecon</filter-name></filter-end>")


@contextlib.contextmanager
def _none() -> Iterator[Reporter]:
    yield lambda _: None


def _every(seconds: float, tell: Reporter) -> Reporter:
    """Thin out messages: one for each new stage, and one every few seconds."""
    last_stage, last_s = "", 0.0

    def maybe(progress: Progress) -> None:
        nonlocal last_stage, last_s
        if progress.stage != last_stage or time.monotonic() - last_s >= seconds:
            last_stage, last_s = progress.stage, time.monotonic()
            tell(progress)

    return maybe


def _rest(progress: Progress) -> str:
    return "" if progress.remaining_s is None else f"about {progress.remaining_s:.0f} s left"


def _say(write: Callable[[str], object], text: str) -> None:
    write(text + "\n")
