"""What a batch will do: every series of a tree, and whether it is run, was finished before, or is refused.

A study is looked for in each entry of the root by itself, so that a tree of ten thousand folders never has to be in
memory at once, and so that a folder that cannot be read does not hide the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medrecon.batch.ledger import LEDGER_NAME, Ledger
from medrecon.config import DEFAULT_PRESETS, Choice, ReconstructionConfig, preset_kind
from medrecon.core.errors import InputError, MedreconError, UsageError
from medrecon.core.findings import Verdict, judge
from medrecon.core.provenance import hash_of
from medrecon.core.reading import ReadOptions, SeriesInfo
from medrecon.result import RECORD_NAME, check_formats, digest


@dataclass(frozen=True, slots=True)
class Study:
    """One series of the tree and what will be done with it: ``run``, ``done`` (before) or ``refused``."""

    series: SeriesInfo
    unit: Path = field(repr=False)
    action: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry of the root in which reading failed altogether: its number and the error."""

    number: int
    code: str
    fact: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All studies of a batch, with everything a worker needs to run one."""

    out: Path
    configs: Mapping[str, ReconstructionConfig]
    options: ReadOptions
    formats: tuple[str, ...]
    studies: tuple[Study, ...]
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def job_hash(self) -> str:
        """Hash of what is done with every series: configuration, reading options and formats."""
        configs = [config.model_dump(mode="json") for config in self.configs.values()]
        return hash_of([*configs, self.options.model_dump(mode="json"), list(self.formats)])

    def config_for(self, kind: str, reader: str = "") -> ReconstructionConfig:
        """Return the configuration for a kind of series, and the reader that found it."""
        return self.configs[preset_kind(kind, reader)]

    def count(self, action: str) -> int:
        """Return how many studies have this action."""
        return sum(study.action == action for study in self.studies)

    def as_json(self) -> dict[str, object]:
        """Return the plan as plain data, with the configuration as understood."""
        return {
            "job_hash": self.job_hash,
            "config": self.config_for("slices").model_dump(mode="json"),
            "config_of_projections": self.config_for("projections").model_dump(mode="json"),
            "formats": list(self.formats),
            "studies": [{"action": study.action, **study.series.as_json()} for study in self.studies],
            "unreadable": [{"entry": u.number, "code": u.code, "fact": u.fact} for u in self.unreadable],
        }


def make_plan(
    root: Path, out: Path, config: ReconstructionConfig | Choice, options: ReadOptions, formats: tuple[str, ...]
) -> Plan:
    """List every series below `root` and decide what to do with it; nothing is written.

    Raises
    ------
    UsageError
        ``OUT-INPUT`` where the output lies in the root, ``ARG-NAME`` for an unknown format.
    InputError
        ``INP-NONE`` where the root holds nothing.
    """
    from medrecon.readers import find

    if out.resolve() == root.resolve() or root.resolve() in out.resolve().parents:
        raise UsageError(
            "OUT-INPUT", "the output folder lies inside the input folder", "Choose an output folder outside the input."
        )
    plan = Plan(out, _configs(config), options, check_formats(formats), ())
    ledger = Ledger(out / LEDGER_NAME) if (out / LEDGER_NAME).exists() else None
    studies: dict[str, Study] = {}
    unreadable: list[Unreadable] = []
    for number, unit in enumerate(_units(root), start=1):
        try:
            listing = find(unit, options)
        except MedreconError as error:
            unreadable.append(Unreadable(number, error.code, error.fact))
            continue
        for series in listing:
            studies.setdefault(series.id, Study(series, unit, _action(series, plan, ledger)))
    if not studies and not unreadable:
        raise InputError(
            "INP-NONE", "no series was found below the root", "Give a folder that holds DICOM folders, ZIPs or volumes."
        )
    ordered = tuple(studies[key] for key in sorted(studies))
    return Plan(out, plan.configs, options, plan.formats, ordered, tuple(unreadable))


def _configs(config: ReconstructionConfig | Choice) -> dict[str, ReconstructionConfig]:
    """Settle what is done with slices and with projections.

    Of a choice that does not fit a kind, such as a method for slices, the other kind's is taken: such a series is then
    refused by its own run, and the others go on.
    """
    if isinstance(config, ReconstructionConfig):
        return dict.fromkeys(DEFAULT_PRESETS, config)
    settled: dict[str, ReconstructionConfig] = {}
    for kind in DEFAULT_PRESETS:
        with contextlib.suppress(UsageError):
            settled[kind] = config.config(kind)
    return {kind: settled.get(kind, next(iter(settled.values()))) for kind in DEFAULT_PRESETS}


def is_finished(out: Path, series_id: str, record_hash: str) -> bool:
    """Whether the record of a study is the one in the ledger, and every output has the hash that the record names."""
    record = out / series_id / RECORD_NAME
    if not record.is_file() or hashlib.sha256(record.read_bytes()).hexdigest() != record_hash:
        return False
    outputs = json.loads(record.read_text(encoding="utf-8"))["outputs"]
    paths = {out / series_id / name: expected for name, expected in outputs.items()}
    return all(path.exists() and digest(path) == expected for path, expected in paths.items())


def _units(root: Path) -> Iterator[Path]:
    """Return the entries of the root, each searched by itself; the root as a whole where files lie loose in it."""
    if not root.is_dir():
        raise InputError("INP-NONE", "the root is not a folder", "Give the folder that holds the studies.")
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    if any(path.is_file() and path.suffix.lower() != ".zip" for path in entries):
        return iter([root])
    return iter(entries)


def _action(series: SeriesInfo, plan: Plan, ledger: Ledger | None) -> str:
    if judge(series.findings, plan.options.allow) is Verdict.REFUSED:
        return "refused"
    row = ledger.get(series.id, plan.job_hash) if ledger else None
    finished = row is not None and row.state == "finished" and is_finished(plan.out, series.id, row.record_hash)
    return "done" if finished else "run"
