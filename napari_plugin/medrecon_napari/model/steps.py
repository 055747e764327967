"""The four steps, and why one of them is not open yet, in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from medrecon.core.findings import Verdict


class Step(IntEnum):
    """What a clinician does, in this order."""

    LOAD = 1
    RECONSTRUCT = 2
    SURFACE = 3
    EXPORT = 4


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides which steps are open.

    Parameters
    ----------
    is_looking : bool
        Whether a folder is being looked at right now.
    series : int, optional
        How many series were found; None before anything was looked at.
    verdict : Verdict, optional
        Of the chosen series, under the allowances given; None where none is chosen.
    kind : str
        Of the chosen series.
    has_method : bool
        Whether any method takes this kind.
    results : int
        How many reconstructions are finished.
    """

    is_looking: bool = False
    series: int | None = None
    verdict: Verdict | None = None
    kind: str = "slices"
    has_method: bool = True
    results: int = 0


def closed_because(step: Step, facts: Facts) -> str:
    """Return in words why a step is not open; empty where it is."""
    if step is Step.LOAD:
        return ""
    if step is Step.RECONSTRUCT:
        return _no_scan(facts)
    if facts.results or (step is Step.SURFACE and facts.kind == "volume" and not _no_scan(facts)):
        return ""
    if step is Step.SURFACE:
        return "Reconstruct first: a surface is made from a finished volume."
    return "Reconstruct first: there is no result to export yet."


def _no_scan(facts: Facts) -> str:
    if facts.is_looking:
        return "Looking at the images…"
    if facts.series is None:
        return "Choose a folder or a file in step 1 first."
    if facts.series == 0:
        return "No series was found in step 1."
    if facts.verdict is None:
        return "Choose a series in the table of step 1."
    if facts.verdict is Verdict.REFUSED:
        return "The series is refused; step 1 says why and what to do."
    return "" if facts.has_method else "No method takes this kind of scan."
