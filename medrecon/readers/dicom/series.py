"""From parts to series with a verdict: what is known before a pixel is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.errors import MedreconError
from medrecon.core.findings import Finding, Verdict
from medrecon.core.profile import SliceProfile
from medrecon.core.reading import ListedFile, ReadOptions, SeriesInfo, Skipped
from medrecon.core.volume import Quantity
from medrecon.readers.dicom import geometry
from medrecon.readers.dicom.copies import fingerprints, without_doubles
from medrecon.readers.dicom.headers import Contents, Image, StoredFile, contents_of
from medrecon.readers.dicom.split import Part, into_parts
from medrecon.readers.dicom.tags import quiet_library
from medrecon.safety import gate
from medrecon.safety.limits import Limits
from medrecon.safety.text import short_id

_UID = re.compile(rb"[0-9][0-9.]{8,62}[0-9]")
_SEARCHED_BYTES = 1 << 16
_ORDER = (Verdict.REFUSED, Verdict.WARN, Verdict.OK)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that did not pass the gate, and the UIDs that can be seen in it."""

    number: int
    code: str
    fact: str
    hint: str
    uids: frozenset[bytes] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What reading a series needs: its content, so to speak.

    Parameters
    ----------
    poses : (n, 4, 4)
    thickness_mm : (n,)
    """

    part: Part
    damaged: tuple[Damaged, ...]
    options: ReadOptions
    poses: NDArray[np.float64]
    thickness_mm: NDArray[np.float64]
    profile: SliceProfile
    quantity: Quantity

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files of the series in the order of the listing."""
        return tuple(sorted((one.file for one in self.part.contents), key=lambda file: file.number))


def find(
    files: Sequence[ListedFile], options: ReadOptions, limits: Limits | None = None
) -> tuple[list[SeriesInfo], list[Skipped]]:
    """List the volumes in `files` in a stable order, and the files that belong to none."""
    limits = limits or Limits()
    with quiet_library():
        looked = [_look_at(file, options, limits) for file in files]
        contents = [one for one in looked if isinstance(one, Contents)]
        damaged = tuple(one for one in looked if isinstance(one, Damaged))
        parts = into_parts(without_doubles(contents, limits), lambda images: fingerprints(images, limits))
    skipped = [one for one in looked if isinstance(one, Skipped)]
    skipped += [Skipped(one.number, "damaged or unreadable DICOM file", one.code) for one in damaged]
    ordered = sorted(parts, key=_listing_order)
    return [describe(part, damaged, options) for part in ordered], sorted(skipped, key=lambda one: one.number)


def describe(part: Part, damaged: Sequence[Damaged], options: ReadOptions) -> SeriesInfo:
    """Judge one part under the caller's options."""
    lost = tuple(one for one in damaged if part.key.series_uid.encode("ascii", "replace") in one.uids)
    firsts = [stack[0] for stack in part.slices]
    findings = [*_of_files(part, lost), *part.findings, *_of_images(part, firsts)]
    layout = part.contents[0].file.layout
    info = SeriesInfo(
        id=f"series-{short_id(*part.key._replace(patient=''), *part.labels)}",
        reader="dicom",
        kind="slices",
        modality=part.key.modality,
        shape=(len(part.contents), layout.rows, layout.columns),
        spacing_mm=(None, 0.0, 0.0),
        findings=tuple(_gathered(findings)),
        parts=part.labels,
        file_count=len(part.contents),
    )
    if not firsts:
        return replace(info, content=part)
    stack = geometry.Stack.of(firsts)
    findings += geometry.judge_geometry(stack)
    thickness, assumed = _thickness(stack, options)
    quantity, units = _quantity(part, firsts)
    findings += [*assumed, *units, *_overrides(options)]
    known = stack.thickness_mm if options.thickness_mm is None else thickness
    return replace(
        info,
        shape=(len(firsts), *firsts[0].shape),
        spacing_mm=(stack.step_mm, *firsts[0].spacing_mm),
        thickness_mm=None if np.isnan(known).any() else (float(known.min()), float(known.max())),
        findings=tuple(_gathered(findings)),
        content=Plan(part, tuple(lost), options, stack.poses(), thickness, _profile(part, options), quantity),
    )


def _look_at(file: ListedFile, options: ReadOptions, limits: Limits) -> Contents | Skipped | Damaged:
    """Take what is needed from one file; whatever is wrong with it stays its own."""
    data = b""
    try:
        data = gate.load(file.path, limits)
        gated = gate.gate(data, limits)
        if gated is None:
            return Skipped(file.number, "other data", "DCM-OTHER")
        return contents_of(gated, file, len(data), options)
    except MedreconError as error:
        seen = frozenset(_UID.findall(data[:_SEARCHED_BYTES]))
        return Damaged(file.number, error.code, error.fact, error.hint, seen)


def _listing_order(part: Part) -> tuple[object, ...]:
    """Studies together, series by their numbers, parts as they were named; independent of files' names."""
    number = min((one.series_number for one in part.contents if one.series_number is not None), default=-1)
    return (part.key.study_uid, number, part.key, [_natural(label) for label in part.labels])


