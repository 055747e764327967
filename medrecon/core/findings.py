"""What was noticed about a series, and the verdict that follows.

A reader collects findings, all of them; `judge` turns them into one verdict. Nothing here decides what to do about
a finding: that is the caller's, by name, through ``allow``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from medrecon.core.errors import GeometryError, MedreconError, UsageError


class Verdict(StrEnum):
    """How far a series, or a result, can be used."""

    OK = "ok"
    WARN = "warn"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing noticed, with its numbers.

    Parameters
    ----------
    code : str
        Stable name, explained by ``medrecon explain CODE``.
    verdict : Verdict
        What this finding alone means for the series.
    fact : str
        The fact in words, with numbers and units; never patient text.
    numbers : mapping
        The same numbers for machines; keys end in their unit (``step_mm``), values are JSON.
    allow : str
        Name that lets a refused series pass, such as ``missing-slices``; empty where nothing may allow it.
    hint : str
        The way out.
    """

    code: str
    verdict: Verdict
    fact: str
    numbers: Mapping[str, object] = field(default_factory=dict)
    allow: str = ""
    hint: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the finding as plain data, the same in ``--json``, ``run.json`` and the report."""
        return {
            "code": self.code,
            "verdict": str(self.verdict),
            "fact": self.fact,
            "numbers": dict(self.numbers),
            "allow": self.allow,
            "hint": self.hint,
        }


#: Every laxness there is, by name. A new one needs a line here and one in ``docs/cli.md``.
ALLOWANCES: Mapping[str, str] = {
    "missing-slices": "infer the hole where slices are missing, and mark it as not measured",
    "duplicates": "average different images that claim the same position",
    "bad-pixels": "leave out projection values that cannot be measurements (not finite, negative, saturated), and mark them",
    "tiny-arc": "take an arc of a few degrees as it is, where the angles look like radians of half a turn or more",
}


def judge(findings: Iterable[Finding], allow: Collection[str] = ()) -> Verdict:
    """Return the gravest verdict; a refusal whose name is in `allow` counts as a warning."""
    gravest = Verdict.OK
    for finding in findings:
        verdict = finding.verdict
        if verdict is Verdict.REFUSED and finding.allow and finding.allow in allow:
            verdict = Verdict.WARN
        if verdict is Verdict.REFUSED:
            return verdict
        if verdict is Verdict.WARN:
            gravest = verdict
    return gravest


def refuse(findings: Iterable[Finding], allow: Collection[str] = (), error: type[MedreconError] = GeometryError) -> None:
    """Raise for the first finding that refuses the series and is not allowed; the others are counted in the message."""
    grave = [f for f in findings if judge([f], allow) is Verdict.REFUSED]
    if not grave:
        return
    first = grave[0]
    more = f" ({len(grave) - 1} more finding(s) refuse it too.)" if len(grave) > 1 else ""
    hint = first.hint or (f"Pass allow=['{first.allow}'] (--allow {first.allow}) to use it as it is." if first.allow else "")
    raise error(first.code, first.fact + more, hint)


def check_allowances(allow: Iterable[str]) -> tuple[str, ...]:
    """Return `allow` sorted and without repeats; raise `UsageError` for a name that does not exist."""
    names = tuple(sorted(set(allow)))
    for name in names:
        if name not in ALLOWANCES:
            raise UsageError("ARG-ALLOW", f"there is no allowance called {name!r}", f"Known: {', '.join(ALLOWANCES)}.")
    return names
