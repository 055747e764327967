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
from medrecon.core.words import counted
from medrecon.readers.dicom import geometry
from medrecon.readers.dicom.copies import fingerprints, without_doubles
from medrecon.readers.dicom.headers import Contents, Image, StoredFile, contents_of
from medrecon.readers.dicom.repeated import Repeated
from medrecon.readers.dicom.split import Part, into_parts
from medrecon.readers.dicom.tags import quiet_library
from medrecon.safety import gate
from medrecon.safety.limits import Limits
from medrecon.safety.text import short_id

#: A study UID and right behind it a series UID, as every image has them; references to other series look different.
_OWN_SERIES = re.compile(
    rb"(?:\x20\x00\x0d\x00|\x00\x20\x00\x0d).{4}[0-9.]{1,64}[\x00 ]?(?:\x20\x00\x0e\x00|\x00\x20\x00\x0e).{4}([0-9.]{1,64})",
    re.DOTALL,
)
_SEARCHED_BYTES = 1 << 16
_ORDER = (Verdict.REFUSED, Verdict.WARN, Verdict.OK)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that did not pass the gate, and the series UID that can be seen in it."""

    number: int
    code: str
    fact: str
    hint: str
    series_uid: bytes = field(default=b"", repr=False)


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

    @classmethod
    def of(cls, part: Part, damaged: tuple[Damaged, ...], options: ReadOptions) -> Plan:
        """Settle how a part is read under the caller's options."""
        stack = geometry.Stack.of([images[0] for images in part.slices])
        thickness = _thickness(stack, options)
        return cls(part, damaged, options, stack.poses(), thickness, _profile(part, options), _quantity(part))

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
        repeated = Repeated()
        looked = [_look_at(file, options, limits, repeated) for file in files]
        contents = [one for one in looked if isinstance(one, Contents)]
        damaged = tuple(one for one in looked if isinstance(one, Damaged))
        parts = into_parts(without_doubles(contents, limits), lambda images: fingerprints(images, limits))
    skipped = [one for one in looked if isinstance(one, Skipped)]
    skipped += [Skipped(one.number, "damaged or unreadable DICOM file", one.code) for one in damaged]
    ordered = sorted(parts, key=_listing_order)
    return [describe(part, damaged, options) for part in ordered], sorted(skipped, key=lambda one: one.number)


def describe(part: Part, damaged: Sequence[Damaged], options: ReadOptions) -> SeriesInfo:
    """Judge one part under the caller's options."""
    lost = tuple(one for one in damaged if one.series_uid and one.series_uid == part.key.series_uid.encode("ascii", "replace"))
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
        content=part,
    )
    return _placed(info, Plan.of(part, lost, options), findings) if firsts else info


def _placed(info: SeriesInfo, plan: Plan, findings: Sequence[Finding]) -> SeriesInfo:
    """Add what is known of images that stand somewhere; the others are refused already."""
    firsts = [stack[0] for stack in plan.part.slices]
    stack, given = geometry.Stack.of(firsts), plan.options.thickness_mm
    known = stack.thickness_mm if given is None else plan.thickness_mm
    judged = [*findings, *geometry.judge_geometry(stack), *_assumed(stack, plan), *_units(plan), *_overrides(plan.options)]
    return replace(
        info,
        shape=(len(firsts), *firsts[0].shape),
        spacing_mm=(stack.step_mm, *firsts[0].spacing_mm),
        thickness_mm=None if np.isnan(known).any() else (float(known.min()), float(known.max())),
        findings=tuple(_gathered(judged)),
        content=plan,
    )


def _look_at(file: ListedFile, options: ReadOptions, limits: Limits, repeated: Repeated) -> Contents | Skipped | Damaged:
    """Take what is needed from one file; whatever is wrong with it stays its own."""
    data = b""
    try:
        data, size = gate.load_start(file.path, limits)
        gated = gate.gate_start(data, size, limits)
        if gated is None:
            data = data if len(data) == size else gate.load(file.path, limits)
            gated, size = gate.gate(data, limits), len(data)
        if gated is None:
            return Skipped(file.number, "other data", "DCM-OTHER")
        return contents_of(gated, file, size, options, repeated)
    except MedreconError as error:
        seen = _OWN_SERIES.search(data, 0, _SEARCHED_BYTES)
        return Damaged(file.number, error.code, error.fact, error.hint, seen.group(1) if seen else b"")


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
            f"{counted(len(crowded), 'position', 'has', 'have')} several different images that nothing tells apart; "
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


def _thickness(stack: geometry.Stack, options: ReadOptions) -> NDArray[np.float64]:
    """Return the thickness of every slice: given, from the header, as the other slices have it, or the usual step."""
    if options.thickness_mm is not None:
        return np.full(len(stack.thickness_mm), options.thickness_mm)
    unknown = np.isnan(stack.thickness_mm)
    if not unknown.any() or len(unknown) == 1:  # a single slice is refused, and nothing is assumed for it
        return stack.thickness_mm
    assumed = geometry.usual_step(stack) if unknown.all() else float(np.nanmedian(stack.thickness_mm))
    return np.where(unknown, assumed, stack.thickness_mm)


def _assumed(stack: geometry.Stack, plan: Plan) -> list[Finding]:
    """Say in words which thickness had to be assumed."""
    unknown = np.isnan(stack.thickness_mm) & np.isfinite(plan.thickness_mm)
    if plan.options.thickness_mm is not None or not unknown.any():
        return []
    assumed, count = float(plan.thickness_mm[unknown][0]), int(unknown.sum())
    source = "the usual step between slices" if unknown.all() else "that of the other slices"
    fact = f"{counted(count, 'slice', 'has', 'have')} no thickness; {assumed:.3f} mm is assumed, {source}."
    hint = "Pass thickness_mm (--thickness) where you know it."
    return [Finding("DCM-THICKNESS", Verdict.WARN, fact, {"slices": count, "assumed_mm": round(assumed, 4)}, hint=hint)]


def _quantity(part: Part) -> Quantity:
    """Return what the values measure: Hounsfield units only where the header of every image says so."""
    firsts = [stack[0] for stack in part.slices]
    if part.key.modality != "CT" or any(image.file.inverted for image in firsts):
        return Quantity.ARBITRARY
    return Quantity.HOUNSFIELD if {image.scaling.unit for image in firsts} == {"HU"} else Quantity.ARBITRARY


def _units(plan: Plan) -> list[Finding]:
    """Say why the values of a CT are not called Hounsfield units; inverted ones have a finding of their own."""
    firsts = [stack[0] for stack in plan.part.slices]
    units = {image.scaling.unit for image in firsts}
    if plan.part.key.modality != "CT" or units == {"HU"}:
        return []
    why = "without rescaling" if "" in units else "rescaled to something else than Hounsfield units"
    fact = f"the values of this CT are {why}, by their header; they are used as they are and not called Hounsfield units."
    return [Finding("DCM-UNITS", Verdict.WARN, fact)]


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