def _natural(label: str) -> tuple[str, float]:
    """Sort ``time 10`` behind ``time 9``."""
    found = re.search(r"-?\d+(\.\d+)?(e[+-]?\d+)?", label)
    return (label[: found.start()], float(found.group())) if found else (label, 0.0)


def _of_files(part: Part, lost: Iterable[Damaged]) -> list[Finding]:
    """Return findings on single files, and on files of this series that are no use at all."""
    gone = [
        Finding(one.code, Verdict.REFUSED, f"file {one.number}: {one.fact}", {"file": one.number}, hint=one.hint) for one in lost
    ]
    return [*gone, *(finding for one in part.contents for finding in one.findings)]


def _of_images(part: Part, firsts: Sequence[Image]) -> list[Finding]:
    found = []
    crowded = [k for k, stack in enumerate(part.slices, start=1) if len(stack) > 1]
    if crowded:
        numbers = [image.file.number for image in part.slices[crowded[0] - 1]]
        fact = (
            f"{len(crowded)} position(s) have several different images that nothing tells apart; "
            f"slice {crowded[0]} is in files {', '.join(map(str, numbers[:8]))}."
        )
        hint = "Choose one of them, or pass allow=['duplicates'] (--allow duplicates) to average them."
        found.append(
            Finding("DCM-DUP", Verdict.REFUSED, fact, {"slices": crowded, "files": numbers}, allow="duplicates", hint=hint)
        )
    if any(image.file.inverted for image in firsts):
        fact = "low values are meant to be bright (MONOCHROME1); the values were inverted."
        found.append(Finding("DCM-INVERTED", Verdict.WARN, fact))
    finer = geometry.zero_filled(firsts[0]) if firsts else None
    return [*found, *([finer] if finer else [])]


def _thickness(stack: geometry.Stack, options: ReadOptions) -> tuple[NDArray[np.float64], list[Finding]]:
    """Return the thickness of every slice, and in words what had to be assumed."""
    if options.thickness_mm is not None:
        return np.full(len(stack.thickness_mm), options.thickness_mm), []
    unknown = np.isnan(stack.thickness_mm)
    if not unknown.any() or len(unknown) == 1:  # a single slice is refused, and nothing is assumed for it
        return stack.thickness_mm, []
    assumed = float(np.nanmedian(stack.thickness_mm)) if not unknown.all() else geometry.usual_step(stack)
    source = "that of the other slices" if not unknown.all() else "the usual step between slices"
    fact = f"{int(unknown.sum())} slice(s) have no thickness; {assumed:.3f} mm is assumed, {source}."
    hint = "Pass thickness_mm (--thickness) where you know it."
    found = Finding(
        "DCM-THICKNESS", Verdict.WARN, fact, {"slices": int(unknown.sum()), "assumed_mm": round(assumed, 4)}, hint=hint
    )
    return np.where(unknown, assumed, stack.thickness_mm), [found]


def _quantity(part: Part, firsts: Sequence[Image]) -> tuple[Quantity, list[Finding]]:
    """Return what the values measure: Hounsfield units only where the header says so."""
    if part.key.modality != "CT":
        return Quantity.ARBITRARY, []
    if any(image.file.inverted for image in firsts):
        return Quantity.ARBITRARY, []
    units = {image.scaling.unit for image in firsts}
    if units == {"HU"}:
        return Quantity.HOUNSFIELD, []
    why = "without rescaling" if "" in units else "rescaled to something else than Hounsfield units"
    fact = f"the values of this CT are {why}, by their header; they are used as they are and not called Hounsfield units."
    return Quantity.ARBITRARY, [Finding("DCM-UNITS", Verdict.WARN, fact)]


def _profile(part: Part, options: ReadOptions) -> SliceProfile:
    return SliceProfile(options.profile or ("bell" if part.key.modality == "CT" else "gaussian"))


def _overrides(options: ReadOptions) -> list[Finding]:
    """Record what the caller said in place of the header."""
    said = []
    if options.thickness_mm is not None:
        said.append(f"thickness {options.thickness_mm:g} mm")
    if options.profile is not None:
        said.append(f"profile {options.profile}")
    if not said:
        return []
    return [Finding("DCM-OVERRIDE", Verdict.OK, f"given by the caller, not by the header: {', '.join(said)}.")]


def _gathered(findings: Sequence[Finding]) -> list[Finding]:
    """Say each kind once, the gravest first; how often it occurs is counted."""
    kinds: dict[tuple[str, Verdict], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.code, finding.verdict), []).append(finding)
    said = [_once(same) for same in kinds.values()]
    return sorted(said, key=lambda finding: _ORDER.index(finding.verdict))


def _once(same: Sequence[Finding]) -> Finding:
    facts = list(dict.fromkeys(finding.fact for finding in same))
    if len(facts) == 1:
        return same[0]
    numbers: Mapping[str, Any] = {**same[0].numbers, "occurrences": len(facts)}
    return replace(same[0], fact=f"{same[0].fact} ({len(facts) - 1} more like it.)", numbers=numbers)
