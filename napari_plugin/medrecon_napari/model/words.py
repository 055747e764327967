"""Facts in words for people who do not read codes: series, findings, verdicts, times, sizes, what went wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from medrecon.core.findings import ALLOWANCES, Finding, Verdict, judge
from medrecon.core.reading import SeriesInfo, Skipped

#: What a verdict is called on the screen, and what it means.
VERDICTS = {
    Verdict.OK: ("Ready", "Nothing was found that stands against using this series."),
    Verdict.WARN: ("Usable", "Usable as it is; the notes say what to keep in mind."),
    Verdict.REFUSED: ("Refused", "This series cannot be reconstructed as it is; the notes say why."),
}
#: What the stages of a job are called.
STAGES = {
    "read": "Reading the images",
    "prepare": "Preparing",
    "reconstruct": "Reconstructing",
    "quality": "Checking against the images",
    "surface": "Making the surface",
    "write": "Writing",
}
#: What presets are called, and what they are for, in the order in which they are shown; others come after them.
PRESETS = {
    "fast": (
        "Fast",
        "Takes seconds. The volume agrees with every measured slice.",
    ),
    "best": ("Best", "A small network learns from the scan itself; takes about four minutes."),
    "ultrasound": (
        "Ultrasound",
        "Puts tracked frames into a volume of 0.5 mm voxels and bridges gaps of up to 3 mm. Takes seconds.",
    ),
    "cbct-fast": ("Cone beam", "Filtered back projection, once through the data. Right for most full scans."),
    "cbct-low-dose": ("Low dose", "For noisy scans of many views: smooths noise and keeps edges. Takes minutes."),
    "cbct-sparse-view": ("Few views", "For 20 to 100 views, or less than half a turn. Takes minutes."),
    "ct-helical": ("Helical CT", "For the projections of a helical CT, in Hounsfield units where the files say what water is."),
    "micro-ct": ("Micro-CT", "For bench-top and beamline scans: takes out rings and finds the axis of rotation."),
}
_SAID = re.compile(r"^medrecon: (?P<code>[A-Z0-9]+(?:-[A-Z0-9]+)*): (?P<said>.*)$")
#: What the engine advises those who type, and what it is called on the screen.
_ON_SCREEN = (
    (re.compile(r"or pass allow=\[[^\]]*\] \(--allow [\w-]+\)"), "or use the switch below"),
    (re.compile(r"Pass allow=\[[^\]]*\] \(--allow [\w-]+\) to use it as it is\."), "The switch below lets it be used as it is."),
    (re.compile(r"Pass --overwrite to replace it\."), "Choose another folder, or let an earlier export be replaced."),
    (re.compile(r"Give it: spacing_mm=.*"), "Give it below."),
    (re.compile(r"\(--input-spacing\)"), "below"),
)
_GAP_MM = 0.05  # less is rounding
_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong: a stable code, the fact, and the way out."""

    code: str
    fact: str
    hint: str = ""

    def __str__(self) -> str:
        fact = self.fact[:1].upper() + self.fact[1:]
        end = "" if fact.endswith((".", "!", "?")) else "."
        return on_screen(f"{fact}{end} {self.hint}".strip())


def trouble_of(code: int, log: Sequence[str]) -> Trouble:
    """Say why a child ended with an exit code, from the coded message that it left.

    Parameters
    ----------
    code : int
        Negative where a signal ended the child.
    log : sequence of str
        Its last lines on stderr.
    """
    for line in reversed(log):
        said = _SAID.match(line)
        if said:
            return Trouble(said["code"], said["said"])
    if code < 0:
        hint = "Nothing is lost: the scan and the settings are as they were. Run again, or choose larger voxels."
        return Trouble("RUN-KILLED", f"the run was ended from outside (signal {-code}), perhaps because memory ran out", hint)
    last = next((line for line in reversed(log) if line.strip()), "it said nothing")
    return Trouble("RUN-FAILED", f"the run ended with exit code {code}: {last}", "The log tells more.")


def series_title(info: SeriesInfo) -> str:
    """Name a series by what it is, never by text from its header."""
    return " · ".join([info.modality or info.kind.capitalize(), *info.parts])


def preset(name: str) -> tuple[str, str]:
    """Return what a preset is called on the screen, and what it is for."""
    return PRESETS.get(name, (name.replace("-", " ").replace("_", " ").capitalize(), f"The preset {name}."))


def preset_rank(name: str) -> tuple[int, str]:
    """Return where a preset stands in the row."""
    order = list(PRESETS)
    return (order.index(name) if name in order else len(order), name)


def spacing(info: SeriesInfo) -> str:
    """Return the spacing as slice x row x column in mm; of projections the size of a detector pixel."""
    if info.kind == "projections":
        return " × ".join(f"{size:.3g}" for size in info.spacing_mm[1:] if size)
    return " × ".join("uneven" if step is None else f"{step:.3g}" for step in info.spacing_mm)


def count(info: SeriesInfo) -> str:
    """Say how many images there are, and of which kind."""
    return f"{info.shape[0]} {'views' if info.kind == 'projections' else 'slices'}"


def gaps(info: SeriesInfo) -> str:
    """Say what lies between the slices: nothing, a gap, an overlap, a hole, or that nobody knows."""
    codes = {finding.code for finding in info.findings}
    if "DCM-GAP" in codes or "IMG-GAP" in codes:
        return "missing"
    step = info.spacing_mm[0]
    if info.kind != "slices" or info.thickness_mm is None or step is None:
        return "uneven" if step is None and info.kind == "slices" else "–"
    gap = step - info.thickness_mm[1]
    if abs(gap) < _GAP_MM:
        return "none"
    return f"{gap:.3g} mm" if gap > 0 else f"overlap {-gap:.3g} mm"


def verdict(info: SeriesInfo, allow: Collection[str] = ()) -> Verdict:
    """Return the verdict of a series under the given allowances."""
    return judge(info.findings, allow)


def allowances(info: SeriesInfo) -> dict[str, str]:
    """Return the names that would let a refused series pass, each with its meaning; none where something else refuses it."""
    refusals = [finding for finding in info.findings if finding.verdict is Verdict.REFUSED]
    if any(not finding.allow for finding in refusals):
        return {}
    return {finding.allow: ALLOWANCES[finding.allow] for finding in refusals if finding.allow in ALLOWANCES}


def sentence(finding: Finding) -> str:
    """Return a finding as a sentence."""
    fact = finding.fact[:1].upper() + finding.fact[1:]
    return fact if fact.endswith((".", "!", "?")) else f"{fact}."


def on_screen(text: str) -> str:
    """Return advice for those who type as advice for those who press buttons."""
    for typed, pressed in _ON_SCREEN:
        text = typed.sub(pressed, text)
    return text


def skipped(files: Iterable[Skipped]) -> str:
    """Say how many files belong to no series, and what they are; empty where there are none."""
    counts = Counter(one.what for one in files)
    if not counts:
        return ""
    total = sum(counts.values())
    what = ", ".join(f"{count} {what}" for what, count in counts.most_common(4))
    return f"{total} other file{'s' if total > 1 else ''} left alone: {what}."


def duration(seconds: float) -> str:
    """Return a time as a person would say it."""
    if seconds < 1:
        return "a second"
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min" if seconds > 10 * _MINUTE_S else f"{int(seconds // 60)} min {seconds % 60:.0f} s"
    return f"{seconds / _HOUR_S:.1f} h"


def gigabytes(size: float) -> str:
    """Return a number of bytes in GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def times(shape: Sequence[int]) -> str:
    """Return sizes as ``155 × 208 × 168``."""
    return " × ".join(map(str, shape))
